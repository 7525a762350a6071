"""Decides whether callers who leave a target show that the target hangs. Pure.

A caller who leaves before the first output is a failure of the target only together with other
callers: one person may stop a request for any reason. The rule reads the leaves of the last
minute, and the target's answers in that time.

`router.request.leaving` records the leaves and opens the circuit. The thresholds are those of
the circuit breaker (`BreakerPolicy`). Times are seconds on one clock.
"""

from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from harness.routing.reliability.breaker import BreakerPolicy

# At least this many callers must leave: one caller may hang up on purpose.
SEVERAL_CALLERS: Final = 2
# If several client keys use the target, at least this many of them must leave it.
SEVERAL_KEYS: Final = 2
# The most leaves of a target that the router keeps. Further leaves change no decision.
MOST_LEAVES: Final = 100


class Leave(NamedTuple):
    """A request whose caller left, or whose caller's own deadline ended, without any output.

    began, at: when the attempt began, and when it ended. caller: the sticky key, which names a
    person, an application or a conversation. key: the id of the client key.
    """

    began: float
    at: float
    caller: str
    key: str


class TargetUse(NamedTuple):
    """The other facts about a target at the time of a leave.

    answered_at: when it last answered a user in its usual time; minus infinity if never.
    late_answers: its answers since then, which all took longer.
    keys: the client keys that used it within the window.
    """

    answered_at: float
    late_answers: int
    keys: AbstractSet[str]


Leaves = tuple[Leave, ...]


def add_leave(
    leaves: Leaves,
    leave: Leave,
    telling_s: float,
    policy: BreakerPolicy,
) -> Leaves:
    """Returns the leaves of the window with the new one.

    Args:
        telling_s: the function ignores a shorter wait, because it is no evidence about the
            target.
    """
    if leave.at - leave.began < telling_s:
        return leaves
    since = leave.at - policy.window_s
    kept = tuple(earlier for earlier in leaves if earlier.at > since)
    return (*kept[1 - MOST_LEAVES :], leave)


def shows_hang(
    leaves: Leaves,
    use: TargetUse,
    now: float,
    policy: BreakerPolicy,
) -> bool:
    """Tells whether the leaves show that the target hangs for all callers.

    - A usual answer excuses the requests that began before it: the target works.
    - The other leaves reach the breaker's number, and its share of the requests that ended.
    - They come from several callers. If several client keys used the target, they come from
      several keys: one key that hangs up on purpose must not take the target from others.
    """
    since = now - policy.window_s
    telling_leaves = [
        leave for leave in leaves if leave.at > since and leave.began >= use.answered_at
    ]
    if len(telling_leaves) < policy.failures:
        return False
    if len(telling_leaves) < policy.share * (len(telling_leaves) + use.late_answers):
        return False
    keys = {leave.key for leave in telling_leaves}
    if len(keys) < SEVERAL_KEYS <= len(keys | use.keys):
        return False
    return len({(leave.caller, leave.key) for leave in telling_leaves}) >= SEVERAL_CALLERS
