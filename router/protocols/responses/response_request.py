"""Translates a Responses request into a chat, and finds parts that only OpenAI supports.

If a chat has no counterpart for a part, the module refuses the request, drops the part, or
writes it as text. It refuses the request if the answer would need the part.
`router.upstream.endpoint_translation` calls the module. `answer_writer` translates the answer
back, with the request's tools.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from router.conversation.hosted_tools import (
    ChatTranslation,
    block_as_text,
    flat_name,
    has_text,
    keep_client_tools,
    last_answer,
    required_hosted_tool,
)
from router.conversation.intake import maker_of_id, open_thoughts
from router.conversation.native_histories import check_references
from router.frame.body import iter_objects, to_json
from router.frame.failure import (
    COMPACTION,
    COMPACTION_ORDER,
    REFERENCE,
    no_chat_error,
    reference_error,
    untranslatable_error,
)
from router.protocols.answers import parse_json

Tool = dict[str, object]
# Types of tools that the client runs.
_CLIENT_TOOL_TYPES: Final = frozenset({"function", "custom", "namespace"})
_CUSTOM: Final = "custom"
_TEXT_ARGUMENT: Final = "input"  # the name of a custom tool's only argument
_CUSTOM_PARAMETERS: Final = {
    "type": "object",
    "properties": {_TEXT_ARGUMENT: {"type": "string"}},
    "required": [_TEXT_ARGUMENT],
    "additionalProperties": False,
}


_MORE_TOOLS: Final = "additional_tools"


class ToolOrigin(NamedTuple):
    """The client's name of a tool. A chat uses a flat name, which includes the namespace."""

    name: str
    namespace: str = ""
    is_custom: bool = False


class ResponseTools:
    """The tools of one request. Adds the hosted tools to `translation.dropped`.

    functions: the tools in a chat's form. A custom tool becomes a function with one text
    argument.
    """

    def __init__(self, request: Mapping[str, object], translation: ChatTranslation) -> None:
        self._origins: dict[str, ToolOrigin] = {}
        self._translation = translation
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
            for tool in keep_client_tools(offered, _CLIENT_TOOL_TYPES, translation.dropped)
            for function in self._translate_tool(tool)
        ]

    def origin(self, name: str) -> ToolOrigin:
        """Returns the client's tool for a name in the answer."""
        return self._origins.get(name) or ToolOrigin(name)

    def choice(self, choice: object) -> Tool:
        """Translates `tool_choice`. Raises Untranslatable.

        If the request allows only some tools, the chat offers only them. If a chat supports
        no allowed tool, it offers all tools.
        """
        if isinstance(choice, str):
            return {"tool_choice": choice}
        if not isinstance(choice, Mapping):
            return {}
        kind = choice.get("type")
        if kind == "allowed_tools":
            names = {flat_name(tool) for tool in iter_objects(choice.get("tools"))}
            allowed = [tool for tool in self.functions if tool["function"]["name"] in names]
            mode = choice.get("mode") or "auto"
            return {"tools": allowed or self.functions, "tool_choice": mode}
        if kind not in ("function", _CUSTOM):
            feature = f"a tool_choice of type {str(kind)[:60]!r}"
            raise no_chat_error(feature, "tool_choice")
        return {
            "tool_choice": {
                "type": "function",
                "function": {"name": flat_name(choice)},
            }
        }

    def _translate_tool(self, tool: Mapping[str, object]) -> Iterator[Tool]:
        kind = tool.get("type")
        name = str(tool.get("name"))
        if kind == "namespace":
            for inner in iter_objects(tool.get("tools")):
                qualified = {**inner, "namespace": name}
                flat_tool_name = flat_name(qualified)
                self._origins[flat_tool_name] = ToolOrigin(str(inner.get("name")), name)
                yield _build_function(qualified, self._translation)
        elif kind == _CUSTOM:
            self._origins[name] = ToolOrigin(name, is_custom=True)
            yield _build_custom_function(tool)
        else:
            yield _build_function(tool, self._translation)


def custom_text(arguments: str) -> str:
    """Returns a custom tool's text from a function call's arguments.

    If the model wrote the arguments in another form, they are the text.
    """
    parsed = parse_json(arguments)
    text = parsed.get(_TEXT_ARGUMENT) if isinstance(parsed, Mapping) else None
    return text if isinstance(text, str) else arguments


def _build_function(tool: Mapping[str, object], translation: ChatTranslation) -> Tool:
    names = ("description", "parameters", "strict")
    members = {name: tool[name] for name in names if tool.get(name) is not None}
    if members.get("strict") and not translation.is_strict(tool, "parameters", "tools.strict"):
        del members["strict"]
    return {"name": flat_name(tool), **members}


def _build_custom_function(tool: Mapping[str, object]) -> Tool:
    texts = [str(tool["description"])] if tool.get("description") else []
    form = tool.get("format")
    if isinstance(form, Mapping) and form.get("definition"):
        texts.append(
            f"Its input follows this {form.get('syntax')} grammar:\n{form['definition']}"
        )
    description = {"description": "\n\n".join(texts)} if texts else {}
    return {
        "name": tool.get("name"),
        **description,
        "parameters": _CUSTOM_PARAMETERS,
    }


