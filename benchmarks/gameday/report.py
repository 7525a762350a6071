"""The game day's table, as it is printed."""

from collections.abc import Sequence

from benchmarks.gameday.swaps import WANTED, Swaps
from benchmarks.gameday.traffic import Request
from benchmarks.gameday.verdict import Check, Played

HEADS = (
    "| at | what was broken | for | requests meanwhile | failed | predicted by | recovery |",
    "|---|---|---|---|---|---|---|",
)


def act_row(played: Played, begun_s: float) -> str:
    act, break_ = played.act, played.break_
    failed = "0"
    if played.failed:
        failed = f"{played.failed}, {played.predicted} as predicted"
    return (
        f"| {break_.begun_s - begun_s:.0f} s | {act.name} | "
        f"{break_.mended_s - break_.begun_s:.0f} s | {played.during:,} | {failed} | "
        f"docs/{act.page} | "
        f"{break_.recovered_s:.1f} s: {act.recovery} |"
    )


def swap_row(swaps: Swaps, candidate: str, begun_s: float) -> str:
    seen = swaps.phases.get(candidate, {})
    steps = ", ".join(f"{phase} at {at_s - begun_s:.0f} s" for phase, at_s in seen.items())
    return f"| `{candidate}` | {WANTED[candidate].replace('_', ' ')} | {steps} |"


def text(
    played: Sequence[Played],
    checks: Sequence[Check],
    swaps: Swaps,
    requests: Sequence[Request],
    begun_s: float,
) -> str:
    lasted_s = max((request.end_s for request in requests), default=begun_s) - begun_s
    acts = [act_row(act, begun_s) for act in played]
    ended = [swap_row(swaps, candidate, begun_s) for candidate in WANTED]
    results = [
        f"| {check.what} | {'yes' if check.good else '**no**'} | {check.seen} |"
        for check in checks
    ]
    return "\n".join(
        [
            f"\n{len(requests):,} requests in {lasted_s:.0f} s.\n",
            *HEADS,
            *acts,
            "\n| candidate | should be | phases |\n|---|---|---|",
            *ended,
            "\n| check | holds | seen |\n|---|---|---|",
            *results,
        ]
    )
