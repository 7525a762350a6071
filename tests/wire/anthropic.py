"""Anthropic's Messages, strictly: what its documentation and its error messages say.

Sources: its API reference (Messages), and the guides on tool use, extended thinking, vision,
structured outputs and prompt caching.
"""

import base64
import json
import re
from functools import partial
from typing import Any, Final

from tests.wire.server import (
    KEY,
    NUMBERS,
    Json,
    Reading,
    Refused,
    Reply,
    Strict,
    Turn,
    WireRequest,
    names,
)

MODEL: Final = "claude-sonnet-4-5"
SIGNATURE: Final = "EqoBCkgIARABGAIiQL+issued/here=="
FIELDS: Final = names(
    "model messages max_tokens system temperature top_p top_k stop_sequences stream "
    "metadata tools tool_choice thinking service_tier container context_management "
    "mcp_servers output_config cache_control inference_geo"
)
BLOCKS: Final = {
    "text": {"text", "citations"},
    "image": {"source"},
    "document": {"source", "title", "context", "citations"},
    "tool_use": {"id", "name", "input"},
    "tool_result": {"tool_use_id", "content", "is_error"},
    "thinking": {"thinking", "signature"},
    "redacted_thinking": {"data"},
    "server_tool_use": {"id", "name", "input"},
    "web_search_tool_result": {"tool_use_id", "content"},
}
HOSTED: Final = ("web_search_20250305",)
TOOL: Final = names(
    "type name description input_schema cache_control strict eager_input_streaming"
)
# A header `anthropic-beta` with this name allows tools that are described when searched for.
DEFERRED: Final = "advanced-tool-use-2025-11-20"
# A header `anthropic-beta` with this name allows instructions among the messages.
SYSTEM_AMONG_MESSAGES: Final = "mid-conversation-system-2026-04-07"
IMAGES: Final = ("image/jpeg", "image/png", "image/gif", "image/webp")
NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")
ID: Final = re.compile(r"[a-zA-Z0-9_-]+")
NO_SCHEMA_WORDS: Final = (
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "multipleOf",
)


def error(
    status: int,
    kind: str,
    message: str,
    **headers: str,
) -> Refused:
    body = {
        "type": "error",
        "error": {"type": kind, "message": message},
        "request_id": "req_1",
    }
    return Refused(status, body, {k.replace("_", "-"): v for k, v in headers.items()})


RATE_LIMITED: Final = error(429, "rate_limit_error", "Too many requests", retry_after="17")
OVERLOADED: Final = error(529, "overloaded_error", "Overloaded")


def bad(message: str) -> Refused:
    return error(400, "invalid_request_error", message)


def need(holds: object, message: str) -> None:
    if not holds:
        raise bad(message)


def strict(signature: str = SIGNATURE) -> Strict:
    """Builds a strict provider.

    Args:
        signature: this provider's own; it takes no other.
    """
    return Strict(
        partial(read, signature=signature),
        lambda request: request.body.get("stream") is True,
        partial(whole, signature=signature),
        partial(events, signature=signature),
        "",
        bad,
    )


def read(asked: WireRequest, signature: str = SIGNATURE) -> Reading:
    if asked.headers.get("x-api-key") != KEY:
        raise error(401, "authentication_error", "invalid x-api-key")
    need(
        asked.headers.get("anthropic-version"),
        "anthropic-version: header is required",
    )
    if asked.path != "/v1/messages":
        raise error(404, "not_found_error", "Not Found")
    body = asked.body
    for name in body:
        need(name in FIELDS, f"{name}: Extra inputs are not permitted")
    if body.get("model") != MODEL:
        raise error(404, "not_found_error", f"model: {body.get('model')}")
    limit: Any = body.get("max_tokens")
    need(isinstance(limit, int), "max_tokens: Field required")
    need(
        1 <= limit <= 64000,
        f"max_tokens: {limit} > 64000, which is the maximum allowed number of output tokens "
        f"for {MODEL}",
    )
    temperature = body.get("temperature")
    need(
        temperature is None or 0 <= temperature <= 1,
        "temperature: range: 0..1",
    )
    need(
        temperature is None or body.get("top_p") is None,
        "`temperature` and `top_p` cannot both be specified for this model. Please use only "
        "one.",
    )
    need(
        set(body.get("metadata", {})) <= {"user_id"},
        "metadata: Extra inputs",
    )
    for stop in body.get("stop_sequences", []):
        need(
            stop.strip(),
            "stop_sequences: each stop sequence must contain non-whitespace",
        )
    marks = [0]
    betas = asked.headers.get("anthropic-beta", "")
    tools = _tools(body, marks, TOOL | {"defer_loading"} if DEFERRED in betas else TOOL)
    system = _system(body.get("system", ""), marks)
    thinks = _thinking(body)
    messages = body["messages"]
    if SYSTEM_AMONG_MESSAGES in betas:
        said = [message for message in messages if message["role"] == "system"]
        system = "\n".join(
            [
                system,
                *(_system(message["content"], marks) for message in said),
            ]
        )
        messages = [message for message in messages if message["role"] != "system"]
    for number, message in enumerate(messages):
        _signed(message["content"], signature, f"messages.{number}.content")
    by_budget = thinks and body["thinking"]["type"] == "enabled"
    turns = _turns(
        messages,
        marks,
        thinks=by_budget,
        tools=bool(tools),
    )
    need(
        marks[0] <= 4,
        "A maximum of 4 blocks with cache_control may be provided",
    )
    return Reading(
        system=system,
        turns=turns,
        tools=tools,
        choice=_choice(body, tools),
        serial=bool(body.get("tool_choice", {}).get("disable_parallel_tool_use")),
        schema=_schema(body.get("output_config", {})),
        thinks=thinks,
        stops=tuple(body.get("stop_sequences", ())),
        marks=marks[0],
        limit=limit,
        temperature=temperature,
    )


