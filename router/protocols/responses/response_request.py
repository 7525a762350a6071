"""Translates a Responses request into a chat, and names what only OpenAI can do."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from router.conversation.hosted_text import has_text, hosted_text, last_answer
from router.conversation.intake import maker_of_id, open_thoughts
from router.conversation.native_histories import check_references
from router.frame.body import iter_objects, to_json
from router.frame.failure import REFERENCE, no_chat_error, reference_error, untranslatable_error
from router.protocols.call_pieces import parse_json
from router.protocols.chat_way import ChatWay, flat_name, hosted_tools_alone, without_hosted

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
            names = {flat_name(tool) for tool in iter_objects(choice.get("tools"))}
            kept = [tool for tool in self.functions if tool["function"]["name"] in names]
            mode = choice.get("mode") or "auto"
            return {"tools": kept or self.functions, "tool_choice": mode}
        if kind not in ("function", _CUSTOM):
            what = f"a tool_choice of type {str(kind)[:60]!r}"
            raise no_chat_error(what, "tool_choice")
        return {"tool_choice": {"type": "function", "function": {"name": flat_name(choice)}}}

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


Turn = dict[str, object]
_ROLES: Final = {"developer": "system"}  # which few others know
_GAP: Final = "\n\n"
_TEXTS: Final = frozenset({"input_text", "output_text", "text"})
_REASONING: Final = "reasoning_content"
_RESULTS: Final = frozenset({"function_call_output", "custom_tool_call_output"})
_CALLS: Final = frozenset({"function_call", "custom_tool_call"})


def chat_messages(instructions: object, given: object, way: ChatWay) -> list[Turn]:
    """Calls in a row, or a text, are one turn of the assistant's. Raises Untranslatable."""
    turns = _Turns(way)
    if isinstance(instructions, str) and instructions:
        turns.add({"role": "system", "content": instructions})
    if isinstance(given, str):
        turns.add({"role": "user", "content": given})
    items = list(iter_objects(given))
    answered = last_answer(items)
    for number, item in enumerate(items):
        turns.is_history = number < answered
        turns.add_item(item)
    return turns.found


class _Turns:
    """The chat's turns so far. is_history: a model has answered since."""

    def __init__(self, way: ChatWay) -> None:
        self.found: list[Turn] = []
        self.is_history = False
        self._way = way
        self._thought = ""  # reasoning of the answer behind it
        self._signed: list[Turn] = []  # the same, as its maker signed it
        self._hosted: Turn | None = None  # a turn that says what a hosted tool left

    def add_item(self, item: Mapping[str, object]) -> None:
        kind = str(item.get("type") or "message")
        if kind == "message":
            self._add_message(item)
        elif kind in _CALLS:
            self._add_call(item)
        elif kind in _RESULTS:
            self.found += self._result(item)
        elif kind == "reasoning":  # its own maker's alone; an answer does without
            if self._way.maker and maker_of_id(item.get("id")) == self._way.maker:
                self._thought += _summary(item)
            self._signed += open_thoughts(item.get("encrypted_content"))
        elif kind == "item_reference":
            raise reference_error()
        else:
            self._way.dropped[f"input.{kind}"] = None
            if has_text(item):
                self._say(hosted_text(item))

    def add(self, turn: Turn) -> None:
        self.found.append(turn)

    def _add_message(self, item: Mapping[str, object]) -> None:
        turn = self._message(item)
        last = self.found[-1] if self.found else None
        # Calls without results yet, or what a hosted tool left, are of the same turn.
        joins = last is not None and (last is self._hosted or "tool_calls" in last)
        if turn["role"] == "assistant" and last is not None and joins:
            _append(last, turn["content"])
        else:
            thought = self._reasoning() if turn["role"] == "assistant" else {}
            self.add(turn | thought)

    def _add_call(self, item: Mapping[str, object]) -> None:
        arguments = item.get("arguments") or "{}"
        if item.get("type") == "custom_tool_call":
            text = item.get("input")
            arguments = to_json({_TEXT: text if isinstance(text, str) else ""})
        function = {"name": flat_name(item), "arguments": arguments}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        last = self.found[-1] if self.found else None
        if last is None or last["role"] != "assistant":
            last = {"role": "assistant", "content": None}
            self.add(last)
        last |= self._reasoning()
        calls = last.setdefault("tool_calls", [])
        if isinstance(calls, list):
            calls.append(call)

    def _say(self, text: str) -> None:
        last = self.found[-1] if self.found else None
        if last is None or last["role"] != "assistant":
            last = self._hosted = {"role": "assistant", "content": None}
            self.add(last)
        _append(last, text)

    def _reasoning(self) -> Turn:
        thought, self._thought = self._thought, ""
        signed, self._signed = self._signed, []
        found: Turn = {_REASONING: thought} if thought else {}
        return found | {"thinking_blocks": signed} if signed else found

    def _message(self, item: Mapping[str, object]) -> Turn:
        role = str(item.get("role"))
        content = item.get("content")
        if not isinstance(content, list):
            return {"role": _ROLES.get(role, role), "content": content}
        parts = [self._part(entry) for entry in iter_objects(content)]
        if all(part["type"] == "text" for part in parts):
            gap = "" if role == "assistant" else _GAP
            text = gap.join(str(part["text"]) for part in parts)
            return {"role": _ROLES.get(role, role), "content": text}
        return {"role": _ROLES.get(role, role), "content": parts}

    def _result(self, item: Mapping[str, object]) -> list[Turn]:
        """A chat's result is text alone: its pictures follow as the user's."""
        output = item.get("output")
        told = {"role": "tool", "tool_call_id": item.get("call_id")}
        if not isinstance(output, list):
            return [{**told, "content": output if isinstance(output, str) else ""}]
        parts = [self._part(entry) for entry in iter_objects(output)]
        texts = [str(part["text"]) for part in parts if part["type"] == "text"]
        others = [part for part in parts if part["type"] != "text"]
        if not others:
            return [{**told, "content": _GAP.join(texts)}]
        texts.append("(What else it gave is in the next message.)")
        note = {"type": "text", "text": f"(This is from the tool call {item.get('call_id')}.)"}
        return [
            {**told, "content": _GAP.join(texts)},
            {"role": "user", "content": [note, *others]},
        ]

    def _part(self, part: Mapping[str, object]) -> Turn:
        kind = str(part.get("type"))
        if kind in _TEXTS:
            return {"type": "text", "text": part.get("text")}
        if kind == "refusal":
            return {"type": "text", "text": part.get("refusal")}
        if kind == "input_image" and part.get("image_url"):
            picture = {"url": part["image_url"]}
            if part.get("detail"):
                picture["detail"] = part["detail"]
            return {"type": "image_url", "image_url": picture}
        if kind == "input_file" and part.get("file_data"):
            names = ("filename", "file_data")
            return {"type": "file", "file": {n: part[n] for n in names if part.get(n)}}
        if not (self.is_history or part.get("file_url")):
            raise no_chat_error(f"content of type {kind[:60]!r} without its data", "input")
        self._way.dropped[f"input.{kind}"] = None
        return {"type": "text", "text": hosted_text(part)}


