"""The fault benchmark's own judgement: whole, spliced, ended falsely; growing or not."""

import random

import pytest

from benchmarks.faults.catalogue import Expect, Row, Variant, routes, rows
from benchmarks.faults.client import WORDS, Ending, RequestResult, ending, words
from benchmarks.faults.figures import cells, figures, right
from benchmarks.faults.vitals import trend

WHOLE = " ".join(words("p"))
HALF = " ".join(words("p")[:6])


@pytest.mark.req("B8")
@pytest.mark.parametrize(
    ("text", "failed", "expected"),
    [
        (WHOLE, False, Ending.WHOLE),
        (" ".join(words("s")), False, Ending.WHOLE),
        (HALF, True, Ending.ERROR),
        ("", True, Ending.ERROR),
        (HALF, False, Ending.FALSE_END),
        ("", False, Ending.FALSE_END),
        ("<!doctype html>", False, Ending.FALSE_END),
        (HALF + " s6 s7", False, Ending.SPLICED),
        (HALF + " s0 s1", True, Ending.SPLICED),
        (HALF + " " + WHOLE, False, Ending.SPLICED),
        ("p0 p1 p1 p2", False, Ending.SPLICED),
        ("p0 p2", True, Ending.SPLICED),
        (WHOLE + f" p{WORDS}", False, Ending.SPLICED),
    ],
)
def test_an_answer_is_judged_by_its_words(text: str, *, failed: bool, expected: Ending) -> None:
    assert ending(text, failed=failed) is expected


def request_result(
    how: Ending = Ending.WHOLE,
    *,
    number: str = "1",
    stream: bool = True,
    begun: float = 0.0,
    latency_s: float = 1.0,
    status: int = 0,
) -> RequestResult:
    said = "an error" if how is Ending.ERROR else ""
    return RequestResult(number, stream, begun, how, latency_s, said, status)


@pytest.mark.parametrize(
    ("expect", "good", "bad"),
    [
        (Expect.WHOLE, request_result(), request_result(Ending.ERROR)),
        (
            Expect.HONEST,
            request_result(Ending.ERROR),
            request_result(Ending.ERROR, stream=False),
        ),
        (Expect.HONEST, request_result(), request_result(Ending.FALSE_END)),
        (
            Expect.TOLD,
            request_result(Ending.ERROR, status=422),
            request_result(Ending.ERROR, status=502),
        ),
        (Expect.TOLD, request_result(Ending.ERROR, status=400), request_result()),
        (Expect.LEFT, request_result(Ending.CANCELLED), request_result(Ending.ORPHANED)),
        (Expect.DOWN, request_result(Ending.ERROR), request_result(Ending.FALSE_END)),
    ],
)
def test_each_row_says_what_its_clients_may_expect(
    expect: Expect, good: RequestResult, bad: RequestResult
) -> None:
    assert right(expect, good)
    assert not right(expect, bad)


def test_a_rows_figures_tell_all_calls_from_those_of_its_second_half() -> None:
    row = Row(2, "an outage", Expect.WHOLE, (Variant("x"),))
    requests = [
        request_result(number="a", begun=0.0),
        request_result(Ending.ERROR, number="b", begun=1.0),
        request_result(number="c", begun=9.0, latency_s=3.0),
        request_result(number="d", begun=10.0),
    ]

    found = figures(row, 2, requests, {"a": 3, "b": 3, "c": 1, "d": 1, "z": 50})

    assert (found.requests, found.right, found.calls) == (4, 3, 8)
    assert (found.warm_requests, found.warm_calls) == (2, 2)
    assert found.p99_s == 3.0
    assert found.endings == {Ending.WHOLE: 3, Ending.ERROR: 1}
    assert found.said == "an error"
    line = cells([found], direct_p99_s=1.0)[1]
    assert line == ("2 an outage", "retries", 4, "75.0 %", "75.0 %", 0, 0, 2.0, 1.0, 2000.0)


def test_every_fault_from_1_to_15_is_there_and_no_two_share_a_route() -> None:
    assert {row.number for row in rows()} == set(range(16))
    names = [route.name for route in routes(rows())]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("per_hour", "grows"), [(0.0, False), (60.0, True), (-60.0, False)])
def test_growth_is_told_from_noise(*, per_hour: float, grows: bool) -> None:
    chance = random.Random(1)
    times = [5.0 * n for n in range(240)]
    values = [100 + per_hour * at / 3600 + chance.gauss(0, 1) for at in times]

    found = trend(times, values)

    assert found.low <= per_hour <= found.high
    assert found.grows(1.0) is grows


def test_what_fills_up_at_the_beginning_is_no_growth() -> None:
    times = [5.0 * n for n in range(240)]

    found = trend(times, [min(50.0 + at, 100.0) for at in times])

    assert found == (100.0, 0.0, 0.0, 0.0)
