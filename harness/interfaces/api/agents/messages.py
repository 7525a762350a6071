"""Serves the messages of a session, whole or as a stream of events."""

import asyncio
import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Final, assert_never
from urllib.parse import quote

import structlog
from fastapi import APIRouter, Header, Query
from starlette.responses import Response, StreamingResponse

from harness.agents.conversation import (
    PostedMessage,
    TurnEvent,
    TurnOutcome,
    TurnRun,
)
from harness.agents.message import (
    IdempotencyKey,
    MessageState,
    SessionMessage,
)
from harness.agents.turn import AnswerPiece
from harness.frame.errors import CallFailed, RouterUnreachable, SwapproofError
from harness.frame.pagination import Page
from harness.frame.plain_data import digest
from harness.frame.ports import Chance
from harness.interfaces.api.agents.access import (
    AgentsRequestParam,
    ErrorAnswer,
    answer_error,
    answer_unforeseen,
)
from harness.interfaces.api.agents.bodies import (
    ListAnswer,
    MessageAnswer,
    MessageBody,
    TurnAnswer,
)
from harness.interfaces.api.frame.endpoint import PageQuery
from harness.interfaces.api.frame.error_status import RETRY_AFTER_S


def answer_failure(error: CallFailed) -> ErrorAnswer:
    wait_s = error.retry_after_s
    if wait_s is None and error.retryable:
        wait_s = RETRY_AFTER_S
    status = error.status or HTTPStatus.BAD_GATEWAY
    if isinstance(error, RouterUnreachable):
        status = HTTPStatus.SERVICE_UNAVAILABLE
    # A 401 means that the agents process lacks access. The client cannot change that.
    elif status < HTTPStatus.BAD_REQUEST or status == HTTPStatus.UNAUTHORIZED:
        status = HTTPStatus.BAD_GATEWAY
    return ErrorAnswer(
        status,
        str(error),
        error.code or "model_failed",
        param="model" if error.code == "model_not_found" else None,
        retry_after_s=None if wait_s is None else round(max(1.0, wait_s)),
    )


log = structlog.get_logger("swapproof.agents")
router = APIRouter()
EVENT_STREAM: Final = "text/event-stream"
HEARTBEAT_S: Final = 15.0  # a silent stream sends a comment this often
AUTO_HEADER: Final = "x-swapproof-auto"  # the target that `auto` chose, and why
UNQUOTED_CHARACTERS: Final = " !$&'()*+,/:;=@"
EVENT_STREAM_EXAMPLE: Final = (
    'event: message.started\ndata: {"id": "ms_…", "state": "streaming", …}\n\n'
    'event: message.delta\ndata: {"text": "Your order"}\n\n'
    'event: message.stored\ndata: {"id": "ms_…", "state": "complete", …}\n\n'
    'event: turn.completed\ndata: {"id": "ms_…", "content": "Your order …", "steps": 1, …}\n\n'
)

PATH: Final = "/agents/{agent_id}/sessions/{session_id}/messages"


@router.post(
    PATH,
    response_model=TurnAnswer,
    summary="Send a message and get its answer",
    responses={200: {"content": {EVENT_STREAM: {"example": EVENT_STREAM_EXAMPLE}}}},
)
async def post_message(
    request: AgentsRequestParam,
    agent_id: str,
    session_id: str,
    body: MessageBody,
    accept: Annotated[str, Header()] = "",
    idempotency_key: Annotated[
        str | None,
        Header(alias="Idempotency-Key", min_length=1, max_length=200),
    ] = None,
) -> Response:
    """Returns the whole answer, or server-sent events with `stream: true` or `Accept:
    text/event-stream`. A message of the role `tool` gets an answer once no call is open.
    """
    streams = body.stream or EVENT_STREAM in accept.lower()
    request_key = None
    if idempotency_key is not None:
        # Omits `stream`, because a client may repeat a message with or without streaming.
        content = digest(body.model_dump(mode="json", exclude={"stream"}))
        request_key = IdempotencyKey(request.client.name, idempotency_key, content)
    posted = PostedMessage(
        request.client,
        agent_id,
        session_id,
        body.to_message(),
        request_key,
        streams=streams,
        keep=lambda outcome: "" if outcome.error else _write_turn(outcome),
    )
    request.client.require_write()
    run = await request.turns.start(posted)
    if isinstance(run, str):
        return _replay(run, streams=streams)
    headers = {AUTO_HEADER: quote(run.auto, safe=UNQUOTED_CHARACTERS)} if run.auto else {}
    if streams:
        return StreamingResponse(
            _stream_events(run, request.ctx.chance),
            media_type=EVENT_STREAM,
            headers={"x-accel-buffering": "no", **headers},
        )
    answer = _build_answer(await run.outcome())
    answer.headers.update(headers)
    return answer


