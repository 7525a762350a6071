"""Pydantic models of the agents API's requests and answers, in camelCase. Tests execute their
examples. Requests refuse unknown fields and NaN.
"""

import re
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final, Generic, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AliasGenerator,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    ValidationInfo,
    field_validator,
)
from pydantic.alias_generators import to_camel

from harness.agents.conversation import TurnOutcome
from harness.agents.message import (
    Content,
    IncomingMessage,
    MessageRole,
    MessageUsage,
    ServedBy,
)
from harness.frame.errors import InputError
from harness.interfaces.api.frame.endpoint import Name, PageQuery, Text
from harness.routing.agent import AgentTool, ModelChoice

T = TypeVar("T")
MAX_TOOLS: Final = 128
MAX_PARTS: Final = 256
IMAGE_DATA: Final = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+={0,2}")
ModelText = Annotated[str, Field(min_length=1, max_length=300)]
Reason = Annotated[str, Field(max_length=1000)]


class AgentsBody(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,  # a text is not a number, and "yes" not a boolean
        allow_inf_nan=False,
        frozen=True,
        alias_generator=to_camel,
    )


def _set_examples(*values: JsonValue) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": list(values)})


class FunctionBody(AgentsBody):
    """A function that the client runs. parameters: JSON Schema of an object."""

    # Providers refuse other names.
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: Text = ""
    parameters: dict[str, JsonValue] = {"type": "object", "properties": {}}


class FunctionToolBody(AgentsBody):
    type: Literal["function"]
    function: FunctionBody


def _name_tool_form(tool: object) -> str | None:
    if isinstance(tool, str):
        return "name"
    return "function" if isinstance(tool, dict) else None


ToolBody = Annotated[
    Annotated[Name, Tag("name")] | Annotated[FunctionToolBody, Tag("function")],
    Discriminator(
        _name_tool_form,
        custom_error_type="tool_form",
        custom_error_message="send the name of a tool, or a function",
    ),
]


class AgentConfigBody(AgentsBody):
    """Further settings of an agent. fallback_model: answers if the agent's model fails, except
    for failures that every model would have.
    """

    fallback_model: ModelText | None = None


class AgentFields(AgentsBody):
    name: Name = ""
    model: ModelText = ""
    description: Text = ""
    instructions: Annotated[str, Field(max_length=200_000)] = ""
    tools: Annotated[list[ToolBody], Field(max_length=MAX_TOOLS)] = []
    config: AgentConfigBody = AgentConfigBody()
    reason: Reason = ""


class AgentBody(AgentFields):
    """An agent to create. model: a route, `auto:ROUTE` (or `auto`, if `agents.floors` has one
    route), or a literal `PROVIDER:MODEL`, which needs an approver's key. tools: names of the
    server's tools, and functions that the client runs. instructions: the system message of all
    sessions.
    """

    model_config = _set_examples(
        {
            "name": "support",
            "model": "chat",
            "tools": ["switch_model"],
        },
        # A literal model needs an approver's key.
        {
            "name": "research",
            "model": "openai:gpt-6-luna",
            "config": {"fallbackModel": "chat"},
        },
    )

    name: Name
    model: ModelText
    data_class: Annotated[str, Field(max_length=100)] = ""


class AgentPatchBody(AgentFields):
    """An agent's fields to change; other fields stay. config.fallbackModel: null removes it."""

    model_config = _set_examples({"description": "Helps customers"}, {"model": "chat"})


class SessionBody(AgentsBody):
    """A session to open. user_id: the client's id of the session's user."""

    model_config = _set_examples({"userId": "user-42", "metadata": {"channel": "web"}})

    user_id: Annotated[str, Field(max_length=200)] = ""
    metadata: Annotated[dict[str, JsonValue], Field(max_length=64)] = {}


class SwitchModelBody(AgentsBody):
    """A call of the switch tool. action: `list` shows the models whose names contain all words
    of `model`; `switch` asks a person to switch the session to `model`. wait_s: seconds to
    wait for the decision.
    """

    model_config = _set_examples(
        {"action": "list"},
        {
            "action": "switch",
            "model": "claude sonnet",
            "reason": "long contracts",
        },
    )

    action: Literal["list", "switch"]
    model: Annotated[str, Field(max_length=300)] = ""
    reason: Reason = ""
    wait_s: Annotated[float, Field(ge=0, le=86_400, strict=True)] = 0.0


def _check_image_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_web = False
    if not (IMAGE_DATA.fullmatch(url) or (is_web and url.isprintable())):
        raise ValueError(
            "send an https address, or a PNG, JPEG, GIF or WebP as data:image/png;base64,…"
        )
    return url


class TextPart(AgentsBody):
    type: Literal["text"]
    text: Annotated[str, Field(min_length=1)]


class ImageBody(AgentsBody):
    url: Annotated[str, AfterValidator(_check_image_url)]
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(AgentsBody):
    type: Literal["image_url"]
    image_url: ImageBody = Field(alias="image_url")


