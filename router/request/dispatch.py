"""Runs a request's attempts: the plan's targets in order, with retries, within one deadline."""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from harness.frame.failures import CLIENT_FAILURES, PASSED_ON, FailureClass
from harness.frame.formatting import format_latency
from harness.frame.ports import Clock
from harness.providers.credential import ProviderKey
from harness.routing.plan import FailedAttempt, next_target
from harness.routing.reliability.breaker import LAST_RESORT_TICKET
from harness.routing.reliability.retry import RetryBudget, retry_wait_s
from harness.routing.settings import RouterSettings
from harness.routing.table import OnContentPolicy, StreamCommit
from router.frame.failure import UpstreamFailed
from router.health.provider_keys import ProviderKeys
from router.health.target_health import TargetHealth
from router.recording.internal_errors import InternalErrors, RouterPart
from router.request.attempts import AttemptSettlement, TimeLimits
from router.request.request_state import Attempt, RequestProgress, RoutedRequest
from router.request.stream_relay import CommittedStream, OnEnd
from router.request.upstream_call import (
    BegunStream,
    FirstAttempt,
    FirstByteTimer,
    UpstreamCalls,
)
from router.snapshot.compiled import CompiledTarget

# Up to Python 3.11, to find a member in its class takes ten times as long.
_HELD_BACK: Final = StreamCommit.WHOLE
_FOREIGN_STATE: Final = FailureClass.FOREIGN_STATE


