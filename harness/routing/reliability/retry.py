"""Decides whether and when the router calls the same target again.

Pure: `uniform` is a number in [0, 1), times are seconds. `harness.routing.plan` decides whether
another target follows. `FAILURE_RULES` has the rules by class of failure.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple, assert_never

from harness.frame.configuration.setting import DAY_S, Range, number
from harness.frame.errors import InputError
from harness.frame.failures import FAILURE_RULES, FailureClass, SameTarget

# The number of units in a second, by header.
_UNITS_PER_SECOND: Final[Mapping[str, float]] = {
    "retry-after": 1.0,
    "retry-after-ms": 1000.0,
    "x-ms-retry-after-ms": 1000.0,
}
# Stricter than float(), which accepts "1_0", "infinity" and digits of any script.
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)
_LONGEST: Final = 64


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long requests retry. Raises InputError if base_s is above cap_s; the
    configuration's reader checks the ranges.
    """

    base_s: float = number(
        0.25,
        "Longest first pause; the limit doubles with each try.",
        Range(0, DAY_S),
    )
    cap_s: float = number(
        8.0,
        "Longest later pause; pauses are random below their limit.",
        Range(0, DAY_S),
    )
    tries_per_target: int = number(
        2,
        "Tries at one target within one request.",
        Range(1, 1_000),
    )
    attempts: int = number(6, "Tries of one request, over all targets.", Range(1, 1_000))
    attempt_s: float = number(
        1.0,
        "Another attempt needs this much time left, or half of the target's time, if less.",
        Range(0, DAY_S),
    )
    max_wait_s: float = number(
        2.0,
        "Longest wait while another target is available.",
        Range(0, DAY_S),
    )

    def __post_init__(self) -> None:
        if self.base_s > self.cap_s:
            raise InputError(f"retry: base_s ({self.base_s}) is above cap_s ({self.cap_s})")


DEFAULT_RETRY: Final = RetryPolicy()


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Parses the pause in seconds that a provider requests; None without a valid header.

    Reads `retry-after` (seconds or HTTP date), `retry-after-ms` and `x-ms-retry-after-ms`; the
    longest pause counts.

    Args:
        headers: look-up ignores case, or names are lower case.
        now: aware.
    """
    waits = [
        wait
        for name, per_second in _UNITS_PER_SECOND.items()
        if (text := headers.get(name)) is not None
        and (wait := _wait_s(text.strip(), per_second, now)) is not None
    ]
    return max(waits, default=None)


def _wait_s(
    text: str,
    per_second: float,
    now: datetime,
) -> float | None:
    """Parses one header's value in seconds; None if it is not valid."""
    if len(text) > _LONGEST:
        return None
    if _NUMBER.fullmatch(text):
        return max(0.0, float(text) / per_second)
    if per_second != 1.0:
        return None
    try:
        retry_at = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    if retry_at.tzinfo is None:
        retry_at = retry_at.replace(tzinfo=UTC)
    return max(0.0, (retry_at - now).total_seconds())


def backoff_s(
    tries: int,
    uniform: float,
    policy: RetryPolicy = DEFAULT_RETRY,
) -> float:
    """Computes the wait after `tries` tries: uniform up to `base_s * 2^(tries - 1)`, at most
    cap_s.

    Args:
        uniform: a random number in [0, 1).

    Source: Brooker 2015, "Exponential Backoff And Jitter" (AWS), full jitter.
    """
    # Bounded, because 2.0 ** 1024 overflows; the cap applies long before.
    exponent = min(tries - 1, 60)
    return uniform * min(policy.cap_s, policy.base_s * math.ldexp(1.0, exponent))


class RetryBudget(NamedTuple):
    """The time that a request has left for one target, in seconds."""

    # left_s: the rest of share_s. share_s: the target's time, without the time reserved for
    # further targets.
    left_s: float
    share_s: float = math.inf
    standby: bool = False  # a further target is healthy


def fits_budget(
    wait_s: float,
    room: RetryBudget,
    policy: RetryPolicy = DEFAULT_RETRY,
) -> bool:
    """Tells whether the remaining time allows an attempt. False for a long wait if another
    target is ready.
    """
    if room.standby and wait_s > policy.max_wait_s:
        return False
    return wait_s + min(policy.attempt_s, room.share_s / 2) <= room.left_s


def retry_wait_s(
    failure: FailureClass,
    *,
    tries: int,
    retry_after_s: float | None,
    uniform: float,
    room: RetryBudget,
    policy: RetryPolicy = DEFAULT_RETRY,
) -> float | None:
    """Returns the seconds until the router calls the same target again; None if it does not.

    Args:
        tries: calls of this target so far, at least 1.
        retry_after_s: the pause that the provider requested; None without one.
        uniform: a random number in [0, 1), which the caller draws.
        room: the time that is left for this target.

    The pause is the longer one of the provider's and the backoff's.
    """
    rule = FAILURE_RULES[failure].same_target
    match rule:
        case SameTarget.NEVER:
            return None
        case SameTarget.ONCE:
            max_tries = 2
            wait_s = 0.0
        case SameTarget.BACKOFF | SameTarget.RETRY_AFTER:
            max_tries = policy.tries_per_target
            wait_s = backoff_s(tries, uniform, policy)
        case _:
            assert_never(rule)
    wait_s = max(wait_s, retry_after_s or 0.0)
    if tries >= min(max_tries, policy.tries_per_target) or not fits_budget(
        wait_s, room, policy
    ):
        return None
    return wait_s
