"""The one attempt loop: the plan's targets in order, within one deadline."""

import asyncio
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from harness.domain.failures import FailureClass
from harness.domain.routing import Arm
from harness.domain.settings import RouterSettings
from router.attempt import Answer, check_head, read_answer
from router.body import ChatRequest
from router.patching import patched
from router.plan import Next, charged, next_step
from router.ports import TransportFactory, UpstreamFailed, UpstreamReply, UpstreamRequest
from router.relay import CommittedStream
from router.serving import ServedRoute, Upstream
from router.stream import StreamFilter

# What may come before the first output; more is no metadata.
MAX_HELD_BYTES: Final = 1024 * 1024


class Job(NamedTuple):
    """A request with its arm. deadline: on the event loop's clock."""

    request: ChatRequest
    route: ServedRoute
    arm: Arm
    deadline: float


class Attempt(NamedTuple):
    """failure: None for the one that answered."""

    upstream: Upstream
    failure: UpstreamFailed | None
    ms: float


@dataclass(slots=True)
class Course:
    """What happened so far. result: what the client gets, None when all failed."""

    attempts: list[Attempt] = field(default_factory=list)
    result: Answer | CommittedStream | UpstreamFailed | None = None

    @property
    def upstream(self) -> Upstream | None:
        """Whose answer, or refusal, the client gets."""
        return self.attempts[-1].upstream if self.result is not None else None

    def charged(self, arm: Arm) -> bool:
        """Whether the assigned arm failed (router.md 5)."""
        last = {a.upstream.id: a.failure.failure if a.failure else None for a in self.attempts}
        return charged(arm, list(last.values()))


class Dispatcher:
    def __init__(self, transport_for: TransportFactory, settings: RouterSettings) -> None:
        self._transport_for = transport_for
        self._settings = settings

    async def run(self, job: Job, course: Course) -> None:
        """Fill `course`. Cancelling it closes the attempt that is under way."""
        plan = job.route.plans[job.arm]
        index = tries = 0
        while True:
            left = len(plan) - index - 1
            tries += 1
            failure = await self._attempt(job, plan[index], left, course, again=tries > 1)
            if failure is None:
                return
            on_canary = job.arm is Arm.CANARY and index == 0
            match next_step(failure.failure, on_canary=on_canary, tries=tries, left=left):
                case Next.PASS:
                    course.result = failure
                    return
                case Next.EXHAUSTED:
                    return
                case Next.NEXT:
                    index, tries = index + 1, 0
                case Next.AGAIN:
                    pass
            if asyncio.get_running_loop().time() >= job.deadline:
                return

    async def _attempt(
        self, job: Job, upstream: Upstream, left: int, course: Course, *, again: bool
    ) -> UpstreamFailed | None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        # Every target behind this one keeps its share of what is left of the budget.
        limit = started + max(0.0, job.deadline - started) / (left + 1)
        if job.request.stream:
            limit = min(limit, started + self._settings.first_token_timeout_s)
        failure: UpstreamFailed | None = None
        try:
            async with asyncio.timeout_at(limit):
                course.result = await self._send(job, upstream, again=again)
        except UpstreamFailed as error:
            failure = error
        except TimeoutError:
            failure = UpstreamFailed(
                FailureClass.TIMEOUT, f"no answer within {limit - started:.1f} s"
            )
        course.attempts.append(Attempt(upstream, failure, (loop.time() - started) * 1000))
        return failure

    async def _send(
        self, job: Job, upstream: Upstream, *, again: bool
    ) -> Answer | CommittedStream:
        body = patched(job.request, upstream.target)
        request = UpstreamRequest(upstream.provider, body, job.request.stream, fresh=again)
        reply = await self._transport_for(upstream.provider).send(request)
        handed_over = False
        try:
            if not job.request.stream:
                await check_head(reply, "application/json")
                return await read_answer(reply, job.route.json_name)
            await check_head(reply, "text/event-stream")
            stream = await self._until_commit(job, reply)
            handed_over = True
            return stream
        finally:
            if not handed_over:
                await reply.aclose()

    async def _until_commit(self, job: Job, reply: UpstreamReply) -> CommittedStream:
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
        )
