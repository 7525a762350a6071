import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.routing.reliability.latency import (
    ANSWER_BOUNDS_MS,
    FEW_ANSWERS,
    FIRST_TOKEN_BOUNDS_MS,
    LATENCY_BOUNDS_MS,
    MAX_ANSWERS,
    MIN_ANSWERS,
    MIN_LIMIT_S,
    SLOW_TOKENS_PER_S,
    AnswerTimes,
    add_answers,
    answer_class,
    first_byte_limit_s,
    first_token_limit_s,
    merge_histograms,
    quantile_ms,
    unmeasured_limit_s,
)

pytestmark = pytest.mark.req("B3")

counts = st.dictionaries(
    st.sampled_from((*LATENCY_BOUNDS_MS, -1)), st.integers(1, 50), min_size=1
)


def test_a_quantile_lies_straight_within_its_bucket() -> None:
    # 10 up to 50 ms, 10 from 50 to 100: three quarters are reached in the middle of the second.
    assert quantile_ms({50: 10, 100: 10}, 0.75) == pytest.approx(75.0)
    # The bucket below 250 ms begins at 100, though nothing was recorded there.
    assert quantile_ms({250: 4}, 0.5) == pytest.approx(175.0)


def test_without_a_bound_it_is_at_least_the_last_one() -> None:
    assert quantile_ms({-1: 3}, 0.5) == 60_000.0
    assert quantile_ms({}, 0.5) is None


@given(
    one=counts,
    other=counts,
    low=st.floats(0.01, 1),
    high=st.floats(0.01, 1),
)
def test_quantiles_rise_and_lie_between_those_of_the_parts(
    one: dict[int, int],
    other: dict[int, int],
    low: float,
    high: float,
) -> None:
    low, high = sorted((low, high))
    both = merge_histograms([one, other])

    parts = sorted(quantile_ms(window, high) or 0.0 for window in (one, other))
    whole = quantile_ms(both, high) or 0.0

    assert (quantile_ms(both, low) or 0.0) <= whole
    assert parts[0] - 1e-6 <= whole <= parts[1] + 1e-6


@given(st.lists(st.floats(0, 3600), min_size=MIN_ANSWERS, max_size=3000))
def test_a_limit_by_measurement_is_never_below_what_nearly_all_answers_took(
    seconds: list[float],
) -> None:
    times: AnswerTimes = {}
    for second in seconds:
        times = add_answers(times, [second])

    assert sum(times.values()) <= MAX_ANSWERS
    assert len(times) <= len(ANSWER_BOUNDS_MS)
    limit_s = first_byte_limit_s(times, math.inf)
    assert limit_s >= MIN_LIMIT_S
    if len(seconds) <= MAX_ANSWERS:
        over = sum(second > limit_s for second in seconds)
        assert over <= math.ceil(len(seconds) / 100)


def test_a_healthy_answer_of_five_minutes_is_not_cut() -> None:
    times: AnswerTimes = {}
    for _ in range(MIN_ANSWERS):
        assert first_byte_limit_s(times, math.inf) == math.inf
        times = add_answers(times, [300.0])

    assert 700 < first_byte_limit_s(times, math.inf) < 1200


def test_a_limit_follows_answers_that_became_slower() -> None:
    times: AnswerTimes = {}
    for _ in range(MAX_ANSWERS):
        times = add_answers(times, [2.0])
    assert first_byte_limit_s(times, math.inf) == MIN_LIMIT_S

    # The first waits are cut, and count for as long as they lasted.
    cut = 0
    while (limit_s := first_byte_limit_s(times, math.inf)) < 45.0:
        times = add_answers(times, [min(45.0, limit_s)])
        cut += 1
    assert cut < 30


def test_one_hanging_answer_of_a_hundred_moves_no_limit() -> None:
    times: AnswerTimes = {}
    for _ in range(MIN_ANSWERS - 1):
        times = add_answers(times, [2.0])

    assert first_byte_limit_s(add_answers(times, [60.0]), math.inf) == MIN_LIMIT_S


@given(st.integers(1, 10**6))
def test_a_slow_target_has_the_time_for_all_that_a_client_allows(max_tokens: int) -> None:
    limit_s = unmeasured_limit_s(max_tokens, thinks=False)

    assert limit_s >= MIN_LIMIT_S
    assert limit_s * SLOW_TOKENS_PER_S >= max_tokens
    assert unmeasured_limit_s(256, thinks=False) == MIN_LIMIT_S
    assert unmeasured_limit_s(max_tokens, thinks=True) == math.inf
    assert unmeasured_limit_s(0, thinks=False) == math.inf


@pytest.mark.parametrize("takes_s", [31.0, 60.0, 300.0, 3000.0])
def test_a_slow_target_is_not_cut_off_for_ever_before_it_is_measured(takes_s: float) -> None:
    times: AnswerTimes = {}
    cut = 0
    for _ in range(MIN_ANSWERS - 1):
        limit_s = first_byte_limit_s(times, MIN_LIMIT_S)
        cut += takes_s > limit_s
        times = add_answers(times, [min(takes_s, limit_s)])

    assert FEW_ANSWERS < cut < 25
    assert first_byte_limit_s(times, MIN_LIMIT_S) > takes_s


def test_a_few_hangs_move_no_limit_before_there_is_a_measure() -> None:
    times: AnswerTimes = {}
    for seconds in (2.0, 30.0, 2.0, 30.0, 2.0, 30.0):
        times = add_answers(times, [seconds])

    assert first_byte_limit_s(times, MIN_LIMIT_S) == MIN_LIMIT_S


@pytest.mark.parametrize(
    ("max_tokens", "kind"),
    [
        (0, 0),
        (-1, 0),
        (1, 256),
        (256, 256),
        (257, 1024),
        (16_384, 16_384),
        (10**9, 16_385),
    ],
)
def test_answers_of_one_class_may_be_about_as_long(max_tokens: int, kind: int) -> None:
    assert answer_class(max_tokens) == kind


def test_a_stream_may_be_silent_three_times_as_long_as_its_target_ever_is() -> None:
    def limit_s(*answers_s: float) -> float:
        times = add_answers(None, answers_s, FIRST_TOKEN_BOUNDS_MS)
        return first_token_limit_s(times, 10.0)

    assert first_token_limit_s(None, 10.0) == 10.0
    assert limit_s(*[0.2] * 200) == 10.0
    assert limit_s(*[0.2] * 150, *[12.0] * 50) == pytest.approx(3 * 12.5, rel=0.05)
    # Few were measured, and all of them were cut at the limit: it follows.
    assert limit_s(*[10.0] * 9) > 10.0
