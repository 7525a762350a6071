"""PostgreSQL stopped, or the control plane killed, for the whole of a load run.

`python -m benchmarks.faults.outage [--what database control] [--seconds 300]`: nothing may fail
meanwhile, and everything must be recorded within five seconds once it is back.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.faults.figures import p99
from benchmarks.faults.mixture import Outcome, healthy, poured
from benchmarks.faults.stage import Swapgate, running
from benchmarks.router.processes import free_port
from tests.support.store.postgres import started, stop_server

BACK_WITHIN_S: Final = 5.0
GIVE_UP_S: Final = 60.0
BEFORE_S: Final = 5.0


@dataclass(frozen=True)
class Away:
    """before, meanwhile: the load while all was well, and while it was away.

    back_s: from the moment it was back until every request was recorded; None when that took
    longer than GIVE_UP_S. recorded: then.
    """

    what: str
    before: Outcome
    meanwhile: Outcome
    recorded: int
    back_s: float | None

    def faults(self) -> list[str]:
        """What is not as it should be; empty for a good run."""
        sent = self.before.sent + self.meanwhile.sent
        found = [f"{n} failed" for n in self.meanwhile.wrong.values()]
        if self.recorded != sent:
            found.append(f"{sent} sent, {self.recorded} recorded")
        if self.back_s is None or self.back_s > BACK_WITHIN_S:
            found.append("not everything was recorded in time")
        return found


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
    before = asyncio.run(poured(site.door, healthy(), rate=rate, seconds=BEFORE_S))
    leave()
    meanwhile = asyncio.run(poured(site.door, healthy(), rate=rate, seconds=seconds))
    return_()
    since = time.monotonic()
    sent = before.sent + meanwhile.sent
    while (recorded := site.recorded()) < sent and time.monotonic() - since < GIVE_UP_S:
        time.sleep(0.1)
    back_s = time.monotonic() - since if recorded == sent else None
    return Away(what, before, meanwhile, recorded, back_s)


def database(folder: Path, *, rate: float, seconds: float) -> Away:
    """PostgreSQL is stopped."""
    # PostgreSQL runs as a user of its own, to whom the other folder may be closed.
    place = Path(tempfile.mkdtemp(prefix="swapgate-outage-pg-"))
    try:
        server = started(place)
        url = server.get_uri(database="postgres", driver="psycopg")
        with running(folder, database_url=url) as site:
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


def control(folder: Path, *, rate: float, seconds: float) -> Away:
    """The control plane is killed with SIGKILL."""
    port = free_port()
    with running(folder, control={"port": port}) as site, ExitStack() as stack:
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
    chosen = options.parse_args()
    wrong = []
    for name in chosen.what:
        with tempfile.TemporaryDirectory(prefix="swapgate-outage-") as folder:
            away = KINDS[name](Path(folder), rate=chosen.rate, seconds=chosen.seconds)
        print(outage_row(away))
        wrong += [f"{name}: {fault}" for fault in away.faults()]
    print("\n".join(wrong) or "as it should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
