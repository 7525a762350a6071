"""What the processes of a router hold: memory, files, sockets, threads, tasks."""

import math
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final, NamedTuple

from scipy import stats

from benchmarks.router.processes import tree

# Neighbouring samples resemble one another, blocks hardly do. Of each block its least counts:
# what requests hold for a moment comes and goes, what leaks never does.
BLOCKS: Final = 12
WARM_FROM: Final = 0.25
CONFIDENCE: Final = 0.95


class Trend(NamedTuple):
    """level: the mean. low, per_hour, high: the slope per hour with its confidence bounds."""

    level: float
    low: float
    per_hour: float
    high: float

    def grows(self, more_than_per_hour: float) -> bool:
        """Whether even the lower bound is above it."""
        return self.low > more_than_per_hour


def trend(times_s: Sequence[float], values: Sequence[float]) -> Trend:
    """Of the last three quarters of the run, by least squares over the least of each block.

    Raises ValueError for fewer than four samples there: three blocks are the least.
    """
    since = times_s[0] + WARM_FROM * (times_s[-1] - times_s[0])
    kept = [(at, v) for at, v in zip(times_s, values, strict=True) if at >= since]
    count = min(BLOCKS, len(kept) - 1)
    if count < 3:
        raise ValueError(f"{len(kept)} samples are too few for a slope")
    blocks = [kept[len(kept) * n // count : len(kept) * (n + 1) // count] for n in range(count)]
    floors = [(math.fsum(at for at, _ in b) / len(b), min(v for _, v in b)) for b in blocks]
    line = stats.linregress([at / 3600 for at, _ in floors], [v for _, v in floors])
    # scipy has no error for values that are all the same.
    error = 0.0 if math.isnan(line.stderr) else float(line.stderr)
    spread = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 2)) * error
    slope, level = float(line.slope), math.fsum(v for _, v in kept) / len(kept)
    return Trend(level, slope - spread, slope, slope + spread)


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


def metrics(address: str, authorization: str) -> dict[str, float]:
    """Value by series, as Prometheus reads it. Raises URLError."""
    request = urllib.request.Request(
        f"http://{address}/metrics", headers={"authorization": authorization}
    )
    with urllib.request.urlopen(request, timeout=METRICS_S) as answer:  # noqa: S310 - as above
        lines = answer.read().decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}
