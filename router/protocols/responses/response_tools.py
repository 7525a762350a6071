"""The tools of a Responses request as functions of a chat, and their calls translated back."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from router.frame.body_patch import to_json
from router.frame.failure import no_chat_error
from router.frame.object_lists import iter_objects
from router.protocols.call_pieces import parse_json
from router.protocols.chat_way import ChatWay, flat_name, without_hosted

Tool = dict[str, object]
# Types of the tools that the client itself runs.
CLIENTS: Final = frozenset({"function", "custom", "namespace"})
_CUSTOM: Final = "custom"
_TEXT: Final = "input"  # what a custom tool's one argument is called
_PARAMETERS: Final = {
    "type": "object",
    "properties": {_TEXT: {"type": "string"}},
    "required": [_TEXT],
    "additionalProperties": False,
}


class ToolOrigin(NamedTuple):
    """How the client knows a function of the chat."""

    name: str
    namespace: str = ""
    is_custom: bool = False


class ResponseTools:
    """The tools of one request. way: gets the names of the hosted ones, which are left out."""

    def __init__(self, request: Mapping[str, object], way: ChatWay) -> None:
        self._origins: dict[str, ToolOrigin] = {}
        self.functions: list[dict[str, Any]] = [
            {"type": "function", "function": function}
            for tool in without_hosted(request.get("tools"), CLIENTS, way.dropped)
            for function in self._functions(tool)
        ]

    def origin(self, name: str) -> ToolOrigin:
        return self._origins.get(name) or ToolOrigin(name)

    def choice(self, choice: object) -> Tool:
        """Translates `tool_choice`. Raises Untranslatable."""
        if isinstance(choice, str):
            return {"tool_choice": choice}
        if not isinstance(choice, Mapping):
            return {}
        kind = choice.get("type")
        if kind == "allowed_tools":
            return self._allowed(choice)
        if kind not in ("function", _CUSTOM):
            what = f"a tool_choice of type {str(kind)[:60]!r}"
            raise no_chat_error(what, "tool_choice")
        return {"tool_choice": {"type": "function", "function": {"name": flat_name(choice)}}}

    def _allowed(self, choice: Mapping[str, object]) -> Tool:
        names = {flat_name(tool) for tool in iter_objects(choice.get("tools"))}
        kept = [tool for tool in self.functions if tool["function"]["name"] in names]
        return {"tools": kept or self.functions, "tool_choice": choice.get("mode") or "auto"}

    def _functions(self, tool: Mapping[str, object]) -> Iterator[Tool]:
        kind, name = tool.get("type"), str(tool.get("name"))
        if kind == "namespace":
            for inner in iter_objects(tool.get("tools")):
                within = {**inner, "namespace": name}
                flat = flat_name(within)
                self._origins[flat] = ToolOrigin(str(inner.get("name")), name)
                yield _function(within)
        elif kind == _CUSTOM:
            self._origins[name] = ToolOrigin(name, is_custom=True)
            yield _custom_function(tool)
        else:
            yield _function(tool)


def custom_arguments(text: object) -> str:
    return to_json({_TEXT: text if isinstance(text, str) else ""})


def custom_text(arguments: str) -> str:
    found = parse_json(arguments)
    text = found.get(_TEXT) if isinstance(found, Mapping) else None
    return text if isinstance(text, str) else arguments


def _function(tool: Mapping[str, object]) -> Tool:
    names = ("description", "parameters", "strict")
    kept = {name: tool[name] for name in names if tool.get(name) is not None}
    return {"name": flat_name(tool), **kept}


def _custom_function(tool: Mapping[str, object]) -> Tool:
    said = [str(tool["description"])] if tool.get("description") else []
    form = tool.get("format")
    if isinstance(form, Mapping) and form.get("definition"):
        said.append(
            f"Its input follows this {form.get('syntax')} grammar:\n{form['definition']}"
        )
    description = {"description": "\n\n".join(said)} if said else {}
    return {"name": tool.get("name"), **description, "parameters": _PARAMETERS}
