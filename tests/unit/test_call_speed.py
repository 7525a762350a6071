"""How many eval calls a target gets at once, against servers of several kinds."""

import heapq
from collections.abc import Callable

import pytest

from harness.domain.reliability.call_speed import (
    FORGET_S,
    START_CALLS,
    CallSpeed,
    EndedCall,
    current_speed,
    note_answer,
    note_overload,
)

pytestmark = pytest.mark.req("F2")
CEILING = 16


def ask(latency_s: Callable[[int], float], calls: int = 1_000) -> list[int]:
    """Asks a server, whose latency follows from the calls under way, as fast as the speed
    allows; returns how many were under way as each call began.
    """
    speed, now, seen, ends = CallSpeed(), 0.0, list[int](), list[tuple[float, float, bool]]()
    while len(seen) < calls:
        while len(ends) < int(speed.calls):
            full = len(ends) + 1 >= int(speed.calls)
            heapq.heappush(ends, (now + latency_s(len(ends) + 1), now, full))
            seen.append(len(ends))
        now, began, full = heapq.heappop(ends)
        speed = note_answer(speed, EndedCall(began, now, full, tokens=20), CEILING)
    return seen


@pytest.mark.parametrize(
    ("latency_s", "least", "most"),
    [
        (lambda _: 1.0, CEILING, CEILING),  # as many as one likes
        (lambda calls: 1.0 * calls, 4, 5),  # each waits for all others
        (lambda calls: max(1.0, calls / 4), 8, 9),  # four slots and a queue
    ],
)
def test_calls_grow_until_an_answer_takes_twice_as_long(
    latency_s: Callable[[int], float], least: int, most: int
) -> None:
    seen = ask(latency_s)
    assert seen[:2] == [1, 2]
    assert least <= max(seen) <= most
    assert min(seen[100:]) >= START_CALLS


def test_an_overload_halves_the_calls_once_for_all_that_were_under_way() -> None:
    speed = CallSpeed(calls=8.0, changed_at=100.0, used_at=100.0)
    for now in (110.0, 111.0, 112.0):
        speed = note_overload(speed, EndedCall(105.0, now, full=True))
    assert speed.calls == 4.0
    assert note_overload(speed, EndedCall(111.0, 113.0, full=True)).calls == 2.0


def test_calls_do_not_grow_where_fewer_than_allowed_are_asked() -> None:
    speed = CallSpeed(calls=8.0)
    for now in range(1, 100):
        speed = note_answer(speed, EndedCall(now - 1.0, float(now), full=False), CEILING)
    assert speed.calls == 8.0


@pytest.mark.parametrize("now", [FORGET_S + 101, 99.0])
def test_a_speed_is_forgotten_when_it_is_old_or_of_another_clock(now: float) -> None:
    speed = CallSpeed(calls=8.0, used_at=100.0)
    assert current_speed(speed, 101.0) == speed
    assert current_speed(speed, now).calls == START_CALLS
