"""A provider's pause slows its target: the pure rules, and the turns of several workers."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.routing.reliability.slowdown import (
    FIRST_GAP_S,
    RequestSize,
    Slowdown,
    Turns,
    begin_slowdown,
    refuse_probe,
    reserve_turn,
    start_turns,
    widen_turns,
)
from router.access.rate_limits import LocalRates, SharedRates
from router.health.slowdowns import Slowdowns, TargetTurn
from tests.support.control.manual_clock import ManualClock

pytestmark = pytest.mark.req("A5", "B4")
TOLD_S = 578.0
SHORT, LONG = RequestSize(100), RequestSize(10_000)
LONGER = RequestSize(30_000)


def slowed(size: RequestSize, *more: RequestSize, told_s: float | None = TOLD_S) -> Slowdown:
    """A slowdown after refused probes of these sizes."""
    slowdown = begin_slowdown(None, Turns(1.0, 1.0), 0.0, TOLD_S, LONG, exhausted=False)
    for probe in (size, *more):
        slowdown = refuse_probe(slowdown, Turns(1.0, 1.0), probe, 1.0, told_s, exhausted=False)
    return slowdown


def test_a_pause_is_kept_if_nothing_remains_or_after_two_refused_probes_of_different_size() -> (
    None
):
    new = begin_slowdown(None, Turns(1.0, 1.0), 0.0, TOLD_S, LONG, exhausted=False)
    used_up = begin_slowdown(new, Turns(1.0, 1.0), 0.0, TOLD_S, LONG, exhausted=True)

    assert [new.may_go(SHORT), used_up.may_go(SHORT)] == [True, False]
    assert [slowed(LONG).may_go(LONG), slowed(LONG, RequestSize(10_009)).may_go(LONG)] == [
        True,
        True,
    ]
    assert [slowed(LONG, SHORT).may_go(size) for size in (SHORT, LONG)] == [False, False]
    # Two sizes of long prompts stop no short ones.
    assert [slowed(LONG, LONGER).may_go(size) for size in (SHORT, LONG)] == [True, False]


def test_a_request_as_large_as_a_refused_probe_waits_for_no_turn() -> None:
    assert begin_slowdown(None, Turns(), 0.0, 9.0, LONG, exhausted=False).may_wait(LONG)
    assert not slowed(LONG).may_wait(LONG)
    assert slowed(LONG).may_wait(SHORT)
    assert not slowed(LONG, SHORT).may_wait(SHORT)


def test_what_a_refused_probe_is_told_replaces_the_pause_before() -> None:
    assert slowed(LONG).until == 1.0 + TOLD_S
    assert slowed(LONG, told_s=2.0).until == 3.0
    assert slowed(LONG, told_s=None).until == TOLD_S


@given(st.floats(0.01, 1e5), st.integers(1, 30))
def test_each_refused_probe_doubles_the_gap_up_to_the_pause(
    told_s: float, refused: int
) -> None:
    now = 0.0
    turns = start_turns(Turns(), now, told_s)
    for _ in range(refused):
        now = turns.at
        assert start_turns(turns, now, told_s) == turns
        turns = widen_turns(reserve_turn(turns, now), now, told_s)

    assert turns.gap_s == pytest.approx(min(told_s, FIRST_GAP_S * 2.0**refused))
    assert turns.at == now + turns.gap_s


def test_a_slowdown_without_a_probe_begins_anew() -> None:
    old = Turns(at=10.0, gap_s=64.0)

    assert start_turns(old, 70.0, TOLD_S) == old
    assert start_turns(old, 75.0, TOLD_S) == Turns(76.0, FIRST_GAP_S)


async def test_all_workers_together_send_one_request_a_second_and_one_good_answer_ends_it(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    workers = [
        Slowdowns(clock.monotonic, SharedRates(tmp_path / "rates.book")) for _ in range(4)
    ]
    for worker in workers:
        worker.note_refusal("t", LONG, TOLD_S, exhausted=False)

    sent = []
    for _ in range(3):
        clock.advance(1)
        sent.append([await worker.take_turn("t", SHORT, 0.0) for worker in workers])
    assert [turns.count(TargetTurn.PROBE) for turns in sent] == [1, 1, 1]
    assert [turns.count(TargetTurn.NONE) for turns in sent] == [3, 3, 3]

    workers[2].note_refused_probe("t", SHORT, TOLD_S, exhausted=False)
    clock.advance(1.5)
    assert [await worker.take_turn("t", SHORT, 0.0) for worker in workers] == [
        TargetTurn.NONE
    ] * 4
    clock.advance(0.5)
    assert await workers[0].take_turn("t", SHORT, 0.0) is TargetTurn.PROBE
    workers[0].end("t")
    assert [await worker.take_turn("t", SHORT, 0.0) for worker in workers] == [
        TargetTurn.FREE
    ] * 4
    assert not any(worker.slowed for worker in workers)


async def test_waiting_requests_go_at_a_good_answer_and_the_large_ones_leave_at_a_refusal() -> (
    None
):
    clock = ManualClock()
    worker = Slowdowns(clock.monotonic, LocalRates())

    async def waiting(*sizes: RequestSize) -> list[asyncio.Task[TargetTurn]]:
        tasks = [asyncio.ensure_future(worker.take_turn("t", size, 60.0)) for size in sizes]
        await asyncio.sleep(0)
        return tasks

    worker.note_refusal("t", LONG, TOLD_S, exhausted=False)
    short, long = await waiting(SHORT, LONG)
    worker.note_refused_probe("t", LONG, TOLD_S, exhausted=False)
    assert await long is TargetTurn.NONE
    assert not short.done()
    worker.end("t")
    assert await short is TargetTurn.FREE

    worker.note_refusal("t", LONG, TOLD_S, exhausted=False)
    (kept,) = await waiting(SHORT)
    worker.note_refusal("t", LONG, TOLD_S, exhausted=True)
    assert await kept is TargetTurn.NONE
    clock.advance(TOLD_S)
    assert await worker.take_turn("t", SHORT, 0.0) is TargetTurn.FREE


async def test_a_request_waits_for_its_own_turn_within_its_limit() -> None:
    worker = Slowdowns(ManualClock().monotonic, LocalRates())
    worker.note_refusal("t", LONG, 0.02, exhausted=False)

    assert await worker.take_turn("t", SHORT, 0.001) is TargetTurn.NONE
    assert await worker.take_turn("t", SHORT, 9.0) is TargetTurn.PROBE
