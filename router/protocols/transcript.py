"""Converts a request and its answer into a chat, for judges, shadows and captures.

It keeps text and tools. Images, audio and files cannot be redacted; their type replaces
them. Its functions raise ValueError, TypeError, KeyError or AttributeError for a malformed
request or answer. A transcript may lose parts that a translation must keep, because no
conversation continues from a transcript.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from harness.providers.models.capabilities import Endpoint
from router.protocols.answers import CallPieces, call_of_piece
from router.protocols.event_stream import SsePayloads

Json = dict[str, Any]
_MESSAGE_MEMBERS: Final = (
    "role",
    "content",
    "name",
    "tool_calls",
    "tool_call_id",
    "refusal",
)
_OTHER_FIELDS: Final = ("tools", "tool_choice", "response_format")
# Maps Anthropic's `tool_choice` types to OpenAI's.
_CHOICE_BY_TYPE: Final = {
    "any": "required",
    "auto": "auto",
    "none": "none",
}


def build_transcript(
    endpoint: str,
    request: str,
    answer: str,
    *,
    stream: bool,
    answer_endpoint: str = "",
) -> Json:
    """Returns `messages` and `answer`; `tools`, `tool_choice`, `response_format` if present.

    Args:
        endpoint: the value of an `Endpoint`, such as `chat`.
        request: its body.
        answer: its body, or its events as text.
        answer_endpoint: the endpoint of the answer's form, if a gateway logged the answer in
            another form than the request.
    """
    question = build_question(endpoint, request)
    return {
        **question,
        "answer": build_answer(answer_endpoint or endpoint, answer, stream=stream),
    }


def build_question(endpoint: str, request: str) -> Json:
    """Returns a transcript without `answer`."""
    return _READERS[endpoint].request(json.loads(request))


def build_answer(endpoint: str, answer: str, *, stream: bool) -> Json:
    """Returns a transcript's `answer`. See `build_transcript`."""
    reader = _READERS[endpoint]
    return reader.answer(reader.stream(_parse_events(answer)) if stream else json.loads(answer))


def _parse_events(text: str) -> list[Json]:
    parser = SsePayloads()
    payloads = [*parser.read(text.encode()), *parser.rest()]
    return [json.loads(payload) for payload in payloads if payload != b"[DONE]"]


def _placeholder(part: Json) -> str:
    return f"[{part.get('type', 'part')} left out]"


def _join_texts(content: object) -> str:
    """Joins the texts of a content. Writes the type of a part that is not text."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(
        part["text"] if isinstance(part.get("text"), str) else _placeholder(part)
        for part in parts
    )


def _build_call(
    id_: str,
    name: str,
    arguments: str,
) -> Json:
    return {
        "id": id_,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _build_question(messages: list[Json], tools: list[Json]) -> Json:
    return {"messages": messages, **({"tools": tools} if tools else {})}


# Chat completions.


def _read_chat_request(body: Json) -> Json:
    messages = [_read_chat_message(entry) for entry in body["messages"]]
    other_fields = {name: body[name] for name in _OTHER_FIELDS if body.get(name) is not None}
    return {"messages": messages, **other_fields}


def _read_chat_message(source: Json) -> Json:
    members = {name: source[name] for name in _MESSAGE_MEMBERS if source.get(name) is not None}
    content = source.get("content")
    if isinstance(content, list):
        content = [{"type": "text", "text": _join_texts([part])} for part in content]
    return {**members, "content": content}


def _read_chat_answer(body: Json) -> Json:
    choice = next(option for option in body["choices"] if not option.get("index"))
    message = _read_chat_message({"role": "assistant", **choice["message"]})
    return {**message, "finish_reason": choice.get("finish_reason")}


def _join_chat_stream(events: list[Json]) -> Json:
    """Joins a chat's events into a whole answer. Only the first choice counts."""
    texts: dict[str, str] = {}
    calls: dict[int, list[CallPieces]] = {}
    finish = None
    for event in events:
        for choice in event.get("choices") or ():
            if choice.get("index"):
                continue
            finish = choice.get("finish_reason") or finish
            delta = choice.get("delta") or {}
            for name in ("content", "refusal"):
                if delta.get(name):
                    texts[name] = texts.get(name, "") + delta[name]
            for number, call in enumerate(delta.get("tool_calls") or ()):
                _add_call(calls, call, number)
    message: Json = {"content": texts.get("content"), **texts}
    if calls:
        in_order = (call for index in sorted(calls) for call in calls[index])
        message["tool_calls"] = [
            _build_call(call.id, call.name, call.text) for call in in_order
        ]
    return {
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": finish,
            }
        ]
    }


def _add_call(
    calls: dict[int, list[CallPieces]],
    delta: Json,
    number: int,
) -> None:
    calls_here = calls.setdefault(delta.get("index", number), [])
    function = delta.get("function") or {}
    piece = delta.get("id"), function.get("name"), function.get("arguments")
    call_of_piece(calls_here, CallPieces, *piece).add(*piece)


# Messages (Anthropic).


def _read_message_request(body: Json) -> Json:
    messages: list[Json] = []
    if body.get("system"):
        messages.append({"role": "system", "content": _join_texts(body["system"])})
    for turn in body["messages"]:
        messages += _read_message_turn(turn)
    tools = [
        _read_message_tool(tool) for tool in body.get("tools") or () if "input_schema" in tool
    ]
    question = _build_question(messages, tools)
    choice = (body.get("tool_choice") or {}).get("type")
    if choice in _CHOICE_BY_TYPE:
        question["tool_choice"] = _CHOICE_BY_TYPE[choice]
    elif choice == "tool":
        name = body["tool_choice"]["name"]
        question["tool_choice"] = {
            "type": "function",
            "function": {"name": name},
        }
    return question