Turn = dict[str, object]
_CHAT_ROLES: Final = {"developer": "system"}  # few providers know `developer`
_GAP: Final = "\n\n"
_TEXT_TYPES: Final = frozenset({"input_text", "output_text", "text"})
_REASONING: Final = "reasoning_content"
_RESULT_TYPES: Final = frozenset({"function_call_output", "custom_tool_call_output"})
_CALL_TYPES: Final = frozenset({"function_call", "custom_tool_call"})


def chat_messages(
    instructions: object,
    items_or_text: object,
    translation: ChatTranslation,
) -> list[Turn]:
    """Translates the instructions and the input. Raises Untranslatable.

    Consecutive calls, and a text beside them, become one assistant turn.
    """
    turns = _Turns(translation)
    if isinstance(instructions, str) and instructions:
        turns.add({"role": "system", "content": instructions})
    if isinstance(items_or_text, str):
        turns.add({"role": "user", "content": items_or_text})
    items = list(iter_objects(items_or_text))
    history_end = last_answer(items)
    for number, item in enumerate(items):
        turns.is_history = number < history_end
        turns.add_item(item)
    return turns.turns


class _Turns:
    """The chat's turns so far. is_history: the current item precedes a model's answer."""

    def __init__(self, translation: ChatTranslation) -> None:
        self.turns: list[Turn] = []
        self.is_history = False
        self._translation = translation
        self._reasoning_text = ""  # before the next answer
        self._signed_reasoning: list[Turn] = []  # the same, with its maker's signature
        self._hosted_turn: Turn | None = None  # the turn with a hosted tool's result

    def add_item(self, item: Mapping[str, object]) -> None:
        """Adds an item of the input. Raises Untranslatable for a reference to another item."""
        kind = str(item.get("type") or "message")
        if kind == "message":
            self._add_message(item)
        elif kind in _CALL_TYPES:
            self._add_call(item)
        elif kind in _RESULT_TYPES:
            self.turns += self._translate_result(item)
        elif kind == "reasoning":
            # Only the model's maker can read it, and an answer does not need it.
            maker = self._translation.maker
            if maker and maker_of_id(item.get("id")) == maker:
                self._reasoning_text += _join_summary(item)
            self._signed_reasoning += open_thoughts(item.get("encrypted_content"))
        elif kind == "item_reference":
            raise reference_error()
        elif kind != _MORE_TOOLS:
            self._translation.dropped[f"input.{kind}"] = None
            if has_text(item):
                self._add_text(block_as_text(item))

    def add(self, turn: Turn) -> None:
        self.turns.append(turn)

    def _add_message(self, item: Mapping[str, object]) -> None:
        turn = self._translate_message(item)
        last = self.turns[-1] if self.turns else None
        # Calls without results and a hosted tool's result belong to the same turn.
        is_same_turn = last is not None and (last is self._hosted_turn or "tool_calls" in last)
        if turn["role"] == "assistant" and last is not None and is_same_turn:
            _append_text(last, turn["content"])
        else:
            reasoning = self._take_reasoning() if turn["role"] == "assistant" else {}
            self.add(turn | reasoning)

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
        last |= self._take_reasoning()
        calls = last.setdefault("tool_calls", [])
        if isinstance(calls, list):
            calls.append(call)

    def _add_text(self, text: str) -> None:
        last = self.turns[-1] if self.turns else None
        if last is None or last["role"] != "assistant":
            last = self._hosted_turn = {"role": "assistant", "content": None}
            self.add(last)
        _append_text(last, text)

    def _take_reasoning(self) -> Turn:
        """Returns the reasoning before an answer as members of its turn, and forgets it."""
        text = self._reasoning_text
        self._reasoning_text = ""
        blocks = self._signed_reasoning
        self._signed_reasoning = []
        fields: Turn = {_REASONING: text} if text else {}
        return fields | {"thinking_blocks": blocks} if blocks else fields

    def _translate_message(self, item: Mapping[str, object]) -> Turn:
        role = str(item.get("role"))
        content = item.get("content")
        if not isinstance(content, list):
            return {"role": _CHAT_ROLES.get(role, role), "content": content}
        parts = [self._translate_part(entry) for entry in iter_objects(content)]
        if all(part["type"] == "text" for part in parts):
            gap = "" if role == "assistant" else _GAP
            text = gap.join(str(part["text"]) for part in parts)
            return {"role": _CHAT_ROLES.get(role, role), "content": text}
        return {"role": _CHAT_ROLES.get(role, role), "content": parts}

    def _translate_result(self, item: Mapping[str, object]) -> list[Turn]:
        """Translates a tool result into text; its images follow in a user message."""
        output = item.get("output")
        result = {"role": "tool", "tool_call_id": item.get("call_id")}
        if not isinstance(output, list):
            return [
                {
                    **result,
                    "content": output if isinstance(output, str) else "",
                }
            ]
        parts = [self._translate_part(entry) for entry in iter_objects(output)]
        texts = [str(part["text"]) for part in parts if part["type"] == "text"]
        files = [part for part in parts if part["type"] != "text"]
        if not files:
            return [{**result, "content": _GAP.join(texts)}]
        texts.append("(The rest of the result is in the next message.)")
        note = {
            "type": "text",
            "text": f"(This is from the tool call {item.get('call_id')}.)",
        }
        return [
            {**result, "content": _GAP.join(texts)},
            {"role": "user", "content": [note, *files]},
        ]

    def _translate_part(self, part: Mapping[str, object]) -> Turn:
        """Translates a part of a content.

        The target gets the URL of a file if it fetches such files. Another file without its
        data becomes text if it is in the history or has a URL. Raises Untranslatable for other
        files without data.
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
        url = part.get("file_url")
        is_fetched = isinstance(url, str) and url.startswith(self._translation.file_urls)
        if kind == "input_file" and is_fetched:
            return {"type": "file", "file": {"file_data": url}}
        if not (self.is_history or url):
            raise no_chat_error(f"content of type {kind[:60]!r} without its data", "input")
        self._translation.dropped[f"input.{kind}"] = None
        return {"type": "text", "text": block_as_text(part)}


def _append_text(turn: Turn, text: object) -> None:
    parts = (turn.get("content"), text)
    turn["content"] = _GAP.join(str(part) for part in parts if part)


def _join_summary(item: Mapping[str, object]) -> str:
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
# Hints for OpenAI. The translation omits them, and adds them to `dropped`.
_OMITTED_FIELDS: Final = frozenset(
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
    translation: ChatTranslation,
) -> dict[str, object]:
    """Translates the whole request. Raises Untranslatable.

    Keeps unknown fields, because the target may know them. Adds the names of dropped parts to
    `translation.dropped`.

    Args:
        tools: the tools of the same request.
    """
    check_references(request)
    native_part = untranslatable_field(request.get)
    if native_part:
        raise untranslatable_error(native_part)
    other_fields = translation.copy_other_fields(request, _TRANSLATED_FIELDS, _OMITTED_FIELDS)
    body = {
        name: value
        for name, value in other_fields.items()
        if not (value is None or name in NATIVE_FIELDS)
    }
    body["messages"] = chat_messages(
        request.get("instructions"), request.get("input"), translation
    )
    if request.get("max_output_tokens") is not None:
        body[translation.limit_field] = request["max_output_tokens"]
    if request.get("stream"):
        body["stream_options"] = {"include_usage": True}
    if request.get("top_logprobs"):
        body |= {"logprobs": True, "top_logprobs": request["top_logprobs"]}
    reasoning = request.get("reasoning")
    if isinstance(reasoning, Mapping) and reasoning.get("effort"):
        body["reasoning_effort"] = reasoning["effort"]
    body |= _text_fields(request.get("text"), translation)
    if not tools.functions:
        body.pop("parallel_tool_calls", None)
        return body
    return body | {"tools": tools.functions} | tools.choice(request.get("tool_choice"))


def untranslatable_field(value: Callable[[str], object]) -> str:
    """Names a field, a reference or a tool that no translation supports; empty without one.

    Args:
        value: returns a top-level field of the request.
    """
    for name in NATIVE_FIELDS:
        if value(name):
            return f"`{name}`"
    items = list(iter_objects(value("input")))
    if any(item.get("type") == "item_reference" for item in items):
        return REFERENCE
    if compaction := _find_compaction(items):
        return compaction
    return required_hosted_tool(value("tools"), value("tool_choice"), _CLIENT_TOOL_TYPES)


def _find_compaction(items: Iterable[Mapping[str, object]]) -> str:
    """Names a compaction that the answer depends on; empty without one.

    A summary is unnecessary if the input still has an answer from before it.
    """
    has_answer = False
    for item in items:
        kind = str(item.get("type"))
        if kind == "compaction_trigger":
            return COMPACTION_ORDER
        if kind == "compaction" and not has_answer:
            return COMPACTION
        has_answer = has_answer or kind in _CALL_TYPES or item.get("role") == "assistant"
    return ""


def wants_thinking(request: Mapping[str, object]) -> bool:
    """Returns whether the client wants to see a summary of the reasoning."""
    reasoning = request.get("reasoning")
    return isinstance(reasoning, Mapping) and bool(
        reasoning.get("summary") or reasoning.get("generate_summary")
    )


def _text_fields(text: object, translation: ChatTranslation) -> dict[str, object]:
    if not isinstance(text, Mapping):
        return {}
    fields: dict[str, object] = {}
    if text.get("verbosity"):
        fields["verbosity"] = text["verbosity"]
    text_format = text.get("format")
    if isinstance(text_format, Mapping):
        if text_format.get("type") == "json_schema":
            schema = {name: value for name, value in text_format.items() if name != "type"}
            if schema.get("strict") and not translation.is_strict(
                text_format, "schema", "text.format.strict"
            ):
                del schema["strict"]
            fields["response_format"] = {
                "type": "json_schema",
                "json_schema": schema,
            }
        elif text_format.get("type") == "json_object":
            fields["response_format"] = {"type": "json_object"}
    return fields
