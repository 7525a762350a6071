"""Checks that a chat is well formed before its translation.

A translation would hide faults: it would drop broken arguments, or turn a stray result into
text. The errors name the field's path, as OpenAI's do. `request_screening` decides whether a
well-formed part has a counterpart.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from router.frame.failure import MalformedRequest, Untranslatable

Fields = Mapping[str, Any]

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_CHOICE_NAMES: Final = ("auto", "none", "required")
_FORMAT_TYPES: Final = ("text", "json_object", "json_schema")


def _is_number(value: object) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _is_stop(value: object) -> bool:
    sequences = value if isinstance(value, list) else [value]
    return all(isinstance(part, str) and part for part in sequences) or value == ""


_Check = tuple[Callable[[object], bool], str]
_NUMBER_CHECK: Final[_Check] = (_is_number, "is not a number")
_INTEGER_CHECK: Final[_Check] = (
    lambda value: type(value) is int,
    "is not an integer",
)
_COUNT_CHECK: Final[_Check] = (
    lambda value: type(value) is int and value >= 1,
    "is not an integer above 0",
)
_FLAG_CHECK: Final[_Check] = (
    lambda value: type(value) is bool,
    "is not true or false",
)
_FIELD_CHECKS: Final[Mapping[str, _Check]] = {
    "temperature": _NUMBER_CHECK,
    "top_p": _NUMBER_CHECK,
    "frequency_penalty": _NUMBER_CHECK,
    "presence_penalty": _NUMBER_CHECK,
    "top_k": _INTEGER_CHECK,
    "seed": _INTEGER_CHECK,
    "top_logprobs": _INTEGER_CHECK,
    "max_tokens": _COUNT_CHECK,
    "max_completion_tokens": _COUNT_CHECK,
    "logprobs": _FLAG_CHECK,
    "parallel_tool_calls": _FLAG_CHECK,
    "stop": (_is_stop, "is not a string or a list of strings"),
    "reasoning_effort": (
        lambda value: value in EFFORTS,
        f"is not one of {', '.join(EFFORTS)}",
    ),
}


def check_fields(body: Fields) -> None:
    """Checks types. Raises MalformedRequest, or Untranslatable for other types of tools."""
    for name, (fits, why) in _FIELD_CHECKS.items():
        value = body.get(name)
        if value is not None and not fits(value):
            raise MalformedRequest(name, why)
    names = _check_tools(body.get("tools"))
    _check_choice(body.get("tool_choice"), names)
    _check_format(body.get("response_format"))


def _check_tools(tools: object) -> set[str]:
    if not isinstance(tools, list | None):
        raise MalformedRequest("tools", "is not a list")
    names = set()
    for index, tool in enumerate(tools or ()):
        place = f"tools[{index}]"
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
        names.add(name)
    return names


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
            f"is not one of {', '.join(_CHOICE_NAMES)}, or an object",
        )
    if choice.get("type") != "function":
        raise Untranslatable("`tool_choice.type` is not function", "tool_choice.type")
    function = choice.get("function")
    if not isinstance(function, dict) or function.get("name") not in names:
        raise MalformedRequest("tool_choice.function.name", "is not a name in `tools`")


def _check_format(response_format: object) -> None:
    if response_format is None:
        return
    if (
        not isinstance(response_format, dict)
        or response_format.get("type") not in _FORMAT_TYPES
    ):
        raise MalformedRequest(
            "response_format",
            f"has a type that is not one of {', '.join(_FORMAT_TYPES)}",
        )
    if response_format["type"] == "json_schema":
        json_schema = response_format.get("json_schema")
        if not isinstance(json_schema, dict) or not isinstance(json_schema.get("schema"), dict):
            raise MalformedRequest("response_format.json_schema.schema", "is not an object")


Json = dict[str, Any]

_INSTRUCTION_ROLES: Final = ("system", "developer")


def check_messages(messages: object) -> None:
    """Checks the messages of a chat. Raises MalformedRequest with the field's path."""
    if not isinstance(messages, list):
        raise MalformedRequest("messages", "is not a list")
    if not messages:
        raise MalformedRequest("messages", "is empty: send at least one message")
    calls = _OpenCalls()
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        if not isinstance(message, dict):
            raise MalformedRequest(place, "is not an object")
        _check_content(message, place)
        if message.get("role") == "assistant":
            calls.begin(message.get("tool_calls"), place)
        elif message.get("role") == "tool":
            calls.answer(message.get("tool_call_id"), place)
    calls.settle()
    if not any(_has_content(message) for message in messages):
        raise MalformedRequest("messages", "has only instructions or empty turns")


