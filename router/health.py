"""What this worker knows of each target's health: its breaker, and pauses asked for. No I/O."""

from collections.abc import Callable, Iterable

from harness.domain import breaker
from harness.domain.breaker import CLOSED, Breaker, BreakerPolicy, BreakerState, Ticket
from harness.domain.capabilities import Endpoint
from harness.domain.failures import FailureClass
from harness.domain.plan import Health, health_of


class TargetHealth:
    """By target id; who is not known is well. monotonic: seconds that never jump.
    on_move: told of a target and its breaker in its new state.

    Belongs to one event loop: nothing here waits, so no lock is needed.
    """

    def __init__(self, policy: BreakerPolicy, monotonic: Callable[[], float]) -> None:
        self.policy = policy
        self.on_move: Callable[[str, Breaker], None] | None = None
        self._monotonic = monotonic
        self._breakers: dict[str, Breaker] = {}
        self._paused_until: dict[str, float] = {}
        self._not_closed: set[str] = set()
        # When it last answered anybody, and at which endpoint.
        self.answered_at: dict[str, float] = {}
        self.spoken: dict[str, Endpoint] = {}

    def all_well(self, targets: Iterable[str]) -> bool:
        """Whether every one may be asked, without a look at the clock."""
        if self._not_closed or self._paused_until:
            return self._not_closed.isdisjoint(
                targets
            ) and self._paused_until.keys().isdisjoint(targets)
        return True

    def of(self, targets: Iterable[str]) -> dict[str, Health]:
        """For making a plan; takes no ticket."""
        now = self._monotonic()
        return {
            each: health_of(self._breaker(each), now, self.policy, self._pause_s(each, now))
            for each in targets
        }

    def state(self, target: str) -> BreakerState:
        return self._breaker(target).state

    def admit(self, target: str) -> Ticket | None:
        """A ticket for one attempt, to be settled whatever becomes of it; None: not now."""
        before = self._breaker(target)
        after, ticket = breaker.admit(before, self._monotonic(), self.policy)
        self._keep(target, before, after)
        return ticket

    def settle(self, target: str, ticket: Ticket, failure: FailureClass | None) -> None:
        """The attempt is over, a stream's at its end. failure: None for a success."""
        before, now = self._breaker(target), self._monotonic()
        if failure is None:
            self.answered_at[target] = now
        after = breaker.settle(before, ticket, failure, now, self.policy)
        self._keep(target, before, after)

    def pause(self, target: str, wait_s: float) -> None:
        """The provider asked for so much time; at most as long as a breaker is ever open."""
        until = self._monotonic() + min(wait_s, self.policy.open_max_s)
        self._paused_until[target] = max(until, self._paused_until.get(target, until))

    def renew(self, target: str) -> None:
        """Its provider's credential was changed: what was known of the old one is void."""
        before = self._breaker(target)
        self._keep(target, before, breaker.renewed(before))
        self._paused_until.pop(target, None)

    def _breaker(self, target: str) -> Breaker:
        return self._breakers.get(target, CLOSED)

    def _keep(self, target: str, before: Breaker, after: Breaker) -> None:
        if after is before:
            return
        self._breakers[target] = after
        if after.state is BreakerState.CLOSED:
            self._not_closed.discard(target)
        else:
            self._not_closed.add(target)
        if after.state is not before.state and self.on_move is not None:
            self.on_move(target, after)

    def _pause_s(self, target: str, now: float) -> float:
        until = self._paused_until.get(target)
        if until is None:
            return 0.0
        if until <= now:
            del self._paused_until[target]
            return 0.0
        return until - now
