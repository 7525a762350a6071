"""Checks that a chat is well formed before its translation.

A translation would hide faults: it would drop broken arguments, or turn a stray result into
text. The errors name the field's path, as OpenAI's do. Whether a well-formed part has a
counterpart is decided in `request_screening`.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from router.frame.failure import MalformedRequest, Untranslatable

Fields = Mapping[str, Any]

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_CHOICES: Final = ("auto", "none", "required")
_FORMATS: Final = ("text", "json_object", "json_schema")


def _is_number(value: object) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _is_stop(value: object) -> bool:
    several = value if isinstance(value, list) else [value]
    return all(isinstance(part, str) and part for part in several) or value == ""


_Check = tuple[Callable[[object], bool], str]
_NUMBER: Final[_Check] = (_is_number, "is not a number")
_WHOLE: Final[_Check] = (
    lambda value: type(value) is int,
    "is not an integer",
)
_COUNT: Final[_Check] = (
    lambda value: type(value) is int and value >= 1,
    "is not an integer above 0",
)
_FLAG: Final[_Check] = (
    lambda value: type(value) is bool,
    "is not true or false",
)
_TYPES: Final[Mapping[str, _Check]] = {
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "frequency_penalty": _NUMBER,
    "presence_penalty": _NUMBER,
    "top_k": _WHOLE,
    "seed": _WHOLE,
    "top_logprobs": _WHOLE,
    "max_tokens": _COUNT,
    "max_completion_tokens": _COUNT,
    "logprobs": _FLAG,
    "parallel_tool_calls": _FLAG,
    "stop": (_is_stop, "is not a string or a list of strings"),
    "reasoning_effort": (
        lambda value: value in EFFORTS,
        f"is not one of {', '.join(EFFORTS)}",
    ),
}


def check_fields(body: Fields) -> None:
    """Checks types. Raises MalformedRequest, or Untranslatable for other types of tools."""
    for name, (fits, why) in _TYPES.items():
        value = body.get(name)
        if value is not None and not fits(value):
            raise MalformedRequest(name, why)
    names = _tool_names(body.get("tools"))
    _check_choice(body.get("tool_choice"), names)
    _check_format(body.get("response_format"))


def _tool_names(tools: object) -> set[str]:
    if not isinstance(tools, list | None):
        raise MalformedRequest("tools", "is not a list")
    found = set()
    for at, tool in enumerate(tools or ()):
        place = f"tools[{at}]"
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or tool.get("type") != "function":
            raise Untranslatable(f"`{place}` is not of type function, which it must be", place)
        name = function.get("name")
        schema = function.get("parameters")
        if not isinstance(name, str) or not name:
            raise MalformedRequest(f"{place}.function.name", "is not a string")
        if not isinstance(schema, dict | None):
            raise MalformedRequest(f"{place}.function.parameters", "is not an object")
        if not isinstance(function.get("description"), str | None):
            raise MalformedRequest(f"{place}.function.description", "is not a string")
        found.add(name)
    return found


def _check_choice(choice: object, names: set[str]) -> None:
    if choice is None or (isinstance(choice, str) and choice in ("auto", "none")):
        return
    if choice == "required":
        if not names:
            raise MalformedRequest("tool_choice", "requires a tool, but `tools` is empty")
        return
    if not isinstance(choice, dict):
        raise MalformedRequest(
            "tool_choice",
            f"is not one of {', '.join(_CHOICES)}, or an object",
        )
    if choice.get("type") != "function":
        raise Untranslatable("`tool_choice.type` is not function", "tool_choice.type")
    function = choice.get("function")
    if not isinstance(function, dict) or function.get("name") not in names:
        raise MalformedRequest("tool_choice.function.name", "is not a name in `tools`")


def _check_format(form: object) -> None:
    if form is None:
        return
    if not isinstance(form, dict) or form.get("type") not in _FORMATS:
        raise MalformedRequest(
            "response_format",
            f"has a type that is not one of {', '.join(_FORMATS)}",
        )
    if form["type"] == "json_schema":
        given = form.get("json_schema")
        if not isinstance(given, dict) or not isinstance(given.get("schema"), dict):
            raise MalformedRequest("response_format.json_schema.schema", "is not an object")


Json = dict[str, Any]

_INSTRUCTIONS: Final = ("system", "developer")


def check_messages(messages: object) -> None:
    """Checks the messages of a chat. Raises MalformedRequest with the field's path."""
    if not isinstance(messages, list):
        raise MalformedRequest("messages", "is not a list")
    if not messages:
        raise MalformedRequest("messages", "is empty: send at least one message")
    calls = _OpenCalls()
    for at, message in enumerate(messages):
        place = f"messages[{at}]"
        if not isinstance(message, dict):
            raise MalformedRequest(place, "is not an object")
        _check_content(message, place)
        if message.get("role") == "assistant":
            calls.begin(message.get("tool_calls"), place)
        elif message.get("role") == "tool":
            calls.answer(message.get("tool_call_id"), place)
    calls.settle()
    if not any(_says_something(message) for message in messages):
        raise MalformedRequest("messages", "has only instructions or empty turns")


