"""Reads an item's conversation (`metadata.messages`), which replaces the template.

It also checks the fields that a suite or an item adds to its requests. Pure; every error names
the place of the fault.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from evals.suites.items import Item
from harness.frame.errors import InputError

Message = Mapping[str, Any]
ROLES: Final = ("system", "developer", "user", "assistant", "tool")


def conversation(item: Item) -> tuple[Message, ...]:
    """Reads an item's conversation; empty if the item uses the template. Raises InputError."""
    messages = item.metadata.get("messages")
    return (
        ()
        if messages is None
        else check_messages(messages, f"item {item.id!r}: metadata.messages")
    )


def check_messages(messages: object, place: str) -> tuple[Message, ...]:
    """Checks a conversation in the form of Chat Completions, and returns it.

    Contents are texts. The last message must not be the model's, because the run asks for it.
    Raises InputError with the place and the message's number.
    """
    if not isinstance(messages, list) or not messages:
        raise InputError(f"{place}: must be a list of messages that is not empty")
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise InputError(
                f"{place}: message {number}: must be an object with a role of "
                f"{', '.join(ROLES)}"
            )
        if not _has_content(message):
            raise InputError(
                f"{place}: message {number}: content must be a text, or a list of texts"
            )
        if not all(map(_is_call, message.get("tool_calls") or ())):
            raise InputError(f"{place}: message {number}: a tool call without a function")
        if message["role"] == "tool" and not isinstance(message.get("tool_call_id"), str):
            raise InputError(f"{place}: message {number}: needs the tool_call_id")
    if messages[-1]["role"] == "assistant":
        raise InputError(f"{place}: the last message is the model's; end with another role")
    return tuple(messages)


def _has_content(message: Message) -> bool:
    content = message.get("content")
    if isinstance(content, list):
        return all(isinstance(part, dict) and "text" in part for part in content)
    return isinstance(content, str) or (content is None and bool(message.get("tool_calls")))


def _is_call(call: object) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    return (
        isinstance(function, dict)
        and isinstance(function.get("name"), str)
        and isinstance(function.get("arguments", ""), str)
    )


def message_text(message: Message) -> str:
    """Returns a message's text; the texts of its parts are joined by newlines."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part["text"]) for part in content)
    return content or ""


def find_input_text(messages: Sequence[Message]) -> str:
    """Returns the text that people read as input: the user's last text that is not blank, else
    the last text of any role.
    """
    users = [
        message
        for message in messages
        if message["role"] == "user" and message_text(message).strip()
    ]
    return message_text(users[-1] if users else messages[-1])


FIELDS: Final = ("tools", "tool_choice", "response_format")


def check_fields(fields: Mapping[str, object], place: str) -> None:
    """Checks additional request fields. Raises InputError with the place."""
    for name in fields:
        if name not in FIELDS:
            raise InputError(f"{place}: unknown field {name!r}; it knows {', '.join(FIELDS)}")
    tools = fields.get("tools", [])
    if not isinstance(tools, list) or not all(map(_is_tool, tools)):
        raise InputError(
            f"{place}: tools must be a list of objects of the form "
            '{"type": "function", "function": {"name": "…", "parameters": {…}}}'
        )
    if not isinstance(fields.get("tool_choice", ""), str | dict):
        raise InputError(f"{place}: tool_choice must be a text or an object")
    if not isinstance(fields.get("response_format", {}), dict):
        raise InputError(f"{place}: response_format must be an object")


def _is_tool(tool: object) -> bool:
    function = tool.get("function") if isinstance(tool, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def merge_fields(suite: Mapping[str, object], item: Item) -> dict[str, object]:
    """Returns the suite's fields; the item's own fields replace them, also the settings of a
    request that was drawn from traffic. Raises InputError.
    """
    item_fields = {
        name: item.metadata[name] for name in FIELDS if item.metadata.get(name) is not None
    }
    check_fields(item_fields, f"item {item.id!r}: metadata")
    return {**suite, **item_fields, **_drawn_settings(item)}


def _drawn_settings(item: Item) -> Mapping[str, object]:
    """Returns the own settings of a request that was drawn from traffic; empty without any."""
    production = item.metadata.get("production")
    settings = production.get("settings") if isinstance(production, Mapping) else None
    return settings if isinstance(settings, Mapping) else {}
