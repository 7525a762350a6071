"""Candidates that go wrong, or do not, in a real installation under load.

    python -m benchmarks.canary.live [--only a b c d e f] [--rps 300] [--workers 4]

Real processes: simulated provider, `swapgate serve router` with its workers, control plane,
database. Every canary comes by a proposal, its evals and its verdict.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.canary import ramp, stops, wrong
from benchmarks.canary.load import pouring
from benchmarks.canary.place import placed
from benchmarks.canary.wrong import CASES, HARMS, Outcome

LIMIT_S: Final = 360.0


def policy(weight_bps: int, unit: str) -> Mapping[str, object]:
    """The shipped default but for the unit and, if wished, the first step's share."""
    steps = [
        {"weight_bps": weight_bps, "min_exposures": 300},
        {"weight_bps": max(500, 2 * weight_bps), "min_exposures": 1000},
        {"weight_bps": max(2500, 3 * weight_bps), "min_exposures": 3000, "certify": True},
    ]
    canary: dict[str, object] = {"unit": unit}
    return {"canary": canary if weight_bps == 100 else {**canary, "steps": steps}}


def gone_wrong(chosen: argparse.Namespace, names: Sequence[str]) -> list[Outcome]:
    found = []
    routes = {name: CASES[name].model for name in names}
    with tempfile.TemporaryDirectory(prefix="swapgate-live-") as folder:
        rules = policy(chosen.weight_bps, chosen.unit)
        with (
            placed(Path(folder), routes, rules, workers=chosen.workers) as place,
            pouring(place.port, place.key, chosen.rps) as load,
        ):
            place.start("control", "router")
            for name in names:
                outcome = wrong.run(
                    name, place, load, healthy_s=chosen.healthy_s, limit_s=LIMIT_S
                )
                print(outcome_row(outcome, chosen.workers), flush=True)
                found.append(outcome)
    return found


def outcome_row(of: Outcome, workers: int) -> str:
    harmed = ", ".join(f"{of.harmed.get(harm, 0)} {harm}" for harm in HARMS)
    return (
        f"| {of.name} | {of.words} | {of.per_s:.0f} on {workers} | {seconds(of.weight_0_s)} | "
        f"{seconds(of.last_canary_s)} | {of.exposures} (before it {of.before}) | {harmed} | "
        f"{of.slow_share:.1%} slow, {of.others_harmed} else | {of.by} |\n    {of.because}"
    )


def seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"


HEADS: Final = (
    "| run | the candidate | rps on workers | weight 0 after | last canary request after | "
    "canary requests after the break | of them harmed | control's users | by |"
)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", nargs="+", choices=[*CASES, "e", "f"])
    options.add_argument("--rps", type=float, default=300.0)
    options.add_argument("--workers", type=int, default=4)
    options.add_argument("--weight-bps", type=int, default=100)
    options.add_argument("--unit", choices=["request", "session"], default="request")
    options.add_argument("--healthy-s", type=float, default=30.0)
    options.add_argument("--stops", type=int, default=20, help="of run e")
    options.add_argument("--dark", type=int, default=5, help="of run e, with nothing else up")
    options.add_argument("--picture", type=Path, help="PNG of run f's Canary page")
    chosen = options.parse_args()
    only = chosen.only or [*CASES, "e", "f"]
    names = [name for name in CASES if name in only]
    good = True
    if names:
        print(HEADS, flush=True)
        good &= all(outcome.weight_0_s is not None for outcome in gone_wrong(chosen, names))
    if "e" in only:
        found = stops.run(
            workers=chosen.workers, rps=chosen.rps, lit=chosen.stops, dark=chosen.dark
        )
        print(stops.HEADS)
        print(stops.stops_row("up", found.lit), flush=True)
        if found.dark:
            print(stops.stops_row("killed, and stopped", found.dark))
            print(f"back, all weights 0 after {seconds(found.confirmed_s)}", flush=True)
            good &= found.confirmed_s is not None
    if "f" in only:
        ended = ramp.run(workers=chosen.workers, rps=chosen.rps, picture=chosen.picture)
        print("\n".join(ramp.lines(ended)), flush=True)
        good &= ended.ended == "promoted" and not ended.unread
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