def arguments_of(text: object, place: str) -> Json:
    """Returns a call's arguments; an empty text is an empty object. Raises MalformedRequest."""
    if not isinstance(text, str):
        raise MalformedRequest(place, "is not a string with JSON")
    if not text.strip():
        return {}
    try:
        parsed = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise MalformedRequest(place, "is not valid JSON") from None
    if not isinstance(parsed, dict):
        raise MalformedRequest(place, "is JSON, but not an object")
    return parsed


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _has_content(message: Mapping[str, Any]) -> bool:
    if message.get("role") in _INSTRUCTION_ROLES:
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
    is_empty_result = message.get("role") == "tool" and "content" in message
    needs_content = message.get("role") in ("user", "tool", *_INSTRUCTION_ROLES)
    if content is None and needs_content and not is_empty_result:
        raise MalformedRequest(f"{place}.content", "is missing")
    if isinstance(content, list):
        for index, part in enumerate(content):
            is_text = isinstance(part, dict) and part.get("type") == "text"
            if is_text and not isinstance(part.get("text"), str):
                raise MalformedRequest(f"{place}.content[{index}].text", "is not a string")
    elif not isinstance(content, str | None):
        raise MalformedRequest(f"{place}.content", "is not a string or a list")


class _OpenCalls:
    """The calls of the last assistant message that have no result yet."""

    def __init__(self) -> None:
        self._turn_ids: set[str] = set()
        self._open_calls: dict[str, str] = {}

    def begin(self, calls: object, place: str) -> None:
        """Adds the calls of an assistant message. Raises MalformedRequest.

        All earlier calls must have results.
        """
        self.settle()
        self._turn_ids = set()
        if not isinstance(calls, list | None):
            raise MalformedRequest(f"{place}.tool_calls", "is not a list")
        for index, call in enumerate(calls or ()):
            call_place = f"{place}.tool_calls[{index}]"
            call_id = _check_call(call, call_place)
            if call_id in self._turn_ids:
                raise MalformedRequest(
                    f"{call_place}.id",
                    "is also the id of another call in this message",
                )
            self._turn_ids.add(call_id)
            self._open_calls[call_id] = call_place

    def answer(self, call_id: object, place: str) -> None:
        """Ends the call of a tool's result. Raises MalformedRequest without an open call."""
        if not isinstance(call_id, str) or call_id not in self._turn_ids:
            why = "is not the id of a call in the assistant message before it"
            raise MalformedRequest(f"{place}.tool_call_id", why)
        if self._open_calls.pop(call_id, None) is None:
            raise MalformedRequest(
                f"{place}.tool_call_id",
                "is the id of a call that already has a result",
            )

    def settle(self) -> None:
        """Checks that all calls have results. Raises MalformedRequest."""
        for call_place in self._open_calls.values():
            why = "has no result: add a message of role `tool` with its id"
            raise MalformedRequest(call_place, why)


def _check_call(call: object, place: str) -> str:
    """Checks a call and returns its id. Raises MalformedRequest."""
    if not isinstance(call, dict):
        raise MalformedRequest(place, "is not an object")
    if call.get("type", "function") != "function":
        raise MalformedRequest(f"{place}.type", "is not `function`")
    function = call.get("function")
    call_id = call.get("id")
    if not isinstance(call_id, str) or not call_id:
        raise MalformedRequest(f"{place}.id", "is not a string")
    if not isinstance(function, dict):
        raise MalformedRequest(f"{place}.function", "is not an object")
    if not isinstance(function.get("name"), str) or not function["name"]:
        raise MalformedRequest(f"{place}.function.name", "is not a string")
    arguments_of(function.get("arguments"), f"{place}.function.arguments")
    return call_id
