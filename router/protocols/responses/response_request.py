"""Translates a Responses request into a chat, and names features that only OpenAI has.

If a part has no counterpart in a chat, the module refuses the request, drops and names the
part, or writes it as text. The choice depends on how much the answer needs the part.
`router.upstream.endpoint_translation` calls it. The answer goes back through `answer_writer`,
which needs the request's tools.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from router.conversation.hosted_tools import (
    ChatWay,
    flat_name,
    has_text,
    hosted_text,
    hosted_tools_alone,
    last_answer,
    without_hosted,
)
from router.conversation.intake import maker_of_id, open_thoughts
from router.conversation.native_histories import check_references
from router.frame.body import iter_objects, to_json
from router.frame.failure import (
    REFERENCE,
    no_chat_error,
    reference_error,
    untranslatable_error,
)
from router.protocols.answers import parse_json

Tool = dict[str, object]
# Types of tools that the client runs.
CLIENT_TOOL_TYPES: Final = frozenset({"function", "custom", "namespace"})
_CUSTOM: Final = "custom"
_TEXT_ARGUMENT: Final = "input"  # the name of a custom tool's only argument
_PARAMETERS: Final = {
    "type": "object",
    "properties": {_TEXT_ARGUMENT: {"type": "string"}},
    "required": [_TEXT_ARGUMENT],
    "additionalProperties": False,
}


_MORE_TOOLS: Final = "additional_tools"


class ToolOrigin(NamedTuple):
    """The client's name of a tool. In the chat, the tool has a flat name instead."""

    name: str
    namespace: str = ""
    is_custom: bool = False


class ResponseTools:
    """The tools of one request. The hosted tools' names go to `way.dropped`.

    functions: the tools in the chat's format. A custom tool becomes a function with one text
    argument.
    """

    def __init__(self, request: Mapping[str, object], way: ChatWay) -> None:
        self._origins: dict[str, ToolOrigin] = {}
        self._way = way
        offered = [
            *iter_objects(request.get("tools")),
            # Codex offers further tools in an item of the input.
            *(
                tool
                for item in iter_objects(request.get("input"))
                if item.get("type") == _MORE_TOOLS
                for tool in iter_objects(item.get("tools"))
            ),
        ]
        self.functions: list[dict[str, Any]] = [
            {"type": "function", "function": function}
            for tool in without_hosted(offered, CLIENT_TOOL_TYPES, way.dropped)
            for function in self._functions(tool)
        ]

    def origin(self, name: str) -> ToolOrigin:
        """Returns the client's tool for a name in the answer."""
        return self._origins.get(name) or ToolOrigin(name)

    def choice(self, choice: object) -> Tool:
        """Translates `tool_choice`. Raises Untranslatable.

        If the request allows only some tools, the chat offers only these. If none of them
        exists in the chat, the chat offers all its tools.
        """
        if isinstance(choice, str):
            return {"tool_choice": choice}
        if not isinstance(choice, Mapping):
            return {}
        kind = choice.get("type")
        if kind == "allowed_tools":
            names = {flat_name(tool) for tool in iter_objects(choice.get("tools"))}
            allowed_tools = [
                tool for tool in self.functions if tool["function"]["name"] in names
            ]
            mode = choice.get("mode") or "auto"
            return {"tools": allowed_tools or self.functions, "tool_choice": mode}
        if kind not in ("function", _CUSTOM):
            feature = f"a tool_choice of type {str(kind)[:60]!r}"
            raise no_chat_error(feature, "tool_choice")
        return {
            "tool_choice": {
                "type": "function",
                "function": {"name": flat_name(choice)},
            }
        }

    def _functions(self, tool: Mapping[str, object]) -> Iterator[Tool]:
        kind = tool.get("type")
        name = str(tool.get("name"))
        if kind == "namespace":
            for inner in iter_objects(tool.get("tools")):
                namespaced = {**inner, "namespace": name}
                flat = flat_name(namespaced)
                self._origins[flat] = ToolOrigin(str(inner.get("name")), name)
                yield _function(namespaced, self._way)
        elif kind == _CUSTOM:
            self._origins[name] = ToolOrigin(name, is_custom=True)
            yield _custom_function(tool)
        else:
            yield _function(tool, self._way)


def custom_text(arguments: str) -> str:
    """Returns a custom tool's text from a function call's arguments. Returns the arguments
    themselves if they are no JSON object with a text.
    """
    parsed = parse_json(arguments)
    text = parsed.get(_TEXT_ARGUMENT) if isinstance(parsed, Mapping) else None
    return text if isinstance(text, str) else arguments


def _function(tool: Mapping[str, object], way: ChatWay) -> Tool:
    names = ("description", "parameters", "strict")
    fields = {name: tool[name] for name in names if tool.get(name) is not None}
    if fields.get("strict") and not way.is_strict(tool, "parameters", "tools.strict"):
        del fields["strict"]
    return {"name": flat_name(tool), **fields}


