"""Translates a Messages request into a chat, and names features that only Anthropic has.

If a part has no counterpart in a chat, the module refuses the request, drops and names the
part, or writes it as text. The choice depends on how much the answer needs the part.
`router.upstream.endpoint_translation` calls it. The answer goes back through `answer_writer`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from router.conversation.field_forms import DEFAULT_EFFORT, effort_of_budget
from router.conversation.hosted_tools import (
    ChatTranslation,
    block_as_text,
    keep_client_tools,
    last_answer,
    required_hosted_tool,
)
from router.conversation.intake import open_thoughts, read_mark
from router.frame.body import iter_objects, to_json
from router.frame.failure import (
    Untranslatable,
    no_chat_error,
    untranslatable_error,
)
from router.protocols.caller_names import BILLING

# Only the original provider can read these blocks, and an answer does not need them.
_THINKING_TYPES: Final = frozenset({"thinking", "redacted_thinking"})
# Blocks of a tool's result that follow in a user message.
_FILE_TYPES: Final = frozenset({"image", "document"})
_GAP: Final = "\n\n"
_ERROR: Final = "Error: "
Turn = dict[str, object]


def chat_messages(messages: object, translation: ChatTranslation) -> Iterator[Turn]:
    """Translates the messages; hosted parts of the history become text.

    Raises Untranslatable for such a part after the last answer.
    """
    sources = list(iter_objects(messages))
    history_end = last_answer(sources)
    for number, message in enumerate(sources):
        content = message.get("content")
        blocks = _Blocks(translation.dropped, is_history=number < history_end)
        if message.get("role") == "assistant":
            yield _assistant_turn(content, translation.maker, blocks)
        elif message.get("role") == "system":
            yield {"role": "system", "content": text_or_parts(content)}
        else:
            yield from _user_turns(content, blocks)


def plain_text(content: object, param: str = "messages") -> str:
    """Joins text blocks of the field `param`. Raises Untranslatable for any other block."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    for block in iter_objects(content):
        if block.get("type") != "text":
            raise _no_counterpart_error(block, param)
    return _GAP.join(str(block.get("text") or "") for block in iter_objects(content))


def text_or_parts(content: object, param: str = "messages") -> object:
    """Returns parts if one has a cache mark, else one text. Raises Untranslatable."""
    text = plain_text(content, param)
    blocks = list(iter_objects(content)) if isinstance(content, list) else []
    return (
        [
            {"type": "text", "text": str(block.get("text") or "")} | cache_mark(block)
            for block in blocks
        ]
        if any(cache_mark(block) for block in blocks)
        else text
    )


def cache_mark(block: Mapping[str, object]) -> Turn:
    """Returns the block's cache mark as a member; empty without one.

    `router.request.needs` has removed the marks of a target that cannot use them.
    """
    mark = block.get("cache_control")
    return {"cache_control": mark} if isinstance(mark, Mapping) else {}


def _assistant_turn(
    content: object,
    maker: str,
    blocks: "_Blocks",
) -> Turn:
    if not isinstance(content, list):
        return {"role": "assistant", "content": content}
    texts: list[Turn] = []
    calls: list[Turn] = []
    for block in iter_objects(content):
        kind = str(block.get("type"))
        if kind == "tool_use":
            arguments = to_json(block.get("input") or {})
            function = {"name": block.get("name"), "arguments": arguments}
            call = {
                "id": block.get("id"),
                "type": "function",
                "function": function,
            }
            calls.append(call | cache_mark(block))
        elif kind not in _THINKING_TYPES:
            texts.append(blocks.part(block))
    text = "".join(str(part.get("text") or "") for part in texts)
    has_cache_mark = any("cache_control" in part for part in texts)
    spoken_content: object = texts if has_cache_mark else text or (None if calls else "")
    turn: Turn = {"role": "assistant", "content": spoken_content}
    own_thinking_text = _read_own_thinking(content, maker) if maker else ""
    turn |= {"reasoning_content": own_thinking_text} if own_thinking_text else {}
    sealed_blocks = [
        part
        for block in iter_objects(content)
        for part in open_thoughts(block.get("signature"))
    ]
    turn |= {"thinking_blocks": sealed_blocks} if sealed_blocks else {}
    return turn | {"tool_calls": calls} if calls else turn


