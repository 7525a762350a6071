"""kill -9 of every kind of process, while proposals run under load:
`python -m benchmarks.figures.kills [--kills 1000] [--towns 2] [--minutes 0] [--more]`.

Each town has its own PostgreSQL, control process with eval workers, router with two workers and
callers. The kind that was killed least is next. Afterwards each proposal must be promoted, by
one verdict, with every sample once, an unbroken audit chain and a route that agrees.
"""

import argparse
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.figures.record import RunResult, record_run
from benchmarks.figures.town import KINDS, Town, town

# One of each kind for each of the two proposals.
KILLS_A_ROUND: Final = 10
# Migrations of two databases at once do not go in one process.
SETTING_UP: Final = threading.Lock()


def run_town(folder: Path, seed: int, kills: int, until: float) -> Town:
    folder.mkdir()
    with ExitStack() as stack:
        with SETTING_UP:
            place = stack.enter_context(town(folder, seed))
        left = kills
        while left > 0 and time.monotonic() < until and not place.faults:
            before = sum(place.done.values())
            try:
                place.round(min(KILLS_A_ROUND, left), until)
            except Exception:  # noqa: BLE001 - whatever it is, this town is over
                place.faults.append(traceback.format_exc())
            left -= sum(place.done.values()) - before
            print(f"town {seed}: {dict(place.done)}, {place.faults or 'whole'}", flush=True)
        return place


def run(folder: Path, kills: int, towns: int, minutes: float, seed: int) -> RunResult:
    until = time.monotonic() + (minutes * 60 or float("inf"))
    shares = [kills // towns + (number < kills % towns) for number in range(towns)]
    with ThreadPoolExecutor(towns) as pool:
        places = list(
            pool.map(
                lambda n: run_town(folder / str(n), seed + n, shares[n], until), range(towns)
            )
        )
    done: Counter[str] = Counter()
    for place in places:
        done.update(place.done)
    faults = [fault for place in places for fault in place.faults]
    by_kind = ", ".join(f"{done[kind]} {kind}" for kind in KINDS)
    answered = sum(place.callers.answered for place in places)
    broken = sum(place.callers.broken for place in places)
    proposals = sum(place.proposals for place in places)
    return RunResult(
        done.total(),
        len(faults),
        f"Killed: {by_kind}; {proposals} proposals in {towns} installations (seed {seed}). "
        f"{answered} requests were answered; {broken} broke with the router that held them.",
        faults,
    )


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=1000)
    options.add_argument("--towns", type=int, default=2)
    options.add_argument("--minutes", type=float, default=0.0, help="at most; 0 for no limit")
    options.add_argument("--seed", type=int, default=16)
    options.add_argument("--more", action="store_true", help="add to the stored result")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="swapgate-kills-") as folder:
        return record_run(
            "kills",
            lambda: run(Path(folder), chosen.kills, chosen.towns, chosen.minutes, chosen.seed),
            more=chosen.more,
        )


if __name__ == "__main__":
    sys.exit(main())
