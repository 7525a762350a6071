"""Runs a request's attempts: the plan's targets in order, with retries, within one
deadline.

This is the only loop that repeats a call to a provider. No library below it retries.
`upstream_call` makes a single attempt, `attempts` limits and records it,
`harness.routing.plan` says which target follows a failure. The client's connection belongs
to `routed_response`.
"""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

from harness.frame.failures import CLIENT_FAILURES, PASSED_ON, FailureClass
from harness.frame.formatting import format_latency
from harness.frame.ports import Clock
from harness.providers.credential import ProviderKey
from harness.routing.plan import FailedAttempt, TargetAvailability, next_target
from harness.routing.reliability.breaker import LAST_RESORT_TICKET
from harness.routing.reliability.retry import RetryBudget, retry_wait_s
from harness.routing.route_settings import OnContentPolicy, StreamCommit
from harness.routing.settings import RouterSettings
from router.frame.failure import UpstreamFailed
from router.frame.limits import TimeLimit
from router.health.provider_keys import ProviderKeys
from router.health.slowdowns import TargetTurn
from router.health.target_health import TargetHealth
from router.recording.internal_errors import InternalErrors, RouterPart
from router.request.attempts import FirstByteTimer, TimeLimits
from router.request.leaving import CallerLeaves
from router.request.needs import request_size
from router.request.refusals import find_passing
from router.request.request_state import (
    Attempt,
    RequestProgress,
    RoutedRequest,
)
from router.request.settlement import AttemptSettlement
from router.request.stream_relay import CommittedStream, OnEnd
from router.request.upstream_call import UpstreamCalls
from router.snapshot.compiled import CompiledTarget

# Up to Python 3.11, to find a member in its class takes ten times as long.
_HELD_BACK: Final = StreamCommit.WHOLE
_FOREIGN_STATE: Final = FailureClass.FOREIGN_STATE
_TIMEOUT: Final = FailureClass.TIMEOUT
_PROBE: Final = TargetTurn.PROBE
_NO_TURN: Final = TargetTurn.NONE


class AttemptEnd(NamedTuple):
    """How an attempt ended.

    failure: None for an answer, and for a client who left.
    outcome: its result for the target's health and the provider's key.
    """

    failure: UpstreamFailed | None
    outcome: FailureClass | None


_ANSWERED: Final = AttemptEnd(None, None)
_CALLER_LEFT: Final = AttemptEnd(None, FailureClass.CANCELLED)


@dataclass
class TargetTries:
    """The attempts of one request at one target.

    share_s: the target's part of the request's time, see `Dispatcher._begin_target`.
    until: when that part ends, on the event loop's clock.
    first_key: the key of the first attempt. If the provider refuses it, one more attempt
    follows at once with another key.
    failure: of the latest attempt; None before the first one ends.
    """

    upstream: CompiledTarget
    share_s: float
    until: float
    first_key: ProviderKey | None
    impatient: bool = False  # the caller's patience limits its time
    count: int = field(default=0, init=False)
    failure: UpstreamFailed | None = field(default=None, init=False)
    is_key_refused: bool = field(default=False, init=False)