def _append(turn: Turn, text: object) -> None:
    said = (turn.get("content"), text)
    turn["content"] = _GAP.join(str(part) for part in said if part)


def _summary(item: Mapping[str, object]) -> str:
    parts = [*iter_objects(item.get("summary")), *iter_objects(item.get("content"))]
    return "".join(str(part.get("text") or "") for part in parts)


# Said otherwise, below; or about what the provider stores, shows or runs by itself.
_OWN: Final = frozenset(
    {
        "background",
        "client_metadata",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "reasoning",
        "store",
        "stream_options",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "truncation",
    }
)
# OpenAI's own hints: left out, and named.
_LEFT_OUT: Final = frozenset(
    {"access_programs", "background_options", "context_management", "image"}
)
# State at the provider, on which an answer depends.
NATIVE_FIELDS: Final = ("previous_response_id", "conversation", "prompt", "background")


def chat_body(
    request: Mapping[str, object], tools: ResponseTools, way: ChatWay
) -> dict[str, object]:
    """Unknown fields go along. Raises Untranslatable."""
    check_references(request)
    own = untranslatable_field(request.get)
    if own:
        raise untranslatable_error(own)
    body = {
        name: value
        for name, value in way.without(request, _OWN, _LEFT_OUT).items()
        if not (value is None or name in NATIVE_FIELDS)
    }
    body["messages"] = chat_messages(request.get("instructions"), request.get("input"), way)
    if request.get("max_output_tokens") is not None:
        body[way.limit_field] = request["max_output_tokens"]
    if request.get("stream"):
        body["stream_options"] = {"include_usage": True}
    if request.get("top_logprobs"):
        body |= {"logprobs": True, "top_logprobs": request["top_logprobs"]}
    reasoning = request.get("reasoning")
    if isinstance(reasoning, Mapping) and reasoning.get("effort"):
        body["reasoning_effort"] = reasoning["effort"]
    body |= _text(request.get("text"))
    if not tools.functions:
        body.pop("parallel_tool_calls", None)
        return body
    return body | {"tools": tools.functions} | tools.choice(request.get("tool_choice"))


def untranslatable_field(value: Callable[[str], object]) -> str:
    for name in NATIVE_FIELDS:
        if value(name):
            return f"`{name}`"
    items = iter_objects(value("input"))
    if any(item.get("type") == "item_reference" for item in items):
        return REFERENCE
    return hosted_tools_alone(value("tools"), value("tool_choice"), CLIENTS)


def wants_thinking(request: Mapping[str, object]) -> bool:
    reasoning = request.get("reasoning")
    return isinstance(reasoning, Mapping) and bool(
        reasoning.get("summary") or reasoning.get("generate_summary")
    )


def _text(text: object) -> dict[str, object]:
    if not isinstance(text, Mapping):
        return {}
    found: dict[str, object] = {}
    if text.get("verbosity"):
        found["verbosity"] = text["verbosity"]
    wanted = text.get("format")
    if isinstance(wanted, Mapping):
        if wanted.get("type") == "json_schema":
            schema = {name: value for name, value in wanted.items() if name != "type"}
            found["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif wanted.get("type") == "json_object":
            found["response_format"] = {"type": "json_object"}
    return found
