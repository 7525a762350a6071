"""The figures as a table."""

import math
from collections.abc import Sequence

from benchmarks.faults.answers import Ending
from benchmarks.faults.figures import Figures

HEADS = ("fault", "client", "requests", "as it should", "whole", "spliced", "false ends",
         "calls", "calls once warm", "+p99 ms")  # fmt: skip


def lines(figures: Sequence[Figures], direct_p99_s: float) -> list[str]:
    """A line for each fault and client, then an error of each row that did not go right."""
    ordered = sorted(figures, key=lambda row: (row.number, row.title, row.retries))
    return [
        f"| {' | '.join(HEADS)} |",
        "|" + " --- |" * len(HEADS),
        *(_line(row, direct_p99_s) for row in ordered),
        "",
        *(
            f"{row.number} {row.title}, {row.retries} retries: {row.said}"
            for row in ordered
            if row.said and row.right < row.requests
        ),
    ]


def _line(row: Figures, direct_p99_s: float) -> str:
    added = "–" if math.isnan(row.p99_s) else f"{(row.p99_s - direct_p99_s) * 1000:.0f}"
    cells = (
        f"{row.number} {row.title}",
        "retries" if row.retries else "plain",
        str(row.requests),
        share(row.right, row.requests),
        share(row.endings.get(Ending.WHOLE, 0), row.requests),
        str(row.endings.get(Ending.SPLICED, 0)),
        str(row.endings.get(Ending.FALSE_END, 0)),
        f"{row.calls / row.requests:.2f}",
        f"{row.warm_calls / row.warm_requests:.2f}" if row.warm_requests else "–",
        added,
    )
    return f"| {' | '.join(cells)} |"


def share(part: int, whole: int) -> str:
    """In per cent, rounded down: only a whole share is 100 %."""
    return f"{math.floor(part / whole * 1000) / 10:.1f} %"
