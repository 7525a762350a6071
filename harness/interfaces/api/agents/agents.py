"""Serves agents, their sessions, and a session's `switch_model`."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from harness.agents import agents
from harness.agents.built_in_tools import switch_answer, switch_model
from harness.agents.models import (
    SwitchModelAnswer,
    describe_unchecked,
    read_model_choice,
)
from harness.agents.switch_request import SwitchState
from harness.agents.switches import expire_switches
from harness.frame.errors import InputError, NotFound
from harness.frame.pagination import Page
from harness.interfaces.api.agents.access import (
    AgentsRequest,
    AgentsRequestParam,
    pass_on,
)
from harness.interfaces.api.agents.bodies import (
    AgentAnswer,
    AgentBody,
    AgentFields,
    AgentPatchBody,
    ListAnswer,
    SessionAnswer,
    SessionBody,
    SessionsQuery,
    SwitchModelBody,
    ToolBody,
)
from harness.interfaces.api.frame.endpoint import PageQuery
from harness.routing.agent import (
    BUILT_IN_TOOLS,
    Agent,
    AgentSession,
    AgentTool,
    ModelChoice,
)

router = APIRouter()
PATH = "/agents"
AGENT = "/agents/{agent_id}"
SESSIONS = "/agents/{agent_id}/sessions"
SESSION = "/agents/{agent_id}/sessions/{session_id}"


@router.post(
    PATH,
    status_code=201,
    response_model=AgentAnswer,
    summary="Create an agent",
)
def create_agent(request: AgentsRequestParam, body: AgentBody) -> AgentAnswer | Response:
    """Creates an agent. A literal model needs the key of an approver, because no route's proof
    covers it.
    """
    fields = _read_fields(request, body)
    if (signed_answer := _sign_by_control_plane(request, body, fields)) is not None:
        return signed_answer
    agent = agents.create_agent(
        request.ctx,
        request.client,
        reason=body.reason,
        **fields,
    )
    return _add_notes(request, agent)


@router.get(PATH, response_model=ListAnswer[AgentAnswer], summary="List agents")
def list_agents(
    request: AgentsRequestParam, page: Annotated[PageQuery, Query()]
) -> Page[Agent]:
    """Lists the agents of the client key, newest first; all agents for a management key."""
    owner_key = "" if request.client.is_open else request.client.key
    return request.ctx.store.lists.agents(page.page, owner_key=owner_key)


@router.get(AGENT, response_model=AgentAnswer, summary="Show an agent")
def get_agent(request: AgentsRequestParam, agent_id: str) -> Agent:
    return agents.load_agent(request.ctx, request.client, agent_id)


@router.patch(AGENT, response_model=AgentAnswer, summary="Change an agent")
def change_agent(
    request: AgentsRequestParam,
    agent_id: str,
    body: AgentPatchBody,
) -> AgentAnswer | Response:
    """Changes an agent. A new model applies to sessions that are opened later."""
    changes = _read_fields(request, body)
    if not changes:
        raise InputError("the body changes nothing: give a field of the agent")
    if (signed_answer := _sign_by_control_plane(request, body, changes)) is not None:
        return signed_answer
    ctx = request.ctx
    client = request.client
    changed_agent = agents.change_agent(ctx, client, agent_id, body.reason, **changes)
    return _add_notes(request, changed_agent)


@router.delete(AGENT, status_code=204, summary="Delete an agent")
def delete_agent(request: AgentsRequestParam, agent_id: str) -> None:
    """Deletes an agent and closes its sessions. Their messages are kept as usual."""
    agents.delete_agent(request.ctx, request.client, agent_id)


@router.post(
    SESSIONS,
    status_code=201,
    response_model=SessionAnswer,
    summary="Open a session",
)
def open_session(
    request: AgentsRequestParam,
    agent_id: str,
    body: SessionBody,
) -> AgentSession:
    """Opens a session, which begins with the agent's model."""
    return agents.open_session(
        request.ctx, request.client, agent_id, body.user_id, body.metadata
    )


@router.get(
    SESSIONS,
    response_model=ListAnswer[SessionAnswer],
    summary="List sessions",
)
def list_sessions(
    request: AgentsRequestParam,
    agent_id: str,
    page: Annotated[SessionsQuery, Query()],
) -> Page[AgentSession]:
    """Lists the agent's sessions, newest first, with closed sessions."""
    agents.load_agent(request.ctx, request.client, agent_id)
    return request.ctx.store.lists.sessions(page.page, agent=agent_id, user_id=page.user_id)


@router.get(SESSION, response_model=SessionAnswer, summary="Show a session")
def get_session(
    request: AgentsRequestParam,
    agent_id: str,
    session_id: str,
) -> AgentSession:
    return request.require_session(agent_id, session_id)


