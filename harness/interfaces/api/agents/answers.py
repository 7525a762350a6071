"""Pydantic models of the agents API's answers, in camelCase."""

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    AliasGenerator,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    field_validator,
)
from pydantic.alias_generators import to_camel

from harness.agents.conversation import TurnOutcome
from harness.agents.message import MessageRole, MessageUsage, ServedBy
from harness.interfaces.api.agents.requests import FunctionToolBody
from harness.routing.agent import AgentTool, ModelChoice

T = TypeVar("T")


def _tool_answer(tool: AgentTool) -> object:
    """A tool of the server by its name, a function of the client's whole."""
    if tool.parameters is None:
        return tool.name
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }
    return {"type": "function", "function": function}


ChoiceText = Annotated[str, BeforeValidator(lambda choice: choice.text)]
TextOrNone = Annotated[str | None, BeforeValidator(lambda text: text or None)]


class AgentsAnswer(BaseModel):
    model_config = ConfigDict(
        alias_generator=AliasGenerator(serialization_alias=to_camel),
        from_attributes=True,
        validate_by_name=True,
        frozen=True,
    )

    @classmethod
    def write(cls, source: object) -> str:
        """The answer's JSON. source: what it is made of."""
        return cls.model_validate(source).model_dump_json(by_alias=True)


class AgentConfigAnswer(AgentsAnswer):
    fallback_model: str | None


def _config(fallback: ModelChoice | None) -> object:
    return {"fallback_model": fallback.text if fallback else None}


class AgentAnswer(AgentsAnswer):
    id: str
    name: str
    description: str
    instructions: str
    model: ChoiceText
    tools: list[Annotated[str | FunctionToolBody, BeforeValidator(_tool_answer)]]
    config: Annotated[AgentConfigAnswer, BeforeValidator(_config)] = Field(
        validation_alias="fallback_model"
    )
    data_class: str
    created_at: datetime
    updated_at: datetime
    notes: list[str] = []  # of a creation or change: what was not checked of its models


class SessionAnswer(AgentsAnswer):
    """Shows a session. model: in force for the next message. cost_usd: of all messages."""

    id: str
    agent_id: str = Field(validation_alias="agent")
    user_id: str
    metadata: dict[str, JsonValue]
    model: ChoiceText
    state: str
    parent_id: str | None = Field(validation_alias="parent")
    cost_usd: float
    created_at: datetime
    last_at: datetime


class ToolCallAnswer(AgentsAnswer):
    """A function that the client is to run. arguments: JSON, as the model wrote it."""

    id: str
    name: str
    arguments: str


class UsageAnswer(AgentsAnswer):
    """Counts the tokens of one answer and gives their price. cost_usd: null where the price is
    not known.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost_usd: float | None


class FallbackAnswer(AgentsAnswer):
    """The model that was asked first, and why it did not answer."""

    from_model: str = Field(validation_alias="fallback_from", serialization_alias="from")
    reason: str


class MessageAnswer(AgentsAnswer):
    """Shows a message of a session. state: `complete`, `streaming` (under way), `interrupted`
    or `failed`; only a complete message is part of the conversation. auto: who answered for the
    model `auto`, and why. error: why it failed; of a complete message, what cut it short.
    """

    id: str
    session_id: str = Field(validation_alias="session")
    position: int
    role: str
    content: Any
    tool_calls: list[ToolCallAnswer]
    tool_call_id: TextOrNone = Field(validation_alias="response_to")
    state: str
    model: TextOrNone = Field(validation_alias=AliasPath("served", "model_requested"))
    target: TextOrNone = Field(validation_alias=AliasPath("served", "target"))
    request_id: TextOrNone = Field(validation_alias=AliasPath("served", "request_id"))
    fallback: FallbackAnswer | None = Field(validation_alias="served")
    auto: str | None = Field(validation_alias="served")
    error: TextOrNone
    created_at: datetime
    done_at: datetime | None
    usage: UsageAnswer | None

    @field_validator("fallback", mode="before")
    @classmethod
    def _fallback(cls, served: ServedBy) -> ServedBy | None:
        return served if served.fallback_from else None

    @field_validator("auto", mode="before")
    @classmethod
    def _auto(cls, served: ServedBy) -> str | None:
        return None if served.fallback_from else served.reason or None

    @field_validator("usage", mode="before")
    @classmethod
    def _usage(cls, used: MessageUsage, read: ValidationInfo) -> MessageUsage | None:
        """Null for what no model answered, or has not answered yet."""
        is_answered = read.data["role"] == MessageRole.ASSISTANT and read.data["done_at"]
        return used if is_answered else None


class TurnAnswer(MessageAnswer):
    """The answer to a message; for a tool's result while others are missing, that result.
    open_calls: the functions that the client runs next. steps: how often the model was asked.
    """

    open_calls: list[ToolCallAnswer]
    steps: int
    turn_usage: UsageAnswer

    @classmethod
    def from_outcome(cls, outcome: TurnOutcome) -> "TurnAnswer":
        message = MessageAnswer.model_validate(outcome.message)
        return cls.model_construct(
            **dict(message),
            open_calls=[ToolCallAnswer.model_validate(call) for call in outcome.open_calls],
            steps=outcome.steps,
            turn_usage=UsageAnswer.model_validate(outcome.usage),
        )


class ListAnswer(AgentsAnswer, Generic[T]):
    """A page of a list. next: what to give as `after` for the next page; null at the end."""

    items: list[T]
    total: int
    next: str | None
