"""Serves one planned request to its last byte, and reports its outcome.

`model_endpoint` builds the response, `router.server.app` awaits `serve`. `dispatch`
makes the attempts, `refusals` the error bodies, `stream_relay` a stream's bytes. The observers
read the properties below after the end. This is the only module of the request that writes
to the client.
"""

import asyncio
import json
from collections.abc import Callable, Collection, Sequence
from copy import copy
from functools import partial
from typing import Final

from harness.frame.failures import CLIENT_FAILURES, FailureClass
from harness.routing.table import Arm
from router.frame.asgi import (
    ABORTED,
    ON_LEAVING,
    ClientDisconnected,
    DisconnectWatch,
    OnLeaving,
    Receive,
    Send,
    WritePiece,
    piece_writer,
    send_reply,
)
from router.frame.body import ClientRequest
from router.frame.failure import UpstreamFailed
from router.frame.replies import EVENTS, JSON, Header, Reply, error_reply
from router.protocols.answer_signals import AnswerSignals
from router.protocols.answers import NO_USAGE, TokenUsage
from router.protocols.endpoints import DIALECTS
from router.recording.internal_errors import InternalErrors, RouterPart
from router.request.dispatch import Dispatcher
from router.request.needs import build_degradation_header
from router.request.refusals import build_no_answer_reply, build_refusal_reply
from router.request.request_state import (
    AnswerCopy,
    RequestProgress,
    RoutedRequest,
    UpstreamAnswer,
)
from router.request.stream_relay import CommittedStream, Heartbeat
from router.snapshot.compiled import CompiledTarget
from router.snapshot.route_plans import find_incumbent_plan

ATTEMPTS: Final = b"x-swapproof-attempts"
ONE_ATTEMPT: Final[Header] = (ATTEMPTS, b"1")
RATES: Final = (b"x-ratelimit-", b"anthropic-ratelimit-")


FAILED: Final = "failed"  # an outcome
REFUSED: Final = "refused"  # an outcome: failed, and the router called no target
ANSWERS: Final = (UpstreamAnswer, CommittedStream)


