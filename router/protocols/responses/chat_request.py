"""Translates a chat into a Responses request, for models that serve it only there.

OpenAI's models from GPT-5.4 accept tools beside reasoning only by Responses. `dialect` sends a
client's own Responses request; `response_request` has the opposite translation.
`answer_reader` translates the answer back.

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
_TRANSLATED_FIELDS: Final = frozenset(
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
_OMITTED_FIELDS: Final = frozenset(
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
_REFUSED_FIELDS: Final = ("stop", "audio", "functions", "function_call")
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

    Keeps unknown fields, because the target may know them.

    Args:
        dropped: gets the names of dropped fields.
        signs: the target must return encrypted reasoning, so that the client can send it back.
        thinking: the client wants a summary of the reasoning.
    """
    _check_fields(chat)
    dropped |= {name: None for name in _OMITTED_FIELDS if chat.get(name)}
    body = {
        name: value
        for name, value in chat.items()
        if not (
            value is None
            or name in _TRANSLATED_FIELDS
            or name in _OMITTED_FIELDS
            or name in _REFUSED_FIELDS
        )
    }
    body.pop("n", None)
    body.pop("modalities", None)
    body["input"] = list(_translate_messages(chat.get("messages"), dropped))
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
    if text := _text_settings(chat):
        body["text"] = text
    body["tools"] = [_translate_tool(tool) for tool in iter_objects(chat.get("tools"))]
    if chat.get("tool_choice") is not None:
        body["tool_choice"] = _translate_choice(chat["tool_choice"])
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
    for name in _REFUSED_FIELDS:
        if chat.get(name):
            raise no_chat_error(f"`{name}` beside tools with reasoning", name)
    if chat.get("n") not in (None, 1):
        raise no_chat_error("several choices beside tools with reasoning", "n")
    modalities = chat.get("modalities")
    if isinstance(modalities, list) and modalities not in ([], ["text"]):
        raise no_chat_error("spoken answers beside tools with reasoning", "modalities")


def _translate_messages(messages: object, dropped: dict[str, None]) -> Iterator[Item]:
    """Translates the messages. Raises Untranslatable for content without a counterpart."""
    custom_ids: set[object] = set()
    for message in iter_objects(messages):
        role = message.get("role")
        if message.get("name") and role != "tool":
            dropped["messages.name"] = None
        if role == "tool":
            call_id = message.get("tool_call_id")
            kind = "custom_tool_call" if call_id in custom_ids else "function_call"
            output = _translate_result(message.get("content"))
            yield {"type": f"{kind}_output", "call_id": call_id, "output": output}
        elif role == "assistant":
            yield from _translate_answer(message, custom_ids)
        elif role in _INPUT_ROLES:
            yield {"role": role, "content": _translate_content(message.get("content"))}
        else:
            raise no_chat_error(f"a message of the role {str(role)[:60]!r}", "messages")


def _translate_answer(message: Mapping[str, object], custom_ids: set[object]) -> Iterator[Item]:
    """Yields an answer's reasoning, its text and its calls.

    Args:
        custom_ids: gets the ids of the answer's custom calls.
    """
    for block in iter_objects(message.get("thinking_blocks")):
        if block.get("format") == RESPONSE_FORMAT:
            yield from _translate_reasoning(block)
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    refusal = message.get("refusal")
    if isinstance(content, str) and content:
        yield {"role": "assistant", "content": content}
    elif parts:
        yield {
            "role": "assistant",
            "content": [_translate_answer_part(part) for part in iter_objects(parts)],
        }
    elif isinstance(refusal, str) and refusal:
        refusal_part = {"type": "refusal", "refusal": refusal}
        yield {"role": "assistant", "content": [refusal_part]}
    for call in iter_objects(message.get("tool_calls")):
        custom = call.get("custom")
        if isinstance(custom, Mapping):
            custom_ids.add(call.get("id"))
            kind, function_or_custom, value = (
                "custom_tool_call",
                custom,
                ("input", custom.get("input")),
            )
        else:
            function = call.get("function")
            function_or_custom = function if isinstance(function, Mapping) else {}
            kind, value = (
                "function_call",
                ("arguments", function_or_custom.get("arguments") or "{}"),
            )
        name = function_or_custom.get("name")
        yield {"type": kind, "call_id": call.get("id"), "name": name, value[0]: value[1] or ""}


