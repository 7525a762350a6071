"""Serves `switch_model` of a session over HTTP, and shows what became of its requests."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Body, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from harness.api.agents.answers import (
    AgentsResponse,
    ListAnswer,
    SwitchModelAnswer,
    list_answer,
)
from harness.api.agents.bodies import AgentsPageQuery, SwitchModelBody
from harness.api.agents.examples import SWITCH_EXAMPLES
from harness.api.agents.request import AgentsRequestParam
from harness.control.agents import queries
from harness.control.agents.switch_tool import SwitchCall, switch_answer, switch_model
from harness.domain.agents.switch_request import SwitchState

router = APIRouter()
SESSION = "/agents/{agent_id}/sessions/{session_id}"


@router.post(
    f"{SESSION}/switch_model",
    response_model=SwitchModelAnswer,
    summary="List models, or ask a person for another one",
    responses={202: {"model": SwitchModelAnswer, "description": "A person has to decide"}},
)
async def post_switch_model(
    asked: AgentsRequestParam,
    agent_id: str,
    session_id: str,
    body: Annotated[SwitchModelBody, Body(openapi_examples=SWITCH_EXAMPLES)],
) -> Response:
    """An approved switch is in force from the next message on."""
    await run_in_threadpool(asked.require_session, agent_id, session_id)
    asked.client.require_write()
    call = SwitchCall(session_id, body.action, body.model, body.reason, body.wait_s)
    answer = SwitchModelAnswer.model_validate(await switch_model(asked.ctx, call))
    is_waiting = answer.status == SwitchState.PENDING
    return AgentsResponse(answer, HTTPStatus.ACCEPTED if is_waiting else HTTPStatus.OK)


@router.get(
    f"{SESSION}/switch_requests",
    response_model=ListAnswer[SwitchModelAnswer],
    summary="List what was asked for, and what became of it",
)
def list_switch_requests(
    asked: AgentsRequestParam,
    agent_id: str,
    session_id: str,
    page: Annotated[AgentsPageQuery, Query()],
) -> Response:
    """The newest first."""
    session = asked.require_session(agent_id, session_id)
    found = queries.list_switch_requests(asked.ctx, page.page, session=session.id)
    return AgentsResponse(
        list_answer(
            found, lambda row: SwitchModelAnswer.model_validate(switch_answer(asked.ctx, row))
        )
    )