def _read_own_thinking(content: object, maker: str) -> str:
    """Returns the thinking that this maker wrote itself, without a signature."""
    return "".join(
        str(block.get("thinking") or "")
        for block in iter_objects(content)
        if read_mark(block.get("signature")) == (maker, "")
    )


def _user_turns(content: object, blocks: "_Blocks") -> Iterator[Turn]:
    """Yields the tools' results first, because they must follow the calls immediately."""
    if not isinstance(content, list):
        yield {"role": "user", "content": content}
        return
    parts: list[Turn] = []
    for block in iter_objects(content):
        if block.get("type") == "tool_result":
            yield _result_turn(block, blocks)
            parts += _file_parts(block, blocks)
    parts += [blocks.part(b) for b in iter_objects(content) if b.get("type") != "tool_result"]
    if all(part["type"] == "text" and "cache_control" not in part for part in parts):
        if parts:
            yield {
                "role": "user",
                "content": _GAP.join(str(part["text"]) for part in parts),
            }
    else:
        yield {"role": "user", "content": parts}


def _result_turn(block: Mapping[str, object], blocks: "_Blocks") -> Turn:
    content = block.get("content")
    if isinstance(content, list):
        texts = [_result_text(part, blocks) for part in iter_objects(content)]
        text = _GAP.join(part for part in texts if part)
    else:
        text = content if isinstance(content, str) else ""
    if block.get("is_error") is True and not text.lower().startswith("error"):
        text = _ERROR + text
    inner_blocks = iter_objects(content) if isinstance(content, list) else ()
    mark = next(
        (
            turn
            for block_with_mark in (block, *inner_blocks)
            if (turn := cache_mark(block_with_mark))
        ),
        {},
    )
    result = (
        [
            {
                "type": "text",
                "text": text,
                **mark,
            }
        ]
        if mark
        else text
    )
    return {
        "role": "tool",
        "tool_call_id": block.get("tool_use_id"),
        "content": result,
    }


def _result_text(block: Mapping[str, object], blocks: "_Blocks") -> str:
    if block.get("type") in _FILE_TYPES:
        return f"(The {block['type']} is in the next message.)"
    return str(blocks.part(block).get("text") or "")


def _file_parts(result: Mapping[str, object], blocks: "_Blocks") -> list[Turn]:
    parts = [
        blocks.part(item)
        for item in iter_objects(result.get("content"))
        if item.get("type") in _FILE_TYPES
    ]
    if not parts:
        return []
    note = f"(This is from the tool call {result.get('tool_use_id')}.)"
    return [{"type": "text", "text": note}, *parts]


class _Blocks:
    """Translates the blocks of one message.

    dropped: gets the names of blocks that become text. is_history: the message precedes a
    model's answer, so that text may replace a file.
    """

    def __init__(self, dropped: dict[str, None], *, is_history: bool) -> None:
        self._dropped = dropped
        self._is_history = is_history

    def part(self, block: Mapping[str, object]) -> Turn:
        """Translates a block into a chat's part.

        Raises Untranslatable for a new message's data that only another provider stores.
        """
        return self._translate_part(block) | cache_mark(block)

    def _translate_part(self, block: Mapping[str, object]) -> Turn:
        source = block.get("source")
        source_fields = source if isinstance(source, Mapping) else {}
        citations = block.get("citations")
        if isinstance(citations, Mapping) and citations.get("enabled") is True:
            self._dropped["citations"] = None
        match block.get("type"), source_fields.get("type"):
            case "text", _:
                return {"type": "text", "text": str(block.get("text") or "")}
            case "image", "base64":
                url = (
                    f"data:{source_fields.get('media_type')};base64,{source_fields.get('data')}"
                )
                return {"type": "image_url", "image_url": {"url": url}}
            case "image", "url":
                return {
                    "type": "image_url",
                    "image_url": {"url": str(source_fields.get("url"))},
                }
            case "document", "text":
                return {
                    "type": "text",
                    "text": f"{_title(block)}:{_GAP}{source_fields.get('data')}",
                }
            case "document", "base64":
                data = (
                    f"data:{source_fields.get('media_type')};base64,{source_fields.get('data')}"
                )
                return {
                    "type": "file",
                    "file": {"filename": _title(block), "file_data": data},
                }
            case (
                ("image" | "document" | "container_upload"),
                "file" | "url" | None,
            ):
                if not self._is_history:
                    raise _no_counterpart_error(block)
            case _:
                pass
        self._dropped[f"messages.{block.get('type')}"] = None
        return {"type": "text", "text": block_as_text(block)}


