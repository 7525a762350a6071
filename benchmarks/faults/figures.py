"""A row's requests as figures. Pure."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from benchmarks.faults.catalogue import Expect, Row
from benchmarks.faults.client import Ending, RequestResult

CLIENTS_OWN: Final = (400, 413, 422)


@dataclass(frozen=True)
class Figures:
    """One row and client. retries: the client's own. right: as the row expects.

    calls, warm_calls: of providers, for all requests and for those of the second half.
    p99_s: of what arrived whole; NaN when nothing did. said: an example of an error.
    """

    number: int
    title: str
    expect: Expect
    retries: int
    requests: int
    right: int
    endings: Mapping[Ending, int]
    calls: int
    warm_requests: int
    warm_calls: int
    p99_s: float
    said: str


def figures(
    row: Row,
    retries: int,
    results: Sequence[RequestResult],
    calls: Mapping[str, int],
) -> Figures:
    """calls: by the request's number."""
    half = max((request.begun for request in results), default=0.0) / 2
    warm = [request for request in results if request.begun >= half]
    return Figures(
        number=row.number,
        title=row.title,
        expect=row.expect,
        retries=retries,
        requests=len(results),
        right=sum(right(row.expect, request) for request in results),
        endings=dict(Counter(request.ending for request in results)),
        calls=sum(calls.get(request.number, 0) for request in results),
        warm_requests=len(warm),
        warm_calls=sum(calls.get(request.number, 0) for request in warm),
        p99_s=p99(request.latency_s for request in results if request.ending is Ending.WHOLE),
        said=next((request.said for request in results if not right(row.expect, request)), ""),
    )


def right(expect: Expect, asked: RequestResult) -> bool:
    """Whether the request ended as its client may expect."""
    match expect:
        case Expect.WHOLE:
            return asked.ending is Ending.WHOLE
        case Expect.HONEST:
            broke = asked.stream and asked.ending is Ending.ERROR
            return broke or asked.ending is Ending.WHOLE
        case Expect.TOLD:
            return asked.status in CLIENTS_OWN
        case Expect.LEFT:
            return asked.ending is Ending.CANCELLED
        case Expect.DOWN:
            return asked.ending is Ending.ERROR
        case _:
            assert_never(expect)


def p99(values: Iterable[float]) -> float:
    """The smallest value that at least 99 % do not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else math.nan


HEADS = ("fault", "client", "requests", "as it should", "whole", "spliced", "false ends",
         "calls", "calls once warm", "+p99 ms")  # fmt: skip


def cells(figures: Sequence[Figures], direct_p99_s: float) -> list[tuple[object, ...]]:
    """The heads, and a line for each fault and client. direct_p99_s: without a gateway."""
    return [HEADS, *(_line(row, direct_p99_s) for row in figures)]


def _line(row: Figures, direct_p99_s: float) -> tuple[object, ...]:
    return (
        f"{row.number} {row.title}",
        "retries" if row.retries else "plain",
        row.requests,
        share(row.right, row.requests),
        share(row.endings.get(Ending.WHOLE, 0), row.requests),
        row.endings.get(Ending.SPLICED, 0),
        row.endings.get(Ending.FALSE_END, 0),
        row.calls / row.requests,
        row.warm_calls / row.warm_requests if row.warm_requests else None,
        (row.p99_s - direct_p99_s) * 1000,
    )


def share(part: int, whole: int) -> str:
    """In per cent, rounded down: only a whole share is 100 %."""
    return f"{math.floor(part / whole * 1000) / 10:.1f} %"
