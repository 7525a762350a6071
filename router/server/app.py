"""The router's ASGI application answers each path.

The parts are built in `parts`, the paths listed in `paths`. A request passes
`router.access.front_door`, then `router.request.model_endpoint`; other paths have answers
of their own. A fault that reaches this module becomes a 500 with the request's id.
"""

import logging
from collections.abc import Awaitable
from contextlib import suppress
from typing import Final

from harness.routing.table import KeyGrant
from router.access.admission import AsideKind
from router.access.front_door import (
    CALLER,
    FLAGS_PATH,
    SOON,
    list_models,
    speaks_anthropic,
)
from router.frame.asgi import (
    BODY,
    HEAD_FACTS,
    ClientDisconnected,
    Receive,
    Scope,
    Send,
    send_reply,
)
from router.frame.body import RESPONSES_PATH
from router.frame.replies import JSON, Header, Reply, error_reply
from router.observers.feedback import FEEDBACK_PATH
from router.observers.otlp_outcomes import (
    MAX_BATCH_BYTES,
    PROTOBUF,
    TRACES_PATH,
)
from router.protocols.endpoints import COMPLETIONS
from router.recording.internal_errors import RouterPart
from router.recording.metrics import CONTENT_TYPE
from router.recording.port import MAX_BODY_BYTES
from router.request.client_directives import HeadPlan, plan_head
from router.request.needs import COUNT_PATHS
from router.server.agents_pass_through import (
    AGENTS_PATH,
    BELOW_AGENTS,
    AgentsPassThrough,
)
from router.server.completions import as_chat
from router.server.flags import MAX_CONTEXT_BYTES, FlagCaller
from router.server.parts import RouterParts
from router.server.paths import (
    AGENTS_METHODS,
    METRICS,
    MODEL_PATHS,
    find_method,
    refuse_method,
    refuse_unknown_path,
    refuse_websocket,
)
from router.server.request_body import (
    is_plain_json,
    media_type,
    read_request_body,
)
from router.snapshot.compiled import CompiledSnapshot

log = logging.getLogger(__name__)
_HEAD_PLAN: Final = "plan"  # the key of a head's plan in its facts
_RESPONSES: Final = f"/v1{RESPONSES_PATH}"
# By path: the largest body, and the kind of limit that applies to the key.
_SIDE_CALLS: Final = {
    FEEDBACK_PATH: (MAX_BODY_BYTES, AsideKind.FEEDBACK),
    TRACES_PATH: (MAX_BATCH_BYTES, AsideKind.FEEDBACK),
}


