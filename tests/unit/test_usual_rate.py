"""The incumbent's usual failure rate: its bound, and how errors and the guard use it."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.gate.online.evidence_paths import (
    ODDS_WEIGHTS,
    counts_path,
    errors_path,
    guardrail_path,
    skip_incidents,
    usual_path,
)
from harness.gate.online.guardrail_report import guardrail_totals
from harness.gate.online.guardrails import WINDOW_REQUESTS, FailureTally, Guardrail
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.outcome import OutcomeKind
from harness.gate.online.usual_rate import (
    USUAL_WINDOW_S,
    DayCount,
    bound_usual_rate,
    limit_usual_rate,
    usual_bets,
)
from harness.gate.online.worker_guard import (
    HARM_GRID,
    WorkerGuard,
    is_incident,
)
from harness.gate.policy import CanaryPolicy
from router.recording.caller_history import COMPLETE_AFTER_S, CallerHistory
from router.recording.sums import CompletedRequest, minute_rows

pytestmark = pytest.mark.req("F3")
NOW: Final = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ONE_PERCENT: Final = [DayCount(10_000, n) for n in (100, 90, 110, 105, 95, 100, 102)]


def test_the_bound_is_a_little_above_the_rate_of_even_days() -> None:
    assert bound_usual_rate(ONE_PERCENT) == pytest.approx(0.01031, abs=0.00001)


def test_one_bad_day_of_three_raises_the_bound_to_two_of_them() -> None:
    days = [DayCount(10_000, n) for n in (10, 10, 610)]

    # Of 27 resamples, 20 have at most one bad day, and 26 at most two.
    assert bound_usual_rate(days) == pytest.approx((10 + 610 + 610) / 30_000)


@pytest.mark.parametrize(
    "days",
    [
        [DayCount(10_000, 100)] * 2,
        [DayCount(10_000, 6)] * 3,
        [DayCount(10_000, 100)] * 2 + [DayCount(0, 0)] * 5,
        [],
    ],
    ids=["two days", "18 failures", "days without requests", "no day"],
)
def test_a_short_history_has_no_bound(days: list[DayCount]) -> None:
    assert bound_usual_rate(days) == 0.0


def test_the_bound_stays_below_one_if_all_requests_fail() -> None:
    assert 0.9 < bound_usual_rate([DayCount(10, 10)] * 3) < 1.0


@given(
    rate=st.floats(1e-6, 0.999),
    tolerated=st.floats(0.5, 3.0),
)
def test_a_unit_at_the_tolerated_rate_is_a_fair_bet(rate: float, tolerated: float) -> None:
    null = tolerated * rate / (1.0 - rate + tolerated * rate)

    for bet in usual_bets(rate, tolerated, HARM_GRID):
        fair = null * math.exp(bet.failed) + (1.0 - null) * math.exp(bet.fine)
        assert fair == pytest.approx(1.0)


def test_twenty_failures_in_the_rollout_limit_the_usual_rate() -> None:
    assert limit_usual_rate(0.05, 2_000, 19) == 0.05
    assert limit_usual_rate(0.05, 2_000, 20) == pytest.approx(0.03)
    assert limit_usual_rate(0.02, 2_000, 20) == 0.02


def test_a_block_multiplies_the_bets_of_the_canarys_units_alone() -> None:
    tallies = [FailureTally(100, 4, 3, 1), None, FailureTally(100, 4, 50, 0)]
    bets = usual_bets(0.02, 1.0, HARM_GRID)

    path = usual_path(tallies, [0.02] * 3)

    first = sum(
        weight * math.exp(bet.failed + 3 * bet.fine)
        for weight, bet in zip(ODDS_WEIGHTS, bets, strict=True)
    )
    last = sum(
        weight * math.exp(bet.failed + 7 * bet.fine)
        for weight, bet in zip(ODDS_WEIGHTS, bets, strict=True)
    )
    assert [math.exp(log) for log in path] == pytest.approx([first, first, last])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 90)), min_size=1, max_size=8))
def test_errors_have_the_lesser_evidence(failures: list[tuple[int, int]]) -> None:
    tallies = [FailureTally(100, 5, y + others, y) for y, others in failures]
    number = len(tallies)
    shares = [0.05] * number

    path = errors_path(tallies, shares, [False] * number, [0.01] * number, 1.0)

    alone = errors_path(tallies, shares, [False] * number, [0.0] * number, 1.0)
    assert (path <= alone).all()
    told = skip_incidents(tallies, shares)
    assert (path <= usual_path(told, [0.01] * number)).all()


def block(number: int, **changes: object) -> ObservationBlock:
    plain = ObservationBlock("r", "w", number, 100, 100, 1, 1, 1, 0, NOW, NOW, number)
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_blocks_without_a_usual_rate_are_compared_at_the_same_time_only() -> None:
    blocks = [block(number) for number in range(1, 6)]
    policy = CanaryPolicy()

    alone = guardrail_path(blocks, Guardrail.ERRORS, policy)

    tally = FailureTally(100, 1, 1, 1)
    assert alone == pytest.approx(counts_path([tally] * 5))
    usual = [replace(one, usual_rates={Guardrail.ERRORS: 0.4}) for one in blocks]
    assert guardrail_path(usual, Guardrail.ERRORS, policy)[-1] < alone[-1]
    assert guardrail_totals(usual, Guardrail.ERRORS).usual_rate == 0.4


@pytest.mark.parametrize(
    ("tally", "share", "skipped"),
    [
        (FailureTally(100, 25, 63, 25), 0.25, True),
        (FailureTally(100, 25, 63, 0), 0.25, True),
        (FailureTally(100, 25, 62, 0), 0.25, False),
        (FailureTally(1, 0, 1, 0), 0.01, False),
    ],
    ids=[
        "all of the canary",
        "none of the canary",
        "may be fewer",
        "small block",
    ],
)
def test_a_block_in_which_most_of_the_incumbent_failed_proves_nothing(
    tally: FailureTally,
    share: float,
    *,
    skipped: bool,
) -> None:
    """75 units are the incumbent's: with 63 failures, at least 38 of them failed."""
    assert skip_incidents([tally], [share]) == [None if skipped else tally]