def _title(block: Mapping[str, object]) -> str:
    return str(block.get("title") or "document")


def _no_counterpart_error(
    block: Mapping[str, object], param: str = "messages"
) -> Untranslatable:
    source = block.get("source")
    source_note = (
        f" with a source of type {source.get('type')!r}" if isinstance(source, Mapping) else ""
    )
    return no_chat_error(f"content of type {str(block.get('type'))[:60]!r}{source_note}", param)


# Fields that the code below translates, or that only Anthropic uses and no answer needs.
_TRANSLATED_FIELDS: Final = frozenset(
    {
        "context_management",
        "max_tokens",
        "messages",
        "metadata",
        "output_config",
        "output_format",
        "stop_sequences",
        "system",
        "thinking",
        "tool_choice",
        "tools",
    }
)
# Hints and account data for Anthropic: the translation omits and names them.
_OMITTED_FIELDS: Final = frozenset(
    {
        "billing_policy",
        "compaction",
        "container",
        "diagnostics",
        "fallback_credit_token",
        "fallbacks",
        "speed",
        "user_profile_id",
        "workspace_id",
    }
)
# Fields that an answer depends on and that only Anthropic supports.
NATIVE_FIELDS: Final = ("container", "mcp_servers", "inference_geo")
# Types of tools that the client runs.
_CLIENT_TOOL_TYPES: Final = frozenset({None, "custom"})
_CHOICE_BY_TYPE: Final = {
    "auto": "auto",
    "any": "required",
    "none": "none",
}
_EFFORT_NAMES: Final = {"max": "xhigh"}


def chat_body(request: Mapping[str, object], translation: ChatTranslation) -> dict[str, object]:
    """Translates the whole request. Raises Untranslatable.

    Keeps unknown fields, because the target may know them. Adds the names of dropped parts to
    `translation.dropped`.
    """
    native_part = untranslatable_field(request.get)
    if native_part:
        raise untranslatable_error(native_part)
    body = translation.copy_other_fields(request, _TRANSLATED_FIELDS, _OMITTED_FIELDS)
    # Anthropic's other tier is OpenAI's default.
    if body.get("service_tier") == "standard_only":
        body["service_tier"] = "default"
    body["messages"] = _join_system_turns(
        [
            *_system_turns(request.get("system")),
            *chat_messages(request.get("messages"), translation),
        ]
    )
    if request.get("max_tokens") is not None:
        body[translation.limit_field] = request["max_tokens"]
    if request.get("stop_sequences"):
        body["stop"] = request["stop_sequences"]
    if request.get("stream"):
        body["stream_options"] = {"include_usage": True}
    body |= _tool_fields(request, translation)
    body |= _format_fields(request, translation)
    effort = _read_effort(request)
    if effort and "reasoning_effort" not in body:
        body["reasoning_effort"] = effort
    return body


def untranslatable_field(value: Callable[[str], object]) -> str:
    """Names a field or tool that no translation supports; empty without one.

    Args:
        value: returns a top-level field of the request.
    """
    for name in NATIVE_FIELDS:
        field_value = value(name)
        # A container of an earlier turn's tool is state that the tool does not need.
        is_needed = (
            field_value
            if name != "container"
            else isinstance(field_value, dict) and field_value.get("skills")
        )
        if is_needed:
            return f"`{name}`"
    return required_hosted_tool(value("tools"), value("tool_choice"), _CLIENT_TOOL_TYPES)


def wants_thinking(request: Mapping[str, object]) -> bool:
    """Returns whether the client wants to see the thinking."""
    thinking = request.get("thinking")
    return (
        isinstance(thinking, Mapping)
        and thinking.get("type") in ("enabled", "adaptive")
        and thinking.get("display") != "omitted"
    )


