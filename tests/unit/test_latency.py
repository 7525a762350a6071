import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.routing.reliability.latency import (
    FEW_ANSWERS,
    LATENCY_BOUNDS_MS,
    MAX_ANSWERS,
    MIN_ANSWERS,
    MIN_LIMIT_S,
    MOST_FACTOR,
    NO_TIMES,
    SLOW_TOKENS_PER_S,
    WAIT_BOUNDS_MS,
    AnswerTimes,
    add_waits,
    answer_class,
    first_byte_limit_s,
    first_token_limit_s,
    merge_histograms,
    quantile_ms,
    unmeasured_limit_s,
    usual_wait_s,
    wait_quantile_s,
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
    times = NO_TIMES
    for second in seconds:
        times = add_waits(times, [second])

    assert sum(times.answered.values()) <= MAX_ANSWERS
    assert len(times.answered) <= len(WAIT_BOUNDS_MS)
    limit_s = first_byte_limit_s(times, math.inf)
    assert limit_s >= MIN_LIMIT_S
    if len(seconds) <= MAX_ANSWERS:
        over = sum(second > limit_s for second in seconds)
        assert over <= math.ceil(len(seconds) / 100)


def test_a_healthy_answer_of_five_minutes_is_not_cut() -> None:
    times = NO_TIMES
    for _ in range(100):  # a 99 % quantile needs them
        assert first_byte_limit_s(times, math.inf) == math.inf
        times = add_waits(times, [300.0])

    assert 700 < first_byte_limit_s(times, math.inf) < 1200


def test_a_limit_follows_answers_that_became_slower() -> None:
    times = NO_TIMES
    for _ in range(MAX_ANSWERS):
        times = add_waits(times, [2.0])
    assert first_byte_limit_s(times, math.inf) == MIN_LIMIT_S

    # The first waits are cut, so that longer ones are tried.
    cut = 0
    while (limit_s := first_byte_limit_s(times, math.inf)) < 45.0:
        times = add_waits(times, (), [limit_s])
        cut += 1
    assert cut < 30


def test_one_hanging_answer_of_a_hundred_moves_no_limit() -> None:
    times = NO_TIMES
    for _ in range(MIN_ANSWERS - 1):
        times = add_waits(times, [2.0])

    assert first_byte_limit_s(add_waits(times, (), [60.0]), math.inf) == MIN_LIMIT_S


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
    times = NO_TIMES
    cut = 0
    for _ in range(MIN_ANSWERS - 1):
        limit_s = first_byte_limit_s(times, MIN_LIMIT_S)
        if takes_s > limit_s:
            cut += 1
            times = add_waits(times, (), [limit_s])
        else:
            times = add_waits(times, [takes_s])

    assert FEW_ANSWERS < cut < 25
    assert first_byte_limit_s(times, MIN_LIMIT_S) > takes_s


def test_a_few_hangs_move_no_limit_before_there_is_a_measure() -> None:
    times = NO_TIMES
    for _ in range(3):
        times = add_waits(times, [2.0], [30.0])

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
        return first_token_limit_s(add_waits(None, answers_s), 10.0)

    assert first_token_limit_s(None, 10.0) == 10.0
    assert limit_s(*[0.2] * 200) == 10.0
    assert limit_s(*[0.2] * 150, *[12.0] * 50) == pytest.approx(3 * 12.5, rel=0.05)
    # Few were measured, and all of them were cut at the limit: it follows.
    assert first_token_limit_s(add_waits(None, (), [10.0] * 9), 10.0) > 10.0


def _wave(times: AnswerTimes, takes_s: float, set_s: float) -> tuple[AnswerTimes, float]:
    """Returns the times after 95 fast streams and 5 that take takes_s, and their limit."""
    limit_s = first_token_limit_s(times, set_s, MOST_FACTOR * set_s)
    slow_s = [takes_s] * 5
    if takes_s > limit_s:
        return add_waits(times, [0.01] * 95, [limit_s] * 5), limit_s
    return add_waits(times, [0.01] * 95 + slow_s), limit_s


def test_streams_that_hang_never_teach_the_router_to_wait_longer_and_longer() -> None:
    times = NO_TIMES
    limits_s = []
    for _ in range(30):
        times, limit_s = _wave(times, math.inf, 5.0)
        limits_s.append(limit_s)

    assert limits_s[0] == limits_s[2] == limits_s[3] == 5.0
    assert max(limits_s) == MOST_FACTOR * 5.0


def test_streams_that_are_only_slow_are_cut_once_and_then_waited_for() -> None:
    times, first_s = _wave(NO_TIMES, 8.0, 5.0)
    limits_s = []
    for _ in range(30):
        times, limit_s = _wave(times, 8.0, 5.0)
        limits_s.append(limit_s)

    assert first_s == 5.0
    assert min(limits_s) > 8.0


waits = st.lists(st.floats(0.001, 3600), min_size=1, max_size=200)


@given(waits)
def test_without_a_cut_wait_the_estimate_is_the_plain_quantile(answered_s: list[float]) -> None:
    times = add_waits(None, answered_s)

    for share in (0.25, 0.5, 0.99):
        plain_ms = quantile_ms(times.answered, share, WAIT_BOUNDS_MS) or 0.0
        assert wait_quantile_s(times, share) == pytest.approx(plain_ms / 1000, rel=1e-6)


@given(waits, waits, st.floats(0.01, 0.99))
def test_a_cut_wait_never_makes_a_target_look_faster(
    answered_s: list[float], cut_s: list[float], share: float
) -> None:
    known_s = wait_quantile_s(add_waits(None, answered_s), share) or 0.0
    censored_s = wait_quantile_s(add_waits(None, answered_s, cut_s), share)

    assert censored_s is None or censored_s >= known_s - 1e-6


@given(waits, waits, st.floats(1, 60))
def test_a_limit_lies_between_the_setting_and_its_multiple(
    answered_s: list[float], cut_s: list[float], set_s: float
) -> None:
    times = add_waits(None, answered_s, cut_s)

    assert set_s <= first_token_limit_s(times, set_s, MOST_FACTOR * set_s) <= 3.0 * set_s


def test_nothing_is_usual_before_a_target_has_answered() -> None:
    assert usual_wait_s(None) is None
    assert usual_wait_s(add_waits(None, (), [30.0] * 50)) is None
    assert usual_wait_s(add_waits(None, [20.0] * 50)) == pytest.approx(40, rel=0.25)
