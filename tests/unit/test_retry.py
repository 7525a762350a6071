from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.errors import InputError
from harness.frame.failures import FAILURE_RULES, FailureClass, SameTarget
from harness.routing.reliability.rate_headers import used_up_for_s
from harness.routing.reliability.retry import (
    RetryBudget,
    RetryPolicy,
    backoff_s,
    fits_budget,
    retry_after_s,
    retry_wait_s,
)

pytestmark = pytest.mark.req("A5")

F = FailureClass
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
POLICY = RetryPolicy()
LONG = RetryBudget(60.0)
uniforms = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 7 "}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "+2."}, 2.0),
        ({"retry-after": ".5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:09 GMT"}, 9.0),
        ({"retry-after": "Sunday, 01-Mar-26 12:00:09 GMT"}, 9.0),
        ({"retry-after": "Sun Mar  1 12:00:09 2026"}, 9.0),
        ({"retry-after": "Sun, 01 Mar 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"x-ms-retry-after-ms": "250"}, 0.25),
        ({"retry-after": "1", "retry-after-ms": "1500"}, 1.5),
        (
            {
                "retry-after": "2",
                "retry-after-ms": "1500",
                "x-ms-retry-after-ms": "9",
            },
            2.0,
        ),
        ({"retry-after": "soon", "retry-after-ms": "1500"}, 1.5),
    ],
)
def test_a_providers_wait_is_read_in_every_form_and_the_largest_counts(
    headers: dict[str, str], expected: float
) -> None:
    assert retry_after_s(headers, NOW) == expected


OPENAI = "x-ratelimit-{}-tokens"
ANTHROPIC = "anthropic-ratelimit-tokens-{}"


@pytest.mark.parametrize(
    ("form", "remaining", "reset", "expected"),
    [
        (OPENAI, "0", "1m0.5s", 60.5),
        (OPENAI, "0", "20ms", 0.02),
        (OPENAI, "1", "1m0.5s", 0.0),
        (OPENAI, "0", "soon", 0.0),
        (OPENAI, "0", "", 0.0),
        (ANTHROPIC, "0", "2026-03-01T12:00:09Z", 9.0),
        (ANTHROPIC, "0", "2026-03-01T11:00:00Z", 0.0),
        (ANTHROPIC, "0", "2026-03-01T12:00:09", 0.0),
    ],
)
def test_a_rate_that_headers_call_used_up_is_waited_for(
    form: str,
    remaining: str,
    reset: str,
    expected: float,
) -> None:
    headers = {
        form.format("remaining"): remaining,
        form.format("reset"): reset,
    }
    assert used_up_for_s(headers, NOW) == expected
    assert used_up_for_s({form.format("remaining"): remaining}, NOW) == 0.0


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "soon",
        "nan",
        "inf",
        "-inf",
        "1e3",
        "1_0",
        "٣",
        "7 s",
        "0x10",
        "--1",
        "1.2.3",
        "Sun, 99 Foo 2026 1:1:1 GMT",
        "Mon, 01 Jan 99999 00:00:00 GMT",
        "9" * 400,
        "Sun, 01 Mar 2026 12:00:09 +9999999",
        ".",
    ],
)
def test_garbage_is_no_wait(garbage: str) -> None:
    assert retry_after_s({"retry-after": garbage}, NOW) is None
    assert retry_after_s({"retry-after-ms": garbage}, NOW) is None


def test_no_header_is_no_wait_and_milliseconds_are_no_date() -> None:
    assert retry_after_s({}, NOW) is None
    assert retry_after_s({"retry-after-ms": "Sun, 01 Mar 2026 12:00:09 GMT"}, NOW) is None


@given(st.text(max_size=80))
def test_any_header_is_read_without_an_error_and_no_wait_is_negative(text: str) -> None:
    wait = retry_after_s({"retry-after": text, "x-ms-retry-after-ms": text}, NOW)

    assert wait is None or 0 <= wait < 1e65


def test_the_bound_doubles_from_the_base_up_to_the_cap() -> None:
    bounds = [backoff_s(tries, 1.0, POLICY) for tries in range(1, 8)]

    assert bounds == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert backoff_s(3, 0.5, POLICY) == 0.5


