"""PostgreSQL stopped, or the control plane killed, for the whole of a load run.

`python -m benchmarks.faults.outage [--what database control] [--seconds 300] [--routers 1]`:
nothing may fail meanwhile, nothing of the routers may grow but their spools, and everything
must be recorded within five seconds once it is back.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.faults.figures import p99
from benchmarks.faults.mixture import TRENDS_FROM_S, Outcome, fill_memory, healthy, poured
from benchmarks.faults.soak import watched
from benchmarks.faults.stage import Swapgate, running
from benchmarks.faults.trend import Trend, trend
from benchmarks.faults.vitals import WATCHED, Vitals, allowed_per_h
from benchmarks.router.processes import free_port
from tests.support.store.postgres import started, stop_server

BACK_WITHIN_S: Final = 5.0
GIVE_UP_S: Final = 60.0
BEFORE_S: Final = 5.0


@dataclass(frozen=True)
class Away:
    """before, meanwhile: the load while all was well, and while it was away.

    back_s: from the moment it was back until every request was recorded; None when that took
    longer than GIVE_UP_S. recorded: then. spool_bytes: what waited on disk at that moment.
    """

    what: str
    before: Outcome
    meanwhile: Outcome
    recorded: int
    back_s: float | None
    samples: list[Vitals]
    spool_bytes: int

    def trends(self) -> dict[str, Trend]:
        """Of everything watched; empty for a short run."""
        times = [sample.at_s for sample in self.samples]
        if not times or times[-1] - times[0] < TRENDS_FROM_S:
            return {}
        return {
            what: trend(times, [getattr(sample, what) for sample in self.samples])
            for what in WATCHED
        }

    def faults(self) -> list[str]:
        """What is not as it should be; empty for a good run."""
        sent = self.before.sent + self.meanwhile.sent
        found = [f"{n} failed: {why}" for why, n in self.meanwhile.wrong.items()]
        if self.meanwhile.said:
            found.append(f"the first of them said: {self.meanwhile.said}")
        if self.recorded != sent:
            found.append(f"{sent} sent, {self.recorded} recorded")
        if self.back_s is None or self.back_s > BACK_WITHIN_S:
            found.append("not everything was recorded in time")
        return found + [
            f"{what} grows by {slope.per_hour:.1f} an hour, and surely by {slope.low:.1f}"
            for what, slope in self.trends().items()
            if slope.grows(allowed_per_h(what, slope.level))
        ]


def without(
    site: Swapgate,
    what: str,
    leave: Callable[[], None],
    return_: Callable[[], object],
    *,
    rate: float,
    seconds: float,
) -> Away:
    """Load before `leave` and until `return_`, none after it."""
    _wait_until_it_serves(site)
    first = (
        fill_memory(site.door, len(site.routers))
        if seconds >= TRENDS_FROM_S
        else poured(site.door, healthy(), rate=rate, seconds=BEFORE_S)
    )
    before = asyncio.run(first)
    leave()
    meanwhile, samples = asyncio.run(_watched_load(site, rate, seconds))
    spool_bytes = sum(
        file.stat().st_size for file in site.site.folder.rglob("observations.jsonl")
    )
    return_()
    since = time.monotonic()
    sent = before.sent + meanwhile.sent
    while (recorded := site.recorded()) < sent and time.monotonic() - since < GIVE_UP_S:
        time.sleep(0.1)
    back_s = time.monotonic() - since if recorded == sent else None
    return Away(what, before, meanwhile, recorded, back_s, samples, spool_bytes)


def _wait_until_it_serves(site: Swapgate) -> None:
    """A port that listens is not yet a worker that has read its routing table."""
    until = time.monotonic() + GIVE_UP_S
    while time.monotonic() < until:
        with suppress(OSError, LookupError):
            site.vitals()
            return
        time.sleep(0.1)
    raise TimeoutError("the router does not serve")


async def _watched_load(
    site: Swapgate, rate: float, seconds: float
) -> tuple[Outcome, list[Vitals]]:
    samples: list[Vitals] = []
    watching = asyncio.create_task(watched(site, samples))
    try:
        outcome = await poured(site.door, healthy(), rate=rate, seconds=seconds)
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    return outcome, samples


def database(folder: Path, *, rate: float, seconds: float, routers: int = 1) -> Away:
    """PostgreSQL is stopped."""
    # PostgreSQL runs as a user of its own, to whom the other folder may be closed.
    place = Path(tempfile.mkdtemp(prefix="swapgate-outage-pg-"))
    try:
        server = started(place)
        url = server.get_uri(database="postgres", driver="psycopg")
        with running(folder, routers=routers, database_url=url) as site:
            return without(
                site,
                "database",
                server.stop,
                lambda: started(place),
                rate=rate,
                seconds=seconds,
            )
    finally:
        stop_server(place)


def control(folder: Path, *, rate: float, seconds: float, routers: int = 1) -> Away:
    """The control plane is killed with SIGKILL."""
    port = free_port()
    with running(folder, routers=routers, control={"port": port}) as site, ExitStack() as stack:
        process = site.part("control", port)
        stack.callback(process.wait)
        return without(
            site,
            "control",
            process.kill,
            lambda: site.part("control", port),
            rate=rate,
            seconds=seconds,
        )


KINDS: Final = {"database": database, "control": control}


def outage_row(away: Away) -> str:
    before, meanwhile = away.before, away.meanwhile
    back = f"{away.back_s:.1f} s" if away.back_s is not None else f"over {GIVE_UP_S:.0f} s"
    return (
        f"{away.what} away: {meanwhile.sent} requests, {sum(meanwhile.wrong.values())} failed; "
        f"p99 {p99(before.latencies_s) * 1000:.0f} ms before, "
        f"{p99(meanwhile.latencies_s) * 1000:.0f} ms meanwhile; all "
        f"{before.sent + meanwhile.sent} recorded {back} after it was back"
    )


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--what", nargs="+", choices=KINDS, default=list(KINDS))
    options.add_argument("--seconds", type=float, default=300.0)
    options.add_argument("--rate", type=float, default=20.0)
    options.add_argument("--routers", type=int, default=1)
    chosen = options.parse_args()
    wrong = []
    for name in chosen.what:
        with tempfile.TemporaryDirectory(prefix="swapgate-outage-") as folder:
            away = KINDS[name](
                Path(folder), rate=chosen.rate, seconds=chosen.seconds, routers=chosen.routers
            )
        print(outage_row(away))
        print(f"the spool held {away.spool_bytes / 2**20:.2f} MiB at its end")
        for what, slope in away.trends().items():
            print(
                f"{what}: {slope.level:.1f}, {slope.per_hour:+.2f} an hour "
                f"({slope.low:+.2f} to {slope.high:+.2f})"
            )
        wrong += [f"{name}: {fault}" for fault in away.faults()]
    print("\n".join(wrong) or "as it should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
