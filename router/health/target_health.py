"""Target health keeps each target's circuit breaker, slowdown and latest answers.

It also decides when a health check is due. A target that answers users needs no check, a
target whose users only wait needs one. A failed check opens no circuit while users get good
answers.
Times are monotonic seconds.
The breaker's rules are in `harness.routing.reliability.breaker`; `router.request.settlement`
records the attempts, `router.observers.health_checks` makes the checks.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from harness.frame.failures import FAILURE_RULES, BreakerEffect, FailureClass
from harness.frame.ports import RateBook
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
from router.health.shared_evidence import SharedEvidence
from router.health.slowdowns import Slowdowns
from router.recording.shared_files import SharedMarks
from router.snapshot.compiled import CompiledSnapshot

# The pause between the good probes that close a circuit.
PROBE_EVERY_S: Final = 2.0
# The pause after a failed check: five within a minute open the circuit and raise its alert.
SUSPECT_EVERY_S: Final = 10.0
# How long a user's good answer outweighs failed checks, unless a user's request fails.
USER_EVIDENCE_S: Final = 300.0
# The longest sleep between checks, because new targets come and circuits open.
MAX_SLEEP_S: Final = 1.0


class HealthCheckState(NamedTuple):
    """The state of a target, as the schedule of health checks needs it."""

    state: BreakerState
    retry_in_s: float  # until the target may get a request
    answered_at: float  # when the last good answer came
    checked_at: float  # when the last check began; both are initially the worker's start
    well: bool = True  # False if the last check got no answer
    suspect: bool = False  # the last check met a fault of the target


def check_due_in_s(
    state: HealthCheckState,
    now: float,
    interval_s: float,
) -> float:
    """Returns the seconds until the next check: 0 for now, infinity if the interval is 0."""
    if interval_s <= 0:
        return math.inf
    if state.state is BreakerState.CLOSED:
        is_doubtful = state.suspect and state.answered_at <= state.checked_at
        every_s = min(SUSPECT_EVERY_S, interval_s) if is_doubtful else interval_s
        wait_s = max(state.answered_at, state.checked_at) + every_s - now
    else:
        # If a probe got no answer, do not repeat it early.
        every_s = PROBE_EVERY_S if state.well else interval_s
        if state.suspect:
            every_s = SUSPECT_EVERY_S
        every_s = min(every_s, interval_s)
        wait_s = state.checked_at + every_s - now
    return max(0.0, wait_s, state.retry_in_s)


def due_targets(
    targets: Mapping[str, HealthCheckState],
    now: float,
    interval_s: float,
) -> tuple[str, ...]:
    """Returns the targets whose check is due, the least recently checked target first.

    Args:
        interval_s: the time between checks of a healthy target without users; 0 for no checks.
    """
    due = [
        id_ for id_, target in targets.items() if check_due_in_s(target, now, interval_s) <= 0
    ]
    return tuple(sorted(due, key=lambda name: targets[name].checked_at))


def next_check_in_s(
    targets: Mapping[str, HealthCheckState],
    now: float,
    interval_s: float,
) -> float:
    """Returns the seconds until the next check of any target, at most MAX_SLEEP_S."""
    waits = (check_due_in_s(target, now, interval_s) for target in targets.values())
    return min((*waits, MAX_SLEEP_S))


# How long a target counts as silent after the last caller who left it.
SILENT_S: Final = 120.0
# One caller's request alone may cause a failure that reaches this request (`Reach.REQUEST`).
# Such a failure counts only after this many callers in a row got it.
SEVERAL_CALLERS: Final = 3
# A live canary's open circuit lets a caller through after this time at most, because callers
# are its evidence. If it fails, the incumbent answers them.
CANDIDATE_TRICKLE_S: Final = 2.0
# Up to Python 3.11, to find a member in its class takes ten times as long.
_CLOSED: Final = BreakerState.CLOSED


class _Successes:
    """Counts the successes of a target with a closed circuit in one bucket of the window.

    number: of the bucket, which lasts until until_s. ticket: of the closed circuit.
    """

    __slots__ = ("count", "number", "ticket", "until_s")

    def __init__(self, number: int, until_s: float, ticket: Ticket) -> None:
        self.number = number
        self.until_s = until_s
        self.ticket = ticket
        self.count = 0


class TargetHealth:
    """Keeps the health of targets by id; an unknown target is well. For one event loop.

    on_move: called with a breaker's new state.
    on_pause: called for kept pauses longer than a breaker may stay open.
    book: the turns of slowed targets, and until when users' good answers count. marks: which
    target has served which endpoint. All workers of the machine share both.
    """

    def __init__(
        self,
        policy: BreakerPolicy,
        monotonic: Callable[[], float],
        book: RateBook,
        marks: SharedMarks,
    ) -> None:
        self.policy = policy
        trickle_s = min(policy.trickle_s, CANDIDATE_TRICKLE_S)
        self._candidate_policy = replace(policy, trickle_s=trickle_s)
        self._candidates: frozenset[str] = frozenset()
        # How each target's last attempt failed, for the text of an alert.
        self.failures: dict[str, ProviderWords] = {}
        self.on_move: Callable[[str, Breaker], None] | None = None
        self.on_pause: Callable[[str, float], None] | None = None
        self._monotonic = monotonic
        self._shared = SharedEvidence(book, marks)
        self.slowdowns = Slowdowns(monotonic, book)
        self.slowdowns.on_pause = self._note_pause
        self._slowed = self.slowdowns.slowed
        self._breakers: dict[str, Breaker] = {}
        # By target: the successes that its breaker does not have yet. Counting them here spares
        # most requests a new breaker.
        self._successes: dict[str, _Successes] = {}
        self.not_closed: set[str] = set()
        # When each target last answered, and at which endpoint.
        self.answered_at: dict[str, float] = {}
        self.spoken: dict[str, Endpoint] = {}
        # The endpoint of users' last failure that counts; for an open circuit, where it opened.
        self.failed_at: dict[str, Endpoint] = {}
        # For `fails_several_callers`: each target's refused callers since its last answer.
        self._refused_callers: dict[str, set[object]] = {}
        # When a user of this worker last got an answer.
        self._good_answer_at: dict[str, float] = {}
        # When callers last left a target that no other one follows in their plan.
        self._silent_at: dict[str, float] = {}

    def all_well(self, targets: Iterable[str]) -> bool:
        """Returns whether all targets are available, without reading the clock."""
        if self.not_closed or self._slowed:
            return self.not_closed.isdisjoint(targets) and self._slowed.keys().isdisjoint(
                targets
            )
        return True

    def readiness(self, targets: Iterable[str]) -> dict[str, TargetAvailability]:
        """Returns for each target when it may get a request: now, or after its breaker,
        pause or turn.
        """
        now = self._monotonic()
        return {
            target: target_availability(
                self._read_breaker(target),
                now,
                self.policy,
                self.slowdowns.current(target, now),
            )
            for target in targets
        }

    def state(self, target: str) -> BreakerState:
        return self._read_breaker(target).state

    def admit(self, target: str) -> Ticket | None:
        """Returns a ticket for one attempt, which the caller must settle; None if refused."""
        before = self._breakers.get(target, CLOSED_BREAKER)
        if before.state is _CLOSED:
            return before.serial  # same as `breaker.admit`
        after, ticket = breaker.admit(
            before,
            self._monotonic(),
            self.policy,
        )
        self._store(target, before, after)
        return ticket

    def answered(
        self,
        target: str,
        ticket: Ticket,
        endpoint: Endpoint,
    ) -> None:
        """Records a user's success: a faster form of `note_user_outcome` and `settle`."""
        if self.spoken.get(target) is not endpoint:
            self.note_served(target, endpoint)
        if self._refused_callers:
            self._refused_callers.pop(target, None)
        now = self._good_answer_at[target] = self._monotonic()
        successes = self._successes.get(target)
        if successes is None or now >= successes.until_s or successes.ticket != ticket:
            before = self._breakers.get(target, CLOSED_BREAKER)
            if before.state is not _CLOSED or before.serial != ticket:
                self.settle(target, ticket, None)
                return
            self._note_user_evidence(
                target, now
            )  # for all workers, at most once in a bucket's time
            self._flush_successes(target)
            number = breaker.bucket_number(now, self.policy)
            until_s = (number + 1) * self.policy.window_s / BUCKETS
            successes = self._successes[target] = _Successes(number, until_s, ticket)
        self.answered_at[target] = now
        successes.count += 1

    def note_served(self, target: str, endpoint: Endpoint) -> None:
        """Notes that a target answered at an endpoint, for all workers."""
        self.spoken[target] = endpoint
        self._shared.note_served(target, endpoint)

    def served_endpoints(self, target: str) -> frozenset[Endpoint]:
        """Returns the endpoints at which a target has answered, in any worker."""
        return self._shared.served_endpoints(target)

    def fails_several_callers(self, target: str, caller: object) -> bool:
        """Notes a caller's failure. Returns whether SEVERAL_CALLERS got failures since the
        target's last answer.
        """
        refused = self._refused_callers.setdefault(target, set())
        if len(refused) < SEVERAL_CALLERS:
            refused.add(caller)
        return len(refused) >= SEVERAL_CALLERS

    def note_user_outcome(
        self,
        target: str,
        failure: FailureClass | None,
        endpoint: Endpoint,
    ) -> None:
        """Notes a user's answer or failure as evidence about the target, without changing the
        breaker.

        Args:
            failure: None for an answer.

        The method ignores a neutral failure.
        """
        if failure is None:
            self._note_user_evidence(target, self._monotonic())
        elif FAILURE_RULES[failure].breaker is not BreakerEffect.NEUTRAL:
            self._note_user_evidence(target, None)
            self.failed_at[target] = endpoint

    def users_get_good_answers(self, target: str) -> bool:
        """Returns whether a user of any worker lately got a good answer, and no user a counted
        failure since then. Such an answer outweighs failed checks and one caller's refusal.
        """
        at = self._good_answer_at.get(target)
        now = self._monotonic()
        is_recent = at is not None and now < at + USER_EVIDENCE_S
        return is_recent or self._shared.has_good_answer(target, now)

    def _note_user_evidence(self, target: str, now: float | None) -> None:
        """Notes a user's good answer at a time; None for a counted failure."""
        if now is None:
            self._good_answer_at.pop(target, None)
        else:
            self._good_answer_at[target] = now
        self._shared.note_good_until(target, 0.0 if now is None else now + USER_EVIDENCE_S)

    def answered_within(self, target: str, seconds: float) -> bool:
        """Returns whether a user got an answer in this time, and no failure since then."""
        at = self._good_answer_at.get(target)
        return at is not None and self._monotonic() <= at + seconds

    def answered_lately(self, target: str, seconds: float) -> bool:
        """Returns whether a user of any worker got an answer in this time, at most
        USER_EVIDENCE_S, and no counted failure since then.
        """
        since = self._monotonic() + USER_EVIDENCE_S - seconds
        return self.answered_within(target, seconds) or self._shared.has_good_answer(
            target, since
        )

    def settle(
        self,
        target: str,
        ticket: Ticket,
        failure: FailureClass | None,
    ) -> None:
        """Ends an attempt: for a stream at its end.

        Args:
            failure: None for a success.
        """
        before = self._read_breaker(target)
        now = self._monotonic()
        if failure is None:
            self.answered_at[target] = now
            self._refused_callers.pop(target, None)
        policy = self._candidate_policy if target in self._candidates else self.policy
        after = breaker.settle(before, ticket, failure, now, policy)
        self._store(target, before, after)

    def open_circuit(self, target: str, failure: FailureClass) -> bool:
        """Opens a closed circuit at once; returns whether it was closed."""
        before = self._read_breaker(target)
        after = breaker.trip(before, failure, self._monotonic(), self.policy)
        self._store(target, before, after)
        return after is not before

    def note_silence(self, target: str) -> None:
        """Notes that callers leave a target without an answer, and no other target can answer
        them.
        """
        self._silent_at[target] = self._monotonic()

    def silent_targets(self) -> list[str]:
        """Lists the targets that callers leave without an answer, until a user gets one."""
        now = self._monotonic()
        return [
            target
            for target, at in self._silent_at.items()
            if now < at + SILENT_S and self._good_answer_at.get(target, -math.inf) < at
        ]

    def note_candidates(self, serving: CompiledSnapshot) -> None:
        """Notes the targets of live rollouts, whose open circuits admit a request more
        often.
        """
        routes = serving.routes.values()
        self._candidates = frozenset(
            route.experiment.target for route in routes if route.experiment is not None
        )

    def renew(self, target: str) -> None:
        """Ends a slowdown, and closes a circuit that one failure opened at once, such as a
        refused key.

        Called when the provider's keys or headers changed. Other open circuits stay open.
        """
        before = self._read_breaker(target)
        self._store(target, before, breaker.reset_after_new_key(before))
        self.slowdowns.end(target)

    def reopen(self, target: str) -> None:
        """Ends a slowdown and closes the circuit, because an operator chose the target by a
        switch.
        """
        before = self._read_breaker(target)
        self._store(target, before, breaker.reset_breaker(before))
        self.slowdowns.end(target)

    def _read_breaker(self, target: str) -> Breaker:
        if target in self._successes:
            self._flush_successes(target)
        return self._breakers.get(target, CLOSED_BREAKER)

    def _flush_successes(self, target: str) -> None:
        """Moves the counted successes into the breaker, before its state is read."""
        successes = self._successes.pop(target, None)
        if successes is not None:
            before = self._breakers.get(target, CLOSED_BREAKER)
            self._breakers[target] = breaker.count_successes(
                before, successes.number, successes.count
            )

    def _store(
        self,
        target: str,
        before: Breaker,
        after: Breaker,
    ) -> None:
        """Stores a breaker's new state, and reports a move between states."""
        if after is before:
            return
        self._breakers[target] = after
        if after.state is BreakerState.CLOSED:
            self.not_closed.discard(target)
        else:
            self.not_closed.add(target)
        if after.state is not before.state and self.on_move is not None:
            self.on_move(target, after)

    def _note_pause(self, target: str, wait_s: float) -> None:
        if wait_s > self.policy.open_max_s and self.on_pause is not None:
            self.on_pause(target, wait_s)