def after(guard: WorkerGuard, failed: bool, rate: float) -> WorkerGuard:  # noqa: FBT001 - drawn
    if failed:
        return guard.after(canary=True, share=0.05, usual_rate=rate)
    return guard.after_fine(rate)


@given(
    outcomes=st.lists(st.booleans(), max_size=30),
    rate=st.sampled_from([0.001, 0.02, 0.3]),
)
def test_the_guards_next_unit_is_a_fair_bet_at_the_usual_rate(
    outcomes: list[bool], rate: float
) -> None:
    guard = WorkerGuard()
    for failed in (*outcomes, False):
        guard = after(guard, failed, rate)

    def usual(found: WorkerGuard) -> float:
        # With many bets on the arm, that evidence is not the lesser one.
        return math.exp(replace(found, log_sums=(500.0,) * len(HARM_GRID)).log_e)

    fair = rate * usual(after(guard, True, rate))  # noqa: FBT003 - drawn elsewhere
    fair += (1.0 - rate) * usual(after(guard, False, rate))  # noqa: FBT003 - drawn elsewhere
    assert fair == pytest.approx(usual(guard))


def test_the_guard_waits_for_more_failures_than_usual() -> None:
    rare = WorkerGuard()
    often = WorkerGuard()
    for _ in range(4):
        rare = rare.after(canary=True, share=0.01, usual_rate=0.01)
        often = often.after(canary=True, share=0.01, usual_rate=0.6)

    assert rare.log_e > 10.0
    assert 0.0 < often.log_e < 2.5


def test_failures_in_an_incident_are_no_bets_on_their_arm() -> None:
    before = WorkerGuard().after(canary=True, share=0.05)

    during = before.after(canary=False, share=0.05, incident=True)

    assert during.log_e == before.log_e
    assert (during.failures, during.bets) == (2, 1)
    assert is_incident(0b111_1111_1111, exposures=20)
    assert not is_incident(0b11_1111_1111, exposures=20)
    assert not is_incident(0b111_1111_1111, exposures=19)


DONE: Final = CompletedRequest("chat", "incumbent", "t", kind=OutcomeKind.ANSWERED, caller=7)


def test_a_minute_counts_each_callers_first_request_of_the_day() -> None:
    firsts = CallerHistory()
    requests = [
        DONE,
        DONE._replace(kind=OutcomeKind.FAILED),
        DONE._replace(caller=8, kind=OutcomeKind.CUT),
        DONE._replace(caller=9, kind=OutcomeKind.LIMITED),
        DONE._replace(caller=9),
        DONE._replace(caller=0),
        DONE._replace(caller=10, kind=None),
    ]

    (row,) = minute_rows(requests, NOW, "w", firsts)
    (later,) = minute_rows([DONE], NOW + timedelta(hours=1), "w", firsts)
    (next_day,) = minute_rows([DONE], NOW + timedelta(days=1), "w", firsts)

    assert (row.requests, row.first_requests, row.first_failed) == (7, 2, 1)
    assert (later.first_requests, next_day.first_requests) == (0, 1)