class RoutedResponse:
    """Serves a request, and is its outcome for the observers.

    headers: of the answer's head. The first one is the request's id.
    on_end: called once, when the answer is sent or cannot be sent.
    heartbeat_s: seconds of silence before a comment in a stream; 0 for no comments.
    caller_gone: the client disconnected before the answer's end.
    """

    def __init__(
        self,
        job: RoutedRequest,
        progress: RequestProgress,
        headers: tuple[Header, ...],
        dispatcher: Dispatcher,
        errors: InternalErrors,
        on_end: Callable[["RoutedResponse"], None],
        heartbeat_s: float,
    ) -> None:
        self.job = job
        self.progress = progress
        self.caller_gone = False
        self._heartbeat_s = heartbeat_s
        self._dispatcher = dispatcher
        self._errors = errors
        self._on_end = on_end
        # The router's own fault or end changed the request, so the arm was not measured.
        self.router_failed = False
        self._ended_at: float | None = None  # when the caller left, on the event loop's clock
        self._headers = headers
        # The headers then name our rate limits, not the provider's.
        self._has_limits = job.reservation is not None
        # The server's notice of a disconnect.
        self._on_leaving: OnLeaving | None = job.scope.get(ON_LEAVING)

    async def serve(  # noqa: C901, PLR0912 - one answer, to its last byte, however it ends
        self, receive: Receive, send: Send
    ) -> None:
        """Serves the answer. Always ends the provider's work, even if the client leaves.

        If the router's own code fails, the incumbent's plan is tried once more without
        observers. If the dispatcher itself failed, no arm is charged. Raises no failure of
        a provider.
        """
        dispatcher = self._dispatcher
        beat = None
        try:
            if self._heartbeat_s:
                beat = self._begin_heartbeat(send)
            # The watch ends before the last bytes, after which a client may disconnect.
            with DisconnectWatch(receive, dispatcher.timers, self._on_leaving):
                is_broken = False
                try:
                    await dispatcher.run(self.job, self.progress)
                except Exception as error:
                    # Not charged to any target, because the router's own code failed.
                    self._errors.note(
                        RouterPart.DISPATCH,
                        error,
                        self.job.route,
                        self.job.arm,
                    )
                    self.router_failed = is_broken = True
                result = self.progress.result
                if is_broken or (result is None and self._has_internal_failure()):
                    await self._run_plainly(dispatcher)
                    result = self.progress.result
                if result is None:
                    self.progress.waits = dispatcher.waits(self.job)
                if isinstance(result, CommittedStream):
                    await self._relay(result, send, beat)
            if beat is not None:
                try:
                    await beat.settle()
                except Exception as error:
                    self._errors.note(
                        RouterPart.HEARTBEAT,
                        error,
                        self.job.route,
                        self.job.arm,
                    )
            if isinstance(result, CommittedStream):
                await send({"type": "http.response.body", "body": b""})
            elif beat is not None and beat.begun:
                await send(
                    {
                        "type": "http.response.body",
                        "body": self._write_late_error(result),
                    }
                )
            else:
                await send_reply(send, self._build_reply(result), self._build_headers())
        except ClientDisconnected:
            self.caller_gone = True
            self._ended_at = dispatcher.timers.loop.time()
            if ABORTED in self.job.scope:
                self.router_failed = True
            else:
                dispatcher.note_leave(self.job, self.progress.current, self._ended_at)
        finally:
            try:
                if beat is not None:
                    self._cancel(beat)
                if isinstance(self.progress.result, CommittedStream):
                    await self.progress.result.aclose()
            finally:
                self._on_end(self)

    def _cancel(self, beat: Heartbeat) -> None:
        try:
            beat.cancel()
        except Exception as error:
            self._errors.note(RouterPart.HEARTBEAT, error, self.job.route, self.job.arm)

    def _begin_heartbeat(self, send: Send) -> Heartbeat | None:
        job = self.job
        # No target has answered yet; most likely the first target will.
        upstream = next(
            (job.route.upstreams[target] for target in job.plan.targets),
            None,
        )
        try:
            head = (*self._headers, *self._name_losses(upstream))
            return Heartbeat(send, head, self._heartbeat_s, since=job.begun)
        except Exception as error:
            self._errors.note(RouterPart.HEARTBEAT, error, job.route, job.arm)
            return None

    def _has_internal_failure(self, *, every: bool = False) -> bool:
        failures = [attempt.failure for attempt in self.progress.attempts]
        are_internal = [
            failure is not None and failure.failure is FailureClass.INTERNAL
            for failure in failures
        ]
        return bool(are_internal) and all(are_internal) if every else any(are_internal)

    async def _run_plainly(self, dispatcher: Dispatcher) -> None:
        """Asks the incumbent and the targets after it once, without observers."""
        job = self.job
        progress = self.progress
        if isinstance(progress.result, CommittedStream):
            await progress.result.aclose()
        progress.result = None
        plan = find_incumbent_plan(
            job.route.plans[job.request.endpoint][Arm.INCUMBENT], job.plan
        )
        plain = copy(job)
        plain.plan = plan
        plain.span = None
        plain.probe = None
        await dispatcher.run(plain, progress)

    def _write_late_error(self, result: UpstreamAnswer | UpstreamFailed | None) -> bytes:
        """Returns an error as an event, for an answer whose head is already sent."""
        reply = json.loads(self._build_reply(result).body)
        error = reply.get("error") if isinstance(reply, dict) else None
        message = error.get("message") if isinstance(error, dict) else None
        failure = result.failure if isinstance(result, UpstreamFailed) else None
        events = DIALECTS[self.job.request.endpoint].stream(self.job.request, None)
        return events.broken(str(message or reply), failure or FailureClass.OVERLOADED)

    def _build_reply(self, result: UpstreamAnswer | UpstreamFailed | None) -> Reply:
        if isinstance(result, UpstreamAnswer):
            passed = (
                self._drop_rate_limits(result.headers) if self._has_limits else result.headers
            )
            return Reply(result.status, (JSON, *passed), result.body)
        if result is None and self._has_internal_failure(every=True):
            message = f"the router failed; quote {self._headers[0][1].decode()}"
            return self._write_client_error(error_reply(500, message, "internal_error"))
        if result is None:
            return self._write_client_error(build_no_answer_reply(self.job, self.progress))
        return self._write_client_error(build_refusal_reply(result))

    def _write_client_error(self, error: Reply) -> Reply:
        dialect = DIALECTS[self.job.request.endpoint]
        return dialect.error(error, self._headers[0][1].decode())

    @property
    def usage(self) -> TokenUsage:
        """The tokens that the provider counted, of a stream up to now."""
        result = self.progress.result
        if isinstance(result, UpstreamAnswer):
            return result.usage or NO_USAGE
        return result.events.used() if isinstance(result, CommittedStream) else NO_USAGE

    @property
    def irregularities(self) -> Collection[str]:
        result = self.progress.result
        if isinstance(result, CommittedStream):
            return result.events.irregularities
        if isinstance(result, UpstreamAnswer) and result.irregularity is not None:
            return (result.irregularity,)
        return ()

    @property
    def failed(self) -> bool:
        result = self.progress.result
        if self.caller_gone or isinstance(result, UpstreamAnswer):
            return False
        if isinstance(result, UpstreamFailed):
            return result.failure not in CLIENT_FAILURES
        if result is None:
            return not self.job.plan.unable
        return self._stream_failure is not None

    @property
    def refused(self) -> bool:
        """Whether an operator's setting, and no failure of a target, denied the answer."""
        progress = self.progress
        is_unanswered = progress.result is None and not self.caller_gone
        return is_unanswered and not progress.attempts and self.job.plan.refuses

    @property
    def outcome(self) -> str:
        if self.caller_gone:
            return "cancelled"
        if self.failed:
            return REFUSED if self.refused else FAILED
        return "ok" if isinstance(self.progress.result, ANSWERS) else "client_error"

    @property
    def error(self) -> str:
        result = self.progress.result
        match result:
            case _ if self.caller_gone:
                return FailureClass.CANCELLED.value
            case UpstreamFailed() | CommittedStream():
                return result.failure.value if result.failure else ""
            case None:
                failures = [
                    attempt.failure for attempt in self.progress.attempts if attempt.failure
                ]
                return failures[-1].failure.value if failures else "no_target"
            case _:
                return ""

    def signals(self) -> AnswerSignals | None:
        """Returns the answer's signals for guardrails; None if no guardrail needs them, or
        no target answered.
        """
        probe = self.job.probe
        result = self.progress.result
        if probe is None or result is None:
            return None
        if isinstance(result, CommittedStream):
            return result.events.signals
        signals = probe.new_signals()
        if signals is None:
            return None
        if isinstance(result, UpstreamAnswer):
            DIALECTS[self.job.request.endpoint].note_signals(signals, result.members)
        elif result.failure is FailureClass.CONTENT_POLICY:
            signals.refused = True
        return signals

    @property
    def ended_at(self) -> float:
        """The time at which the caller left, else now, on the event loop's clock."""
        if self._ended_at is not None:
            return self._ended_at
        return self._dispatcher.timers.loop.time()

    @property
    def _stream_failure(self) -> FailureClass | None:
        result = self.progress.result
        return result.failure if isinstance(result, CommittedStream) else None

    async def _relay(
        self,
        stream: CommittedStream,
        send: Send,
        beat: Heartbeat | None,
    ) -> None:
        passed = self._drop_rate_limits(stream.headers) if self._has_limits else stream.headers
        headers = [
            *EVENTS,
            *passed,
            *self._build_headers(),
        ]
        if beat is None or await beat.watch(stream):
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": headers,
                }
            )
        write = piece_writer(send)
        pieces = stream.sent(partial(self._write_and_copy, write) if self.job.copies else write)
        try:
            async for piece in pieces:
                if beat is not None and beat.under_way is not None:
                    await asyncio.wait({beat.under_way})
                await send(
                    {
                        "type": "http.response.body",
                        "body": piece,
                        "more_body": True,
                    }
                )
                self._copy_piece(piece)
        finally:
            await pieces.aclose()
        if self.job.probe is not None:
            self.progress.last_token_s = asyncio.get_running_loop().time() - self.job.begun

    def _write_and_copy(self, write: WritePiece, piece: bytes) -> bool:
        """Writes a piece, and copies it if it was written."""
        is_written = write(piece)
        if is_written:
            self._copy_piece(piece)
        return is_written

    def _copy_piece(self, piece: bytes) -> None:
        for answer_copy in self.job.copies:
            try:
                answer_copy.add(piece)
            except Exception as error:
                self._drop_copy(answer_copy, error)

    def _drop_copy(self, dropped: AnswerCopy, error: Exception) -> None:
        """Marks a copy as too large, so that no observer gets a part of the answer."""
        self._errors.note(RouterPart.CAPTURE, error, self.job.route, self.job.arm)
        dropped.too_large = True
        self.job.copies = [kept for kept in self.job.copies if kept is not dropped]

    def note_faults(self) -> None:
        """Notes the faults of the router's own code in a stream, which had to wait for its
        end.
        """
        result = self.progress.result
        job = self.job
        if isinstance(result, CommittedStream):
            for part, error in result.faults:
                self._errors.note(part, error, job.route, job.arm)

    def _drop_rate_limits(self, headers: Sequence[Header]) -> Sequence[Header]:
        """Removes the provider's rate limits, which would contradict ours."""
        passed = []
        for header in headers:
            if not header[0].startswith(RATES):
                passed.append(header)  # noqa: PERF401 - up to Python 3.11, that is a call
        return passed

    def _build_headers(self) -> Sequence[Header]:
        """Returns the headers that name the request's attempts, target and losses."""
        progress = self.progress
        plan = self.job.plan
        request = self.job.request
        count = len(progress.attempts)
        result = progress.result
        attempts = ONE_ATTEMPT if count == 1 else (ATTEMPTS, b"%d" % count)
        if result is None:
            return (*self._headers, attempts, *self._name_losses(None))
        upstream = progress.attempts[-1].upstream
        if (
            isinstance(result, ANSWERS)
            and not (plan.serialize_tools or result.dropped)
            and (not upstream.lacks[request.endpoint] or _loses_nothing(request, upstream))
        ):
            return (*self._headers, attempts, *upstream.headers)  # the request lost nothing
        degraded = self._name_losses(upstream, result)
        return (*self._headers, attempts, *upstream.headers, *degraded)

    def _name_losses(
        self,
        upstream: CompiledTarget | None,
        result: UpstreamAnswer | CommittedStream | UpstreamFailed | None = None,
    ) -> tuple[Header, ...]:
        try:
            dropped = result.dropped if isinstance(result, ANSWERS) else ()
            return build_degradation_header(self.job.plan, self.job.request, upstream, dropped)
        except Exception as error:
            self._errors.note(RouterPart.HEADERS, error, self.job.route, self.job.arm)
            return ()


def _loses_nothing(request: ClientRequest, upstream: CompiledTarget) -> bool:
    plain = upstream.plain_models.get(request.endpoint)
    return plain is not None and plain.suits(request.members.found, request.text)
