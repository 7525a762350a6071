"""What a router's process holds: memory, files, sockets, threads, tasks."""

import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

import psutil

# What may grow by how much in an hour before it is a leak, as a share and as a number.
SHARE_PER_H: Final = 0.01
COUNT_PER_H: Final = 5.0
METRICS_S: Final = 10.0


@dataclass(frozen=True)
class Vitals:
    """at_s: monotonic. tasks: the event loop's."""

    at_s: float
    rss_mib: float
    files: float
    sockets: float
    threads: float
    tasks: float

    @classmethod
    def of(cls, pid: int, metrics: Mapping[str, float]) -> "Vitals":
        process = psutil.Process(pid)
        with process.oneshot():
            return cls(
                time.monotonic(),
                process.memory_info().rss / 2**20,
                process.num_fds(),
                len(process.net_connections("all")),
                process.num_threads(),
                metrics["swapgate_router_tasks"],
            )


WATCHED: Final = tuple(each.name for each in fields(Vitals) if each.name != "at_s")


def allowed_per_h(what: str, level: float) -> float:
    """How much of it may be new each hour: memory by share, the rest by number."""
    return SHARE_PER_H * level if what == "rss_mib" else COUNT_PER_H


def metrics(port: int, authorization: str) -> dict[str, float]:
    """Value by series, as Prometheus reads it."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/metrics", headers={"authorization": authorization}
    )
    with urllib.request.urlopen(request, timeout=METRICS_S) as answer:  # noqa: S310 - as above
        lines = answer.read().decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}
