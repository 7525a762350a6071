"""POST /v1/chat/completions: from the request to the last byte and its observation."""

import asyncio
import json
import math
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

from harness.domain.errors import InputError
from harness.domain.failures import CLIENTS_OWN
from harness.domain.routing import KeyGrant, arm_of
from harness.domain.settings import RouterSettings
from harness.ports import Clock
from router import sticky
from router.asgi import CallerGone, CallerWatch, Receive, Scope, Send, header, send_reply
from router.attempt import Answer
from router.body import ChatRequest, FieldError, read_chat
from router.course import Course, Job
from router.dispatch import Dispatcher
from router.keys import may_use
from router.minutes import Ended
from router.ports import UpstreamFailed
from router.recorder import Recorder, Ticket
from router.relay import CommittedStream
from router.replies import DO_NOT_RETRY, EVENTS, JSON, Reply, error_reply
from router.serving import Header, ServedRoute, Serving
from router.usage import Usage

NO_USAGE: Final = Usage(0, 0)


class Chat:
    def __init__(
        self, dispatcher: Dispatcher, recorder: Recorder, settings: RouterSettings, clock: Clock
    ) -> None:
        self._dispatcher = dispatcher
        self._recorder = recorder
        self._settings = settings
        self._clock = clock

    async def answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        body: bytes,
        grant: KeyGrant,
        serving: Serving,
        request_id: Header,
    ) -> None:
        started = self._clock.monotonic()
        found = self._route(body, grant, serving)
        if isinstance(found, Reply):
            await send_reply(send, found, (request_id,))
            return
        request, route = found
        key, told_apart = sticky.sticky_key(request, header(scope, sticky.HEADER), grant.id)
        if not told_apart:
            self._recorder.counters["sticky_by_api_key"] += 1
        arm = arm_of(route.route, key)
        canary = route.canary
        ticket = self._recorder.admit(canary, arm, key) if canary else None
        limit_s = min(route.route.settings.total_timeout_s, self._settings.total_timeout_s)
        deadline = asyncio.get_running_loop().time() + limit_s
        job = Job(request, route, arm, self._dispatcher.plan(route, arm), deadline)
        exchange = Exchange(job, Course(), (request_id, *route.headers[arm]))
        try:
            await exchange.serve(self._dispatcher, receive, send)
        except CallerGone:
            exchange.caller_gone = True
            self._recorder.counters["callers_gone"] += 1
        finally:
            self._record(exchange, ticket, serving.revision, started)

    def _route(
        self, body: bytes, grant: KeyGrant, serving: Serving
    ) -> Reply | tuple[ChatRequest, ServedRoute]:
        try:
            request = read_chat(body)
        except InputError as error:
            param = error.param if isinstance(error, FieldError) else None
            return error_reply(400, f"the request body: {error}", "invalid_json", param=param)
        route = serving.routes.get(request.model)
        if route is None:
            message = f"there is no route {request.model!r}; GET /v1/models lists yours"
            return error_reply(404, message, "model_not_found", param="model")
        if not may_use(grant, route.route.name):
            message = f"this key may not use route {request.model!r}; ask an admin for one"
            return error_reply(403, message, "route_not_allowed", param="model")
        return request, route

    def _record(
        self, exchange: "Exchange", ticket: Ticket | None, revision: int, started: float
    ) -> None:
        job, upstream = exchange.job, exchange.course.upstream
        usage = exchange.usage
        cost_usd = 0.0
        if upstream is not None and upstream.price is not None:
            cost_usd = upstream.price.cost_usd(usage.input_tokens, usage.output_tokens)
        elif usage != NO_USAGE:
            self._recorder.counters["requests_without_price"] += 1
        self._recorder.finish(
            ticket,
            Ended(
                route=job.route.route.name,
                arm=job.arm.value,
                target=upstream.id if upstream else "",
                revision=revision,
                stream=job.request.stream,
                failed=exchange.failed,
                charged=exchange.charged,
                latency_ms=(self._clock.monotonic() - started) * 1000,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cost_usd=cost_usd,
            ),
        )


