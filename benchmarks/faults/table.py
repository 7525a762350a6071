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


def lines(found: Sequence[Figures], direct_p99_s: float) -> list[str]:
    """Gateways side by side, then every figure, totals, what was not as it should be."""
    ordered = sorted(found, key=lambda each: (each.number, each.title, each.retries))
    gateways = list(dict.fromkeys(each.gateway for each in found))
    totals = [_total(name, [f for f in found if f.gateway == name]) for name in gateways]
    return [
        *side_by_side(ordered, gateways, direct_p99_s),
        "",
        *HEAD,
        *(_line(each, direct_p99_s) for each in ordered),
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
    for each in ordered:
        place = f"{each.number} {each.title} | {client(each)}"
        cells.setdefault(place, {})[each.gateway] = " · ".join(
            [
                share(each.right, each.requests),
                *(f"{n} {SAID[how]}" for how, n in harm(each)),
                ratio(each.warm_calls, each.warm_requests),
                added_ms(each, direct_p99_s),
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


def harm(each: Figures) -> list[tuple[Ending, int]]:
    """What a client cannot notice."""
    return [(how, n) for how in SAID if (n := each.endings.get(how, 0))]


def client(each: Figures) -> str:
    return "retries" if each.retries else "plain"


def added_ms(each: Figures, direct_p99_s: float) -> str:
    """The 99th percentile over the provider's own."""
    return "–" if math.isnan(each.p99_s) else f"{(each.p99_s - direct_p99_s) * 1000:.0f}"


def unexpected(found: Sequence[Figures]) -> list[str]:
    """An example of what a client was told, for each row that did not end as it should."""
    return [
        f"{each.gateway}, {each.number} {each.title}, {each.retries} retries: {each.said}"
        for each in found
        if each.said and each.right < each.requests
    ]


def _line(each: Figures, direct_p99_s: float) -> str:
    cells = (
        f"{each.number} {each.title}",
        client(each),
        each.gateway,
        str(each.requests),
        share(each.right, each.requests),
        share(each.endings.get(Ending.WHOLE, 0), each.requests),
        str(each.endings.get(Ending.SPLICED, 0)),
        str(each.endings.get(Ending.FALSE_END, 0)),
        ratio(each.calls, each.requests),
        ratio(each.warm_calls, each.warm_requests),
        added_ms(each, direct_p99_s),
    )
    return f"| {' | '.join(cells)} |"


def _total(gateway: str, found: Sequence[Figures]) -> str:
    rescued = [each for each in found if each.expect is Expect.WHOLE and each.number]
    outages = [each for each in found if each.outage]
    whole = _sum(each.endings.get(Ending.WHOLE, 0) for each in rescued)
    right = share(_sum(each.right for each in found), _sum(each.requests for each in found))
    warm = ratio(
        _sum(each.warm_calls for each in outages), _sum(each.warm_requests for each in outages)
    )
    spliced, false = (
        _sum(each.endings.get(how, 0) for each in found)
        for how in (Ending.SPLICED, Ending.FALSE_END)
    )
    return (
        f"{gateway}: {right} as it should; with a healthy target left "
        f"{share(whole, _sum(each.requests for each in rescued))} whole; {spliced} spliced, "
        f"{false} false ends; in an outage {warm} calls a request once warm"
    )


def _sum(values: Iterable[int]) -> int:
    return sum(values)


def share(part: int, whole: int) -> str:
    """In per cent, rounded down: 100 % is said of all alone."""
    return f"{math.floor(part / whole * 1000) / 10:.1f} %" if whole else "–"


def ratio(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if whole else "–"


def document(found: Sequence[Figures], **more: object) -> str:
    """All of it as JSON; what is not a number is null."""
    rows = [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        for row in map(asdict, found)
    ]
    return json.dumps({**more, "rows": rows}, indent=2)