class Router(RouterParts):
    """The application of a worker. The server calls `stop` when its shutdown begins."""

    async def _serve_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        if scope["type"] == "lifespan":
            await self._serve_lifespan(receive, send)
            return
        request_id = self._front_door.next_id()
        if self._cors.origins:
            send = self._cors.add_headers(scope, send)
        failure_reply: Reply | None = None
        try:
            answer = self._answer(scope, receive, send, request_id)
            reply = answer if isinstance(answer, Reply) else await answer
            if reply is not None:
                client_reply = self._front_door.rewrite_reply(scope, request_id, reply)
                await send_reply(send, client_reply, (request_id,))
        except ClientDisconnected:
            return
        except Exception as error:
            failure_reply = self._front_door.note_failure(request_id, error)
        if failure_reply is not None:
            client_reply = self._front_door.rewrite_reply(scope, request_id, failure_reply)
            # The server refuses a second head, and so closes the connection of an answer that
            # has begun.
            with suppress(RuntimeError):
                await send_reply(send, client_reply, (request_id,))

    def _identify(  # noqa: PLR0911 - what refuses a request ends it
        self, scope: Scope
    ) -> Reply | AgentsPassThrough | tuple[KeyGrant, CompiledSnapshot]:
        """Returns the caller's grant and revision, the refusal, or the way to the agents
        process.

        Health paths need no key, and neither does a web page's preflight.
        """
        path = scope["path"]
        method = scope["method"]
        if path in MODEL_PATHS and method == "POST":
            return self._front_door.identify(scope)
        if path in HEALTH:
            return HEALTH[path](self) if method in ("GET", "HEAD") else refuse_method("GET")
        for_agents = path == AGENTS_PATH or path.startswith(BELOW_AGENTS)
        allowed = AGENTS_METHODS if self._agents and for_agents else find_method(path)
        if allowed is None:
            return refuse_unknown_path(method, path)
        if method == "OPTIONS" and (
            allowed != AGENTS_METHODS or self._cors.is_from_listed_page(scope)
        ):
            return self._cors.answer_preflight(scope, allowed)
        if self._agents and for_agents:
            return self._agents
        if (refusal := refuse_websocket(scope)) is not None:
            return refusal
        if method != allowed and not (method == "HEAD" and allowed == "GET"):
            return refuse_method(allowed)
        return self._front_door.identify(scope)

    def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        request_id: Header,
    ) -> Reply | Awaitable[Reply | None]:
        """Returns a reply or an awaitable. The awaitable returns a reply, or None if it sent
        the answer itself.
        """
        facts = scope.get(HEAD_FACTS)
        head: HeadPlan | None = facts.get(_HEAD_PLAN) if facts is not None else None
        serving = self._holder.current
        if serving is None or head is None or head.revision() is not serving:
            caller = self._identify(scope)
            if isinstance(caller, Reply):
                return caller
            if isinstance(caller, AgentsPassThrough):
                return caller.serve(scope, receive, send, request_id)
            grant, serving = caller
            head = plan_head(scope, serving, grant, is_plain=is_plain_json(scope))
            # Do not keep the plans of agents' heads, which expire after a minute.
            if facts is not None and CALLER not in scope:
                facts[_HEAD_PLAN] = head
        path = scope["path"]
        if path in MODEL_PATHS:
            return self._serve_model(scope, receive, send, head, serving, request_id)
        if path == METRICS:
            return self.metrics()
        if path in _SIDE_CALLS or path.startswith(FLAGS_PATH):
            return self._answer_aside(scope, receive, head, serving, request_id)
        return list_models(
            serving,
            head.grant,
            path,
            self._names,
            anthropic=speaks_anthropic(scope),
        )

    async def _answer_aside(
        self,
        scope: Scope,
        receive: Receive,
        head: HeadPlan,
        serving: CompiledSnapshot,
        request_id: Header,
    ) -> Reply:
        """Answers a call beside requests for a model: feedback, outcomes of flags, or
        flags.
        """
        path = scope["path"]
        most_bytes, kind = _SIDE_CALLS.get(path, (MAX_CONTEXT_BYTES, AsideKind.FLAGS))
        is_protobuf = path == TRACES_PATH and media_type(scope) == PROTOBUF
        arrival = await self._await_body(
            scope, receive, head, serving, most_bytes, any_type=is_protobuf
        )
        if isinstance(arrival, Reply):
            return arrival
        body, head, serving = arrival
        grant = head.grant
        if refusal := self._admission.admit_aside(kind, grant.id, grant.limits):
            return refusal
        if path == FEEDBACK_PATH:
            return await self._feedback.take(body, grant.id)
        if path == TRACES_PATH:
            return await self._outcomes.take(body, grant.id, protobuf=is_protobuf)
        caller = FlagCaller(scope, grant, serving, request_id[1].decode())
        return self._flags.answer(body, caller)

    async def _serve_model(  # noqa: PLR0911 - what refuses a request ends it
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        head: HeadPlan,
        serving: CompiledSnapshot,
        request_id: Header,
    ) -> Reply | None:
        """Serves a request for a model, or counts its tokens, within the worker's limit of
        requests.

        Returns None if the answer was sent.
        """
        if refusal := self._front_door.enter():
            return refusal
        try:
            limit = self._settings.max_body_bytes
            body: bytes | None = scope.get(BODY) if head.is_plain else None
            if body is None or len(body) > limit:
                arrival = await self._await_body(scope, receive, head, serving, limit)
                if isinstance(arrival, Reply):
                    return arrival
                body, head, serving = arrival
            if scope["path"] in COUNT_PATHS:
                return await self._count_tokens(scope, body, head, serving, request_id)
            if scope["path"] == COMPLETIONS:
                chat = as_chat(scope, send, body)
                if isinstance(chat, Reply):
                    return chat
                scope, send, body = chat
            if serving.keeps_responses and scope["path"] == _RESPONSES:
                return await self._serve_kept_response(
                    scope, receive, send, body, head, serving, request_id
                )
            response = self._calls.prepare(
                scope,
                body=body,
                head=head,
                serving=serving,
                request_id=request_id,
            )
            if isinstance(response, Reply):
                return response
            await response.serve(receive, send)
            return None
        finally:
            self._front_door.leave()

    async def _await_body(
        self,
        scope: Scope,
        receive: Receive,
        head: HeadPlan,
        serving: CompiledSnapshot,
        max_bytes: int,
        *,
        any_type: bool = False,
    ) -> Reply | tuple[bytes, HeadPlan, CompiledSnapshot]:
        """Reads a body; returns it with its head's plan and revision, or the refusal.

        A client may hold its body back for longer than a change may take. So the method reads
        the head again, for the revision that serves when the body is complete.
        """
        body = await read_request_body(
            scope, receive, self._timers, max_bytes, any_type=any_type
        )
        if isinstance(body, Reply):
            return body
        if serving is not self._holder.current:
            caller = self._front_door.identify(scope)
            if isinstance(caller, Reply):
                return caller
            grant, serving = caller
            head = plan_head(scope, serving, grant, is_plain=head.is_plain)
        return body, head, serving

    async def _count_tokens(
        self,
        scope: Scope,
        body: bytes,
        head: HeadPlan,
        serving: CompiledSnapshot,
        request_id: Header,
    ) -> Reply:
        grant = head.grant
        kind = AsideKind.COUNTS
        if refusal := self._admission.admit_aside(kind, grant.id, grant.limits):
            return refusal
        if serving.keeps_responses and scope["path"].startswith(_RESPONSES):
            opened = await self._kept.open(scope, body, head, serving)
            if isinstance(opened, Reply):
                return opened
            body = body if opened is None else opened.body
        return await self._calls.count_tokens(scope, body, head, serving, request_id)

    async def _serve_kept_response(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        body: bytes,
        head: HeadPlan,
        serving: CompiledSnapshot,
        request_id: Header,
    ) -> Reply | None:
        """Serves `/v1/responses` if a route keeps its answers: resolves the request's
        references, and keeps the answer. Returns None if the answer was sent.
        """
        opened = await self._kept.open(scope, body, head, serving)
        if isinstance(opened, Reply):
            return opened
        response = self._calls.prepare(
            scope,
            body=body if opened is None else opened.body,
            head=head,
            serving=serving,
            request_id=request_id,
        )
        if isinstance(response, Reply):
            return response
        if opened is not None:
            send = self._kept.wrap_send(opened, response, send)
        await response.serve(receive, send)
        return None

    def note_fault(self, error: Exception) -> None:
        """Notes a fault outside any request, such as of the worker's reports."""
        self._errors.note(RouterPart.BACKGROUND, error)

    def stop(self) -> None:
        """Makes `/readyz` answer 503. Requests are still served."""
        self.stopping = True

    def healthz(self) -> Reply:
        """Answers 200 as long as the process lives; `readyz` tells whether it has routes."""
        return Reply(200, (JSON,), b'{"status":"ok"}')

    def readyz(self) -> Reply:
        """Reports `degraded` and the reason while the snapshot may be outdated."""
        if self.stopping:
            return Reply(503, (JSON,), b'{"status":"stopping"}')
        serving = self._holder.current
        if serving is None:
            return Reply(503, (JSON,), b'{"status":"starting"}')
        if self._holder.refused:
            return Reply(
                200,
                (JSON,),
                b'{"status":"degraded","reason":"revision_refused"}',
            )
        if self._holder.stale:
            return Reply(
                200,
                (JSON,),
                b'{"status":"degraded","reason":"database_away"}',
            )
        return Reply(200, (JSON,), b'{"status":"ok"}')

    async def metrics(self) -> Reply:
        """Answers with the metrics of all workers; 503 if the parent does not answer in
        time.
        """
        try:
            text = await self._recorder.text()
        except TimeoutError:
            message = "the router's parent process does not answer; try again in a second"
            return error_reply(503, message, "metrics_unavailable", headers=(SOON,))
        return Reply(200, ((b"content-type", CONTENT_TYPE),), text)


# Clients also use these paths to check that the router answers.
HEALTH: Final = {
    **dict.fromkeys(("/", "/v1", "/v1/", "/health", "/healthz"), Router.healthz),
    "/readyz": Router.readyz,
}