class Dispatcher:
    """Runs the attempts of requests, for one event loop.

    A fault of the router's own bookkeeping is noted and alerted, but it never fails a
    request. uniform: returns a number in [0, 1), to vary pauses.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts, one by one
        self,
        calls: UpstreamCalls,
        settings: RouterSettings,
        health: TargetHealth,
        keys: ProviderKeys,
        outcomes: AttemptSettlement,
        clock: Clock,
        uniform: Callable[[], float],
        errors: InternalErrors,
    ) -> None:
        self.timers = calls.timers
        self._calls = calls
        self._settings = settings
        self._health = health
        self._keys = keys
        self._outcomes = outcomes
        self._clock = clock
        self._uniform = uniform
        self._slowed = health.slowdowns.slowed
        self._limits = TimeLimits(settings)
        self._users = outcomes.users
        self._leaves = CallerLeaves(health, self._limits, self._users)
        self._errors = errors

    async def run(self, job: RoutedRequest, progress: RequestProgress) -> None:
        """Fills `progress` with the attempts and their result. Cancelling it closes the
        attempt under way.

        `progress.result` is the answer, or the stream after its first output. It is the
        provider's failure if the client is to see it, such as a 400. It stays None if all
        targets failed. No failure of a provider raises an error here.

        Ends early at the request's deadline, or after the most attempts that the settings
        allow over all targets.
        """
        failures: list[FailedAttempt] = []
        target = next(iter(job.plan.targets), None)
        while target is not None:
            tries = self._begin_target(job, target)
            wait_s: float | None = 0.0
            while wait_s is not None:
                if target in self._slowed:
                    attempt = await self._take_turn(job, tries, wait_s)
                else:
                    attempt = self._build_attempt(job, tries)
                if attempt is None:
                    break
                tries.failure = await self._attempt(job, attempt, progress)
                if tries.failure is None:
                    return
                wait_s = self._find_retry_in_s(job, tries, attempt, tries.failure, progress)
                if wait_s:
                    await asyncio.sleep(wait_s)
            failure = tries.failure or progress.shut(target)
            failures.append(FailedAttempt(target, failure.failure, failure.unable))
            target = self._choose_next(job, failures)
            if target is None and failure.failure in PASSED_ON:
                # If the target before was down, reply with its outage, so that the client
                # retries: perhaps only that target has the conversation's state.
                hides_outage = not all(failed.unable for failed in failures[:-1]) and (
                    failure.local
                    or (
                        failure.failure is _FOREIGN_STATE
                        and failures[-2].failure not in CLIENT_FAILURES
                    )
                )
                if not hides_outage and not self._is_any_passing(job, progress):
                    progress.result = failure
            if self._is_spent(job, progress):
                return

    async def check(
        self,
        job: RoutedRequest,
        upstream: CompiledTarget,
        progress: RequestProgress,
    ) -> UpstreamFailed | None:
        """Makes one health-check attempt; without a ticket, `progress` records no attempt.

        Returns the failure, None for an answer. A check has no retry and no second target.
        Its attempt is marked, because a failed check may be the check's own fault: it guesses
        an endpoint.
        """
        size = request_size(job.request)
        turn = await self._health.slowdowns.take_turn(upstream.id, size, 0.0)
        ticket = self._health.admit(upstream.id) if turn is not _NO_TURN else None
        if ticket is None:
            return progress.shut(upstream.id)
        key = self._keys.key(upstream)
        attempt = Attempt(
            upstream,
            ticket,
            key,
            job.deadline,
            1,
            job.request.endpoint,
            check=True,
            probe_size=size if turn is _PROBE else None,
        )
        failure = await self._attempt(job, attempt, progress)
        if failure is not None:
            self._outcomes.note_retry_after_s(attempt, failure, self._clock.now(), size)
        return failure

    async def count_tokens(self, job: RoutedRequest) -> bytes:
        """Asks the first target for its count; empty on failure.

        Returns the body of the provider's answer. The breaker ignores the outcome, because
        the client gets an estimate instead.
        """
        if job.plan.targets:
            upstream = job.route.upstreams[job.plan.targets[0]]
            key = self._keys.key(upstream)
            attempt = Attempt(
                upstream,
                LAST_RESORT_TICKET,
                key,
                job.deadline,
                1,
                job.request.endpoint,
            )
            with (
                suppress(UpstreamFailed, TimeoutError),
                self.timers.limit(job.deadline),
            ):
                return await self._calls.count_tokens(job, attempt)
        return b""

    def waits(self, job: RoutedRequest) -> dict[str, TargetAvailability]:
        """Returns when each target of the plan, or excluded from it, may be asked."""
        targets = [
            *job.plan.targets,
            *(excluded.target for excluded in job.plan.left_out),
        ]
        return self._health.readiness(targets)

    def _is_spent(self, job: RoutedRequest, progress: RequestProgress) -> bool:
        """Returns whether the request's time or its number of attempts is used up."""
        now = self.timers.loop.time()
        return now >= job.deadline or len(progress.attempts) >= self._settings.retry.attempts

    def _is_any_passing(self, job: RoutedRequest, progress: RequestProgress) -> bool:
        """Returns whether another target's failure passes by itself. Then the client should try
        again, and need not change the request.
        """
        try:
            return find_passing(job, progress) is not None
        except Exception as error:
            self._errors.note(RouterPart.PLAN, error, job.route, job.arm)
            return False

    def _begin_target(self, job: RoutedRequest, target: str) -> TargetTries:
        """Divides the remaining time equally between this target and the targets after it.

        So a slow first target cannot use up the time of its fallbacks. A target that fails
        early leaves its time to the targets after it.

        The time ends when the caller is likely to leave. The last target has the request's
        whole time, because no other target can answer.
        """
        now = self.timers.loop.time()
        targets = job.plan.targets
        targets_left = len(targets) - targets.index(target)
        upstream = job.route.upstreams[target]
        key = self._keys.key(upstream) if len(upstream.keys) > 1 else upstream.only_key
        share_s = max(0.0, job.deadline - now) / targets_left
        if job.answer_by < job.deadline and targets_left > 1:
            share_s = self._divide_patience_s(
                job, target, max(0.0, job.answer_by - now), targets_left
            )
            return TargetTries(upstream, share_s, now + share_s, key, impatient=True)
        return TargetTries(upstream, share_s, now + share_s, key)

    def _divide_patience_s(
        self,
        job: RoutedRequest,
        target: str,
        patience_s: float,
        targets_left: int,
    ) -> float:
        """Returns a target's part of the caller's patience, in seconds.

        A target whose usual answers take longer than an equal share gets their time: to cut
        it off earlier would lose good answers.
        """
        share_s = patience_s / targets_left
        try:
            usual_s = self._limits.usual_s(job, target)
        except Exception as error:
            self._errors.note(RouterPart.PLAN, error, job.route, job.arm)
            usual_s = None
        return share_s if usual_s is None else min(patience_s, max(share_s, usual_s))

    async def _take_turn(
        self,
        job: RoutedRequest,
        tries: TargetTries,
        waited_s: float,
    ) -> Attempt | None:
        """Returns the next attempt at a slowed target, as a probe; None without a turn.

        Waits for the turn if no later target is ready, or the request has just waited as the
        provider asked.

        Args:
            waited_s: how long it has waited.
        """
        size = request_size(job.request)
        try:
            turn = await self._health.slowdowns.take_turn(
                tries.upstream.id,
                size,
                self._find_patience_s(job, tries, waited_s),
                waited=waited_s > 0,
            )
        except Exception as error:
            self._errors.note(RouterPart.PLAN, error, job.route, job.arm)
            turn = _PROBE
        attempt = self._build_attempt(job, tries) if turn is not _NO_TURN else None
        if attempt is not None and turn is _PROBE:
            attempt.probe_size = size
        return attempt

    def _find_patience_s(
        self, job: RoutedRequest, tries: TargetTries, waited_s: float
    ) -> float:
        """Returns how long a request may wait for its turn, so that an attempt still fits."""
        retry = self._settings.retry
        longest_s = math.inf
        if self._has_standby(job, tries.upstream.id):
            longest_s = retry.max_wait_s if waited_s else 0.0
        left_s = tries.until - self.timers.loop.time()
        return max(0.0, min(longest_s, left_s - min(retry.attempt_s, tries.share_s / 2)))

    def _build_attempt(self, job: RoutedRequest, tries: TargetTries) -> Attempt | None:
        """Returns the next attempt at a target; None if its circuit is open.

        A plan of last resort needs no ticket: it asks a target whose circuit is open, and
        the result does not change the breaker.
        """
        upstream = tries.upstream
        tries.count = tries.count + 1
        key = tries.first_key
        if tries.is_key_refused:
            key = self._keys.next_key(upstream, key)
        elif tries.count > 1:
            key = self._keys.key(upstream)
        ticket = LAST_RESORT_TICKET if job.plan.last_resort else self._health.admit(upstream.id)
        if ticket is None:
            return None
        return Attempt(
            upstream,
            ticket,
            key,
            tries.until,
            tries.count,
            job.request.endpoint,
            (job.sticky_key, job.key_id),
            tries.impatient,
        )

    def _find_retry_in_s(
        self,
        job: RoutedRequest,
        tries: TargetTries,
        attempt: Attempt,
        failure: UpstreamFailed,
        progress: RequestProgress,
    ) -> float | None:
        """Returns the seconds until the same target is tried again; None if another target
        is next.

        A refused key is replaced once, without a pause. Other retries follow
        `harness.routing.reliability.retry`. A keep-warm target gets no retry.
        """
        upstream = tries.upstream
        key = attempt.key
        retry_after_s = None
        try:
            now = self._clock.now()
            size = request_size(job.request)
            retry_after_s = self._outcomes.note_retry_after_s(attempt, failure, now, size)
        except Exception as error:
            self._errors.note(RouterPart.RECORDING, error, job.route, job.arm)
        if self._is_spent(job, progress):
            return None
        if key == tries.first_key and self._keys.has_other_key(upstream, key, failure.reach):
            tries.is_key_refused = True
            return 0.0  # retry at once with the next key, but only once
        if job.is_keep_warm_for(upstream.id):
            return None  # a keep-warm target: the incumbent answers instead
        try:
            left_s = tries.until - self.timers.loop.time()
            budget = RetryBudget(left_s, tries.share_s, self._has_standby(job, upstream.id))
            return self._choose_retry_wait_s(job, failure, tries.count, retry_after_s, budget)
        except Exception as error:
            self._errors.note(RouterPart.PLAN, error, job.route, job.arm)
            return None

    def _choose_retry_wait_s(
        self,
        job: RoutedRequest,
        failure: UpstreamFailed,
        tries: int,
        retry_after_s: float | None,
        budget: RetryBudget,
    ) -> float | None:
        if job.plan.last_resort and failure.failure is not FailureClass.RATE_LIMITED:
            return None  # the target is known to be down: one attempt is enough
        return retry_wait_s(
            failure.failure,
            tries=tries,
            retry_after_s=retry_after_s,
            uniform=self._uniform(),
            room=budget,
            policy=self._settings.retry,
        )

    def _has_standby(self, job: RoutedRequest, target: str) -> bool:
        """Returns whether a later target of the plan may be asked now.

        If so, the router does not wait long for this target.
        """
        later = job.plan.targets[job.plan.targets.index(target) + 1 :]
        return any(
            availability.retry_in_s <= 0
            for availability in self._health.readiness(later).values()
        )

    async def _attempt(
        self,
        job: RoutedRequest,
        attempt: Attempt,
        progress: RequestProgress,
    ) -> UpstreamFailed | None:
        """Makes one attempt, records its end once, and returns its failure; None for an
        answer.

        Appends the attempt to `progress`, with its failure and its time in ms. An answer
        becomes `progress.result`. A stream records its end itself, when it closes. If the
        client leaves, the attempt is settled as cancelled, and the cancellation continues.

        The limit until the first output is shorter than the rest of the target's time. Once
        a plain answer begins, `FirstByteTimer` gives it the rest.
        """
        loop = self.timers.loop
        started = attempt.began = loop.time()
        progress.current = attempt
        limit = self.timers.limit(
            min(attempt.until, started + self._find_first_s(job, attempt))
        )
        # An answer that has begun outlasts the caller's patience: no fallback is faster now.
        answer_until = job.deadline if attempt.impatient else attempt.until
        first_byte = None if job.request.stream else FirstByteTimer(limit, answer_until, loop)
        settle: OnEnd = partial(self._outcomes.settle, attempt)
        if job.span is not None:
            settle = job.span.attempt(attempt.upstream, len(progress.attempts) + 1, settle)
        self._leaves.waiting[limit] = job, attempt, first_byte, started
        self._users.used_at[attempt.upstream.id, job.key_id] = started
        end = _CALLER_LEFT
        try:
            with limit:
                result = await self._calls.make(job, attempt, settle, first_byte)
            commit = job.route.route.settings.commit
            if commit is _HELD_BACK and isinstance(result, CommittedStream):
                await result.hold(answer_until)
            progress.result = result
            end = _ANSWERED
        except asyncio.CancelledError:
            if first_byte is None or first_byte.at is None:
                attempt.silent_since = started
            raise
        except Exception as error:
            end = self._classify_end(error, job, attempt, limit, first_byte)
        finally:
            del self._leaves.waiting[limit]
            if isinstance(progress.result, CommittedStream):
                self._note_commit(job, attempt, progress)
            else:
                self._record(job, settle, end.outcome)
        if end is _ANSWERED:
            if first_byte is not None and first_byte.at is not None:
                self._record(
                    job, self._limits.note, job, attempt, first_byte.at - started, first_byte.at
                )
        elif end.outcome is _TIMEOUT and attempt.upstream.id in self._health.not_closed:
            # The target's circuit opened because it is silent: end the long waits for it.
            move_on = partial(self._leaves.move_on, only_slow=True)
            self._record(job, move_on, attempt.upstream.id, loop.time())
        attempt.failure = end.failure
        attempt.ms = (loop.time() - started) * 1000
        progress.attempts.append(attempt)
        progress.current = None
        return end.failure

    def _find_first_s(self, job: RoutedRequest, attempt: Attempt) -> float:
        """Returns how many seconds an attempt may wait for its first output; infinite for no
        limit.
        """
        try:
            first_s = self._limits.first_s(job, attempt)
            if attempt.upstream.id in self._health.not_closed:
                probe_s = self._limits.probe_s(job, attempt)
                attempt.probe = probe_s < first_s
                first_s = min(first_s, probe_s)
        except Exception as error:
            self._errors.note(RouterPart.PLAN, error, job.route, job.arm)
            return math.inf
        return first_s

    def _classify_end(
        self,
        error: Exception,
        job: RoutedRequest,
        attempt: Attempt,
        limit: TimeLimit,
        first_byte: FirstByteTimer | None,
    ) -> AttemptEnd:
        """Returns how an error ends an attempt.

        | error | failure | counts as |
        |---|---|---|
        | the provider's failure | itself | itself; cancelled if stale, or hasty at the end |
        | the target's time is over | timeout | timeout; cancelled at a client's deadline |
        | a fault of the router | internal: the next target may not need that code | internal |
        """
        is_whole_time = self.timers.loop.time() >= attempt.until
        is_hurried = job.hurried or attempt.impatient
        match error:
            case UpstreamFailed():
                if error.failure is FailureClass.INTERNAL:
                    self._errors.note(RouterPart.STREAM, error, job.route, job.arm)
                failure = error.kept()
                self._record(job, self._outcomes.narrow_to_endpoint, attempt, failure)
                attempt.failure = failure
                attempt.hasty = is_hurried and is_whole_time
                is_neutral = error.stale or attempt.hasty
            case TimeoutError():
                failure = UpstreamFailed(
                    _TIMEOUT, f"no answer within {format_latency(limit.when - attempt.began)}"
                )
                # A client's short time limit must not open circuits.
                is_whole_time = limit.when == attempt.until
                is_neutral = attempt.hasty = is_hurried and is_whole_time
                if first_byte is None or first_byte.at is None:
                    attempt.slow = not (is_whole_time or attempt.check or attempt.probe)
                    self._note_silence(job, attempt, limit.when)
            case _:
                self._errors.note(RouterPart.ATTEMPT, error, job.route, job.arm)
                failure = UpstreamFailed(FailureClass.INTERNAL, "the router failed")
                is_neutral = False
        return AttemptEnd(failure, FailureClass.CANCELLED if is_neutral else failure.failure)

    def _note_commit(
        self, job: RoutedRequest, attempt: Attempt, progress: RequestProgress
    ) -> None:
        """Notes that a stream has its first output. It settles its attempt at its own end."""
        now = self.timers.loop.time()
        progress.first_token_s = now - job.begun
        if attempt.probe_size:
            self._record(job, self._outcomes.accept, attempt)
        if attempt.upstream.id != job.plan.targets[-1]:
            self._record(job, self._limits.note, job, attempt, now - attempt.began, now)

    def _choose_next(self, job: RoutedRequest, failures: list[FailedAttempt]) -> str | None:
        """Returns the next target after the latest failure; None if no other target may
        answer.

        If the rules raise an error, the plan's order counts, and a failure of the client's
        request ends it.
        """
        last = failures[-1]
        policy = job.route.route.settings.on_content_policy
        try:
            return next_target(
                job.plan,
                failures,
                job.route.capabilities,
                policy_fallback=policy is OnContentPolicy.FALLBACK,
            )
        except Exception as error:
            self._errors.note(RouterPart.PLAN, error, job.route, job.arm)
            targets = job.plan.targets
            later = targets[targets.index(last.target) + 1 :]
            return None if last.failure in CLIENT_FAILURES else next(iter(later), None)

    def _note_silence(self, job: RoutedRequest, attempt: Attempt, until: float) -> None:
        """Notes that an attempt's time ended without any output.

        A probe, and a wait that ended because the circuit opened, show nothing of the target's
        times. A caller's own deadline ends a wait as its leaving does.
        """
        if attempt.hasty:
            attempt.silent_since = attempt.began
            self.note_leave(job, attempt, until)
        elif not (attempt.probe or attempt.moved):
            self._record(job, self._limits.note, job, attempt, until - attempt.began, None)

    def note_leave(
        self,
        job: RoutedRequest,
        attempt: Attempt | None,
        at: float,
    ) -> None:
        """Notes that the caller left during an attempt; None if no attempt was under way.

        An attempt that had a byte does not count.

        Args:
            at: on the event loop's clock.
        """
        if attempt is not None and attempt.silent_since is not None:
            self._record(job, self._leaves.note, job, attempt, attempt.silent_since, at)

    def _record(self, job: RoutedRequest, record: Callable[..., object], *args: object) -> None:
        """Records something. A fault of the record is noted, and never fails the request."""
        try:
            record(*args)
        except Exception as error:
            self._errors.note(RouterPart.RECORDING, error, job.route, job.arm)
