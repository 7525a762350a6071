"""Pydantic models of the agents API's requests, in camelCase, with the examples of the OpenAPI
document, which tests execute. In a request an unknown field is an error, and so is NaN.
"""

import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, JsonValue, Tag
from pydantic.alias_generators import to_camel

from harness.agents.message import Content, IncomingMessage, MessageRole
from harness.frame.errors import InputError
from harness.interfaces.api.frame.endpoint import Name, PageQuery, Text
from harness.routing.agent import AgentTool

MAX_TOOLS: Final = 128
MAX_PARTS: Final = 256
IMAGE_DATA: Final = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+={0,2}")
ModelText = Annotated[str, Field(min_length=1, max_length=300)]
Instructions = Annotated[str, Field(max_length=200_000)]
Reason = Annotated[str, Field(max_length=1000)]
# As providers allow a function's name.
FunctionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class AgentsBody(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        # A text is no number, and "yes" no boolean.
        strict=True,
        allow_inf_nan=False,
        frozen=True,
        alias_generator=to_camel,
    )


def _examples(*values: JsonValue) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": list(values)})


class FunctionBody(AgentsBody):
    """A function that the client runs. parameters: JSON Schema of an object."""

    name: FunctionName
    description: Text = ""
    parameters: dict[str, JsonValue] = {"type": "object", "properties": {}}


class FunctionToolBody(AgentsBody):
    type: Literal["function"]
    function: FunctionBody


ToolBody = Name | FunctionToolBody
Tools = Annotated[list[ToolBody], Field(max_length=MAX_TOOLS)]


class AgentConfigBody(AgentsBody):
    """Holds an agent's settings beside its model. fallback_model: asked where the model fails
    in a way that another one may not.
    """

    fallback_model: ModelText | None = None


class AgentFields(AgentsBody):
    name: Name = ""
    model: ModelText = ""
    description: Text = ""
    instructions: Instructions = ""
    tools: Tools = []
    config: AgentConfigBody = AgentConfigBody()
    reason: Reason = ""


class AgentBody(AgentFields):
    """Describes an agent to create. model: a route, `auto:ROUTE` (`auto` where one route alone
    has a floor), or a literal `PROVIDER:MODEL`, which needs an approver's key. tools: names of
    tools of the server, and functions that the client runs. instructions: the system message of
    all sessions.
    """

    model_config = _examples(
        {"name": "support", "model": "chat", "tools": ["switch_model"]},
        # A literal model takes the key of an approver.
        {
            "name": "research",
            "model": "openai:gpt-4o-mini",
            "config": {"fallbackModel": "chat"},
        },
    )

    name: Name
    model: ModelText
    data_class: Annotated[str, Field(max_length=100)] = ""


class AgentPatchBody(AgentFields):
    """What is given changes; the rest stays. config.fallbackModel: null takes it away."""

    model_config = _examples({"description": "Helps customers"}, {"model": "chat"})


class SessionBody(AgentsBody):
    """Describes a session to open. user_id: whose conversation it is, in the client's words."""

    model_config = _examples({"userId": "user-42", "metadata": {"channel": "web"}})

    user_id: Annotated[str, Field(max_length=200)] = ""
    metadata: Annotated[dict[str, JsonValue], Field(max_length=64)] = {}


class SwitchModelBody(AgentsBody):
    """Holds a call of the switch tool. action: `list` shows models, those with all words of
    `model` in their names; `switch` asks a person to let the session go on with `model`.
    wait_s: how long to wait for the decision.
    """

    model_config = _examples(
        {"action": "list"},
        {"action": "switch", "model": "claude sonnet", "reason": "long contracts"},
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
PARTS: Final = "parts"


def _content_form(content: object) -> str | None:
    if isinstance(content, str):
        return "text"
    return PARTS if isinstance(content, list) else None


ContentBody = Annotated[
    Annotated[str, Tag("text")] | Annotated[ContentParts, Tag(PARTS)],
    Discriminator(
        _content_form,
        custom_error_type="content_form",
        custom_error_message="it is neither a text nor a list of parts",
    ),
]


class MessageBody(AgentsBody):
    """Holds a message to post. role: `user`, or `tool` with the result of a function that the
    model asked for. content: a text, or parts of the types `text` and `image_url`. stream: the
    answer comes as server-sent events.
    """

    model_config = _examples(
        {"role": "user", "content": "Where is my order 1001?"},
        {"role": "user", "content": "Tell me more.", "stream": True},
        {"role": "user", "content": [{"type": "text", "text": "What is on this picture?"}]},
    )

    role: Annotated[str, Field(max_length=40)]
    content: ContentBody
    tool_call_id: Annotated[str, Field(max_length=200)] = ""
    stream: bool = False

    def incoming(self) -> IncomingMessage:
        """Returns the client's message. Raises InputError, which names the field."""
        is_tool = self.role == MessageRole.TOOL
        if not is_tool and self.role != MessageRole.USER:
            raise InputError(
                f"role: {self.role!r} is not allowed here; send user or tool",
                code="role_not_allowed",
            )
        if is_tool and not self.tool_call_id:
            raise InputError("toolCallId: a message of the role tool names the call it answers")
        if self.tool_call_id and not is_tool:
            raise InputError("toolCallId: only a message of the role tool answers a call")
        content: Content
        if isinstance(self.content, str):
            content = self.content
            if not is_tool and not content.strip():
                raise InputError(
                    "content: it is empty; send a text, or parts of text and image_url"
                )
        elif is_tool:
            raise InputError("content: the result of a tool is a text")
        else:
            content = tuple(part.model_dump(exclude_none=True) for part in self.content)
        return IncomingMessage(MessageRole(self.role), content, self.tool_call_id)


class SessionsQuery(PageQuery):
    """Filters and pages a list of sessions. userId: of that user alone."""

    user_id: Annotated[str | None, Field(max_length=200, alias="userId")] = None


def read_tools(tools: list[ToolBody]) -> tuple[AgentTool, ...]:
    """Reads the tools of an agent. Raises InputError for a name that is given twice."""
    read = tuple(_tool(tool) for tool in tools)
    names = [tool.name for tool in read]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"tools: {twice[0]!r} is given twice; leave it out of one")
    return read


def _tool(tool: ToolBody) -> AgentTool:
    if isinstance(tool, str):
        return AgentTool(tool)
    function = tool.function
    return AgentTool(function.name, function.parameters, function.description)
