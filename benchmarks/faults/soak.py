"""Mixed faults for an hour: `python -m benchmarks.faults.soak [--seconds 3600]`.

Runs real processes. Ends with 1 if memory, files, sockets, threads or tasks grow, or if a
request is neither in the database nor counted as dropped.
"""

import argparse
import asyncio
import itertools
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final, NamedTuple

from scipy import stats

from benchmarks.faults.catalogue import Manner, Row, Variant, route, rows
from benchmarks.faults.client import RequestResult, ask, leave, right
from benchmarks.faults.load import (
    HEALTHY,
    PATIENCE_S,
    Gateway,
    official_client,
    question,
)
from benchmarks.faults.stage import LIMITS, Limits, Swapproof, Vitals, running

# One request in this many has an answer of tens of megabytes.
LARGE_EVERY: Final = 100
# Over less time, a slope shows only the noise of a few requests.
TRENDS_FROM_S: Final = 1200.0
# Healthy requests before the measured time. A worker remembers its latest 21,250 requests for
# feedback, and its memory grows until then.
REMEMBERED: Final = 22_000
FILLS_AT: Final = 100.0  # requests per second


@dataclass
class Outcome:
    """The results of many requests. sent: number of started requests. wrong: number of requests
    with an unexpected outcome, by row.
    """

    sent: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)

    def note(self, row: Row, asked: RequestResult) -> None:
        self.endings[asked.ending] += 1
        if not right(row.expect, asked):
            self.wrong[f"{row.number} {row.title}"] += 1


