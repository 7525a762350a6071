"""The one attempt loop: the plan's targets in order, within one deadline."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from harness.domain.breaker import LAST_RESORT, Ticket
from harness.domain.capabilities import Endpoint, Needs
from harness.domain.failures import CLIENTS_OWN, FailureClass
from harness.domain.plan import Failed, Plan, Surroundings, next_target, plan_for
from harness.domain.retry import retry_after_s, wait_before_again
from harness.domain.routing import Arm
from harness.domain.settings import RouterSettings
from harness.domain.switches import in_force
from harness.ports import Clock
from router.attempt import Answer, check_head, read_answer
from router.course import Attempt, Course, Job
from router.health import TargetHealth
from router.metrics import RouterMetrics
from router.patching import patched
from router.ports import (
    CHAT_PATH,
    TransportFactory,
    UpstreamFailed,
    UpstreamReply,
    UpstreamRequest,
)
from router.relay import CommittedStream, OnEnd
from router.serving import ServedRoute, Upstream
from router.stream import StreamFilter

# What may come before the first output; more is no metadata.
MAX_HELD_BYTES: Final = 1024 * 1024
PATHS: Final = {Endpoint.CHAT: CHAT_PATH, Endpoint.EMBEDDINGS: "/embeddings"}


class Dispatcher:
    """uniform: a number in [0, 1), for the jitter of pauses."""

    def __init__(
        self,
        transport_for: TransportFactory,
        settings: RouterSettings,
        health: TargetHealth,
        metrics: RouterMetrics,
        clock: Clock,
        uniform: Callable[[], float],
    ) -> None:
        self._transport_for = transport_for
        self._settings = settings
        self._health = health
        self._metrics = metrics
        self._clock = clock
        self._uniform = uniform

    def plan(self, route: ServedRoute, arm: Arm) -> Plan:
        """Whom to ask now, in order."""
        well = route.plans[arm]
        # Switches are rare: without one, no request looks at the wall clock for them.
        live = in_force(route.switches, self._clock.now()) if route.switches else ()
        if not live and self._health.all_well(well.targets):
            return well
        around = Surroundings(
            health=self._health.of(well.targets),
            targets=route.names,
            switches=live,
            when_all_open=self._settings.breaker.when_all_open,
        )
        return plan_for(route.targets, arm, Needs(), around)

    async def run(self, job: Job, course: Course) -> None:
        """Fill `course`. Cancelling it closes the attempt that is under way."""
        failures: list[Failed] = []
        target = next(iter(job.plan.targets), None)
        while target is not None:
            failure = await self._ask(job, target, course)
            if failure is None:
                return
            failures.append(Failed(target, failure.failure))
            target = next_target(job.plan, failures, {})
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
        until = now + max(0.0, job.deadline - now) / left
        failure: UpstreamFailed | None = None
        tries = 0
        while True:
            ticket = LAST_RESORT if job.plan.last_resort else self._health.admit(target)
            if ticket is None:
                return failure or course.shut(target)
            tries += 1
            upstream = job.route.upstreams[target]
            failure = await self._attempt(job, upstream, ticket, until, course, tries=tries)
            if failure is None:
                return None
            wait_s = self._wait_s(job, course, failure, tries, until - loop.time())
            if wait_s is None:
                return failure
            if wait_s > 0:
                await asyncio.sleep(wait_s)

    def _wait_s(
        self, job: Job, course: Course, failure: UpstreamFailed, tries: int, budget_s: float
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
            budget_s=budget_s,
            policy=self._settings.retry,
        )

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
                course.result = await self._send(job, upstream, settle, again=tries > 1)
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

    async def _send(
        self, job: Job, upstream: Upstream, on_end: OnEnd, *, again: bool
    ) -> Answer | CommittedStream:
        body = patched(job.request, upstream.target)
        asked = job.request
        request = UpstreamRequest(
            upstream.provider, body, asked.stream, again, PATHS[asked.endpoint]
        )
        reply = await self._transport_for(upstream.provider).send(request)
        handed_over = False
        try:
            if not asked.stream:
                await check_head(reply, "application/json")
                return await read_answer(reply, job.route.json_name, asked.endpoint)
            await check_head(reply, "text/event-stream")
            stream = await self._until_commit(job, reply, on_end)
            handed_over = True
            return stream
        finally:
            if not handed_over:
                await reply.aclose()

    async def _until_commit(
        self, job: Job, reply: UpstreamReply, on_end: OnEnd
    ) -> CommittedStream:
        """Raises UpstreamFailed for a stream that breaks before its first output."""
        events = StreamFilter(job.route.json_name, show_usage=job.request.wants_usage)
        chunks = reply.chunks()
        held = b""
        async for chunk in chunks:
            held += events.feed(chunk)
            if events.committed or events.failure:
                break
            if len(held) > MAX_HELD_BYTES:
                raise UpstreamFailed(FailureClass.MALFORMED, "metadata without end")
        else:
            held += events.end()
        if not events.committed:
            raise UpstreamFailed(FailureClass.MALFORMED, events.failure)
        return CommittedStream(
            reply,
            chunks,
            events,
            held,
            between_s=self._settings.between_chunks_timeout_s,
            deadline=job.deadline,
            on_end=on_end,
        )