def _marked(given: Json, marks: list[int]) -> None:
    mark = given.get("cache_control")
    if mark is not None:
        need(
            mark.get("type") == "ephemeral",
            "cache_control.type: must be ephemeral",
        )
        need(
            set(mark) <= {"type", "ttl"},
            "cache_control: Extra inputs are not permitted",
        )
        marks[0] += 1


def _tools(
    body: Json,
    marks: list[int],
    known: frozenset[str],
) -> tuple[str, ...]:
    names = []
    for tool in body.get("tools", []):
        if tool.get("type") in HOSTED:
            names.append(tool["name"])
            continue
        for name in tool:
            need(
                name in known,
                f"tools.0.custom.{name}: Extra inputs are not permitted",
            )
        need(tool.get("type", "custom") == "custom", "tools: unknown type")
        need(
            NAME.fullmatch(tool["name"]),
            "tools.0.custom.name: should match pattern",
        )
        need(
            tool["input_schema"].get("type") == "object",
            "input_schema.type: required",
        )
        _marked(tool, marks)
        names.append(tool["name"])
    need(len(set(names)) == len(names), "tools: Tool names must be unique.")
    return tuple(names)


def _choice(body: Json, tools: tuple[str, ...]) -> str:
    choice = body.get("tool_choice")
    if choice is None:
        return "auto"
    need(tools, "tool_choice may only be specified while providing tools")
    kind = choice.get("type")
    allowed = {"type"} if kind == "none" else {"type", "disable_parallel_tool_use"}
    need(
        set(choice) <= allowed | ({"name"} if kind == "tool" else set()),
        "tool_choice: Extra",
    )
    need(kind in ("auto", "any", "none", "tool"), "tool_choice: unknown type")
    if kind != "tool":
        return str(kind)
    need(choice.get("name") in tools, f"Tool '{choice.get('name')}' not found")
    return str(choice["name"])


def _system(given: object, marks: list[int]) -> str:
    if isinstance(given, str):
        return given
    assert isinstance(given, list)
    for block in given:
        need(
            block.get("type") == "text" and block.get("text"),
            "system: text blocks only",
        )
        need(
            set(block) <= {"type", "text", "cache_control", "citations"},
            "system: Extra",
        )
        _marked(block, marks)
    return "\n".join(block["text"] for block in given)


def _thinking(body: Json) -> bool:
    thinking = body.get("thinking")
    if thinking is None or thinking["type"] == "disabled":
        return False
    need(
        thinking["type"] != "adaptive",
        "adaptive thinking is not supported on this model",
    )
    need(
        thinking["type"] == "enabled",
        "thinking.type: Input should be 'enabled'",
    )
    need(
        thinking["budget_tokens"] >= 1024,
        "thinking.budget_tokens: at least 1024",
    )
    need(
        thinking["budget_tokens"] < body["max_tokens"],
        "`max_tokens` must be greater than `thinking.budget_tokens`",
    )
    need(
        body.get("temperature", 1) == 1,
        "`temperature` may only be set to 1 when thinking",
    )
    need("top_k" not in body, "`top_k` must be unset when thinking is enabled")
    need(
        body.get("tool_choice", {}).get("type") not in ("any", "tool"),
        "Thinking may not be enabled when tool_choice forces tool use.",
    )
    return True