def mixed() -> Iterator[tuple[Row, Variant]]:
    """Alternates between the healthy row and the faults, which take turns."""
    sound, *faulty = rows()
    large = itertools.cycle([(r, v) for r in faulty if r.share < 0.2 for v in r.variants])
    others = itertools.cycle([(r, v) for r in faulty if r.share >= 0.2 for v in r.variants])
    for turn in itertools.count():
        yield sound, HEALTHY
        yield next(large) if turn % (LARGE_EVERY // 2) == 0 else next(others)


async def poured(
    gateway: Gateway,
    mixture: Iterator[tuple[Row, Variant]],
    *,
    rate: float,
    seconds: float,
    patience_s: float = PATIENCE_S,
) -> Outcome:
    """Sends requests at the rate, half of them streamed, and waits for all answers."""
    loop = asyncio.get_running_loop()
    outcome = Outcome()
    under_way: set[asyncio.Task[None]] = set()
    async with official_client(gateway.port, 0, patience_s) as client:

        async def one(
            turn: int,
            row: Row,
            variant: Variant,
        ) -> None:
            name = route(variant, 0).name
            leaves = row.manner is Manner.LEAVE
            stream = leaves or (turn // 2) % 2 == 0
            next_ = question(
                gateway,
                name,
                number=f"soak.{turn:x}",
                stream=stream,
            )
            doing = leave(client, next_, gateway.left) if leaves else ask(client, next_)
            outcome.note(row, await doing)

        began = loop.time()
        for turn, (row, variant) in enumerate(mixture):
            due = began + turn / rate
            if due >= began + seconds:
                break
            await asyncio.sleep(due - loop.time())
            outcome.sent += 1
            task = asyncio.create_task(one(turn, row, variant))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)
    return outcome


# Neighbouring samples are correlated, but blocks of samples hardly are. The lowest value of
# each block counts, because running requests hold resources for a moment, but a leak holds them
# always.
BLOCKS: Final = 12
WARM_FROM: Final = 0.25
CONFIDENCE: Final = 0.95


class Trend(NamedTuple):
    """A fitted line. level: the mean. low, per_hour, high: the slope with confidence bounds."""

    level: float
    low: float
    per_hour: float
    high: float

    def grows(self, more_than_per_hour: float) -> bool:
        """Returns whether even the lower bound of the slope exceeds the limit."""
        return self.low > more_than_per_hour


def trend(times_s: Sequence[float], values: Sequence[float]) -> Trend:
    """Fits a line to the lowest values of the blocks in the last three quarters of the run.

    Raises ValueError for fewer than four samples, because a slope needs three blocks.
    """
    since = times_s[0] + WARM_FROM * (times_s[-1] - times_s[0])
    kept = [(at, v) for at, v in zip(times_s, values, strict=True) if at >= since]
    count = min(BLOCKS, len(kept) - 1)
    if count < 3:
        raise ValueError(f"{len(kept)} samples are too few for a slope")
    blocks = [kept[len(kept) * n // count : len(kept) * (n + 1) // count] for n in range(count)]
    floors = [(math.fsum(at for at, _ in b) / len(b), min(v for _, v in b)) for b in blocks]
    line = stats.linregress([at / 3600 for at, _ in floors], [v for _, v in floors])
    # scipy returns NaN as the error of constant values.
    error = 0.0 if math.isnan(line.stderr) else float(line.stderr)
    spread = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 2)) * error
    slope = float(line.slope)
    level = math.fsum(v for _, v in kept) / len(kept)
    return Trend(level, slope - spread, slope, slope + spread)


# Faster growth is a leak: of memory as a share, of other resources as a number.
SHARE_PER_H: Final = 0.01
COUNT_PER_H: Final = 5.0
WATCHED: Final = tuple(field.name for field in fields(Vitals) if field.name != "at_s")


def allowed_per_h(what: str, level: float) -> float:
    """Returns the allowed growth per hour of a watched resource."""
    return SHARE_PER_H * level if what == "rss_mib" else COUNT_PER_H


SAMPLE_EVERY_S: Final = 5.0
DROPPED: Final = "swapproof_observations_dropped_total"


@dataclass(frozen=True)
class Soaked:
    """The result of a soak. before: the healthy requests before the measured time.
    recorded: requests in the database at the end. dropped: rows that the router discarded.
    exit_code: the router's, after SIGTERM.
    """

    before: Outcome
    outcome: Outcome
    samples: list[Vitals]
    recorded: int
    dropped: int
    exit_code: int

    def trends(self) -> dict[str, Trend]:
        """Returns each watched resource's trend. Raises ValueError if the run was short."""
        times = [sample.at_s for sample in self.samples]
        return {
            what: trend(times, [getattr(sample, what) for sample in self.samples])
            for what in WATCHED
        }

    def faults(self) -> list[str]:
        """Lists the faults; empty for a good run."""
        found = [
            f"{what} grows by {slope.per_hour:.1f} an hour, at least by {slope.low:.1f}"
            for what, slope in self.trends().items()
            if slope.grows(allowed_per_h(what, slope.level))
        ]
        return [*found, *self.miscounted()]

    def miscounted(self) -> list[str]:
        found = []
        sent = self.before.sent + self.outcome.sent
        if self.recorded != sent and not self.dropped:
            found.append(f"{sent} sent, {self.recorded} recorded, none dropped")
        if self.exit_code:
            found.append(f"the router ended with {self.exit_code}")
        wrong = self.before.wrong + self.outcome.wrong
        return [*found, *(f"{n} × {row}" for row, n in wrong.items())]


async def loaded(
    site: Swapproof,
    rate: float,
    seconds: float,
    patience_s: float,
) -> tuple[Outcome, list[Vitals]]:
    samples: list[Vitals] = []
    pouring = asyncio.create_task(
        poured(
            site.gateway,
            mixed(),
            rate=rate,
            seconds=seconds,
            patience_s=patience_s,
        )
    )
    while not pouring.done():
        samples.append(await asyncio.to_thread(site.vitals))
        await asyncio.wait([pouring], timeout=SAMPLE_EVERY_S)
    return await pouring, samples


def soak(
    folder: Path,
    *,
    seconds: float,
    rate: float,
    limits: Limits = LIMITS,
) -> Soaked:
    with running(folder, limits) as site:
        patience_s = limits.total_s + 10
        before = Outcome()
        if seconds >= TRENDS_FROM_S:
            lasts_s = REMEMBERED / FILLS_AT
            sound = itertools.repeat((rows()[0], HEALTHY))
            before = asyncio.run(
                poured(
                    site.gateway,
                    sound,
                    rate=FILLS_AT,
                    seconds=lasts_s,
                )
            )
        outcome, samples = asyncio.run(loaded(site, rate, seconds, patience_s))
        dropped = round(site.metrics()[DROPPED])
        site.router.terminate()
        code = site.router.wait(60)
        return Soaked(before, outcome, samples, site.recorded(), dropped, code)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=3600.0)
    options.add_argument("--rate", type=float, default=20.0)
    chosen = options.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="swapproof-soak-") as folder:
        run = soak(Path(folder), seconds=chosen.seconds, rate=chosen.rate)
    print(
        f"{run.outcome.sent} requests in {time.monotonic() - began:.0f} s:",
        end=" ",
    )
    print(", ".join(f"{n} {how}" for how, n in run.outcome.endings.most_common()))
    print(f"{run.recorded} recorded, {run.dropped} rows dropped")
    for what, slope in run.trends().items():
        print(
            f"{what}: {slope.level:.1f}, {slope.per_hour:+.2f} an hour "
            f"({slope.low:+.2f} to {slope.high:+.2f})"
        )
    print("\n".join(run.faults()) or "no resource grows, and no request is lost")
    return 1 if run.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