def _read_message_turn(turn: Json) -> list[Json]:
    """Returns a turn of Messages as chat messages. The tools' results come first."""
    content = turn["content"]
    if isinstance(content, str):
        return [{"role": turn["role"], "content": content}]
    turns = [
        {
            "role": "tool",
            "tool_call_id": part["tool_use_id"],
            "content": _join_texts(part.get("content") or ""),
        }
        for part in content
        if part["type"] == "tool_result"
    ]
    blocks = [part for part in content if part["type"] != "tool_result"]
    return turns + ([_build_message(turn["role"], blocks)] if blocks else [])


def _build_message(role: str, blocks: list[Json]) -> Json:
    calls = [
        _build_call(
            block.get("id", ""),
            block["name"],
            json.dumps(block.get("input") or {}, ensure_ascii=False),
        )
        for block in blocks
        if block["type"] == "tool_use"
    ]
    text_blocks = [block for block in blocks if block["type"] not in ("tool_use", "thinking")]
    message: Json = {
        "role": role,
        "content": _join_texts(text_blocks) if text_blocks else None,
    }
    return {**message, "tool_calls": calls} if calls else message


def _read_message_tool(tool: Json) -> Json:
    function = {"name": tool["name"], "parameters": tool["input_schema"]}
    if tool.get("description"):
        function["description"] = tool["description"]
    return {"type": "function", "function": function}


def _read_message_answer(body: Json) -> Json:
    message = _build_message("assistant", body["content"])
    return {**message, "finish_reason": body.get("stop_reason")}


def _join_message_stream(events: list[Json]) -> Json:
    """Joins the events of a message into a whole answer."""
    blocks: dict[int, Json] = {}
    stop = None
    for event in events:
        match event.get("type"):
            case "content_block_start":
                blocks[event["index"]] = {
                    **event["content_block"],
                    "partial": "",
                }
            case "content_block_delta":
                block = blocks[event["index"]]
                delta = event["delta"]
                if isinstance(delta.get("text"), str):
                    block["text"] = block.get("text", "") + delta["text"]
                block["partial"] += delta.get("partial_json") or ""
            case "message_delta":
                stop = event["delta"].get("stop_reason") or stop
            case _:
                pass
    for block in blocks.values():
        if partial := block.pop("partial"):
            block["input"] = json.loads(partial)
    return {
        "content": [blocks[index] for index in sorted(blocks)],
        "stop_reason": stop,
    }


# Responses.


def _read_response_request(body: Json) -> Json:
    messages: list[Json] = []
    if body.get("instructions"):
        messages.append({"role": "system", "content": body["instructions"]})
    input_ = body["input"]
    if isinstance(input_, str):
        messages.append({"role": "user", "content": input_})
    else:
        messages += [_read_item(item) for item in input_ if item.get("type") != "reasoning"]
    functions = (tool for tool in body.get("tools") or () if tool.get("type") == "function")
    question = _build_question(messages, [_read_response_tool(tool) for tool in functions])
    choice = body.get("tool_choice")
    if isinstance(choice, str):
        question["tool_choice"] = choice
    text_format = (body.get("text") or {}).get("format") or {}
    if text_format.get("type") == "json_schema":
        schema = {
            name: text_format[name]
            for name in ("name", "schema", "strict")
            if name in text_format
        }
        question["response_format"] = {
            "type": "json_schema",
            "json_schema": schema,
        }
    elif text_format.get("type") == "json_object":
        question["response_format"] = {"type": "json_object"}
    return question


def _read_item(item: Json) -> Json:
    match item.get("type", "message"):
        case "message":
            return {"role": item["role"], "content": _join_texts(item["content"])}
        case "function_call":
            return {
                "role": "assistant",
                "content": None,
                "tool_calls": [_read_item_call(item)],
            }
        case "function_call_output":
            text = _join_texts(item["output"])
            return {
                "role": "tool",
                "tool_call_id": item["call_id"],
                "content": text,
            }
        case _:
            return {"role": "assistant", "content": _placeholder(item)}


def _read_item_call(item: Json) -> Json:
    return _build_call(item.get("call_id", ""), item["name"], item["arguments"])


def _read_response_tool(tool: Json) -> Json:
    names = ("name", "description", "parameters", "strict")
    members = {name: tool[name] for name in names if tool.get(name) is not None}
    return {"type": "function", "function": members}


def _read_response_answer(body: Json) -> Json:
    items = body["output"]
    texts = [_join_texts(item["content"]) for item in items if item["type"] == "message"]
    calls = [_read_item_call(item) for item in items if item["type"] == "function_call"]
    message: Json = {
        "role": "assistant",
        "content": "\n".join(texts) if texts else None,
        "finish_reason": body.get("status"),
    }
    return {**message, "tool_calls": calls} if calls else message


def _find_response(events: list[Json]) -> Json:
    """Returns the response of the last event. Raises ValueError without one."""
    for event in reversed(events):
        if event.get("type") in (
            "response.completed",
            "response.incomplete",
        ):
            whole: Json = event["response"]
            return whole
    raise ValueError("the stream has no response.completed or response.incomplete event")


class _Reader(NamedTuple):
    """Reads one endpoint's requests and answers. stream: joins the events of an answer."""

    request: Callable[[Json], Json]
    answer: Callable[[Json], Json]
    stream: Callable[[list[Json]], Json]


_READERS: Final[Mapping[str, _Reader]] = {
    Endpoint.CHAT.value: _Reader(_read_chat_request, _read_chat_answer, _join_chat_stream),
    Endpoint.MESSAGES.value: _Reader(
        _read_message_request, _read_message_answer, _join_message_stream
    ),
    Endpoint.RESPONSES.value: _Reader(
        _read_response_request, _read_response_answer, _find_response
    ),
}