def test_of_a_small_share_half_is_enough_for_another_attempt() -> None:
    assert fits_budget(0.0, RetryBudget(0.3, share_s=0.6), POLICY)
    assert not fits_budget(0.0, RetryBudget(0.29, share_s=0.6), POLICY)
    assert not fits_budget(0.0, RetryBudget(0.9, share_s=60.0), POLICY)


def wait_s(
    failure: F,
    room: RetryBudget = LONG,
    *,
    tries: int = 1,
    told_s: float | None = None,
    uniform: float = 0.5,
) -> float | None:
    return retry_wait_s(
        failure,
        tries=tries,
        retry_after_s=told_s,
        uniform=uniform,
        room=room,
    )


@pytest.mark.parametrize("failure", list(F))
def test_a_target_is_asked_again_as_its_class_says(failure: F) -> None:
    expected = {
        SameTarget.NEVER: None,
        SameTarget.ONCE: 0.0,
        SameTarget.BACKOFF: 0.125,
        SameTarget.RETRY_AFTER: 0.125,
    }[FAILURE_RULES[failure].same_target]

    assert wait_s(failure) == expected
    assert wait_s(failure, tries=2) is None


def test_a_wait_that_the_provider_asked_for_is_kept_if_it_fits_and_else_not_made() -> None:
    assert wait_s(F.RATE_LIMITED, told_s=20.0) == 20.0
    assert wait_s(F.OVERLOADED, told_s=20.0) == 20.0
    assert wait_s(F.RATE_LIMITED, told_s=59.0) == 59.0
    assert wait_s(F.RATE_LIMITED, told_s=59.1) is None
    assert wait_s(F.RATE_LIMITED, told_s=0.01) == 0.125
    assert wait_s(F.SERVER, RetryBudget(0.9)) is None


def test_while_another_target_stands_by_no_wait_is_long() -> None:
    watched = RetryBudget(60.0, standby=True)

    assert wait_s(F.RATE_LIMITED, watched, told_s=2.0) == 2.0
    assert wait_s(F.RATE_LIMITED, watched, told_s=2.1) is None
    assert wait_s(F.OVERLOADED, watched, told_s=2.1) is None
    assert wait_s(F.RATE_LIMITED, told_s=2.1) == 2.1


def test_only_classes_with_a_backoff_use_more_tries_and_one_try_is_one_for_all() -> None:
    patient = RetryPolicy(tries_per_target=4)
    hasty = RetryPolicy(tries_per_target=1)

    def wait(
        failure: F,
        tries: int,
        policy: RetryPolicy,
    ) -> float | None:
        return retry_wait_s(
            failure,
            tries=tries,
            retry_after_s=None,
            uniform=1.0,
            room=RetryBudget(60.0),
            policy=policy,
        )

    assert [wait(F.OVERLOADED, tries, patient) for tries in (1, 2, 3, 4)] == [
        0.25,
        0.5,
        1,
        None,
    ]
    assert [wait(F.SERVER, tries, patient) for tries in (1, 2)] == [0.0, None]
    assert {wait(failure, 1, hasty) for failure in F} == {None}


@given(
    failure=st.sampled_from(F),
    tries=st.integers(1, 9),
    told_s=st.none() | st.floats(0, 1e6),
    uniform=uniforms,
    room=st.builds(RetryBudget, st.floats(-10, 1000), st.floats(0, 1000), st.booleans()),
)
def test_no_wait_is_shorter_than_told_or_longer_than_the_budget(
    failure: F,
    tries: int,
    told_s: float | None,
    uniform: float,
    room: RetryBudget,
) -> None:
    wait = wait_s(
        failure,
        room,
        tries=tries,
        told_s=told_s,
        uniform=uniform,
    )

    if wait is not None:
        assert (told_s or 0.0) <= wait
        assert wait + min(POLICY.attempt_s, room.share_s / 2) <= room.left_s
        assert wait <= POLICY.max_wait_s or not room.standby


def test_a_policy_whose_later_pauses_are_shorter_is_refused() -> None:
    with pytest.raises(InputError, match=r"^retry: "):
        RetryPolicy(cap_s=0.1)