def _custom_function(tool: Mapping[str, object]) -> Tool:
    texts = [str(tool["description"])] if tool.get("description") else []
    input_format = tool.get("format")
    if isinstance(input_format, Mapping) and input_format.get("definition"):
        texts.append(
            f"Its input follows this {input_format.get('syntax')} grammar:\n"
            f"{input_format['definition']}"
        )
    description = {"description": "\n\n".join(texts)} if texts else {}
    return {
        "name": tool.get("name"),
        **description,
        "parameters": _PARAMETERS,
    }


Turn = dict[str, object]
_ROLES: Final = {"developer": "system"}  # few providers know `developer`
_PARAGRAPH_GAP: Final = "\n\n"
_TEXT_TYPES: Final = frozenset({"input_text", "output_text", "text"})
_REASONING: Final = "reasoning_content"
_RESULT_TYPES: Final = frozenset({"function_call_output", "custom_tool_call_output"})
_CALL_TYPES: Final = frozenset({"function_call", "custom_tool_call"})


def chat_messages(
    instructions: object,
    input_items: object,
    way: ChatWay,
) -> list[Turn]:
    """Translates the input into turns. Consecutive calls and a text form one assistant turn.
    Raises Untranslatable.
    """
    turns = _Turns(way)
    if isinstance(instructions, str) and instructions:
        turns.add({"role": "system", "content": instructions})
    if isinstance(input_items, str):
        turns.add({"role": "user", "content": input_items})
    items = list(iter_objects(input_items))
    last_answer_index = last_answer(items)
    for number, item in enumerate(items):
        turns.is_history = number < last_answer_index
        turns.add_item(item)
    return turns.turns


class _Turns:
    """The chat's turns so far. is_history: the current item precedes a model's answer."""

    def __init__(self, way: ChatWay) -> None:
        self.turns: list[Turn] = []
        self.is_history = False
        self._way = way
        self._thought = ""  # the reasoning before the next answer
        self._signed: list[Turn] = []  # the same reasoning, with its maker's signature
        self._hosted: Turn | None = None  # the turn with a hosted tool's result

    def add_item(self, item: Mapping[str, object]) -> None:
        """Adds an item of the input. Raises Untranslatable for a reference to a stored
        item.
        """
        kind = str(item.get("type") or "message")
        if kind == "message":
            self._add_message(item)
        elif kind in _CALL_TYPES:
            self._add_call(item)
        elif kind in _RESULT_TYPES:
            self.turns += self._result(item)
        elif kind == "reasoning":
            # Only the maker's models can read reasoning. Others answer without it.
            if self._way.maker and maker_of_id(item.get("id")) == self._way.maker:
                self._thought += _summary(item)
            self._signed += open_thoughts(item.get("encrypted_content"))
        elif kind == "item_reference":
            raise reference_error()
        elif kind != _MORE_TOOLS:
            self._way.dropped[f"input.{kind}"] = None
            if has_text(item):
                self._add_text(hosted_text(item))

    def add(self, turn: Turn) -> None:
        self.turns.append(turn)

    def _add_message(self, item: Mapping[str, object]) -> None:
        turn = self._message(item)
        last = self.turns[-1] if self.turns else None
        # The text joins a turn that has a hosted tool's result, or whose calls have no results
        # yet.
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
            arguments = to_json({_TEXT_ARGUMENT: text if isinstance(text, str) else ""})
        function = {"name": flat_name(item), "arguments": arguments}
        call = {
            "id": item.get("call_id"),
            "type": "function",
            "function": function,
        }
        last = self.turns[-1] if self.turns else None
        if last is None or last["role"] != "assistant":
            last = {"role": "assistant", "content": None}
            self.add(last)
        last |= self._reasoning()
        calls = last.setdefault("tool_calls", [])
        if isinstance(calls, list):
            calls.append(call)

    def _add_text(self, text: str) -> None:
        last = self.turns[-1] if self.turns else None
        if last is None or last["role"] != "assistant":
            last = self._hosted = {"role": "assistant", "content": None}
            self.add(last)
        _append(last, text)

    def _reasoning(self) -> Turn:
        """Returns the reasoning before an answer, for its turn, and forgets it."""
        thought = self._thought
        self._thought = ""
        signed = self._signed
        self._signed = []
        reasoning: Turn = {_REASONING: thought} if thought else {}
        return reasoning | {"thinking_blocks": signed} if signed else reasoning

    def _message(self, item: Mapping[str, object]) -> Turn:
        role = str(item.get("role"))
        content = item.get("content")
        if not isinstance(content, list):
            return {"role": _ROLES.get(role, role), "content": content}
        parts = [self._part(entry) for entry in iter_objects(content)]
        if all(part["type"] == "text" for part in parts):
            gap = "" if role == "assistant" else _PARAGRAPH_GAP
            text = gap.join(str(part["text"]) for part in parts)
            return {"role": _ROLES.get(role, role), "content": text}
        return {"role": _ROLES.get(role, role), "content": parts}

    def _result(self, item: Mapping[str, object]) -> list[Turn]:
        """Translates a tool's result. A chat takes only text there, so files follow in a user
        message.
        """
        output = item.get("output")
        result = {"role": "tool", "tool_call_id": item.get("call_id")}
        if not isinstance(output, list):
            return [
                {
                    **result,
                    "content": output if isinstance(output, str) else "",
                }
            ]
        parts = [self._part(entry) for entry in iter_objects(output)]
        texts = [str(part["text"]) for part in parts if part["type"] == "text"]
        files = [part for part in parts if part["type"] != "text"]
        if not files:
            return [{**result, "content": _PARAGRAPH_GAP.join(texts)}]
        texts.append("(The rest of the result is in the next message.)")
        note = {
            "type": "text",
            "text": f"(This is from the tool call {item.get('call_id')}.)",
        }
        return [
            {**result, "content": _PARAGRAPH_GAP.join(texts)},
            {"role": "user", "content": [note, *files]},
        ]

    def _part(self, part: Mapping[str, object]) -> Turn:
        """Translates a part of a content. Raises Untranslatable for a new file without its
        data.
        """
        kind = str(part.get("type"))
        if kind in _TEXT_TYPES:
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
            return {
                "type": "file",
                "file": {n: part[n] for n in names if part.get(n)},
            }
        if not (self.is_history or part.get("file_url")):
            raise no_chat_error(f"content of type {kind[:60]!r} without its data", "input")
        self._way.dropped[f"input.{kind}"] = None
        return {"type": "text", "text": hosted_text(part)}


