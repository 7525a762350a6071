"""Serves `switch_model` of a session over HTTP, and shows what became of its requests."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from harness.api.agents.answers import ListAnswer, SwitchModelAnswer
from harness.api.agents.bodies import AgentsPageQuery, SwitchModelBody
from harness.api.agents.request import AgentsRequestParam
from harness.control.agents import queries
from harness.control.agents.switch_tool import SwitchCall, switch_answer, switch_model
from harness.domain.agents.switch_request import SwitchState
from harness.domain.pagination import Page

router = APIRouter()
SESSION = "/agents/{agent_id}/sessions/{session_id}"


@router.post(
    f"{SESSION}/switch_model",
    summary="List models, or ask a person for another one",
    responses={202: {"model": SwitchModelAnswer, "description": "A person has to decide"}},
)
async def post_switch_model(
    request: AgentsRequestParam,
    agent_id: str,
    session_id: str,
    body: SwitchModelBody,
    response: Response,
) -> SwitchModelAnswer:
    """An approved switch is in force from the next message on."""
    await run_in_threadpool(request.require_session, agent_id, session_id)
    request.client.require_write()
    call = SwitchCall(session_id, body.action, body.model, body.reason, body.wait_s)
    answer = SwitchModelAnswer.model_validate(await switch_model(request.ctx, call))
    if answer.status == SwitchState.PENDING:
        response.status_code = HTTPStatus.ACCEPTED
    return answer


@router.get(
    f"{SESSION}/switch_requests",
    response_model=ListAnswer[SwitchModelAnswer],
    summary="List what was asked for, and what became of it",
)
def list_switch_requests(
    request: AgentsRequestParam,
    agent_id: str,
    session_id: str,
    page: Annotated[AgentsPageQuery, Query()],
) -> Page[dict[str, object]]:
    """The newest first."""
    session = request.require_session(agent_id, session_id)
    found = queries.list_switch_requests(request.ctx, page.page, session=session.id)
    return found.map(lambda switch: switch_answer(request.ctx, switch))
