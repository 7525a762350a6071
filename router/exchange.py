"""One routed request: from its plan to the last byte of its answer."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

from harness.domain.failures import CLIENTS_OWN, ErrorClass, FailureClass
from router.asgi import CallerWatch, OnLeaving, Receive, Send, send_reply
from router.attempt import Answer
from router.course import Course, Job
from router.degraded import degraded
from router.dialects.table import DIALECTS
from router.dispatch import Dispatcher
from router.heartbeat import Heartbeat
from router.ports import UpstreamFailed
from router.refusals import nobody, refusal
from router.relay import CommittedStream
from router.replies import EVENTS, JSON, Reply
from router.said import Said
from router.serving import Header
from router.spans import Served
from router.usage import Usage

NO_USAGE: Final = Usage(0, 0)
RATES: Final = (b"x-ratelimit-", b"anthropic-ratelimit-")


class Copied:
    """What a client got, for whom keeps it (F9); nothing more once it is too large."""

    def __init__(self, most_bytes: int) -> None:
        self.too_large = False
        self._room = most_bytes
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        self._room -= len(piece)
        if self._room < 0:
            self.too_large = True
            self._pieces.clear()
        else:
            self._pieces.append(piece)

    @property
    def text(self) -> str:
        return b"".join(self._pieces).decode("utf-8", "replace")


class Exchange:
    """One routed request and what became of it.

    headers: of every answer, its id first. limited: they tell of limits of our own, which is
    what the client must heed, and not the provider's. heartbeat_s: of a stream, 0 for none.
    copies: where a stream's events are put as well.
    """

    def __init__(
        self,
        job: Job,
        course: Course,
        headers: tuple[Header, ...],
        *,
        limited: bool = False,
        heartbeat_s: float = 0.0,
        on_leaving: OnLeaving | None = None,
        copies: Sequence[Copied] = (),
    ) -> None:
        self.job = job
        self.course = course
        self.caller_gone = False
        self._headers = headers
        self._limited = limited
        self._heartbeat_s = heartbeat_s
        self._on_leaving = on_leaving
        self._copies = copies

    async def serve(self, dispatcher: Dispatcher, receive: Receive, send: Send) -> None:
        """Raises CallerGone; whatever happens, the upstream's work ends with this."""
        if self._heartbeat_s:
            await self._with_heartbeat(dispatcher, receive, send)
        else:
            await self._serve(dispatcher, receive, send)

    async def _with_heartbeat(
        self, dispatcher: Dispatcher, receive: Receive, send: Send
    ) -> None:
        # Whom it will be is not known yet: the first one, most likely.
        first = next((self.job.route.upstreams[each] for each in self.job.plan.targets), None)
        lost = degraded(self.job.plan, self.job.request, first)
        beat = Heartbeat(send, (*self._headers, *lost), self._heartbeat_s)
        try:
            await self._serve(dispatcher, receive, beat.send, beat)
        finally:
            beat.cancel()

    async def _serve(
        self,
        dispatcher: Dispatcher,
        receive: Receive,
        send: Send,
        beat: Heartbeat | None = None,
    ) -> None:
        try:
            # Not watched while the last bytes are sent: after them any caller may go.
            with CallerWatch(receive, dispatcher.timers, self._on_leaving):
                await dispatcher.run(self.job, self.course)
                result = self.course.result
                if isinstance(result, CommittedStream):
                    await self._relay(result, send)
            if beat is not None:
                await beat.settle()
            if isinstance(result, CommittedStream):
                await send({"type": "http.response.body", "body": b""})
            elif beat is not None and beat.begun:
                await send({"type": "http.response.body", "body": self._late_error(result)})
            else:
                await send_reply(send, self._reply(result), self._truth())
        finally:
            if isinstance(self.course.result, CommittedStream):
                await self.course.result.aclose()

    def _late_error(self, result: Answer | UpstreamFailed | None) -> bytes:
        """The end of a stream that has begun with a heartbeat and has no answer."""
        told = json.loads(self._reply(result).body)
        error = told.get("error") if isinstance(told, dict) else None
        message = error.get("message") if isinstance(error, dict) else None
        failure = result.failure if isinstance(result, UpstreamFailed) else None
        events = DIALECTS[self.job.request.endpoint].stream(self.job.request, None)
        return events.broken(str(message or told), failure or FailureClass.OVERLOADED)

    def _reply(self, result: Answer | UpstreamFailed | None) -> Reply:
        if isinstance(result, Answer):
            return Reply(result.status, (JSON, *self._passed_on(result.headers)), result.body)
        if result is None:
            return self._told(nobody(self.job, self.course))
        return self._told(refusal(result))

    def _told(self, error: Reply) -> Reply:
        dialect = DIALECTS[self.job.request.endpoint]
        return dialect.error(error, self._headers[0][1].decode())

    @property
    def usage(self) -> Usage:
        result = self.course.result
        if isinstance(result, Answer):
            return result.usage or NO_USAGE
        return result.usage if isinstance(result, CommittedStream) else NO_USAGE

    @property
    def model(self) -> str:
        """That the provider says it served; empty if it does not."""
        result = self.course.result
        return result.model if isinstance(result, Answer | CommittedStream) else ""

    @property
    def failed(self) -> bool:
        """The caller got an error that is not the caller's own."""
        result = self.course.result
        if self.caller_gone or isinstance(result, Answer):
            return False
        if isinstance(result, UpstreamFailed):
            return result.failure not in CLIENTS_OWN
        if result is None:
            return not self.job.plan.unable
        return self._broke_off

    @property
    def outcome(self) -> str:
        """ok, failed, client_error or cancelled."""
        if self.caller_gone:
            return "cancelled"
        if self.failed:
            return "failed"
        return (
            "ok" if isinstance(self.course.result, Answer | CommittedStream) else "client_error"
        )

    def served(self) -> Served:
        """For tracing."""
        result, course = self.course.result, self.course
        return Served(
            upstream=course.upstream,
            outcome=self.outcome,
            error=self._error(),
            attempts=len(course.attempts),
            usage=self.usage,
            first_token_s=course.first_token_s,
            body=result.body if isinstance(result, Answer) else b"",
            finish_reasons=(
                result.finish_reasons if isinstance(result, CommittedStream) else ()
            ),
        )

    def _error(self) -> str:
        """A class of failure; empty for an answer."""
        result = self.course.result
        match result:
            case _ if self.caller_gone:
                return FailureClass.CANCELLED.value
            case UpstreamFailed() | CommittedStream():
                return result.failure.value if result.failure else ""
            case None:
                failures = [each.failure for each in self.course.attempts if each.failure]
                return failures[-1].failure.value if failures else "no_target"
            case _:
                return ""

    def said(self) -> Said | None:
        """What the answer said, for the guardrails that watch; None where none came."""
        watch, result = self.job.watch, self.course.result
        if watch is None or result is None:
            return None
        if isinstance(result, CommittedStream):
            return result.said
        said = watch.ear()
        if said is None:
            return None
        if isinstance(result, Answer):
            DIALECTS[self.job.request.endpoint].hear(said, result.members)
        elif result.failure is FailureClass.CONTENT_POLICY:
            said.refused = True
        return said

    @property
    def charge(self) -> ErrorClass | None:
        """How the assigned arm failed; None where it did not."""
        upstream = self.course.upstream
        own_stream = upstream is not None and upstream.id == self.job.own
        charge = self.course.charge(self.job)
        return charge or (self._break if own_stream else None)

    @property
    def _broke_off(self) -> bool:
        return self._break is not None

    @property
    def _break(self) -> FailureClass | None:
        """Of a stream that had begun."""
        result = self.course.result
        return result.failure if isinstance(result, CommittedStream) else None

    async def _relay(self, stream: CommittedStream, send: Send) -> None:
        headers = [*EVENTS, *self._passed_on(stream.headers), *self._truth()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with aclosing(stream.sent()) as pieces:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                for copied in self._copies:
                    copied.add(piece)
        if self.job.watch is not None:
            now = asyncio.get_running_loop().time()
            self.course.last_token_s = now - self.job.begun

    def _passed_on(self, headers: Sequence[Header]) -> Sequence[Header]:
        if not self._limited:
            return headers
        return [each for each in headers if not each[0].startswith(RATES)]

    def _truth(self) -> Sequence[Header]:
        attempts = (b"x-swapgate-attempts", str(len(self.course.attempts)).encode())
        upstream, result = self.course.upstream, self.course.result
        served = (upstream.header,) if upstream else ()
        left = result.dropped if isinstance(result, Answer | CommittedStream) else ()
        lost = degraded(self.job.plan, self.job.request, upstream, left)
        return (*self._headers, attempts, *served, *lost)
