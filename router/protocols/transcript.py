"""Converts a request and its answer into a chat, for judges, shadows and captures.

It keeps text and tools. Images, audio and files cannot be redacted; their type replaces
them. Raises ValueError, TypeError, KeyError or AttributeError for a malformed request or
answer. It need not keep everything, as a translation must: no conversation continues from a
transcript.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from harness.providers.models.capabilities import Endpoint
from router.protocols.answers import CallPieces, call_of_piece
from router.protocols.event_stream import SsePayloads

Json = dict[str, Any]
_MESSAGE: Final = (
    "role",
    "content",
    "name",
    "tool_calls",
    "tool_call_id",
    "refusal",
)
_BESIDE: Final = ("tools", "tool_choice", "response_format")
# Maps Anthropic's `tool_choice` types to OpenAI's.
_CHOICES: Final = {
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
    answered: str = "",
) -> Json:
    """Returns `messages` and `answer`; `tools`, `tool_choice`, `response_format` if
    present.

    endpoint: its value, such as `chat`. request, answer: bodies, or the answer's events as
    text. answered: the endpoint of the answer's form, if a gateway logged it in another
    form.
    """
    question = build_question(endpoint, request)
    reader = _READERS[answered or endpoint]
    whole = reader.stream(_events(answer)) if stream else json.loads(answer)
    return {**question, "answer": reader.answer(whole)}


def build_question(endpoint: str, request: str) -> Json:
    """Returns a transcript without `answer`."""
    return _READERS[endpoint].request(json.loads(request))


def _events(text: str) -> list[Json]:
    parser = SsePayloads()
    payloads = [*parser.read(text.encode()), *parser.rest()]
    return [json.loads(payload) for payload in payloads if payload != b"[DONE]"]


def _left_out(part: Json) -> str:
    return f"[{part.get('type', 'part')} left out]"


def _text(content: object) -> str:
    """Joins the texts of a content; a part that is not text becomes its type."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(
        part["text"] if isinstance(part.get("text"), str) else _left_out(part) for part in parts
    )