class Dispatcher:
    """Runs the attempts of requests. uniform: a number in [0, 1), for the jitter of pauses."""

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
        self._limits = TimeLimits(settings)
        self._errors = errors

    async def run(
        self,
        job: RoutedRequest,
        progress: RequestProgress,
        first: FirstAttempt | None = None,
    ) -> None:
        """Fills `progress`. Cancelling it closes the attempt. first: to go on with."""
        failures: list[FailedAttempt] = []
        target = next(iter(job.plan.targets), None)
        while target is not None:
            failure = await self._ask(job, target, progress, first)
            first = None
            if failure is None:
                return
            failures.append(FailedAttempt(target, failure.failure))
            target = self._next(job, failures)
            # Where another target was down, that is the answer: the client may try again. What
            # that one keeps, no other knows.
            hides_outage = len(failures) > 1 and (
                failure.local
                or (
                    failure.failure is _FOREIGN_STATE
                    and failures[-2].failure not in CLIENT_FAILURES
                )
            )
            if target is None and failure.failure in PASSED_ON and not hides_outage:
                progress.result = failure
            if self._spent(job, progress):
                return

    def begin(self, job: RoutedRequest) -> FirstAttempt | None:
        """Makes the first attempt without waiting; None where `run` has to begin. `run`,
        `enter_answer` or `cancel` ends it.
        """
        plan = job.plan
        if not plan.targets or plan.last_resort:
            return None
        upstream = job.route.upstreams[plan.targets[0]]
        started = self.timers.loop.time()
        # As `_share_s` and `_admitted` have it, of the first target.
        share_s = max(0.0, job.deadline - started) / len(plan.targets)
        ticket = self._health.admit(upstream.id)
        if ticket is None:
            return None
        keys = upstream.keys
        key = keys[0] if len(keys) == 1 else self._keys.key(upstream)
        made = Attempt(
            upstream,
            ticket,
            key,
            started + share_s,
            1,
            job.request.endpoint,
            caller=(job.sticky_key, job.key_id),
        )
        try:
            call = self._calls.begin(job, made)
        except Exception:
            call = None
        if call is None:
            return FirstAttempt(made, share_s)
        try:
            first_s = self._limits.first_s(job, made)
        except Exception as error:
            self._errors.note(RouterPart.PLAN, error, job.route, job.arm)
            first_s = math.inf
        try:
            self._health.begin(upstream.id)
        except Exception as error:
            self._errors.note(RouterPart.RECORDING, error, job.route, job.arm)
        settle: OnEnd = partial(self._outcomes.settle, made)
        if job.span is not None:
            settle = job.span.attempt(upstream, 1, settle)
        return FirstAttempt(made, share_s, call, started, first_s, settle)

    def enter_answer(
        self,
        job: RoutedRequest,
        first: FirstAttempt,
        progress: RequestProgress,
        begun_at: float | None,
    ) -> bool:
        """Enters a whole answer; False where `run` reads it again. begun_at: its head came."""
        call, loop = first.call, self.timers.loop
        if call is None:
            return False
        try:
            progress.result = self._calls.whole_answer(job, call)
        except Exception:
            return False
        call.close()
        try:
            first.settle(None)
        except Exception as error:
            self._errors.note(RouterPart.RECORDING, error, job.route, job.arm)
        if begun_at is not None:
            try:
                self._limits.note(job, first.made, begun_at - first.started)
            except Exception as error:
                self._errors.note(RouterPart.RECORDING, error, job.route, job.arm)
        first.made.ms = (loop.time() - first.started) * 1000
        progress.attempts.append(first.made)
        return True

    def begin_stream(self, job: RoutedRequest, first: FirstAttempt) -> BegunStream | None:
        """Begins a stream; None where `run` reads it again, and says why."""
        call = first.call
        if call is None or job.route.route.settings.commit is _HELD_BACK:
            return None
        try:
            return self._calls.begin_stream(job, first.made, call, first.settle)
        except Exception:
            return None

    def enter_stream(
        self,
        job: RoutedRequest,
        first: FirstAttempt,
        stream: CommittedStream,
        progress: RequestProgress,
    ) -> None:
        now = self.timers.loop.time()
        progress.result = stream
        progress.first_token_s = now - job.begun
        first.made.ms = (now - first.started) * 1000
        progress.attempts.append(first.made)
        if first.made.upstream.id != job.plan.targets[-1]:
            self._note_s(job, first.made, now - first.started)

    def cancel(self, job: RoutedRequest, first: FirstAttempt) -> None:
        if first.call is not None:
            first.call.close()
            self._settle(job, first.settle, FailureClass.CANCELLED)

    async def check(
        self, job: RoutedRequest, upstream: CompiledTarget, progress: RequestProgress
    ) -> UpstreamFailed | None:
        """One attempt beside all traffic; none is in `progress` without a ticket."""
        ticket = self._health.admit(upstream.id)
        if ticket is None:
            return progress.shut(upstream.id)
        key = self._keys.key(upstream)
        made = Attempt(upstream, ticket, key, job.deadline, 1, job.request.endpoint, check=True)
        failure = await self._attempt(job, made, progress)
        if failure is not None:
            self._outcomes.note_retry_after_s(made, failure, self._clock.now())
        return failure

    async def count_tokens(self, job: RoutedRequest) -> bytes:
        """Asks a target for its count; empty without one. Its circuit learns nothing."""
        if job.plan.targets:
            upstream = job.route.upstreams[job.plan.targets[0]]
            key = self._keys.key(upstream)
            made = Attempt(
                upstream, LAST_RESORT_TICKET, key, job.deadline, 1, job.request.endpoint
            )
            with suppress(UpstreamFailed, TimeoutError), self.timers.limit(job.deadline):
                return await self._calls.count_tokens(job, made)
        return b""

    def waits(self, job: RoutedRequest) -> dict[str, float]:
        targets = [*job.plan.targets, *(excluded.target for excluded in job.plan.left_out)]
        return {
            id_: availability.retry_in_s
            for id_, availability in self._health.readiness(targets).items()
        }

    def _spent(self, job: RoutedRequest, progress: RequestProgress) -> bool:
        now = self.timers.loop.time()
        return now >= job.deadline or len(progress.attempts) >= self._settings.retry.attempts

    def _admitted(
        self,
        job: RoutedRequest,
        upstream: CompiledTarget,
        key: ProviderKey | None,
        until: float,
        number: int,
    ) -> Attempt | None:
        ticket = LAST_RESORT_TICKET if job.plan.last_resort else self._health.admit(upstream.id)
        if ticket is None:
            return None
        caller = job.sticky_key, job.key_id
        return Attempt(
            upstream, ticket, key, until, number, job.request.endpoint, caller=caller
        )

    def _share_s(self, job: RoutedRequest, target: str, now: float) -> float:
        """Every target behind this one keeps its share of what is left of the budget."""
        left = len(job.plan.targets) - job.plan.targets.index(target)
        return max(0.0, job.deadline - now) / left

    async def _ask(  # noqa: C901 - one target, however its attempts end
        self,
        job: RoutedRequest,
        target: str,
        progress: RequestProgress,
        first: FirstAttempt | None,
    ) -> UpstreamFailed | None:
        """One target, once or more often. None when it answered, else its last failure."""
        loop = self.timers.loop
        upstream = job.route.upstreams[target]
        if first is not None:
            share_s, until, first_key = first.share_s, first.made.until, first.made.key
        else:
            now = loop.time()
            share_s = self._share_s(job, target, now)
            until = now + share_s
            first_key = self._keys.key(upstream)
        failure: UpstreamFailed | None = None
        tries = 0
        while True:
            tries += 1
            key = self._keys.key(upstream) if tries > 1 else first_key
            this = first.made if first else self._admitted(job, upstream, key, until, tries)
            if this is None:
                return failure or progress.shut(target)
            failure = await self._attempt(job, this, progress, first)
            first = None
            if failure is None:
                return None
            at, note = self._clock.now(), self._outcomes.note_retry_after_s
            told_s = self._safely(RouterPart.RECORDING, job, note, this, failure, at)
            if self._spent(job, progress):
                return failure
            if key == first_key and self._keys.other_left(upstream, key, failure.failure):
                continue  # at once, with the next key; no more than once
            if job.is_keep_warm_for(target):
                return failure  # nobody waits for it: the incumbent is there
            try:
                room = RetryBudget(until - loop.time(), share_s, self._standby(job, target))
                wait_s = self._wait_s(job, failure, tries, told_s, room)
            except Exception as error:
                self._errors.note(RouterPart.PLAN, error, job.route, job.arm)
                return failure
            if wait_s is None:
                return failure
            if wait_s > 0:
                await asyncio.sleep(wait_s)

    def _wait_s(
        self,
        job: RoutedRequest,
        failure: UpstreamFailed,
        tries: int,
        retry_after_s: float | None,
        room: RetryBudget,
    ) -> float | None:
        if job.plan.last_resort and failure.failure is not FailureClass.RATE_LIMITED:
            return None  # it is known to be down: one request, one attempt
        return retry_wait_s(
            failure.failure,
            tries=tries,
            retry_after_s=retry_after_s,
            uniform=self._uniform(),
            room=room,
            policy=self._settings.retry,
        )

    def _standby(self, job: RoutedRequest, target: str) -> bool:
        later = job.plan.targets[job.plan.targets.index(target) + 1 :]
        return any(
            availability.retry_in_s <= 0
            for availability in self._health.readiness(later).values()
        )

    async def _attempt(  # noqa: C901, PLR0912, PLR0915 - one attempt, however it ends
        self,
        job: RoutedRequest,
        made: Attempt,
        progress: RequestProgress,
        first: FirstAttempt | None = None,
    ) -> UpstreamFailed | None:
        loop = self.timers.loop
        sent = first if first is not None and first.call is not None else None
        started = loop.time() if sent is None else sent.started
        first_s = None if sent is None else sent.first_s
        if first_s is None:
            first_s = self._safely(RouterPart.PLAN, job, self._limits.first_s, job, made)
        if first_s is None:
            first_s = math.inf
        limit = self.timers.limit(min(made.until, started + first_s))
        head = None if job.request.stream else FirstByteTimer(limit, made.until, loop)
        if sent is None:
            settle: OnEnd = partial(self._outcomes.settle, made)
            if job.span is not None:
                settle = job.span.attempt(made.upstream, len(progress.attempts) + 1, settle)
            if not made.check:
                self._safely(RouterPart.RECORDING, job, self._health.begin, made.upstream.id)
        else:
            settle = sent.settle
            if head is not None and sent.begun_at is not None:
                head(sent.begun_at)
        failure: UpstreamFailed | None = None
        outcome: FailureClass | None = FailureClass.CANCELLED
        try:
            with limit:
                result = await self._calls.make(
                    job, made, settle, head, sent.call if sent is not None else None
                )
            commit = job.route.route.settings.commit
            if isinstance(result, CommittedStream) and commit is _HELD_BACK:
                await result.hold(made.until)
            progress.result, outcome = result, None
        except UpstreamFailed as error:
            if error.failure is FailureClass.INTERNAL:
                self._errors.note(RouterPart.STREAM, error, job.route, job.arm)
            failure, outcome = error.kept(), error.failure
            made.failure = failure
            hasty = job.hurried and loop.time() >= made.until
            if error.stale or hasty:
                outcome = FailureClass.CANCELLED  # that its time ended says nothing of it
        except TimeoutError:
            # Else a client in a hurry could open every circuit.
            its_own = job.hurried and limit.when == made.until
            outcome = FailureClass.CANCELLED if its_own else FailureClass.TIMEOUT
            failure = UpstreamFailed(
                FailureClass.TIMEOUT, f"no answer within {format_latency(limit.when - started)}"
            )
            if limit.when < made.until and (head is None or head.at is None):
                made.slow = not made.check
                self._note_s(job, made, first_s)
        except Exception as error:
            # A fault of ours that this target's calls meet: another may do without that code.
            self._errors.note(RouterPart.ATTEMPT, error, job.route, job.arm)
            failure = UpstreamFailed(FailureClass.INTERNAL, "the router failed")
            outcome = failure.failure
        finally:
            # A stream settles at its own end.
            if isinstance(progress.result, CommittedStream):
                now = loop.time()
                progress.first_token_s = now - job.begun
                if made.upstream.id != job.plan.targets[-1]:
                    self._note_s(job, made, now - started)
            else:
                self._settle(job, settle, outcome)
        if head is not None and head.at is not None and outcome is None:
            self._note_s(job, made, head.at - started)
        made.failure, made.ms = failure, (loop.time() - started) * 1000
        progress.attempts.append(made)
        return failure

    def _next(self, job: RoutedRequest, failures: list[FailedAttempt]) -> str | None:
        last, policy = failures[-1], job.route.route.settings.on_content_policy
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

    def _safely(
        self, part: RouterPart, job: RoutedRequest, call: Callable[..., Any], *given: Any
    ) -> Any:
        try:
            return call(*given)
        except Exception as error:
            self._errors.note(part, error, job.route, job.arm)
            return None

    def _note_s(self, job: RoutedRequest, made: Attempt, seconds: float) -> None:
        self._safely(RouterPart.RECORDING, job, self._limits.note, job, made, seconds)

    def _settle(self, job: RoutedRequest, settle: OnEnd, outcome: FailureClass | None) -> None:
        self._safely(RouterPart.RECORDING, job, settle, outcome)
