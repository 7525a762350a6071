"""Checks the types of a chat request's top-level fields before it is translated, its tools,
tool choice and answer format as well, as OpenAI defines them. Pure.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from router.protocols.untranslatable import MalformedRequest, Untranslatable
from router.upstream.translate.thinking import EFFORTS

Json = Mapping[str, Any]

_CHOICES: Final = ("auto", "none", "required")
_FORMATS: Final = ("text", "json_object", "json_schema")


def _is_number(value: object) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole or (isinstance(value, float) and math.isfinite(value))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_stop(value: object) -> bool:
    several = value if isinstance(value, list) else [value]
    return all(isinstance(part, str) and part for part in several) or value == ""


def _is_effort(value: object) -> bool:
    return isinstance(value, str) and value in EFFORTS


_NUMBER: Final = (_is_number, "is not a number")
_WHOLE: Final = (_is_whole, "is not a whole number")
_COUNT: Final = (_is_count, "is not a whole number above 0")
_FLAG: Final = (_is_flag, "is neither true nor false")
_TYPES: Final[Mapping[str, tuple[Callable[[object], bool], str]]] = {
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
    "stop": (_is_stop, "is neither a text nor a list of texts"),
    "reasoning_effort": (_is_effort, f"is none of {', '.join(EFFORTS)}"),
}


def check_fields(body: Json) -> None:
    """Checks the types of a chat's fields. Raises MalformedRequest with the path;
    Untranslatable for tools of another type.
    """
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
            raise Untranslatable(f"`{place}` is not of type function, as is needed here", place)
        name, schema = function.get("name"), function.get("parameters")
        if not isinstance(name, str) or not name:
            raise MalformedRequest(f"{place}.function.name", "is not a text")
        if not isinstance(schema, dict | None):
            raise MalformedRequest(f"{place}.function.parameters", "is not an object")
        if not isinstance(function.get("description"), str | None):
            raise MalformedRequest(f"{place}.function.description", "is not a text")
        found.add(name)
    return found


def _check_choice(choice: object, names: set[str]) -> None:
    if choice is None or (isinstance(choice, str) and choice in ("auto", "none")):
        return
    if choice == "required":
        if not names:
            raise MalformedRequest("tool_choice", "asks for a tool, and `tools` has none")
        return
    if not isinstance(choice, dict):
        raise MalformedRequest(
            "tool_choice", f"is none of {', '.join(_CHOICES)}, and no object"
        )
    if choice.get("type") != "function":
        raise Untranslatable("`tool_choice.type` is not function", "tool_choice.type")
    function = choice.get("function")
    if not isinstance(function, dict) or function.get("name") not in names:
        raise MalformedRequest("tool_choice.function.name", "is no name of `tools`")


def _check_format(wanted: object) -> None:
    if wanted is None:
        return
    if not isinstance(wanted, dict) or wanted.get("type") not in _FORMATS:
        raise MalformedRequest(
            "response_format", f"has a type that is none of {', '.join(_FORMATS)}"
        )
    if wanted["type"] == "json_schema":
        given = wanted.get("json_schema")
        if not isinstance(given, dict) or not isinstance(given.get("schema"), dict):
            raise MalformedRequest("response_format.json_schema.schema", "is not an object")
