"""Pydantic models of the agents API's answers, in camelCase, and how they are made of agents,
sessions and messages.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from harness.control.agents.conversation import TurnOutcome
from harness.domain.agents.agent import Agent, AgentSession, AgentTool
from harness.domain.agents.message import MessageToolCall, MessageUsage, SessionMessage
from harness.domain.pagination import Page

S = TypeVar("S")
T = TypeVar("T")


class AgentsAnswer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class FunctionAnswer(AgentsAnswer):
    name: str
    description: str
    parameters: dict[str, JsonValue]


class FunctionToolAnswer(AgentsAnswer):
    type: Literal["function"] = "function"
    function: FunctionAnswer


class AgentConfigAnswer(AgentsAnswer):
    fallback_model: str | None = None


class AgentAnswer(AgentsAnswer):
    id: str
    name: str
    description: str
    instructions: str
    model: str
    tools: list[str | FunctionToolAnswer]
    config: AgentConfigAnswer
    data_class: str
    created_at: datetime
    updated_at: datetime


class SessionAnswer(AgentsAnswer):
    """model: in force for the next message. cost_usd: of all messages so far."""

    id: str
    agent_id: str
    user_id: str
    metadata: dict[str, JsonValue]
    model: str
    state: str
    parent_id: str | None
    cost_usd: float
    created_at: datetime
    last_at: datetime


class ListedModelAnswer(AgentsAnswer):
    """A model of a provider with a key. Prices are per million tokens, null where not known."""

    model: str
    input_usd_per_mtok: float | None
    output_usd_per_mtok: float | None
    context_window: int | None
    last_verdict: str | None
    routes: list[str]


class SwitchModelAnswer(AgentsAnswer):
    """status: `listed` with routes and models; `question` with candidates of which one is
    meant; else what became of the request so far: `pending`, `approved`, `rejected`, `expired`
    or `cancelled`. omissions: what the model will not be shown.
    """

    status: str
    message: str
    request: str | None = None
    model: str | None = None
    omissions: list[str] = []
    expires_at: datetime | None = None
    candidates: list[str] = []
    routes: list[str] = []
    models: list[ListedModelAnswer] = []


class ToolCallAnswer(AgentsAnswer):
    """A function that the client is to run. arguments: JSON, as the model wrote it."""

    id: str
    name: str
    arguments: str


class UsageAnswer(AgentsAnswer):
    """cost_usd: null where the price is not known."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost_usd: float | None


class FallbackAnswer(AgentsAnswer):
    """The model that was asked first, and why it did not answer."""

    from_model: str = Field(alias="from")
    reason: str


class MessageAnswer(AgentsAnswer):
    """state: `complete`, `streaming` (under way), `interrupted` or `failed`; only a complete
    message is part of the conversation. auto: who answered for the model `auto`, and why.
    """

    id: str
    session_id: str
    position: int
    role: str
    content: JsonValue
    tool_calls: list[ToolCallAnswer]
    tool_call_id: str | None
    state: str
    model: str | None
    target: str | None
    request_id: str | None
    fallback: FallbackAnswer | None
    auto: str | None
    usage: UsageAnswer | None
    error: str | None
    created_at: datetime
    done_at: datetime | None


class TurnAnswer(MessageAnswer):
    """The answer to a message; for a tool's result while others are missing, that result.
    open_calls: the functions that the client runs next. steps: how often the model was asked.
    """

    open_calls: list[ToolCallAnswer]
    steps: int
    turn_usage: UsageAnswer


class PurgeAnswer(AgentsAnswer):
    """deleted: how many sessions."""

    deleted: int


class ListAnswer(AgentsAnswer, Generic[T]):
    """A page of a list. next: what to give as `after` for the next page; null at the end."""

    items: list[T]
    total: int
    next: str | None


class AgentsResponse(Response):
    """An answer's JSON."""

    media_type = "application/json"

    def __init__(self, content: BaseModel, status_code: int = 200) -> None:
        super().__init__(content.model_dump_json(by_alias=True).encode(), status_code)


def agent_answer(agent: Agent) -> AgentAnswer:
    fallback = agent.fallback_model
    return AgentAnswer(
        id=agent.id,
        name=agent.name,
        description=agent.description,
        instructions=agent.instructions,
        model=agent.model.text,
        tools=[_tool(tool) for tool in agent.tools],
        config=AgentConfigAnswer(fallback_model=fallback.text if fallback else None),
        data_class=agent.data_class,
        created_at=agent.created_at,
        updated_at=agent.updated_at,
    )


def _tool(tool: AgentTool) -> str | FunctionToolAnswer:
    if tool.parameters is None:
        return tool.name
    return FunctionToolAnswer(
        function=FunctionAnswer.model_validate(
            {
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.parameters),
            }
        )
    )


def session_answer(session: AgentSession) -> SessionAnswer:
    return SessionAnswer.model_validate(
        {
            "id": session.id,
            "agent_id": session.agent,
            "user_id": session.user_id,
            "metadata": dict(session.metadata),
            "model": session.model.text,
            "state": session.state.value,
            "parent_id": session.parent,
            "cost_usd": session.cost_usd,
            "created_at": session.created_at,
            "last_at": session.last_at,
        }
    )


def message_answer(message: SessionMessage) -> MessageAnswer:
    served, used = message.served, message.usage
    is_answer = message.role == "assistant"
    return MessageAnswer.model_validate(
        {
            "id": message.id,
            "session_id": message.session,
            "position": message.position,
            "role": message.role.value,
            "content": _plain(message.content),
            "tool_calls": tool_call_answers(message.tool_calls),
            "tool_call_id": message.response_to or None,
            "state": message.state.value,
            "model": served.asked or None,
            "target": served.target or None,
            "request_id": served.request_id or None,
            "fallback": {"from": served.fallback_from, "reason": served.reason}
            if served.fallback_from
            else None,
            "auto": None if served.fallback_from else served.reason or None,
            "usage": usage_answer(used) if is_answer and message.done_at is not None else None,
            "error": message.error or None,
            "created_at": message.created_at,
            "done_at": message.done_at,
        }
    )


def usage_answer(used: MessageUsage) -> UsageAnswer:
    return UsageAnswer(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cached_tokens=used.cached_tokens,
        cost_usd=used.cost_usd,
    )


def _plain(content: object) -> object:
    return content if isinstance(content, str) else _copy(content)


def _copy(value: object) -> object:
    """Mappings and sequences as JSON has them."""
    if isinstance(value, dict):
        return {name: _copy(inner) for name, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list | tuple) else value


def tool_call_answers(calls: Sequence[MessageToolCall]) -> list[ToolCallAnswer]:
    return [
        ToolCallAnswer(id=call.id, name=call.name, arguments=call.arguments) for call in calls
    ]


def turn_answer(outcome: TurnOutcome) -> TurnAnswer:
    used = outcome.usage
    return TurnAnswer.model_validate(
        {
            **message_answer(outcome.message).model_dump(by_alias=True),
            "openCalls": tool_call_answers(outcome.open_calls),
            "steps": outcome.steps,
            "turnUsage": usage_answer(used),
        }
    )


def list_answer(page: Page[S], answer: Callable[[S], T]) -> ListAnswer[T]:
    return ListAnswer(items=[answer(item) for item in page], total=page.total, next=page.next)
