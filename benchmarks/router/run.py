"""Requests per core of the router, on loopback: `python -m benchmarks.router.run`.

Three processes: a fixed provider, the router, the load. A request's cost is the router's own
CPU time, so that a busy machine blurs latency but not the figure per core.
"""

import argparse
import asyncio
import multiprocessing as mp
import os
import socket
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.router import load, provider
from harness.domain.access import ApiKey, key_hash
from harness.domain.routing import CreateRoute
from harness.domain.settings import RouterSettings
from harness.domain.targets import Provider, Target
from harness.runtime.clock import SystemClock
from harness.store.memory.store import MemoryStore
from router.app import build
from router.recorder import Recorder
from router.serve import serve
from router.snapshot import SnapshotHolder
from router.spool import Spool
from router.transport.select import Transports

SECRET, KEY = b"benchmark", "sk-sg-benchmark"


def provide(port: int) -> None:
    asyncio.run(provider.serve(port))


def route(port: int, provider_port: int, folder: str) -> None:
    clock = SystemClock()
    store = MemoryStore(secret=SECRET, clock=clock)
    with store.write() as tx:
        base = f"http://127.0.0.1:{provider_port}/v1"
        tx.providers.put(Provider("bench", "custom", base))
        target = tx.routing.add_target(Target("bench", "m"))
        change = CreateRoute("support", target)
        now = clock.now()
        tx.routing.commit(change, expected_version=0, actor="b", reason="b", now=now)
        hashed = key_hash(KEY, SECRET)
        tx.keys.add(ApiKey("k", "bench", hashed, "mark", None, frozenset(), now))
    holder = SnapshotHolder(store, Path(folder) / "snapshot.json")
    holder.boot()
    recorder = Recorder(
        store,
        Spool(Path(folder) / "spool.jsonl"),
        worker="bench",
        clock=clock,
        live_rollouts=lambda: holder.current.rollouts if holder.current else frozenset(),
    )
    settings = RouterSettings()
    transports = Transports(settings, {})
    app = build(
        holder, recorder, transports, settings, SECRET, clock, on_stop=transports.aclose
    )
    serve(app, port=port)


def cpu_s(pid: int) -> float:
    """User and system time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit(f"nothing answers on port {port}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--requests", type=int, default=5000)
    options.add_argument("--connections", type=int, default=32)
    chosen = options.parse_args()
    context = mp.get_context("spawn")
    ports = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        children = [
            context.Process(target=provide, args=(ports[1],)),
            context.Process(target=route, args=(ports[0], ports[1], folder)),
        ]
        for child in children:
            child.start()
        try:
            measure(ports, children[1].pid or 0, chosen.requests, chosen.connections)
        finally:
            for child in children:
                child.terminate()
                child.join(10)


def measure(ports: tuple[int, int], router: int, requests: int, connections: int) -> None:
    for port in ports:
        wait_for(port)
    print(f"{'':24}{'req/s':>8}{'p50 ms':>8}{'p99 ms':>8}{'CPU us/req':>12}{'req/s/core':>12}")
    for stream in (False, True):
        name = f"stream of {provider.CHUNKS}" if stream else "plain"
        for what, port in (("direct", ports[1]), ("router", ports[0])):
            run = partial(load.run, port, KEY.encode(), connections=connections, stream=stream)
            asyncio.run(run(requests=300))
            before = cpu_s(router)
            found = asyncio.run(run(requests=requests))
            spent = cpu_s(router) - before
            row = f"{name + ', ' + what:24}{requests / found.seconds:8.0f}"
            row += f"{found.percentile_ms(0.5):8.2f}{found.percentile_ms(0.99):8.2f}"
            if what == "router":
                row += f"{spent / requests * 1e6:12.0f}{requests / spent:12.0f}"
            print(row + (f"  {found.errors} errors" if found.errors else ""))


if __name__ == "__main__":
    main()
