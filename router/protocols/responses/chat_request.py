"""Translates a chat into a Responses request, for models that serve it only there.

OpenAI's models from GPT-5.4 take tools beside reasoning only by Responses. `dialect` sends a
client's own Responses request; `response_request` makes the opposite translation. The answer
goes back through `answer_reader`.

Source of the forms: https://developers.openai.com/api/docs/guides/migrate-to-responses
"""

from collections.abc import Iterator, Mapping
from typing import Final

from router.conversation.intake import RESPONSE_FORMAT
from router.frame.body import iter_objects
from router.frame.failure import no_chat_error

Item = dict[str, object]
# OpenAI refuses a smaller limit of a response's tokens.
LEAST_OUTPUT_TOKENS: Final = 16
# Fields that the code below translates.
_OWN: Final = frozenset(
    {
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "reasoning_effort",
        "response_format",
        "store",
        "stream_options",
        "tool_choice",
        "tools",
        "verbosity",
    }
)
# Fields that Responses does not have, and that an answer does not depend on.
_LEFT_OUT: Final = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "prediction",
        "presence_penalty",
        "seed",
        "top_logprobs",
        "web_search_options",
    }
)
# Fields that Responses does not have, and that a client's program depends on.
_NEEDED: Final = ("stop", "audio", "functions", "function_call")
_INPUT_ROLES: Final = frozenset({"user", "system", "developer"})
_NO_PARAMETERS: Final[Mapping[str, object]] = {"type": "object", "properties": {}}
ENCRYPTED_REASONING: Final = "reasoning.encrypted_content"


def response_body(
    chat: Mapping[str, object],
    dropped: dict[str, None],
    *,
    signs: bool,
    thinking: bool,
) -> dict[str, object]:
    """Translates the whole request. Raises Untranslatable.

    Keeps unknown fields, because the target may know them. dropped: gets the names of dropped
    fields. signs: the client gets the encrypted reasoning, to send it back. thinking: the
    client wants a summary of the reasoning.
    """
    _check_fields(chat)
    dropped |= {name: None for name in _LEFT_OUT if chat.get(name)}
    body = {
        name: value
        for name, value in chat.items()
        if not (value is None or name in _OWN or name in _LEFT_OUT or name in _NEEDED)
    }
    body.pop("n", None)
    body.pop("modalities", None)
    body["input"] = list(_items(chat.get("messages"), dropped))
    # A chat is stored only if the client wants it; a response is stored by default.
    body["store"] = chat.get("store") is True
    if signs:
        body["include"] = [ENCRYPTED_REASONING]
    limit = chat.get("max_completion_tokens") or chat.get("max_tokens")
    if isinstance(limit, int):
        body["max_output_tokens"] = max(limit, LEAST_OUTPUT_TOKENS)
    reasoning = {"effort": chat["reasoning_effort"]} if chat.get("reasoning_effort") else {}
    if reasoning or thinking:
        body["reasoning"] = reasoning | ({"summary": "auto"} if thinking else {})
    if text := _text(chat):
        body["text"] = text
    body["tools"] = [_tool(tool) for tool in iter_objects(chat.get("tools"))]
    if chat.get("tool_choice") is not None:
        body["tool_choice"] = _choice(chat["tool_choice"])
    return body


def custom_tools(chat: Mapping[str, object]) -> frozenset[str]:
    """Returns the names of the tools whose input is text and not JSON."""
    tools = iter_objects(chat.get("tools"))
    return frozenset(
        str(custom.get("name"))
        for tool in tools
        if isinstance(custom := tool.get("custom"), Mapping)
    )


def _check_fields(chat: Mapping[str, object]) -> None:
    for name in _NEEDED:
        if chat.get(name):
            raise no_chat_error(f"`{name}` beside tools with reasoning", name)
    if chat.get("n") not in (None, 1):
        raise no_chat_error("several choices beside tools with reasoning", "n")
    modalities = chat.get("modalities")
    if isinstance(modalities, list) and modalities not in ([], ["text"]):
        raise no_chat_error("spoken answers beside tools with reasoning", "modalities")


def _items(messages: object, dropped: dict[str, None]) -> Iterator[Item]:
    """Translates the messages. Raises Untranslatable for content without a counterpart."""
    custom_ids: set[object] = set()
    for message in iter_objects(messages):
        role = message.get("role")
        if message.get("name") and role != "tool":
            dropped["messages.name"] = None
        if role == "tool":
            call_id = message.get("tool_call_id")
            kind = "custom_tool_call" if call_id in custom_ids else "function_call"
            output = _output(message.get("content"))
            yield {"type": f"{kind}_output", "call_id": call_id, "output": output}
        elif role == "assistant":
            yield from _answer(message, custom_ids)
        elif role in _INPUT_ROLES:
            yield {"role": role, "content": _content(message.get("content"))}
        else:
            raise no_chat_error(f"a message of the role {str(role)[:60]!r}", "messages")