def _schema(config: Json) -> bool:
    need(
        set(config) <= {"format", "effort"},
        "output_config: Extra inputs are not permitted",
    )
    wanted = config.get("format")
    if wanted is None:
        return False
    need(
        wanted.get("type") == "json_schema",
        "output_config.format.type: json_schema",
    )
    _closed(wanted["schema"])
    return True


def _closed(schema: object) -> None:
    if isinstance(schema, list):
        for part in schema:
            _closed(part)
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            need(
                schema.get("additionalProperties") is False,
                "For 'object' type, 'additionalProperties' must be explicitly set to false",
            )
        for word in NO_SCHEMA_WORDS:
            need(
                word not in schema,
                f"For this type, property '{word}' is not supported",
            )
        for part in schema.values():
            _closed(part)


def _turns(
    messages: list[Json],
    marks: list[int],
    *,
    thinks: bool,
    tools: bool,
) -> tuple[Turn, ...]:
    need(messages, "messages: at least one message is required")
    need(
        messages[0]["role"] == "user",
        "messages: first message must use the user role",
    )
    open_ids: list[str] = []
    turns: list[Turn] = []
    for message in messages:
        need(
            set(message) == {"role", "content"},
            "messages: Extra inputs are not permitted",
        )
        role = message["role"]
        need(
            role in ("user", "assistant"),
            f'messages: Unexpected role "{role}". The Messages API accepts a top-level '
            '`system` parameter, not "system" as an input message role.',
        )
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        need(blocks, "messages: content must be non-empty")
        for block in blocks:
            _block(block, message["role"], marks)
        turns += _read(message["role"], blocks, open_ids)
        uses = [block["id"] for block in blocks if block["type"] == "tool_use"]
        need(
            tools or not uses,
            "Requests which include `tool_use` blocks must define tools",
        )
        open_ids = uses
    ids = [b["id"] for m in messages for b in _uses(m["content"])]
    need(len(set(ids)) == len(ids), "messages: `tool_use` ids must be unique")
    need(
        not open_ids,
        f"`tool_use` ids were found without `tool_result` blocks: {open_ids}",
    )
    if thinks:
        _thought_kept(messages)
    return tuple(turns)


def _uses(content: object) -> list[Json]:
    blocks = content if isinstance(content, list) else []
    return [block for block in blocks if block["type"] == "tool_use"]


def _block(
    block: Json,
    role: str,
    marks: list[int],
) -> None:
    kind: Any = block.get("type")
    need(kind in BLOCKS, f"messages: Input tag '{kind}' found")
    extra = set(block) - BLOCKS[kind] - {"type", "cache_control"}
    need(not extra, f"messages.{kind}.{extra}: Extra inputs are not permitted")
    _marked(block, marks)
    if kind == "text":
        need(
            block["text"].strip(),
            "messages: text content blocks must be non-empty",
        )
    if kind in ("tool_use", "thinking", "redacted_thinking"):
        need(
            role == "assistant",
            f"messages: `{kind}` blocks can only be in assistant messages",
        )
    if kind == "tool_use":
        need(
            ID.fullmatch(block["id"]),
            "tool_use.id: String should match pattern",
        )
        need(
            NAME.fullmatch(block["name"]),
            "tool_use.name: String should match pattern",
        )
        need(
            isinstance(block["input"], dict),
            "tool_use.input: Input should be a valid dict",
        )
    if kind == "tool_result":
        need(
            role == "user",
            "`tool_result` blocks can only be in user messages",
        )
        _marked({}, marks)
    if kind == "image":
        _image(block["source"])


def _signed(
    content: object,
    signature: str,
    place: str,
) -> None:
    for at, block in enumerate(content if isinstance(content, list) else ()):
        if block["type"] == "thinking":
            own = block["signature"] == signature
            need(own, f"{place}.{at}: Invalid `signature` in `thinking` block")


def _image(source: Json) -> None:
    if source["type"] == "url":
        need(
            source["url"].startswith("https://"),
            "Only HTTPS URLs are supported.",
        )
        return
    need(
        set(source) == {"type", "media_type", "data"},
        "image.source: Extra inputs",
    )
    need(
        source["media_type"] in IMAGES,
        "image.source.base64.media_type: Input should be …",
    )
    try:
        base64.b64decode(source["data"], validate=True)
    except ValueError:
        raise bad("image.source.base64: invalid base64 data") from None