def arguments_of(text: object, place: str) -> Json:
    """Returns a call's arguments; an empty text is an empty object. Raises MalformedRequest."""
    if not isinstance(text, str):
        raise MalformedRequest(place, "is not a string with JSON")
    if not text.strip():
        return {}
    try:
        found = json.loads(text, parse_constant=_no_json)
    except (ValueError, RecursionError):
        raise MalformedRequest(place, "is not valid JSON") from None
    if not isinstance(found, dict):
        raise MalformedRequest(place, "is JSON, but not an object")
    return found


def _no_json(name: str) -> NoReturn:
    raise ValueError(name)


def _says_something(message: Mapping[str, Any]) -> bool:
    if message.get("role") in _INSTRUCTIONS:
        return False
    content = message.get("content") or message.get("refusal")
    if isinstance(content, list):
        return any(not isinstance(part, dict) or _has_text(part) for part in content)
    return bool(content or message.get("tool_calls")) or message.get("role") == "tool"


def _has_text(part: Mapping[str, Any]) -> bool:
    return part.get("type") != "text" or bool(part.get("text"))


def _check_content(message: Mapping[str, Any], place: str) -> None:
    content = message.get("content")
    # A tool without a result has null.
    is_silent = message.get("role") == "tool" and "content" in message
    demands = message.get("role") in ("user", "tool", *_INSTRUCTIONS)
    if content is None and demands and not is_silent:
        raise MalformedRequest(f"{place}.content", "is missing")
    if isinstance(content, list):
        for at, part in enumerate(content):
            worded = isinstance(part, dict) and part.get("type") == "text"
            if worded and not isinstance(part.get("text"), str):
                raise MalformedRequest(f"{place}.content[{at}].text", "is not a string")
    elif not isinstance(content, str | None):
        raise MalformedRequest(f"{place}.content", "is not a string or a list")


class _OpenCalls:
    """The last assistant message's calls without a result: id → place."""

    def __init__(self) -> None:
        self._of_turn: set[str] = set()
        self._open: dict[str, str] = {}

    def begin(self, calls: object, place: str) -> None:
        """Takes the calls of an assistant message. The calls before must have results."""
        self.settle()
        self._of_turn = set()
        if not isinstance(calls, list | None):
            raise MalformedRequest(f"{place}.tool_calls", "is not a list")
        for at, call in enumerate(calls or ()):
            where = f"{place}.tool_calls[{at}]"
            id_ = _call_id(call, where)
            if id_ in self._of_turn:
                raise MalformedRequest(
                    f"{where}.id",
                    "is also the id of another call in this message",
                )
            self._of_turn.add(id_)
            self._open[id_] = where

    def answer(self, id_: object, place: str) -> None:
        """Takes a tool's result. Raises MalformedRequest if it belongs to no open call."""
        if not isinstance(id_, str) or id_ not in self._of_turn:
            why = "is not the id of a call in the assistant message before it"
            raise MalformedRequest(f"{place}.tool_call_id", why)
        if self._open.pop(id_, None) is None:
            raise MalformedRequest(
                f"{place}.tool_call_id",
                "is the id of a call that already has a result",
            )

    def settle(self) -> None:
        """Raises MalformedRequest if a call has no result."""
        for where in self._open.values():
            why = "has no result: add a message of role `tool` with its id"
            raise MalformedRequest(where, why)


def _call_id(call: object, place: str) -> str:
    """Checks a call and returns its id. Raises MalformedRequest."""
    if not isinstance(call, dict):
        raise MalformedRequest(place, "is not an object")
    if call.get("type", "function") != "function":
        raise MalformedRequest(f"{place}.type", "is not `function`")
    function = call.get("function")
    id_ = call.get("id")
    if not isinstance(id_, str) or not id_:
        raise MalformedRequest(f"{place}.id", "is not a string")
    if not isinstance(function, dict):
        raise MalformedRequest(f"{place}.function", "is not an object")
    if not isinstance(function.get("name"), str) or not function["name"]:
        raise MalformedRequest(f"{place}.function.name", "is not a string")
    arguments_of(function.get("arguments"), f"{place}.function.arguments")
    return id_