def test_of_many_callers_a_draw_stands_for_all_hours_of_the_next_day() -> None:
    history = CallerHistory(max_callers=100)
    counted: list[list[int]] = []
    for day in range(2):
        hours = []
        for hour in range(10):
            names = range(1 + 100 * hour, 101 + 100 * hour)
            requests = [DONE._replace(caller=name) for name in names]
            midnight = datetime(2026, 3, 2 + day, tzinfo=UTC)
            (row,) = minute_rows(requests, midnight + timedelta(hours=hour), "w", history)
            hours.append(row.first_requests)
        counted.append(hours)

    assert counted[0][0] == 100
    assert max(counted[1]) <= min(counted[1]) + 1
    assert 50 <= sum(counted[1]) <= 100


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_a_window_counts_the_failures_of_a_callers_first_requests_once_it_is_known() -> None:
    history = CallerHistory()
    failed = DONE._replace(kind=OutcomeKind.FAILED)
    ended: list[tuple[float, CompletedRequest]] = [
        (0.0, DONE),
        (0.0, DONE._replace(caller=8)),
        (0.0, DONE._replace(caller=9)),
        (0.0, DONE._replace(caller=10)),
        (30.0, failed),
        (60.0, failed),
        (90.0, DONE._replace(caller=9, kind=OutcomeKind.LIMITED)),
        # Caller 8's request arrived after the window, caller 10's in it.
        (USUAL_WINDOW_S + 50.0, failed._replace(caller=8, latency_ms=40_000.0)),
        (USUAL_WINDOW_S + 50.0, failed._replace(caller=10, latency_ms=60_000.0)),
    ]
    for seconds, request in ended:
        (row,) = minute_rows([request], at(seconds), "w", history)
        assert row.windows == 0

    (early,) = minute_rows([DONE], at(USUAL_WINDOW_S + COMPLETE_AFTER_S - 1.0), "w", history)
    (known,) = minute_rows([DONE], at(USUAL_WINDOW_S + COMPLETE_AFTER_S), "w", history)

    assert early.windows == 0
    # Callers 7 and 10 failed; the limited request of caller 9 is no failure.
    assert (known.windows, known.windows_failed) == (4, 2)


def test_a_window_of_the_new_day_outlasts_the_same_callers_window_before_midnight() -> None:
    history = CallerHistory()
    failed = DONE._replace(kind=OutcomeKind.FAILED)
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    before = midnight - timedelta(seconds=30)
    minute_rows([DONE], before, "w", history)
    minute_rows([DONE], midnight, "w", history)
    known = before + timedelta(seconds=USUAL_WINDOW_S + COMPLETE_AFTER_S)

    (first,) = minute_rows([DONE._replace(caller=8)], known, "w", history)
    late_s = COMPLETE_AFTER_S + 60.0  # it arrived in the second window
    minute_rows([failed._replace(latency_ms=late_s * 1_000.0)], known, "w", history)
    (second,) = minute_rows([DONE], known + timedelta(seconds=30), "w", history)

    assert (first.windows, first.windows_failed) == (1, 0)
    assert (second.windows, second.windows_failed) == (1, 1)


def test_a_window_whose_first_request_is_no_evidence_counts_only_if_another_one_fails() -> None:
    history = CallerHistory()
    limited = DONE._replace(kind=OutcomeKind.LIMITED)
    failed = DONE._replace(kind=OutcomeKind.FAILED)
    minute_rows([limited, DONE], NOW, "w", history)
    minute_rows([limited._replace(caller=8), failed._replace(caller=8)], NOW, "w", history)

    (row,) = minute_rows([DONE], at(USUAL_WINDOW_S + COMPLETE_AFTER_S), "w", history)

    assert (row.windows, row.windows_failed) == (1, 1)


def test_only_the_first_requests_of_a_window_count() -> None:
    history = CallerHistory()
    minute_rows([DONE] * WINDOW_REQUESTS, NOW, "w", history)
    minute_rows([DONE._replace(kind=OutcomeKind.FAILED)], at(1.0), "w", history)

    (row,) = minute_rows([DONE], at(USUAL_WINDOW_S + COMPLETE_AFTER_S), "w", history)

    assert (row.windows, row.windows_failed) == (1, 0)
