"""The one attempt loop: the plan's targets in order, within one deadline."""

import asyncio
from collections.abc import Callable
from functools import partial

from harness.domain.breaker import LAST_RESORT, Ticket
from harness.domain.failures import CLIENTS_OWN, FailureClass
from harness.domain.plan import Failed, next_target
from harness.domain.retry import Room, retry_after_s, wait_before_again
from harness.domain.settings import RouterSettings
from harness.ports import Clock
from router.calling import Calls
from router.course import Attempt, Course, Job
from router.health import TargetHealth
from router.metrics import RouterMetrics
from router.ports import UpstreamFailed
from router.relay import CommittedStream
from router.serving import Upstream


class Dispatcher:
    """uniform: a number in [0, 1), for the jitter of pauses."""

    def __init__(
        self,
        calls: Calls,
        settings: RouterSettings,
        health: TargetHealth,
        metrics: RouterMetrics,
        clock: Clock,
        uniform: Callable[[], float],
    ) -> None:
        self._calls = calls
        self._settings = settings
        self._health = health
        self._metrics = metrics
        self._clock = clock
        self._uniform = uniform

    async def run(self, job: Job, course: Course) -> None:
        """Fill `course`. Cancelling it closes the attempt that is under way."""
        failures: list[Failed] = []
        target = next(iter(job.plan.targets), None)
        while target is not None:
            failure = await self._ask(job, target, course)
            if failure is None:
                return
            failures.append(Failed(target, failure.failure))
            target = next_target(
                job.plan,
                failures,
                job.route.capabilities,
                policy_fallback=job.route.targets.policy_fallback,
            )
            if target is None and failure.failure in CLIENTS_OWN:
                course.result = failure
            if self._spent(job, course):
                return

    def _spent(self, job: Job, course: Course) -> bool:
        now = asyncio.get_running_loop().time()
        return now >= job.deadline or len(course.attempts) >= self._settings.retry.attempts

    async def _ask(self, job: Job, target: str, course: Course) -> UpstreamFailed | None:
        """One target, once or more often. None when it answered, else its last failure."""
        loop = asyncio.get_running_loop()
        # Every target behind this one keeps its share of what is left of the budget.
        left = len(job.plan.targets) - job.plan.targets.index(target)
        now = loop.time()
        share_s = max(0.0, job.deadline - now) / left
        failure: UpstreamFailed | None = None
        tries = 0
        while True:
            ticket = LAST_RESORT if job.plan.last_resort else self._health.admit(target)
            if ticket is None:
                return failure or course.shut(target)
            tries += 1
            upstream = job.route.upstreams[target]
            failure = await self._attempt(
                job, upstream, ticket, now + share_s, course, tries=tries
            )
            if failure is None:
                return None
            room = Room(now + share_s - loop.time(), share_s, self._standby(job, target))
            wait_s = self._wait_s(job, course, failure, tries, room)
            if wait_s is None:
                return failure
            if wait_s > 0:
                await asyncio.sleep(wait_s)

    def _wait_s(
        self, job: Job, course: Course, failure: UpstreamFailed, tries: int, room: Room
    ) -> float | None:
        """Until the same target is asked once more; None to go on without it."""
        told_s = retry_after_s(failure.headers, self._clock.now()) if failure.headers else None
        limited = failure.failure is FailureClass.RATE_LIMITED
        if limited and told_s:
            self._health.pause(course.attempts[-1].upstream.id, told_s)
        if len(course.attempts) >= self._settings.retry.attempts:
            return None
        if job.plan.last_resort and not limited:
            return None  # it is known to be down: one request, one attempt
        return wait_before_again(
            failure.failure,
            tries=tries,
            told_s=told_s,
            uniform=self._uniform(),
            room=room,
            policy=self._settings.retry,
        )

    def _standby(self, job: Job, target: str) -> bool:
        """Whether another target of the plan, behind this one, is well."""
        later = job.plan.targets[job.plan.targets.index(target) + 1 :]
        return any(self._health.all_well((each,)) for each in later)

    async def _attempt(
        self,
        job: Job,
        upstream: Upstream,
        ticket: Ticket,
        until: float,
        course: Course,
        *,
        tries: int,
    ) -> UpstreamFailed | None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        limit = until
        if job.request.stream:
            limit = min(limit, started + self._settings.first_token_timeout_s)
        settle = partial(self._settle, upstream, ticket)
        failure: UpstreamFailed | None = None
        outcome: FailureClass | None = FailureClass.CANCELLED
        try:
            async with asyncio.timeout_at(limit):
                course.result = await self._calls.make(job, upstream, settle, again=tries > 1)
            outcome = None
        except UpstreamFailed as error:
            failure, outcome = error, error.failure
        except TimeoutError:
            outcome = FailureClass.TIMEOUT
            failure = UpstreamFailed(outcome, f"no answer within {limit - started:.1f} s")
        finally:
            # A stream settles at its own end.
            if isinstance(course.result, CommittedStream):
                course.first_token_s = loop.time() - job.begun
            else:
                settle(outcome)
        course.attempts.append(Attempt(upstream, failure, (loop.time() - started) * 1000))
        return failure

    def _settle(self, upstream: Upstream, ticket: Ticket, outcome: FailureClass | None) -> None:
        self._health.settle(upstream.id, ticket, outcome)
        self._metrics.attempt(upstream.name, outcome)
