"""The figures as Markdown and as JSON."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Final

from benchmarks.faults.answers import Ending
from benchmarks.faults.catalogue import Expect
from benchmarks.faults.figures import Figures

COLUMNS: Final = (
    "fault",
    "client",
    "gateway",
    "requests",
    "as it should",
    "whole",
    "spliced",
    "false ends",
    "calls",
    "warm",
    "+p99 ms",
)
SAID: Final = {Ending.SPLICED: "spliced", Ending.FALSE_END: "false ends"}
HEAD: Final = (f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS))


def lines(figures: Sequence[Figures], direct_p99_s: float) -> list[str]:
    """Gateways side by side, then every figure, totals, what was not as it should be."""
    ordered = sorted(figures, key=lambda row: (row.number, row.title, row.retries))
    gateways = list(dict.fromkeys(figure.gateway for figure in figures))
    totals = [_total(name, [f for f in figures if f.gateway == name]) for name in gateways]
    return [
        *side_by_side(ordered, gateways, direct_p99_s),
        "",
        *HEAD,
        *(_line(row, direct_p99_s) for row in ordered),
        "",
        *totals,
        "",
        *unexpected(ordered),
    ]


def side_by_side(
    ordered: Sequence[Figures], gateways: Sequence[str], direct_p99_s: float
) -> list[str]:
    """A line for each fault and client. Cells: as it should, calls once warm, added p99."""
    cells: dict[str, dict[str, str]] = {}
    for figures in ordered:
        place = f"{figures.number} {figures.title} | {client(figures)}"
        cells.setdefault(place, {})[figures.gateway] = " · ".join(
            [
                share(figures.right, figures.requests),
                *(f"{n} {SAID[how]}" for how, n in harm(figures)),
                ratio(figures.warm_calls, figures.warm_requests),
                added_ms(figures, direct_p99_s),
            ]
        )
    return [
        f"| fault | client | {' | '.join(gateways)} |",
        "|" + " --- |" * (2 + len(gateways)),
        *(
            f"| {place} | {' | '.join(by.get(name, '–') for name in gateways)} |"
            for place, by in cells.items()
        ),
    ]


def harm(figures: Figures) -> list[tuple[Ending, int]]:
    """What a client cannot notice."""
    return [(how, n) for how in SAID if (n := figures.endings.get(how, 0))]


def client(figures: Figures) -> str:
    return "retries" if figures.retries else "plain"


def added_ms(figures: Figures, direct_p99_s: float) -> str:
    """The 99th percentile over the provider's own."""
    return "–" if math.isnan(figures.p99_s) else f"{(figures.p99_s - direct_p99_s) * 1000:.0f}"


def unexpected(figures: Sequence[Figures]) -> list[str]:
    """An example of what a client was told, for each row that did not end as it should."""
    return [
        f"{row.gateway}, {row.number} {row.title}, {row.retries} retries: {row.said}"
        for row in figures
        if row.said and row.right < row.requests
    ]


def _line(figures: Figures, direct_p99_s: float) -> str:
    cells = (
        f"{figures.number} {figures.title}",
        client(figures),
        figures.gateway,
        str(figures.requests),
        share(figures.right, figures.requests),
        share(figures.endings.get(Ending.WHOLE, 0), figures.requests),
        str(figures.endings.get(Ending.SPLICED, 0)),
        str(figures.endings.get(Ending.FALSE_END, 0)),
        ratio(figures.calls, figures.requests),
        ratio(figures.warm_calls, figures.warm_requests),
        added_ms(figures, direct_p99_s),
    )
    return f"| {' | '.join(cells)} |"


def _total(gateway: str, figures: Sequence[Figures]) -> str:
    rescued = [figure for figure in figures if figure.expect is Expect.WHOLE and figure.number]
    outages = [figure for figure in figures if figure.outage]
    whole = _sum(figure.endings.get(Ending.WHOLE, 0) for figure in rescued)
    right = share(
        _sum(figure.right for figure in figures), _sum(figure.requests for figure in figures)
    )
    warm = ratio(
        _sum(outage.warm_calls for outage in outages),
        _sum(outage.warm_requests for outage in outages),
    )
    spliced, false = (
        _sum(figure.endings.get(how, 0) for figure in figures)
        for how in (Ending.SPLICED, Ending.FALSE_END)
    )
    return (
        f"{gateway}: {right} as it should; with a healthy target left "
        f"{share(whole, _sum(row.requests for row in rescued))} whole; {spliced} spliced, "
        f"{false} false ends; in an outage {warm} calls a request once warm"
    )


def _sum(values: Iterable[int]) -> int:
    return sum(values)


def share(part: int, whole: int) -> str:
    """In per cent, rounded down: 100 % is said of all alone."""
    return f"{math.floor(part / whole * 1000) / 10:.1f} %" if whole else "–"


def ratio(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if whole else "–"


def document(figures: Sequence[Figures], **more: object) -> str:
    """All of it as JSON; what is not a number is null."""
    rows = [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        for row in map(asdict, figures)
    ]
    return json.dumps({**more, "rows": rows}, indent=2)
