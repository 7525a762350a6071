"""A conversation in our own words: turns, pictures, tools. Pure data."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from harness.domain.errors import InputError

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Text:
    """cache: what stands before, and this, may be kept by a provider that takes such marks."""

    text: str
    cache: bool = False


@dataclass(frozen=True, slots=True)
class Image:
    """url: `https://…`, or `data:image/png;base64,…`."""

    url: str


Content = str | Sequence[Text | Image]


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool that the model may ask for. parameters: JSON Schema of an object.

    strict: arguments are to follow the schema to the letter, where the provider can.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, object] = field(
        default_factory=lambda: {"type": "object", "properties": {}}
    )
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """The model asks for a tool. arguments_text: as it wrote them; mostly a JSON object.

    extra: further fields of the provider's, which go back to it with the conversation.
    """

    id: str
    name: str
    arguments_text: str = "{}"
    extra: Mapping[str, object] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, object]:
        """Raises InputError where the model wrote no JSON object."""
        try:
            found = json.loads(self.arguments_text or "{}")
        except ValueError as error:
            raise InputError(
                f"tool {self.name!r}: the model's arguments are no JSON ({error})"
            ) from None
        if not isinstance(found, dict):
            raise InputError(f"tool {self.name!r}: the model's arguments are no JSON object")
        return found


@dataclass(frozen=True, slots=True)
class ToolResponse:
    """What a tool answered. id: of its ToolRequest. is_error: the model is told so."""

    id: str
    content: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. tool_requests: of an assistant. response_to: of a tool, the ToolRequest's id.

    extra: further fields, sent as they are.
    """

    role: Role
    content: Content = ""
    tool_requests: Sequence[ToolRequest] = ()
    response_to: str = ""
    extra: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def user(cls, content: Content) -> "Message":
        return cls("user", content)

    @classmethod
    def assistant(
        cls, content: Content = "", tool_requests: Sequence[ToolRequest] = ()
    ) -> "Message":
        return cls("assistant", content, tuple(tool_requests))

    @classmethod
    def tool(cls, response: ToolResponse) -> "Message":
        """An error begins with `Error: `, for chats have no other mark of one."""
        text = f"Error: {response.content}" if response.is_error else response.content
        return cls("tool", text, response_to=response.id)
