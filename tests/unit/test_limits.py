"""Rate limits: never more than the limit, never starved, and the wait is told exactly."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.errors import InputError
from harness.domain.reliability.rate_limits import (
    EvalLimits,
    RateLimit,
    RateState,
    admit_request,
    limit_statuses,
    settle_request,
)

START = RateState()
steps = st.lists(st.tuples(st.floats(0, 30), st.floats(0, 50)), max_size=60)


def test_a_request_that_one_limit_refuses_takes_nothing_of_the_other() -> None:
    limit = RateLimit(requests_per_min=60, tokens_per_min=100)
    state = admit_request(START, limit, 80, 0.0).state
    refused = admit_request(state, limit, 40, 0.0)

    assert refused.retry_after_s == pytest.approx(12.0)
    assert refused.reason == "this key's limit of 100 tokens per minute is used up"
    assert refused.state == state
    assert admit_request(refused.state, limit, 20, 0.0).allowed


def test_a_request_larger_than_the_limit_goes_alone_and_its_debt_is_waited_off() -> None:
    limit = RateLimit(tokens_per_min=400)
    first = admit_request(START, limit, 1000, 0.0)
    second = admit_request(first.state, limit, 1000, 1.0)

    assert first.allowed
    assert not second.allowed
    assert 1.0 + second.retry_after_s == pytest.approx(150.0)
    assert admit_request(second.state, limit, 1000, 1.0 + second.retry_after_s).allowed


def test_how_each_limit_stands_can_be_told() -> None:
    limit = RateLimit(60, 1000)
    state = admit_request(START, limit, 250, 100.0).state

    requests, tokens = limit_statuses(state, limit, 100.0)
    assert (requests.kind, requests.per_minute) == ("requests", 60)
    assert (requests.remaining, requests.reset_s) == pytest.approx((59, 1))
    assert (tokens.remaining, tokens.reset_s) == pytest.approx((750, 15))
    assert limit_statuses(state, RateLimit(), 100.0) == ()
    assert [status.remaining for status in limit_statuses(state, limit, 200.0)] == [60, 1000]


def test_tokens_are_settled_by_what_was_used() -> None:
    limit = RateLimit(tokens_per_min=100)
    state = admit_request(START, limit, 100, 0.0).state
    less = settle_request(state, limit, estimated=100, actual=10, now=0.0)
    more = settle_request(state, limit, estimated=100, actual=160, now=0.0)

    assert admit_request(less, limit, 90, 0.0).allowed
    assert not admit_request(less, limit, 91, 0.0).allowed
    assert admit_request(more, limit, 100, 0.0).retry_after_s == pytest.approx(96.0)
    assert settle_request(START, limit, estimated=50, actual=0, now=5.0).tokens_until == 5.0


@given(steps, st.floats(1, 100), st.floats(1, 100))
def test_no_more_is_let_through_than_a_minutes_worth_and_what_time_brings(
    steps: list[tuple[float, float]], requests: float, tokens: float
) -> None:
    limit, state, now = RateLimit(requests, tokens), START, 0.0
    gone, gone_tokens, largest = 0, 0.0, 0.0
    for seconds, amount in steps:
        now += seconds
        decision = admit_request(state, limit, amount, now)
        state = decision.state
        assert decision.allowed is (decision.retry_after_s == 0)
        if decision.allowed:
            gone, gone_tokens, largest = gone + 1, gone_tokens + amount, max(largest, amount)
        assert gone <= max(1.0, requests) + requests * now / 60 + 1e-6
        assert gone_tokens <= max(largest, tokens) + tokens * now / 60 + 1e-6


@given(steps, st.floats(1, 100), st.floats(1, 100))
def test_who_waits_as_long_as_told_gets_through_and_nobody_earlier(
    steps: list[tuple[float, float]], requests: float, tokens: float
) -> None:
    limit, state, now = RateLimit(requests, tokens), START, 0.0
    for seconds, amount in steps:
        now += seconds
        decision = admit_request(state, limit, amount, now)
        if not decision.allowed:
            wait = decision.retry_after_s
            assert math.isfinite(wait)
            early = admit_request(decision.state, limit, amount, now + wait * 0.99 - 1e-3)
            assert not early.allowed
            now += wait
            decision = admit_request(decision.state, limit, amount, now)
            assert decision.allowed
        state = decision.state


@pytest.mark.parametrize("field", ["requests_per_min", "tokens_per_min"])
@pytest.mark.parametrize("value", [0, 0.5, -1, math.nan, math.inf])
def test_a_limit_that_lets_nothing_through_is_refused(field: str, value: float) -> None:
    with pytest.raises(InputError, match=field):
        RateLimit(**{field: value})


@given(
    per_minute=st.integers(1, 300),
    pauses=st.lists(st.floats(0, 20), min_size=1, max_size=200),
)
def test_of_a_provider_no_minute_has_more_requests_than_its_limit(
    per_minute: int, pauses: list[float]
) -> None:
    """Whoever waits as long as told, then goes; a minute begins with any of the requests."""
    limit, state, now, went = EvalLimits(requests_per_min=per_minute).rate, START, 1000.0, []
    for pause in pauses:
        for _ in range(10):
            decision = admit_request(state, limit, 0, now)
            if not decision.allowed:
                now += decision.retry_after_s
                decision = admit_request(state, limit, 0, now)
            assert decision.allowed
            state = decision.state
            went.append(now)
        now += pause
    for number, at in enumerate(went):
        within = [time_s for time_s in went[number:] if time_s < at + 60 - 1e-4]
        assert len(within) <= per_minute


def test_a_provider_without_limits_holds_nothing_back() -> None:
    assert EvalLimits().rate.requests_per_min is None
    assert admit_request(START, EvalLimits().rate, 10**9, 0.0).allowed