def _append(turn: Turn, text: object) -> None:
    parts = (turn.get("content"), text)
    turn["content"] = _PARAGRAPH_GAP.join(str(part) for part in parts if part)


def _summary(item: Mapping[str, object]) -> str:
    parts = [
        *iter_objects(item.get("summary")),
        *iter_objects(item.get("content")),
    ]
    return "".join(str(part.get("text") or "") for part in parts)


# Fields that the code below translates, or that concern the provider's storage and tools.
_TRANSLATED_FIELDS: Final = frozenset(
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
# Hints for OpenAI: the translation omits and names them.
_OPENAI_HINTS: Final = frozenset(
    {"access_programs", "background_options", "context_management", "image"}
)
# Fields that refer to state at the provider. The answer depends on this state.
NATIVE_FIELDS: Final = (
    "previous_response_id",
    "conversation",
    "prompt",
    "background",
)


def chat_body(
    request: Mapping[str, object],
    tools: ResponseTools,
    way: ChatWay,
) -> dict[str, object]:
    """Translates the whole request. Raises Untranslatable.

    Keeps unknown fields, because the target may know them. tools: of the same request.
    way: the translation's options; collects the names of dropped fields.
    """
    check_references(request)
    refused_field = untranslatable_field(request.get)
    if refused_field:
        raise untranslatable_error(refused_field)
    body = {
        name: value
        for name, value in way.without(request, _TRANSLATED_FIELDS, _OPENAI_HINTS).items()
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
    body |= _text_settings(request.get("text"), way)
    if not tools.functions:
        body.pop("parallel_tool_calls", None)
        return body
    return body | {"tools": tools.functions} | tools.choice(request.get("tool_choice"))


def untranslatable_field(value: Callable[[str], object]) -> str:
    """Names a field, a reference or a tool that no translation supports; empty without one.

    value: returns a top-level field of the request.
    """
    for name in NATIVE_FIELDS:
        if value(name):
            return f"`{name}`"
    items = iter_objects(value("input"))
    if any(item.get("type") == "item_reference" for item in items):
        return REFERENCE
    return hosted_tools_alone(value("tools"), value("tool_choice"), CLIENT_TOOL_TYPES)


def wants_thinking(request: Mapping[str, object]) -> bool:
    """Returns whether the client wants to see a summary of the reasoning."""
    reasoning = request.get("reasoning")
    return isinstance(reasoning, Mapping) and bool(
        reasoning.get("summary") or reasoning.get("generate_summary")
    )


def _text_settings(text: object, way: ChatWay) -> dict[str, object]:
    if not isinstance(text, Mapping):
        return {}
    settings: dict[str, object] = {}
    if text.get("verbosity"):
        settings["verbosity"] = text["verbosity"]
    text_format = text.get("format")
    if isinstance(text_format, Mapping):
        if text_format.get("type") == "json_schema":
            schema = {name: value for name, value in text_format.items() if name != "type"}
            if schema.get("strict") and not way.is_strict(
                text_format, "schema", "text.format.strict"
            ):
                del schema["strict"]
            settings["response_format"] = {
                "type": "json_schema",
                "json_schema": schema,
            }
        elif text_format.get("type") == "json_object":
            settings["response_format"] = {"type": "json_object"}
    return settings