def _answer(message: Mapping[str, object], custom_ids: set[object]) -> Iterator[Item]:
    """Yields an answer's reasoning, its text and its calls. custom_ids: grows by its calls."""
    for block in iter_objects(message.get("thinking_blocks")):
        if block.get("format") == RESPONSE_FORMAT:
            yield from _reasoning(block)
    said = message.get("content")
    parts = said if isinstance(said, list) else []
    refusal = message.get("refusal")
    if isinstance(said, str) and said:
        yield {"role": "assistant", "content": said}
    elif parts:
        yield {
            "role": "assistant",
            "content": [_answer_part(part) for part in iter_objects(parts)],
        }
    elif isinstance(refusal, str) and refusal:
        refused = {"type": "refusal", "refusal": refusal}
        yield {"role": "assistant", "content": [refused]}
    for call in iter_objects(message.get("tool_calls")):
        custom = call.get("custom")
        if isinstance(custom, Mapping):
            custom_ids.add(call.get("id"))
            kind, given, value = "custom_tool_call", custom, ("input", custom.get("input"))
        else:
            function = call.get("function")
            given = function if isinstance(function, Mapping) else {}
            kind, value = "function_call", ("arguments", given.get("arguments") or "{}")
        name = given.get("name")
        yield {"type": kind, "call_id": call.get("id"), "name": name, value[0]: value[1] or ""}


def _reasoning(block: Mapping[str, object]) -> Iterator[Item]:
    sealed = block.get("signature") or block.get("data")
    if isinstance(sealed, str) and sealed:
        text = block.get("thinking")
        summary = [{"type": "summary_text", "text": text}] if text else []
        yield {"type": "reasoning", "summary": summary, "encrypted_content": sealed}


def _answer_part(part: Mapping[str, object]) -> Item:
    if part.get("type") == "refusal":
        return {"type": "refusal", "refusal": part.get("refusal")}
    return {"type": "output_text", "text": str(part.get("text") or "")}


def _output(content: object) -> object:
    """Returns a tool's result: a text, or parts."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    return [_part(part) for part in iter_objects(content)]


def _content(content: object) -> object:
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    return [_part(part) for part in iter_objects(content)]


def _part(part: Mapping[str, object]) -> Item:
    """Translates a part of a content. Raises Untranslatable, for example for sound."""
    kind = str(part.get("type"))
    inner = part.get(kind)
    given = inner if isinstance(inner, Mapping) else {}
    if kind == "text":
        return {"type": "input_text", "text": str(part.get("text") or "")}
    if kind == "image_url":
        url = given.get("url") if given else inner
        return {
            "type": "input_image",
            "image_url": url,
            "detail": given.get("detail") or "auto",
        }
    if kind == "file":
        names = ("file_id", "filename", "file_data")
        return {"type": "input_file"} | {n: given[n] for n in names if given.get(n)}
    raise no_chat_error(
        f"content of type {kind[:60]!r} beside tools with reasoning", "messages"
    )


def _text(chat: Mapping[str, object]) -> Item:
    found: Item = {"verbosity": chat["verbosity"]} if chat.get("verbosity") else {}
    form = chat.get("response_format")
    if not isinstance(form, Mapping):
        return found
    schema = form.get("json_schema")
    if isinstance(schema, Mapping):
        strict = {"strict": schema.get("strict") is True}
        found["format"] = {"type": "json_schema", **schema, **strict}
    elif form.get("type") != "text":
        found["format"] = dict(form)
    return found


def _tool(tool: Mapping[str, object]) -> Item:
    """Translates a tool. A response's function is strict by default, a chat's is not."""
    custom = tool.get("custom")
    if isinstance(custom, Mapping):
        return {"type": "custom", **custom} | _grammar(custom.get("format"))
    function = tool.get("function")
    if not isinstance(function, Mapping):
        return dict(tool)
    strict = function.get("strict") is True
    parameters = function.get("parameters") or _NO_PARAMETERS
    return {"type": "function", **function, "parameters": parameters, "strict": strict}


def _grammar(form: object) -> Item:
    inner = form.get("grammar") if isinstance(form, Mapping) else None
    return {"format": {"type": "grammar", **inner}} if isinstance(inner, Mapping) else {}


def _choice(choice: object) -> object:
    if not isinstance(choice, Mapping):
        return choice
    kind = str(choice.get("type"))
    inner = choice.get(kind)
    if not isinstance(inner, Mapping):
        return dict(choice)
    if kind == "allowed_tools":
        tools = [_choice(tool) for tool in iter_objects(inner.get("tools"))]
        return {"type": kind, "mode": inner.get("mode") or "auto", "tools": tools}
    return {"type": kind, "name": inner.get("name")}
