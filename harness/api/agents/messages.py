"""Serves messages of a session: posts one and answers it, whole or as server-sent events, and
lists what was said.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Final, assert_never
from urllib.parse import quote

import structlog
from fastapi import APIRouter, Header, Query
from starlette.responses import Response, StreamingResponse

from harness.api.agents.answers import ListAnswer, MessageAnswer, TurnAnswer
from harness.api.agents.bodies import AgentsPageQuery, MessageBody
from harness.api.agents.errors import ErrorAnswer, answer_error, answer_unforeseen
from harness.api.agents.request import AgentsRequestParam, kept_response
from harness.api.agents.turn_failures import failure_answer, kept_answer
from harness.control.agents import queries
from harness.control.agents.conversation import (
    AnswerBegun,
    MessageStored,
    TurnEvent,
    TurnOutcome,
)
from harness.control.agents.turn_runner import PostedMessage, TurnRun
from harness.domain.agents.message import SessionMessage
from harness.domain.agents.model_call import AnswerPiece
from harness.domain.agents.turn_lease import IdempotentAnswer
from harness.domain.errors import SwapgateError
from harness.domain.pagination import Page
from harness.ports import Chance

log = structlog.get_logger("swapgate.agents")
router = APIRouter()
EVENTS: Final = "text/event-stream"
# How long a stream may be silent before a comment keeps the connection alive.
HEARTBEAT_S: Final = 15.0
# Who answers for the model `auto`, and why.
AUTO_HEADER: Final = "x-swapgate-auto"
SAFE: Final = " !$&'()*+,/:;=@"
EVENTS_EXAMPLE: Final = (
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
    responses={200: {"content": {EVENTS: {"example": EVENTS_EXAMPLE}}}},
)
async def post_message(
    request: AgentsRequestParam,
    agent_id: str,
    session_id: str,
    body: MessageBody,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """The answer comes whole, or as server-sent events with `stream: true` or `Accept:
    text/event-stream`. A message of the role `tool` gets an answer once no call is open.
    """
    streams = body.stream or EVENTS in accept.lower()
    # Asked for anew in another form, it is the same message.
    content = body.model_dump(mode="json", exclude={"stream"})
    posted = PostedMessage(
        request.client,
        agent_id,
        session_id,
        body.incoming(),
        request.idempotency(content),
        streams=streams,
    )
    request.client.require_write()
    run = await request.turns.start(posted, kept_answer)
    if isinstance(run, IdempotentAnswer):
        return _replayed(run, streams=streams)
    headers = {AUTO_HEADER: quote(run.auto, safe=SAFE)} if run.auto else {}
    if streams:
        return StreamingResponse(
            _events(run, request.ctx.chance),
            media_type=EVENTS,
            headers={"x-accel-buffering": "no", **headers},
        )
    answer = _answer(await run.outcome())
    answer.headers.update(headers)
    return answer


def _answer(outcome: TurnOutcome) -> Response:
    if outcome.failure is not None:
        return failure_answer(outcome)
    answer = Response(_turn_json(outcome), media_type="application/json")
    if fallen := outcome.message.served.fallback_from:
        answer.headers["x-swapgate-agent-fallback"] = quote(fallen, safe="/:@")
    return answer


def _replayed(answer: IdempotentAnswer, *, streams: bool) -> Response:
    if not streams or answer.status != HTTPStatus.OK:
        return kept_response(answer, is_replay=True)
    headers = {"idempotent-replayed": "true"}
    return Response(_event("turn.completed", answer.body), media_type=EVENTS, headers=headers)


async def _events(run: TurnRun, chance: Chance) -> AsyncIterator[bytes]:
    """The turn as it goes on; its last event is `turn.completed` or `error`."""
    events = run.events()
    waiting = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            done, _ = await asyncio.wait({waiting}, timeout=HEARTBEAT_S)
            if not done:
                yield b": still at work\n\n"
                continue
            event = waiting.result()
            if event is None:
                return
            yield _written(event)
            waiting = asyncio.ensure_future(anext(events, None))
    except Exception as error:  # noqa: BLE001 - the answer has begun: the error is its last event
        yield _error_event(_answer_fault(error, chance))
    finally:
        waiting.cancel()
        await asyncio.wait({waiting})
        await events.aclose()


def _answer_fault(error: Exception, chance: Chance) -> ErrorAnswer:
    if isinstance(error, SwapgateError) and (known := answer_error(error)) is not None:
        return known
    name = chance.token("e_")
    log.error("turn_failed", id=name, exc_info=error)
    return answer_unforeseen(name)


def _turn_json(outcome: TurnOutcome) -> str:
    return TurnAnswer.from_outcome(outcome).model_dump_json(by_alias=True)


def _written(event: TurnEvent) -> bytes:
    match event:
        case AnswerBegun(message):
            return _event("message.started", MessageAnswer.write(message))
        case AnswerPiece(text, reasoning):
            pieces = {"text": text, "reasoning": reasoning}
            given = {name: piece for name, piece in pieces.items() if piece}
            return _event("message.delta", json.dumps(given, ensure_ascii=False))
        case MessageStored(message):
            return _event("message.stored", MessageAnswer.write(message))
        case TurnOutcome() if event.failure is not None:
            return _error_event(failure_answer(event))
        case TurnOutcome():
            return _event("turn.completed", _turn_json(event))
        case _:
            assert_never(event)


def _event(name: str, data: str) -> bytes:
    return f"event: {name}\ndata: {data}\n\n".encode()


def _error_event(answer: ErrorAnswer) -> bytes:
    return _event("error", bytes(answer.body).decode())


@router.get(PATH, response_model=ListAnswer[MessageAnswer], summary="List what was said")
def list_messages(
    request: AgentsRequestParam,
    agent_id: str,
    session_id: str,
    page: Annotated[AgentsPageQuery, Query()],
) -> Page[SessionMessage]:
    """Lists a session's messages by position, the oldest first."""
    session = request.require_session(agent_id, session_id)
    return queries.list_session_messages(request.ctx, session.id, page.page)