def own_thinking(request: Mapping[str, object]) -> dict[str, object]:
    """Returns a chat's thinking fields for a target that accepts thinking budgets.

    They have the client's budget, or the effort of `adaptive`.
    """
    thinking = request.get("thinking")
    if not isinstance(thinking, Mapping):
        return {"reasoning_effort": None}  # an effort would turn thinking on
    if thinking.get("type") == "enabled":
        return {"thinking": dict(thinking), "reasoning_effort": None}
    effort = _read_effort(request) or DEFAULT_EFFORT
    return {"reasoning_effort": effort} if thinking.get("type") == "adaptive" else {}


def _system_turns(system: object) -> list[dict[str, object]]:
    """Translates the system prompt without the client's billing line.

    The line differs between requests, so it would defeat the cache.
    """
    if isinstance(system, list):
        system = [
            block
            for block in system
            if not (isinstance(block, Mapping) and str(block.get("text")).startswith(BILLING))
        ]
    elif isinstance(system, str) and system.startswith(BILLING):
        system = system.partition("\n")[2]
    content = text_or_parts(system, "system")
    return [{"role": "system", "content": content}] if content else []


def _join_system_turns(messages: list[Turn]) -> list[Turn]:
    """Joins system messages at the beginning, because many models accept only one."""
    count = next((n for n, m in enumerate(messages) if m["role"] != "system"), len(messages))
    texts = [message["content"] for message in messages[:count]]
    if count < 2 or not all(isinstance(text, str) for text in texts):
        return messages
    return [{"role": "system", "content": _GAP.join(map(str, texts))}, *messages[count:]]


def _tool_fields(
    request: Mapping[str, object], translation: ChatTranslation
) -> dict[str, object]:
    client_tools = keep_client_tools(
        request.get("tools"), _CLIENT_TOOL_TYPES, translation.dropped
    )
    tools = [_translate_tool(tool, translation) for tool in client_tools]
    if not tools:
        return {}
    fields: dict[str, object] = {"tools": tools}
    choice = request.get("tool_choice")
    if isinstance(choice, Mapping):
        kind = choice.get("type")
        if kind == "tool":
            function = {"name": choice.get("name")}
            fields["tool_choice"] = {"type": "function", "function": function}
        else:
            fields["tool_choice"] = _CHOICE_BY_TYPE.get(str(kind), "auto")
        if choice.get("disable_parallel_tool_use") is True:
            fields["parallel_tool_calls"] = False
    return fields


def _translate_tool(
    tool: Mapping[str, object], translation: ChatTranslation
) -> dict[str, object]:
    function: dict[str, object] = {"name": tool.get("name")}
    if tool.get("description"):
        function["description"] = tool["description"]
    function["parameters"] = tool.get("input_schema") or {
        "type": "object",
        "properties": {},
    }
    if translation.is_strict(tool, "input_schema", "tools.strict"):
        function["strict"] = True
    return {"type": "function", "function": function} | cache_mark(tool)


def _format_fields(
    request: Mapping[str, object], translation: ChatTranslation
) -> dict[str, object]:
    config = request.get("output_config")
    text_format = config.get("format") if isinstance(config, Mapping) else None
    text_format = text_format or request.get("output_format")
    if not isinstance(text_format, Mapping) or text_format.get("type") != "json_schema":
        return {}
    schema: dict[str, object] = {"name": "answer", "schema": text_format.get("schema")}
    if translation.is_strict({**text_format, "strict": True}, "schema", "output_config.format"):
        schema["strict"] = True
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _read_effort(request: Mapping[str, object]) -> str:
    """Returns the effort that a chat names, by the request's effort or thinking budget.

    Returns an empty text if the request has neither.
    """
    config = request.get("output_config")
    effort = config.get("effort") if isinstance(config, Mapping) else None
    thinking_field = request.get("thinking")
    thinking = thinking_field if isinstance(thinking_field, Mapping) else {}
    if thinking.get("type") == "disabled":
        return ""
    if isinstance(effort, str):
        return _EFFORT_NAMES.get(effort, effort)
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int):
        return ""
    return effort_of_budget(budget)
