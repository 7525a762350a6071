"""One contender in one round: started, warmed, measured, ended."""

import asyncio
import math
import resource
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.router.load import LoadJob, Outcome, body, full_throttle, generated
from benchmarks.router.processes import (
    PEER_CORE,
    PLAIN,
    STREAMED,
    Ask,
    Busy,
    Peer,
    Site,
    cpu_s,
    free_port,
    rss_mib,
    start,
    wait_for,
)

RATE_PER_S = 200
CONNECTIONS = 32
STREAMS = 64
WARM_S = 1.0


@dataclass(frozen=True)
class Figures:
    """Of one round. cpu_us: of the contender, per request; NaN where there is no process.
    others: share of the machine that was not ours.
    """

    per_s: float
    cpu_us: float
    p50_ms: float
    cpu_us_per_chunk: float
    rss_mib: float
    errors: int
    others: float
    steal: float


@dataclass(frozen=True)
class Running:
    """ports, asks: by kind. pid: None for the provider itself, without a contender."""

    ports: Mapping[str, int]
    asks: Mapping[str, Ask]
    pid: int | None
    folder: Path

    def cpu_s(self) -> float:
        return cpu_s(self.pid) if self.pid is not None else math.nan


def contender(
    peer: Peer, folder: Path, upstreams: dict[str, int], pids: Sequence[int], seconds: float
) -> Figures:
    """Raises DidNotStart."""
    with ExitStack() as stack:
        site = Site(folder, free_port(), upstreams)
        folder.mkdir(parents=True)
        command = peer.command(site)
        process = start(command, stack, core=PEER_CORE, log=folder / "log", env=peer.env)
        wait_for(site.port, process, peer.start_s)
        asks = {kind: peer.ask(site, kind) for kind in (PLAIN, STREAMED)}
        running = Running(dict.fromkeys(asks, site.port), asks, process.pid, folder)
        return figures(running, pids, seconds)


def figures(running: Running, pids: Sequence[int], seconds: float) -> Figures:
    """pids: the upstreams', whose CPU time is ours as well."""
    throttle = (running.ports[PLAIN], running.asks[PLAIN], running.folder)
    full_throttle(*throttle, connections=CONNECTIONS, seconds=WARM_S)
    _generate(running, PLAIN, WARM_S, per_s=RATE_PER_S)
    with Busy() as busy:
        ours = _ours_s(running, pids)
        before = running.cpu_s()
        full = full_throttle(*throttle, connections=CONNECTIONS, seconds=seconds)
        cpu_us = (running.cpu_s() - before) / max(1, full.requests) * 1e6
        calm = _generate(running, PLAIN, seconds, per_s=RATE_PER_S)
        before = running.cpu_s()
        streams = _generate(running, STREAMED, seconds)
        # Without a chunk there was no stream, whatever was answered.
        stream_cpu_s = running.cpu_s() - before if streams.chunks else math.nan
        ours = _ours_s(running, pids) - ours
    return Figures(
        per_s=full.per_s,
        cpu_us=cpu_us,
        p50_ms=calm.percentile_ms(0.5),
        cpu_us_per_chunk=stream_cpu_s / max(1, streams.chunks) * 1e6,
        rss_mib=rss_mib(running.pid) if running.pid else math.nan,
        errors=full.errors + calm.errors + streams.errors,
        others=busy.others(ours),
        steal=busy.steal,
    )


def _generate(running: Running, kind: str, seconds: float, *, per_s: float = 0.0) -> Outcome:
    ask = running.asks[kind]
    job = LoadJob(
        port=running.ports[kind],
        path=ask.path,
        headers=dict(ask.headers),
        body=body(ask, stream=kind == STREAMED),
        connections=8 if per_s else STREAMS,
        seconds=seconds,
        per_s=per_s,
    )
    return asyncio.run(generated(job))


def _ours_s(running: Running, pids: Sequence[int]) -> float:
    """CPU seconds of everything that belongs to the benchmark, so far."""
    load = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = [cpu_s(pid) for pid in pids]
    if running.pid is not None:
        own.append(running.cpu_s())
    return sum(own) + load.ru_utime + load.ru_stime + time.process_time()