def _read(
    role: str,
    blocks: list[Json],
    open_ids: list[str],
) -> list[Turn]:
    results = [block for block in blocks if block["type"] == "tool_result"]
    ids = [result["tool_use_id"] for result in results]
    need(
        sorted(ids) == sorted(open_ids),
        f"each `tool_use` must have a `tool_result` in the next message: {open_ids} {ids}",
    )
    need(
        blocks[: len(results)] == results,
        "`tool_result` blocks must come first",
    )
    found = []
    if results:
        found.append(Turn("tool", results=tuple(_text_of(result) for result in results)))
    others = [block for block in blocks if block["type"] != "tool_result"]
    if others:
        text = "".join(block["text"] for block in others if block["type"] == "text")
        images = sum(block["type"] == "image" for block in others)
        calls = tuple((e["name"], e["input"]) for e in others if e["type"] == "tool_use")
        signed = tuple(e["signature"] for e in others if e["type"] == "thinking")
        found.append(Turn(role, text, images, calls, signed=signed))
    return found


def _text_of(result: Json) -> str:
    content = result.get("content", "")
    if isinstance(content, str):
        return content
    for part in content:
        need(
            part["type"] in ("text", "image"),
            "tool_result.content: Input tag not expected",
        )
        if part["type"] == "image":
            _image(part["source"])
    return "".join(part["text"] for part in content if part["type"] == "text")


def _thought_kept(messages: list[Json]) -> None:
    """In a turn that goes on after a tool's result."""
    for message in reversed(messages):
        blocks = message["content"]
        if message["role"] == "user":
            if not any(isinstance(b, dict) and b["type"] == "tool_result" for b in blocks):
                return
            continue
        first = blocks[0]["type"] if isinstance(blocks, list) else "text"
        need(
            first in ("thinking", "redacted_thinking"),
            f"Expected `thinking` or `redacted_thinking`, but found `{first}`",
        )


STOPS: Final = {
    "end": "end_turn",
    "length": "max_tokens",
    "tools": "tool_use",
    "sequence": "stop_sequence",
    "refusal": "refusal",
}


def _content(reply: Reply, signature: str) -> list[Json]:
    found: list[Json] = []
    if reply.reasoning:
        found.append(
            {
                "type": "thinking",
                "thinking": reply.reasoning,
                "signature": signature,
            }
        )
    if reply.text:
        found.append({"type": "text", "text": reply.text})
    for name, arguments in reply.calls:
        id_ = f"toolu_01{next(NUMBERS)}"
        found.append(
            {
                "type": "tool_use",
                "id": id_,
                "name": name,
                "input": arguments,
            }
        )
    return found


def _usage(reply: Reply) -> Json:
    usage = reply.usage
    return {
        "input_tokens": usage.input - usage.cached - usage.written,
        "cache_read_input_tokens": usage.cached,
        "cache_creation_input_tokens": usage.written,
        "output_tokens": usage.output,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
    }


def _message(reply: Reply, content: list[Json]) -> Json:
    return {
        "id": f"msg_01{next(NUMBERS)}",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**_usage(reply), "output_tokens": 1},
    }


def whole(reply: Reply, signature: str = SIGNATURE) -> Json:
    message = _message(reply, _content(reply, signature))
    return {
        **message,
        "stop_reason": STOPS[reply.stop],
        "usage": _usage(reply),
    }


def _event(kind: str, **data: object) -> bytes:
    line = json.dumps({"type": kind, **data}, ensure_ascii=False)
    return f"event: {kind}\ndata: {line}\n\n".encode()


def events(reply: Reply, signature: str = SIGNATURE) -> list[bytes]:
    out = [_event("message_start", message=_message(reply, []))]
    out.append(_event("ping"))
    for index, block in enumerate(_content(reply, signature)):
        empty, deltas = _pieces(block)
        out.append(_event("content_block_start", index=index, content_block=empty))
        out += [_event("content_block_delta", index=index, delta=delta) for delta in deltas]
        out.append(_event("content_block_stop", index=index))
    delta = {"stop_reason": STOPS[reply.stop], "stop_sequence": None}
    usage = {"output_tokens": reply.usage.output, **_usage(reply)}
    out.append(_event("message_delta", delta=delta, usage=usage))
    out.append(_event("message_stop"))
    return out


def _pieces(block: Json) -> tuple[Json, list[Json]]:
    kind = block["type"]
    if kind == "text":
        words = re.findall(r"\S+\s*|\s+", block["text"])
        return {**block, "text": ""}, [{"type": "text_delta", "text": word} for word in words]
    if kind == "thinking":
        words = re.findall(r"\S+\s*", block["thinking"])
        deltas = [{"type": "thinking_delta", "thinking": word} for word in words]
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return {
            "type": kind,
            "thinking": "",
            "signature": "",
        }, [
            *deltas,
            signed,
        ]
    raw = json.dumps(block["input"], ensure_ascii=False)
    pieces = ["", *(raw[at : at + 5] for at in range(0, len(raw), 5))]
    return {**block, "input": {}}, [
        {"type": "input_json_delta", "partial_json": piece} for piece in pieces
    ]
