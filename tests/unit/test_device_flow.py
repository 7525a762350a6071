"""A person signs in on another screen: what is waited for, and how it ends."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.providers.oauth_tokens import (
    MAX_WAIT_S,
    MIN_INTERVAL_S,
    SLOW_DOWN_S,
    DeviceCode,
    FlowEnded,
    FlowGranted,
    FlowWaiting,
    OAuthTokens,
    PollAnswer,
    advance_flow,
    begin_flow,
)

pytestmark = pytest.mark.req("D2", "D7")
CODE = DeviceCode("secret-code", "WDJB-MJHT", "https://vendor.example/device", 900.0, 5.0)
TOKENS = OAuthTokens("secret-access", "secret-refresh", 600.0)
GOES_ON = (PollAnswer.PENDING, PollAnswer.SLOW_DOWN, PollAnswer.UNREACHABLE)


def waiting(answer: PollAnswer, now: float = 5.0) -> FlowWaiting:
    state = advance_flow(begin_flow(CODE, 0.0), answer, now)
    assert isinstance(state, FlowWaiting)
    return state


def test_the_server_is_asked_at_the_interval_that_it_tells() -> None:
    assert begin_flow(CODE, 100.0).ask_at == 105.0
    assert waiting(PollAnswer.PENDING).ask_at == 10.0


def test_slow_down_adds_five_seconds_for_good() -> None:
    slower = waiting(PollAnswer.SLOW_DOWN)
    pending = advance_flow(slower, PollAnswer.PENDING, 15.0)

    assert (slower.interval_s, slower.ask_at) == (10.0, 15.0)
    assert isinstance(pending, FlowWaiting)
    assert pending.ask_at == 25.0


def test_who_cannot_be_reached_is_asked_less_and_less() -> None:
    assert waiting(PollAnswer.UNREACHABLE).interval_s == 10.0


def test_consent_counts_also_when_it_comes_at_the_very_end() -> None:
    assert advance_flow(begin_flow(CODE, 0.0), TOKENS, 900.0) == FlowGranted(TOKENS)


def test_nothing_shows_a_secret() -> None:
    said = repr((begin_flow(CODE, 0.0), FlowGranted(TOKENS)))

    assert "secret" not in said
    assert "WDJB-MJHT" in said


@given(st.lists(st.sampled_from(GOES_ON), max_size=60), st.floats(0, 1e9), st.floats(0, 1e9))
def test_it_ends_in_its_time_and_is_never_asked_without_a_pause(
    answers: list[PollAnswer], life_s: float, interval_s: float
) -> None:
    state = begin_flow(replace(CODE, expires_in_s=life_s, interval_s=interval_s), 0.0)
    now = 0.0
    for answer in answers:
        assert state.ask_at <= state.ends_at <= MAX_WAIT_S
        assert state.ask_at == state.ends_at or state.ask_at >= now + MIN_INTERVAL_S
        now = state.ask_at
        flow_state = advance_flow(state, answer, now)
        if isinstance(flow_state, FlowEnded):
            assert (flow_state.because, now) == (PollAnswer.EXPIRED, state.ends_at)
            return
        assert isinstance(flow_state, FlowWaiting)
        slower = SLOW_DOWN_S if answer is PollAnswer.SLOW_DOWN else 0.0
        assert flow_state.interval_s >= state.interval_s + slower
        state = flow_state
