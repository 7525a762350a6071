"""Mixed faults for an hour: `python -m benchmarks.faults.soak [--seconds 3600]`.

Real processes. Says whether memory, files, sockets, threads or tasks grow, and whether every
request is in the database or counted as dropped. Ends with 1 when one of them is not so.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.faults.installed import LIMITS, Limits
from benchmarks.faults.mixture import TRENDS_FROM_S, Outcome, fill_memory, mixed, poured
from benchmarks.faults.stage import Swapgate, running
from benchmarks.faults.trend import Trend, trend
from benchmarks.faults.vitals import WATCHED, Vitals, allowed_per_h

SAMPLE_EVERY_S: Final = 5.0
DROPPED: Final = "swapgate_observations_dropped_total"
BY_ROUTER: Final = "swapgate_requests_total{"


@dataclass(frozen=True)
class Soaked:
    """A run. recorded: requests in the database at its end; dropped: rows that were not kept.

    before: healthy requests that filled the router's memory. begun: by the router's own count.
    exit_code: of the router, after SIGTERM.
    """

    before: Outcome
    outcome: Outcome
    samples: list[Vitals]
    begun: int
    recorded: int
    dropped: int
    exit_code: int

    def trends(self) -> dict[str, Trend]:
        """Of everything watched. Raises ValueError for a run that was too short."""
        times = [sample.at_s for sample in self.samples]
        return {
            what: trend(times, [getattr(sample, what) for sample in self.samples])
            for what in WATCHED
        }

    def faults(self) -> list[str]:
        """What is not as it should be; empty for a good run."""
        found = [
            f"{what} grows by {slope.per_hour:.1f} an hour, and surely by {slope.low:.1f}"
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


async def watched(site: Swapgate, samples: list[Vitals]) -> None:
    while True:
        samples.append(await asyncio.to_thread(site.vitals))
        await asyncio.sleep(SAMPLE_EVERY_S)


async def loaded(
    site: Swapgate, rate: float, seconds: float, patience_s: float
) -> tuple[Outcome, list[Vitals]]:
    samples: list[Vitals] = []
    watching = asyncio.create_task(watched(site, samples))
    try:
        outcome = await poured(
            site.door, mixed(), rate=rate, seconds=seconds, patience_s=patience_s
        )
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    return outcome, samples


def soak(
    folder: Path,
    *,
    seconds: float,
    rate: float,
    limits: Limits = LIMITS,
    **more: object,
) -> Soaked:
    """more: of Swapgate's configuration file."""
    with running(folder, limits, **more) as site:
        patience_s = limits.total_s + 10
        before = Outcome()
        if seconds >= TRENDS_FROM_S:
            before = asyncio.run(fill_memory(site.door))
        outcome, samples = asyncio.run(loaded(site, rate, seconds, patience_s))
        told = site.metrics()
        site.router.terminate()
        code = site.router.wait(60)
        return Soaked(
            before,
            outcome,
            samples,
            round(sum(n for name, n in told.items() if name.startswith(BY_ROUTER))),
            site.recorded(),
            round(told[DROPPED]),
            code,
        )


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=3600.0)
    options.add_argument("--rate", type=float, default=20.0)
    chosen = options.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="swapgate-soak-") as folder:
        run = soak(Path(folder), seconds=chosen.seconds, rate=chosen.rate)
    print(f"{run.outcome.sent} requests in {time.monotonic() - began:.0f} s:", end=" ")
    print(", ".join(f"{n} {how}" for how, n in run.outcome.endings.most_common()))
    print(f"{run.recorded} recorded, {run.dropped} rows dropped")
    for what, slope in run.trends().items():
        print(
            f"{what}: {slope.level:.1f}, {slope.per_hour:+.2f} an hour "
            f"({slope.low:+.2f} to {slope.high:+.2f})"
        )
    print("\n".join(run.faults()) or "nothing grows, nothing is lost")
    return 1 if run.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