def _call(
    id_: str,
    name: str,
    arguments: str,
) -> Json:
    return {
        "id": id_,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _request(messages: list[Json], tools: list[Json]) -> Json:
    return {"messages": messages, **({"tools": tools} if tools else {})}


# Chat completions.


def _chat_request(body: Json) -> Json:
    messages = [_chat_message(entry) for entry in body["messages"]]
    beside = {name: body[name] for name in _BESIDE if body.get(name) is not None}
    return {"messages": messages, **beside}


def _chat_message(given: Json) -> Json:
    kept = {name: given[name] for name in _MESSAGE if given.get(name) is not None}
    content = given.get("content")
    if isinstance(content, list):
        content = [{"type": "text", "text": _text([part])} for part in content]
    return {**kept, "content": content}


def _chat_answer(body: Json) -> Json:
    choice = next(option for option in body["choices"] if not option.get("index"))
    found = _chat_message({"role": "assistant", **choice["message"]})
    return {**found, "finish_reason": choice.get("finish_reason")}


def _chat_stream(events: list[Json]) -> Json:
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
        message["tool_calls"] = [_call(call.id, call.name, call.text) for call in in_order]
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
    place = calls.setdefault(delta.get("index", number), [])
    function = delta.get("function") or {}
    piece = delta.get("id"), function.get("name"), function.get("arguments")
    call_of_piece(place, CallPieces, *piece).add(*piece)


# Messages (Anthropic).


def _message_request(body: Json) -> Json:
    messages: list[Json] = []
    if body.get("system"):
        messages.append({"role": "system", "content": _text(body["system"])})
    for turn in body["messages"]:
        messages += _chat_messages(turn)
    tools = [_message_tool(tool) for tool in body.get("tools") or () if "input_schema" in tool]
    found = _request(messages, tools)
    choice = (body.get("tool_choice") or {}).get("type")
    if choice in _CHOICES:
        found["tool_choice"] = _CHOICES[choice]
    elif choice == "tool":
        name = body["tool_choice"]["name"]
        found["tool_choice"] = {
            "type": "function",
            "function": {"name": name},
        }
    return found


def _chat_messages(given: Json) -> list[Json]:
    """Returns a turn of Messages as chat messages: its tools' results first."""
    content = given["content"]
    if isinstance(content, str):
        return [{"role": given["role"], "content": content}]
    turns = [
        {
            "role": "tool",
            "tool_call_id": part["tool_use_id"],
            "content": _text(part.get("content") or ""),
        }
        for part in content
        if part["type"] == "tool_result"
    ]
    rest = [part for part in content if part["type"] != "tool_result"]
    return turns + ([_spoken(given["role"], rest)] if rest else [])


def _spoken(role: str, blocks: list[Json]) -> Json:
    calls = [
        _call(
            block.get("id", ""),
            block["name"],
            json.dumps(block.get("input") or {}, ensure_ascii=False),
        )
        for block in blocks
        if block["type"] == "tool_use"
    ]
    spoken = [block for block in blocks if block["type"] not in ("tool_use", "thinking")]
    found: Json = {
        "role": role,
        "content": _text(spoken) if spoken else None,
    }
    return {**found, "tool_calls": calls} if calls else found


def _message_tool(given: Json) -> Json:
    function = {"name": given["name"], "parameters": given["input_schema"]}
    if given.get("description"):
        function["description"] = given["description"]
    return {"type": "function", "function": function}


def _message_answer(body: Json) -> Json:
    found = _spoken("assistant", body["content"])
    return {**found, "finish_reason": body.get("stop_reason")}


def _message_stream(events: list[Json]) -> Json:
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


def _response_request(body: Json) -> Json:
    messages: list[Json] = []
    if body.get("instructions"):
        messages.append({"role": "system", "content": body["instructions"]})
    given = body["input"]
    if isinstance(given, str):
        messages.append({"role": "user", "content": given})
    else:
        messages += [_item(item) for item in given if item.get("type") != "reasoning"]
    functions = (tool for tool in body.get("tools") or () if tool.get("type") == "function")
    found = _request(messages, [_response_tool(tool) for tool in functions])
    choice = body.get("tool_choice")
    if isinstance(choice, str):
        found["tool_choice"] = choice
    form = (body.get("text") or {}).get("format") or {}
    if form.get("type") == "json_schema":
        schema = {name: form[name] for name in ("name", "schema", "strict") if name in form}
        found["response_format"] = {
            "type": "json_schema",
            "json_schema": schema,
        }
    elif form.get("type") == "json_object":
        found["response_format"] = {"type": "json_object"}
    return found


def _item(item: Json) -> Json:
    match item.get("type", "message"):
        case "message":
            return {"role": item["role"], "content": _text(item["content"])}
        case "function_call":
            return {
                "role": "assistant",
                "content": None,
                "tool_calls": [_item_call(item)],
            }
        case "function_call_output":
            text = _text(item["output"])
            return {
                "role": "tool",
                "tool_call_id": item["call_id"],
                "content": text,
            }
        case _:
            return {"role": "assistant", "content": _left_out(item)}


def _item_call(item: Json) -> Json:
    return _call(item.get("call_id", ""), item["name"], item["arguments"])


def _response_tool(given: Json) -> Json:
    named = ("name", "description", "parameters", "strict")
    kept = {name: given[name] for name in named if given.get(name) is not None}
    return {"type": "function", "function": kept}


def _response_answer(body: Json) -> Json:
    items = body["output"]
    texts = [_text(item["content"]) for item in items if item["type"] == "message"]
    calls = [_item_call(item) for item in items if item["type"] == "function_call"]
    found: Json = {
        "role": "assistant",
        "content": "\n".join(texts) if texts else None,
        "finish_reason": body.get("status"),
    }
    return {**found, "tool_calls": calls} if calls else found


def _response_stream(events: list[Json]) -> Json:
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
    Endpoint.CHAT.value: _Reader(_chat_request, _chat_answer, _chat_stream),
    Endpoint.MESSAGES.value: _Reader(_message_request, _message_answer, _message_stream),
    Endpoint.RESPONSES.value: _Reader(_response_request, _response_answer, _response_stream),
}
