"""Target health keeps each target's circuit breaker, pause and latest answers. No I/O.

It also says when a health check is due (B10). A target that users ask proves itself; a check
that fails opens no circuit while users find the target well. Times are monotonic seconds.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from harness.frame.failures import FAILURE_RULES, BreakerEffect, FailureClass
from harness.providers.models.capabilities import Endpoint
from harness.routing.plan import TargetAvailability, target_availability
from harness.routing.reliability import breaker
from harness.routing.reliability.breaker import (
    BUCKETS,
    CLOSED_BREAKER,
    Breaker,
    BreakerPolicy,
    BreakerState,
    Ticket,
)
from router.frame.failure import ProviderWords
from router.snapshot.compiled import CompiledSnapshot

# Between the good probes that close a circuit.
PROBE_EVERY_S: Final = 2.0
# After a check that failed: five of them within a minute open the circuit, and raise its alert.
SUSPECT_EVERY_S: Final = 10.0
# How long a user's good answer outweighs checks that fail, unless a user's request fails.
USER_EVIDENCE_S: Final = 300.0
# New targets come with a revision, and circuits open: nobody sleeps longer than this.
MAX_SLEEP_S: Final = 1.0


class HealthCheckState(NamedTuple):
    state: BreakerState
    retry_in_s: float  # until a request may go
    answered_at: float  # of the last good answer, whoever asked
    checked_at: float  # of the last check; both the worker's start where there was none
    well: bool = True  # the last check was answered, or there was none
    suspect: bool = False  # it met with a fault of the target's
    busy: bool = False  # a user's request is under way there


def check_due_in_s(state: HealthCheckState, now: float, interval_s: float) -> float:
    """Seconds until the next check, 0 for now; never with an interval of 0."""
    if interval_s <= 0:
        return math.inf
    if state.busy:
        return MAX_SLEEP_S
    if state.state is BreakerState.CLOSED:
        doubtful = state.suspect and state.answered_at <= state.checked_at
        every_s = min(SUSPECT_EVERY_S, interval_s) if doubtful else interval_s
        wait_s = max(state.answered_at, state.checked_at) + every_s - now
    else:
        # A probe that proved nothing, such as a refusal of the check itself, is not hurried.
        every_s = PROBE_EVERY_S if state.well else interval_s
        if state.suspect:
            every_s = SUSPECT_EVERY_S
        every_s = min(every_s, interval_s)
        wait_s = state.checked_at + every_s - now
    return max(0.0, wait_s, state.retry_in_s)


def due_targets(
    targets: Mapping[str, HealthCheckState], now: float, interval_s: float
) -> tuple[str, ...]:
    able = [
        id_ for id_, target in targets.items() if check_due_in_s(target, now, interval_s) <= 0
    ]
    return tuple(sorted(able, key=lambda name: targets[name].checked_at))


def next_check_in_s(
    targets: Mapping[str, HealthCheckState], now: float, interval_s: float
) -> float:
    waits = (check_due_in_s(target, now, interval_s) for target in targets.values())
    return min((*waits, MAX_SLEEP_S))


# Longer than this no provider's word is kept.
LONGEST_PAUSE_S: Final = 86_400.0
# So many callers, none answered in between, meet with what one caller's request may bring about
# before it counts (`FailureRule.several_callers`).
SEVERAL_CALLERS: Final = 3
# Of the candidate of a live canary, at most, until another caller is let through its open
# circuit: the canary's evidence is what it does to those, and the incumbent answers them.
CANDIDATE_TRICKLE_S: Final = 2.0
# Up to Python 3.11, to find a member in its class takes ten times as long.
_CLOSED: Final = BreakerState.CLOSED


class TargetHealth:
    """Knows targets by id; an unknown one is well. on_move: hears of a breaker's new state;
    on_pause: of pauses longer than a breaker is ever open. No lock: one event loop has it.
    """

    def __init__(self, policy: BreakerPolicy, monotonic: Callable[[], float]) -> None:
        self.policy = policy
        trickle_s = min(policy.trickle_s, CANDIDATE_TRICKLE_S)
        self._policy_of_candidates = replace(policy, trickle_s=trickle_s)
        self._candidates: frozenset[str] = frozenset()
        # By target: how its last attempt failed, for the words of an alert.
        self.failures: dict[str, ProviderWords] = {}
        self.on_move: Callable[[str, Breaker], None] | None = None
        self.on_pause: Callable[[str, float], None] | None = None
        self._monotonic = monotonic
        self._breakers: dict[str, Breaker] = {}
        # By target, the bucket of the window that now is, and the successes in it which its
        # breaker, a closed one, does not have yet: most requests need no new breaker.
        self._successes: dict[str, list[int]] = {}
        self._paused_until: dict[str, float] = {}
        self.not_closed: set[str] = set()
        # When it last answered anybody, and at which endpoint.
        self.answered_at: dict[str, float] = {}
        self.spoken: dict[str, Endpoint] = {}
        # Where a user's request last failed of what counts: of a circuit that is not closed,
        # where it opened.
        self.failed_at: dict[str, Endpoint] = {}
        self._under_way: Counter[str] = Counter()  # of users' requests
        # By target, whom it refused since it last answered, as `counts_for_all` has it.
        self._refused: dict[str, set[object]] = {}
        self._found_well_at: dict[str, float] = {}  # by the last of them that was answered

    def all_well(self, targets: Iterable[str]) -> bool:
        """Whether every one may be asked, without a look at the clock."""
        if self.not_closed or self._paused_until:
            return self.not_closed.isdisjoint(targets) and self._paused_until.keys().isdisjoint(
                targets
            )
        return True

    def readiness(self, targets: Iterable[str]) -> dict[str, TargetAvailability]:
        now = self._monotonic()
        return {
            target: target_availability(
                self._breaker(target), now, self.policy, self._pause_s(target, now)
            )
            for target in targets
        }

    def state(self, target: str) -> BreakerState:
        return self._breaker(target).state

    def admit(self, target: str) -> Ticket | None:
        """Gives a ticket for one attempt, to be settled in any case; None: not now."""
        before = self._breakers.get(target, CLOSED_BREAKER)
        if before.state is _CLOSED:
            return before.serial  # as `breaker.admit` has it
        after, ticket = breaker.admit(before, self._monotonic(), self.policy)
        self._keep(target, before, after)
        return ticket

    def begin(self, target: str) -> None:
        self._under_way[target] += 1

    def end(self, target: str) -> None:
        self._under_way[target] -= 1

    def answered(self, target: str, ticket: Ticket, endpoint: Endpoint) -> None:
        """Does what `end`, `judge` and `settle` do of a success, one after the other."""
        self._under_way[target] -= 1
        self.spoken[target] = endpoint
        if self._refused:
            self._refused.pop(target, None)
        now = self._found_well_at[target] = self._monotonic()
        before = self._breakers.get(target, CLOSED_BREAKER)
        if before.state is not _CLOSED or before.serial != ticket:
            self.settle(target, ticket, None)
            return
        self.answered_at[target] = now
        number = int(now * BUCKETS // self.policy.window_s)  # as `breaker.bucket_number` has it
        successes = self._successes.get(target)
        if successes is None or successes[0] != number:
            self._enter_successes(target)
            successes = self._successes[target] = [number, 0]
        successes[1] += 1

    def counts_for_all(self, target: str, caller: object) -> bool:
        """Notes a failure; tells whether SEVERAL_CALLERS met it in a row."""
        refused = self._refused.setdefault(target, set())
        refused.add(caller)
        return len(refused) >= SEVERAL_CALLERS

    def judge(self, target: str, failure: FailureClass | None, endpoint: Endpoint) -> None:
        if failure is None:
            self._found_well_at[target] = self._monotonic()
        elif FAILURE_RULES[failure].breaker is not BreakerEffect.NEUTRAL:
            self._found_well_at.pop(target, None)
            self.failed_at[target] = endpoint

    def busy(self, target: str) -> bool:
        return self._under_way[target] > 0

    def users_find_well(self, target: str) -> bool:
        """Tells whether a user's good answer outweighs checks that fail."""
        at = self._found_well_at.get(target)
        return at is not None and self._monotonic() < at + USER_EVIDENCE_S

    def settle(self, target: str, ticket: Ticket, failure: FailureClass | None) -> None:
        """The attempt is over, a stream's at its end. failure: None for a success."""
        before, now = self._breaker(target), self._monotonic()
        if failure is None:
            self.answered_at[target] = now
            self._refused.pop(target, None)
        policy = self._policy_of_candidates if target in self._candidates else self.policy
        after = breaker.settle(before, ticket, failure, now, policy)
        self._keep(target, before, after)

    def note_candidates(self, serving: CompiledSnapshot) -> None:
        routes = serving.routes.values()
        self._candidates = frozenset(
            route.experiment.target for route in routes if route.experiment is not None
        )

    def pause(self, target: str, wait_s: float) -> None:
        until = self._monotonic() + min(wait_s, LONGEST_PAUSE_S)
        before = self._paused_until.get(target)
        if before is not None and before >= until:
            return
        self._paused_until[target] = until
        if wait_s > self.policy.open_max_s and self.on_pause is not None:
            self.on_pause(target, min(wait_s, LONGEST_PAUSE_S))

    def pause_s(self, target: str) -> float:
        """What is left of the time that its provider asked for; 0 for none."""
        return self._pause_s(target, self._monotonic())

    def renew(self, target: str) -> None:
        before = self._breaker(target)
        self._keep(target, before, breaker.reset_after_new_key(before))
        self._paused_until.pop(target, None)

    def reopen(self, target: str) -> None:
        before = self._breaker(target)
        self._keep(target, before, breaker.reset_breaker(before))
        self._paused_until.pop(target, None)

    def _breaker(self, target: str) -> Breaker:
        if target in self._successes:
            self._enter_successes(target)
        return self._breakers.get(target, CLOSED_BREAKER)

    def _enter_successes(self, target: str) -> None:
        successes = self._successes.pop(target, None)
        if successes is not None:
            before = self._breakers.get(target, CLOSED_BREAKER)
            self._breakers[target] = breaker.count_successes(before, *successes)

    def _keep(self, target: str, before: Breaker, after: Breaker) -> None:
        if after is before:
            return
        self._breakers[target] = after
        if after.state is BreakerState.CLOSED:
            self.not_closed.discard(target)
        else:
            self.not_closed.add(target)
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
