"""Which of a provider's keys is used: the first one that does not rest (docs/router.md). Pure.

A key rests when the provider refuses it, and for as long as the provider asks when it reached
a limit. Times are monotonic seconds.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Final, TypeVar

from harness.domain.reliability.failures import FAILURE_RULES, FailureClass

Key = TypeVar("Key", bound=Hashable)
# A key that was refused is seldom mended at once; and one try in so long costs nothing.
REFUSED_S: Final = 300.0
# Of a limit without Retry-After.
LIMITED_S: Final = 5.0
MAX_REST_S: Final = 900.0


def key_rest_s(failure: FailureClass, told_s: float | None) -> float | None:
    """How long a key is left alone after this failure; None when it is not about the key.

    told_s: of `retry.retry_after_s`.
    """
    if not FAILURE_RULES[failure].other_key:
        return None
    if failure is FailureClass.RATE_LIMITED:
        return min(told_s or LIMITED_S, MAX_REST_S)
    return min(max(told_s or 0.0, REFUSED_S), MAX_REST_S)


def rested_keys(
    keys: Sequence[Key], resting_until: Mapping[Key, float], now: float
) -> tuple[Key, ...]:
    """Those that may be used, in order."""
    return tuple(each for each in keys if resting_until.get(each, now) <= now)


def choose_key(keys: Sequence[Key], resting_until: Mapping[Key, float], now: float) -> Key:
    """The key to use; when all rest, the one that is back soonest. keys: at least one."""
    able = rested_keys(keys, resting_until, now)
    return able[0] if able else min(keys, key=lambda each: resting_until[each])