ContentPart = Annotated[TextPart | ImagePart, Field(discriminator="type")]
ContentParts = Annotated[list[ContentPart], Field(min_length=1, max_length=MAX_PARTS)]


def _name_content_form(content: object) -> str | None:
    if isinstance(content, str):
        return "text"
    return "parts" if isinstance(content, list) else None


ContentBody = Annotated[
    Annotated[str, Tag("text")] | Annotated[ContentParts, Tag("parts")],
    Discriminator(
        _name_content_form,
        custom_error_type="content_form",
        custom_error_message="send a text, or a list of parts",
    ),
]


class MessageBody(AgentsBody):
    """A message to post. role: `user`, or `tool` with the result of a function that the model
    called. content: a text, or parts of the types `text` and `image_url`. stream: whether the
    answer comes as server-sent events.
    """

    model_config = _set_examples(
        {"role": "user", "content": "Where is my order 1001?"},
        {
            "role": "user",
            "content": "Tell me more.",
            "stream": True,
        },
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is on this picture?"}],
        },
    )

    role: Annotated[str, Field(max_length=40)]
    content: ContentBody
    tool_call_id: Annotated[str, Field(max_length=200)] = ""
    stream: bool = False

    def to_message(self) -> IncomingMessage:
        """Builds the client's message. Raises InputError with the field's name."""
        is_tool = self.role == MessageRole.TOOL
        if not is_tool and self.role != MessageRole.USER:
            raise InputError(
                f"role: {self.role!r} is not allowed here; send user or tool",
                code="role_not_allowed",
            )
        if is_tool and not self.tool_call_id:
            raise InputError("toolCallId: a message of the role tool needs the id of its call")
        if self.tool_call_id and not is_tool:
            raise InputError("toolCallId: only a message of the role tool may have one")
        content: Content
        if isinstance(self.content, str):
            content = self.content
            if not is_tool and not content.strip():
                raise InputError(
                    "content: it is empty; send a text, or parts of text and image_url"
                )
        elif is_tool:
            raise InputError("content: send the result of a tool as a text")
        else:
            content = tuple(part.model_dump(exclude_none=True) for part in self.content)
        return IncomingMessage(MessageRole(self.role), content, self.tool_call_id)


class SessionsQuery(PageQuery):
    """Filters and pages a list of sessions. userId: only this user's sessions."""

    user_id: Annotated[str | None, Field(max_length=200, alias="userId")] = None


def _write_tool(tool: AgentTool) -> object:
    if tool.parameters is None:
        return tool.name
    return {"type": "function", "function": {**asdict(tool)}}


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
        return cls.model_validate(source).model_dump_json(by_alias=True)


class AgentConfigAnswer(AgentsAnswer):
    fallback_model: str | None


def _write_config(fallback: ModelChoice | None) -> object:
    return {"fallback_model": fallback.text if fallback else None}


class AgentAnswer(AgentsAnswer):
    id: str
    name: str
    description: str
    instructions: str
    model: ChoiceText
    tools: list[Annotated[str | FunctionToolBody, BeforeValidator(_write_tool)]]
    config: Annotated[AgentConfigAnswer, BeforeValidator(_write_config)] = Field(
        validation_alias="fallback_model"
    )
    data_class: str
    created_at: datetime
    updated_at: datetime
    notes: list[str] = []  # properties of a new model that Swapproof has not checked


class SessionAnswer(AgentsAnswer):
    """A session. model: answers the next message. cost_usd: the cost of all messages."""

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
    """A function that the client must run. arguments: JSON, exactly as the model wrote it."""

    id: str
    name: str
    arguments: str


class UsageAnswer(AgentsAnswer):
    """The tokens of an answer, and their cost. cost_usd: null if the price is unknown."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost_usd: float | None


class FallbackAnswer(AgentsAnswer):
    """The model that failed first, and the reason."""

    from_model: str = Field(validation_alias="fallback_from", serialization_alias="from")
    reason: str


class MessageAnswer(AgentsAnswer):
    """A message of a session. state: `complete`, `streaming`, `interrupted` or `failed`; only
    complete messages are part of the conversation. auto: the target that `auto` chose, and
    why. error: why the message failed, or why a complete message is cut short.
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
    def _select_fallback(cls, served: ServedBy) -> ServedBy | None:
        return served if served.fallback_from else None

    @field_validator("auto", mode="before")
    @classmethod
    def _select_auto(cls, served: ServedBy) -> str | None:
        return None if served.fallback_from else served.reason or None

    @field_validator("usage", mode="before")
    @classmethod
    def _select_usage(cls, usage: MessageUsage, fields: ValidationInfo) -> MessageUsage | None:
        is_answered = fields.data["role"] == MessageRole.ASSISTANT and fields.data["done_at"]
        return usage if is_answered else None


class TurnAnswer(MessageAnswer):
    """The last message of a turn: the model's answer, or the posted tool result while other
    results are missing. open_calls: the functions that the client must run next. steps: number
    of models' answers.
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
    """A page of a list. next: the `after` of the next page; null on the last page."""

    items: list[T]
    total: int
    next: str | None