def _translate_reasoning(block: Mapping[str, object]) -> Iterator[Item]:
    sealed = block.get("signature") or block.get("data")
    if isinstance(sealed, str) and sealed:
        text = block.get("thinking")
        summary = [{"type": "summary_text", "text": text}] if text else []
        yield {"type": "reasoning", "summary": summary, "encrypted_content": sealed}


def _translate_answer_part(part: Mapping[str, object]) -> Item:
    if part.get("type") == "refusal":
        return {"type": "refusal", "refusal": part.get("refusal")}
    return {"type": "output_text", "text": str(part.get("text") or "")}


def _translate_result(content: object) -> object:
    """Returns a tool's result: a text, or parts."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    return [_translate_part(part) for part in iter_objects(content)]


def _translate_content(content: object) -> object:
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    return [_translate_part(part) for part in iter_objects(content)]


def _translate_part(part: Mapping[str, object]) -> Item:
    """Translates a part of a content. Raises Untranslatable, for example for sound."""
    kind = str(part.get("type"))
    inner = part.get(kind)
    fields = inner if isinstance(inner, Mapping) else {}
    if kind == "text":
        return {"type": "input_text", "text": str(part.get("text") or "")}
    if kind == "image_url":
        url = fields.get("url") if fields else inner
        return {
            "type": "input_image",
            "image_url": url,
            "detail": fields.get("detail") or "auto",
        }
    if kind == "file":
        names = ("file_id", "filename", "file_data", "file_url")
        return {"type": "input_file"} | {n: fields[n] for n in names if fields.get(n)}
    raise no_chat_error(
        f"content of type {kind[:60]!r} beside tools with reasoning", "messages"
    )


def _text_settings(chat: Mapping[str, object]) -> Item:
    settings: Item = {"verbosity": chat["verbosity"]} if chat.get("verbosity") else {}
    response_format = chat.get("response_format")
    if not isinstance(response_format, Mapping):
        return settings
    schema = response_format.get("json_schema")
    if isinstance(schema, Mapping):
        strict = {"strict": schema.get("strict") is True}
        settings["format"] = {"type": "json_schema", **schema, **strict}
    elif response_format.get("type") != "text":
        settings["format"] = dict(response_format)
    return settings


def _translate_tool(tool: Mapping[str, object]) -> Item:
    """Translates a tool. Always writes `strict`, because the protocols' defaults differ."""
    custom = tool.get("custom")
    if isinstance(custom, Mapping):
        return {"type": "custom", **custom} | _grammar_format(custom.get("format"))
    function = tool.get("function")
    if not isinstance(function, Mapping):
        return dict(tool)
    strict = function.get("strict") is True
    parameters = function.get("parameters") or _NO_PARAMETERS
    return {"type": "function", **function, "parameters": parameters, "strict": strict}


def _grammar_format(form: object) -> Item:
    inner = form.get("grammar") if isinstance(form, Mapping) else None
    return {"format": {"type": "grammar", **inner}} if isinstance(inner, Mapping) else {}


def _translate_choice(choice: object) -> object:
    if not isinstance(choice, Mapping):
        return choice
    kind = str(choice.get("type"))
    inner = choice.get(kind)
    if not isinstance(inner, Mapping):
        return dict(choice)
    if kind == "allowed_tools":
        tools = [_translate_choice(tool) for tool in iter_objects(inner.get("tools"))]
        return {"type": kind, "mode": inner.get("mode") or "auto", "tools": tools}
    return {"type": kind, "name": inner.get("name")}