class Exchange:
    """One routed request and what became of it."""

    def __init__(self, job: Job, course: Course, headers: tuple[Header, ...]) -> None:
        self.job = job
        self.course = course
        self.caller_gone = False
        self._headers = headers

    async def serve(self, dispatcher: Dispatcher, receive: Receive, send: Send) -> None:
        """Raises CallerGone; whatever happens, the upstream's work ends with this."""
        try:
            # Not watched while the last bytes are sent: after them any caller may go.
            with CallerWatch(receive):
                await dispatcher.run(self.job, self.course)
                result = self.course.result
                if isinstance(result, CommittedStream):
                    await self._relay(result, send)
            if isinstance(result, CommittedStream):
                await send({"type": "http.response.body", "body": b""})
            else:
                await send_reply(send, self._reply(result), self._truth())
        finally:
            if isinstance(self.course.result, CommittedStream):
                await self.course.result.aclose()

    def _reply(self, result: Answer | UpstreamFailed | None) -> Reply:
        match result:
            case Answer(status, headers, body):
                return Reply(status, (JSON, *headers), body)
            case UpstreamFailed():
                return _refusal(result)
            case None:
                return _nobody(self.job, self.course)

    @property
    def usage(self) -> Usage:
        result = self.course.result
        if isinstance(result, Answer):
            return result.usage or NO_USAGE
        return result.usage if isinstance(result, CommittedStream) else NO_USAGE

    @property
    def failed(self) -> bool:
        """The caller got an error that is not the caller's own."""
        if self.caller_gone:
            return False
        result = self.course.result
        if isinstance(result, UpstreamFailed):
            return result.failure not in CLIENTS_OWN
        return result is None or self._broke_off

    @property
    def charged(self) -> bool:
        upstream = self.course.upstream
        own_stream = upstream is not None and upstream.id == self.job.own
        return self.course.charged(self.job) or (own_stream and self._broke_off)

    @property
    def _broke_off(self) -> bool:
        result = self.course.result
        return isinstance(result, CommittedStream) and result.failure is not None

    async def _relay(self, stream: CommittedStream, send: Send) -> None:
        headers = [*EVENTS, *stream.headers, *self._truth()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with aclosing(stream.sent()) as pieces:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})

    def _truth(self) -> Sequence[Header]:
        attempts = (b"x-swapgate-attempts", str(len(self.course.attempts)).encode())
        upstream = self.course.upstream
        served = (upstream.header,) if upstream else ()
        return (*self._headers, attempts, *served)


def _refusal(refusal: UpstreamFailed) -> Reply:
    """The provider's own words, with its status."""
    status = refusal.status or 400
    try:
        json.loads(refusal.body)
    except (ValueError, RecursionError):
        text = refusal.body[:500].decode("utf-8", "replace")
        return error_reply(status, text or refusal.detail, refusal.failure.value)
    return Reply(status, (JSON,), refusal.body)


def _nobody(job: Job, course: Course) -> Reply:
    name = job.route.route.name
    if course.attempts:
        return _all_failed(name, course)
    wait_s = job.plan.retry_after_s or 1
    headers: list[Header] = [(b"retry-after", str(wait_s).encode())]
    # Who waited longer than a request may take has no use for this answer.
    if wait_s > job.route.route.settings.total_timeout_s:
        headers.append(DO_NOT_RETRY)
    return error_reply(
        503,
        f"every target of route {name!r} failed lately and is left alone for {wait_s} s",
        "all_circuits_open",
        headers=headers,
        targets=[
            {
                "target": job.route.upstreams[each.target].name,
                "left_out": each.because.value,
                "retry_in_s": math.ceil(each.retry_in_s),
            }
            for each in job.plan.left_out
        ],
    )


def _all_failed(route: str, course: Course) -> Reply:
    tried = [
        {
            "target": attempt.upstream.name,
            "failure": attempt.failure.failure.value,
            "status": attempt.failure.status,
            "ms": round(attempt.ms),
        }
        for attempt in course.attempts
        if attempt.failure
    ]
    listed = "; ".join(f"{each['target']}: {each['failure']}" for each in tried)
    return error_reply(
        502,
        f"no target of route {route!r} answered ({listed})",
        "all_targets_failed",
        headers=(DO_NOT_RETRY,),
        attempts=tried,
    )