@router.delete(SESSION, status_code=204, summary="Close a session")
def close_session(
    request: AgentsRequestParam,
    agent_id: str,
    session_id: str,
) -> None:
    """Closes a session and interrupts its turn. Its messages can still be read."""
    agents.close_session(request.ctx, request.client, agent_id, session_id)


@router.post(
    f"{SESSION}/switch_model",
    summary="List models, or request a switch to another model",
    responses={
        202: {
            "model": SwitchModelAnswer,
            "description": "A person must decide",
        }
    },
)
async def post_switch_model(
    request: AgentsRequestParam,
    agent_id: str,
    session_id: str,
    body: SwitchModelBody,
    response: Response,
) -> SwitchModelAnswer:
    """Lists models, or asks a person to approve a switch. An approved switch applies from the
    next message on.
    """
    await run_in_threadpool(request.require_session, agent_id, session_id)
    request.client.require_write()
    answer = await switch_model(request.ctx, session_id, **body.model_dump())
    if answer.status == SwitchState.PENDING:
        response.status_code = HTTPStatus.ACCEPTED
    return answer


@router.get(
    f"{SESSION}/switch_requests",
    response_model=ListAnswer[SwitchModelAnswer],
    summary="List switch requests",
)
def list_switch_requests(
    request: AgentsRequestParam,
    agent_id: str,
    session_id: str,
    page: Annotated[PageQuery, Query()],
) -> Page[SwitchModelAnswer]:
    """Lists the session's switch requests with their decisions, newest first."""
    session = request.require_session(agent_id, session_id)
    expire_switches(request.ctx)
    switches = request.ctx.store.lists.switch_requests(page.page, session=session.id)
    return switches.map(lambda switch: switch_answer(request.ctx, switch))


def _read_fields(request: AgentsRequest, body: AgentFields) -> dict[str, Any]:
    """Reads the agent's fields in the body. Raises InputError and NotFound with the field's
    name.
    """
    plain = {"name", "description", "instructions", "data_class"}
    fields: dict[str, Any] = body.model_dump(include=plain, exclude_unset=True)
    if body.model:
        fields["model"] = _read_model(request, "model", body.model)
    if "tools" in body.model_fields_set:
        fields["tools"] = _read_tools(request, body.tools)
    if body.config.model_fields_set:
        text = body.config.fallback_model
        fields["fallback_model"] = text and _read_model(request, "config.fallbackModel", text)
    return fields


def _sign_by_control_plane(
    request: AgentsRequest,
    body: BaseModel,
    fields: Mapping[str, Any],
) -> Response | None:
    """Passes a request for a literal model on to the control plane, which signs the consent.

    Returns the control plane's answer; None without a literal model, or if this process signs
    itself.
    """
    models = (fields.get("model"), fields.get("fallback_model"))
    is_literal = any(model is not None and model.is_literal for model in models)
    if request.installation.signs_as is not None or not is_literal:
        return None
    content = body.model_dump_json(by_alias=True, exclude_unset=True).encode()
    return pass_on(request.installation, request.http, content)


def _add_notes(request: AgentsRequest, agent: Agent) -> AgentAnswer:
    choices = (agent.model, agent.fallback_model)
    notes = describe_unchecked(request.ctx, [choice for choice in choices if choice])
    return AgentAnswer.model_validate(agent).model_copy(update={"notes": notes})


def _read_model(
    request: AgentsRequest,
    field: str,
    text: str,
) -> ModelChoice:
    try:
        return read_model_choice(request.ctx, text)
    except (InputError, NotFound) as error:
        reason = str(error).removeprefix("model: ")
        raise type(error)(f"{field}: {reason}", code=error.code) from error


def _read_tools(request: AgentsRequest, bodies: list[ToolBody]) -> tuple[AgentTool, ...]:
    """Converts the tools. Raises InputError for an unknown tool, and for a duplicate name."""
    tools: dict[str, AgentTool] = {}
    for body in bodies:
        if isinstance(body, str):
            tool = AgentTool(body)
            if not (
                body in BUILT_IN_TOOLS or tool.is_of_server(request.ctx.agents.tool_servers)
            ):
                raise InputError(
                    f"tools: this installation has no tool {body!r}; name a function that you "
                    'run as {"type": "function", "function": {"name": …}}',
                    code="unknown_tool",
                )
        else:
            function = body.function
            tool = AgentTool(function.name, function.parameters, function.description)
        if tool.name in tools:
            raise InputError(f"tools: {tool.name!r} is given twice; give it once")
        tools[tool.name] = tool
    return tuple(tools.values())
