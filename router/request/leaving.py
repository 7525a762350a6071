"""Notes callers who leave before any output, and opens the circuit of a target that hangs.

The callers who still wait there then go to their next target. `dispatch` reports
each leave. The rule is in `harness.routing.reliability.caller_leaves`, the times of answers in
`attempts.TimeLimits`. The last target of a plan gets no limit, because no other target can
answer: an alert tells that it is silent (`router.health.worker_alerts`).
"""

from typing import Final

from harness.frame.failures import FailureClass
from harness.routing.reliability.caller_leaves import (
    Leave,
    Leaves,
    TargetUse,
    add_leave,
    shows_hang,
)
from router.frame.limits import TimeLimit
from router.health.target_health import TargetHealth
from router.health.target_users import TargetUsers
from router.request.attempts import FirstByteTimer, TimeLimits
from router.request.request_state import Attempt, RoutedRequest

Waiting = tuple[RoutedRequest, Attempt, FirstByteTimer | None, float]
_NO_LEAVES: Final[Leaves] = ()


class CallerLeaves:
    """The leaves of one worker's callers, for one event loop. Times are on its clock.

    waiting: the attempts under way by the limit of their wait, with the time of their begin.
    `dispatch` writes it for each attempt, because a call would cost more.
    """

    def __init__(self, health: TargetHealth, limits: TimeLimits, users: TargetUsers) -> None:
        self.waiting: dict[TimeLimit, Waiting] = {}
        self._users = users
        self._health = health
        self._limits = limits
        # By target, and whether it was the last of the caller's plan.
        self._leaves: dict[tuple[str, bool], Leaves] = {}

    def note(self, job: RoutedRequest, attempt: Attempt, began: float, now: float) -> None:
        """Notes that the caller of an attempt left, or that its own deadline ended.

        The target had sent no byte. The router's own requests do not count.
        """
        target = attempt.upstream.id
        is_last = target == job.plan.targets[-1] or job.plan.last_resort
        if attempt.check or not job.request_id:
            return
        if is_last and self._health.answered_within(target, now - began):
            return  # streams of a last target have no measured times
        policy = self._health.policy
        sticky_key, api_key = attempt.caller
        leaves = add_leave(
            self._leaves.get((target, is_last), _NO_LEAVES),
            Leave(began, now, sticky_key, api_key),
            self._limits.telling_s(job, attempt),
            policy,
        )
        self._leaves[target, is_last] = leaves
        answered_at, late_answers = self._limits.last_answers(target)
        target_use = TargetUse(answered_at, late_answers, frozenset())
        if not shows_hang(leaves, target_use, now, policy):
            return  # before the keys, which take longer to find
        # A canary has few callers, and one of them alone must not end it: there, the keys of
        # all requests count.
        is_guest = target == job.plan.guest
        keys = self._users.keys("" if is_guest else target, now - policy.window_s, now)
        if not shows_hang(leaves, target_use._replace(keys=keys), now, policy):
            return
        if is_last:
            self._health.note_silence(target)
            return
        del self._leaves[target, is_last]
        if self._health.open_circuit(target, FailureClass.TIMEOUT):
            self.move_on(target, now)

    def move_on(self, target: str, now: float, *, only_slow: bool = False) -> None:
        """Ends the waits of requests that have no output yet and have a next target.

        Args:
            only_slow: only the waits that have lasted longer than most answers take.
        """
        for limit, (job, attempt, head, began) in self.waiting.items():
            is_silent = head is None or head.at is None
            has_next = target != job.plan.targets[-1] and not job.plan.last_resort
            if attempt.upstream.id != target or attempt.check or not (is_silent and has_next):
                continue
            if only_slow and now - began < self._limits.telling_s(job, attempt):
                continue
            attempt.moved = True
            limit.when = now
