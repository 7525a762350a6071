"""What the processes of a router hold: memory, files, sockets, threads, tasks."""

import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from benchmarks.router.machine import tree

# What may grow by how much in an hour before it is a leak, as a share and as a number.
SHARE_PER_H: Final = 0.01
COUNT_PER_H: Final = 5.0
METRICS_S: Final = 30.0
TASKS: Final = "swapgate_router_tasks"


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
    def measured(cls, pid: int, metrics: Mapping[str, float]) -> "Vitals":
        """Of a router with its workers. Raises LookupError when no worker tells its tasks."""
        all_ = tree(pid)
        tasks = [count for name, count in metrics.items() if name.startswith(TASKS)]
        if not tasks:
            raise LookupError(f"there is no {TASKS} in /metrics of process {pid}")
        return cls(
            time.monotonic(),
            sum(process.memory_info().rss for process in all_) / 2**20,
            sum(process.num_fds() for process in all_),
            sum(len(process.net_connections("all")) for process in all_),
            sum(process.num_threads() for process in all_),
            sum(tasks),
        )


WATCHED: Final = tuple(field.name for field in fields(Vitals) if field.name != "at_s")


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