def _build_answer(outcome: TurnOutcome) -> Response:
    if outcome.error is not None:
        return answer_failure(outcome.error)
    answer = Response(_write_turn(outcome), media_type="application/json")
    if failed_model := outcome.message.served.fallback_from:
        answer.headers["x-swapproof-agent-fallback"] = quote(failed_model, safe="/:@")
    return answer


def _replay(body: str, *, streams: bool) -> Response:
    headers = {"idempotent-replayed": "true"}
    if not streams:
        return Response(body, headers=headers, media_type="application/json")
    return Response(
        _format_event("turn.completed", body), headers=headers, media_type=EVENT_STREAM
    )


async def _stream_events(run: TurnRun, chance: Chance) -> AsyncIterator[bytes]:
    """Yields the turn's events; the last one is `turn.completed` or `error`."""
    events = run.events()
    next_event = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            finished, _ = await asyncio.wait({next_event}, timeout=HEARTBEAT_S)
            if not finished:
                yield b": still at work\n\n"
                continue
            if (event := next_event.result()) is None:
                return
            yield _write_event(event)
            next_event = asyncio.ensure_future(anext(events, None))
    except Exception as error:  # too late for an error status
        answer = answer_error(error) if isinstance(error, SwapproofError) else None
        if answer is None:
            name = chance.token("e_")
            log.exception("turn_failed", id=name)
            answer = answer_unforeseen(name)
        yield _format_error(answer)
    finally:
        next_event.cancel()
        await asyncio.wait({next_event})
        await events.aclose()


def _write_turn(outcome: TurnOutcome) -> str:
    return TurnAnswer.from_outcome(outcome).model_dump_json(by_alias=True)


def _write_event(event: TurnEvent) -> bytes:
    match event:
        case SessionMessage():
            is_started = event.state is MessageState.STREAMING
            name = "message.started" if is_started else "message.stored"
            return _format_event(name, MessageAnswer.write(event))
        case AnswerPiece(text, reasoning):
            pieces = {"text": text, "reasoning": reasoning}
            delta = {name: piece for name, piece in pieces.items() if piece}
            return _format_event("message.delta", json.dumps(delta, ensure_ascii=False))
        case TurnOutcome() if event.error is not None:
            return _format_error(answer_failure(event.error))
        case TurnOutcome():
            return _format_event("turn.completed", _write_turn(event))
        case _:
            assert_never(event)


def _format_event(name: str, data: str) -> bytes:
    return f"event: {name}\ndata: {data}\n\n".encode()


def _format_error(answer: ErrorAnswer) -> bytes:
    return _format_event("error", bytes(answer.body).decode())


@router.get(PATH, response_model=ListAnswer[MessageAnswer], summary="List messages")
def list_messages(
    request: AgentsRequestParam,
    agent_id: str,
    session_id: str,
    page: Annotated[PageQuery, Query()],
) -> Page[SessionMessage]:
    """Lists a session's messages by position, the oldest first."""
    session = request.require_session(agent_id, session_id)
    return request.ctx.store.lists.session_messages(page.page, session=session.id)
