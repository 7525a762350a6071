"""Builds a request and its answer in a chat's shape, for judges, shadows and captures.

Texts and tools alone: pictures, sound and files cannot be redacted, and are left out by name.
Raises ValueError, TypeError, KeyError or AttributeError for what is no request or answer.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from harness.providers.models.capabilities import Endpoint
from router.frame.failure import Untranslatable
from router.protocols.call_pieces import CallPieces, call_of_piece
from router.protocols.chat_way import ChatWay
from router.protocols.event_stream import SsePayloads
from router.protocols.messages import message_request
from router.protocols.responses import response_request

Json = dict[str, Any]
_MESSAGE: Final = ("role", "content", "name", "tool_calls", "tool_call_id", "refusal")
_BESIDE: Final = ("tools", "tool_choice", "response_format")


def build_transcript(endpoint: str, request: str, answer: str, *, stream: bool) -> Json:
    """Gathers `messages`, perhaps `tools`, `tool_choice`, `response_format`, and `answer`."""
    reader = _READERS[endpoint]
    whole = reader.stream(_events(answer)) if stream else json.loads(answer)
    try:
        asked = reader.request(json.loads(request))
        message, reason = reader.answer(whole)
    except Untranslatable as error:
        raise ValueError(error.message) from None
    beside = {name: asked[name] for name in _BESIDE if asked.get(name) is not None}
    said = _texts({"role": "assistant", "content": None, **message})
    messages = [_texts(turn) for turn in asked["messages"]]
    return {"messages": messages, **beside, "answer": {**said, "finish_reason": reason}}


def _events(text: str) -> list[Json]:
    parser = SsePayloads()
    payloads = [*parser.read(text.encode()), *parser.rest()]
    return [json.loads(payload) for payload in payloads if payload != b"[DONE]"]


def _texts(turn: Json) -> Json:
    kept = {name: turn[name] for name in _MESSAGE if turn.get(name) is not None}
    content = turn.get("content")
    if isinstance(content, list):
        content = [{"type": "text", "text": _text(part)} for part in content]
    return {**kept, "content": content}


def _text(part: Json) -> str:
    text = part.get("text")
    return text if isinstance(text, str) else f"[{part.get('type', 'part')} left out]"


def _chat_answer(body: Json) -> tuple[Json, object]:
    choice = next(option for option in body["choices"] if not option.get("index"))
    return choice["message"], choice.get("finish_reason")


def _chat_stream(events: list[Json]) -> Json:
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
    in_order = [call for index in sorted(calls) for call in calls[index]]
    if in_order:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.text},
            }
            for call in in_order
        ]
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}


def _add_call(calls: dict[int, list[CallPieces]], delta: Json, number: int) -> None:
    place = calls.setdefault(delta.get("index", number), [])
    function = delta.get("function") or {}
    piece = delta.get("id"), function.get("name"), function.get("arguments")
    call_of_piece(place, CallPieces, *piece).add(*piece)


def _message_request(body: Json) -> Json:
    way = ChatWay(says_all=True)
    turns = message_request.chat_messages(body["messages"], way)
    messages = [*message_request.system_turn(body.get("system")), *turns]
    return {"messages": messages, **message_request.chat_tools(body, way)}


def _message_answer(body: Json) -> tuple[Json, object]:
    given = [{"role": "assistant", "content": body["content"]}]
    (turn,) = message_request.chat_messages(given, ChatWay(says_all=True))
    return turn, body.get("stop_reason")


def _message_stream(events: list[Json]) -> Json:
    blocks: dict[int, Json] = {}
    stop = None
    for event in events:
        match event.get("type"):
            case "content_block_start":
                blocks[event["index"]] = {**event["content_block"], "partial": ""}
            case "content_block_delta":
                block, delta = blocks[event["index"]], event["delta"]
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
    return {"content": [blocks[index] for index in sorted(blocks)], "stop_reason": stop}


def _response_request(body: Json) -> Json:
    way = ChatWay(says_all=True)
    turns = response_request.chat_messages(body.get("instructions"), body["input"], way)
    tools = response_request.ResponseTools(body, way).functions
    choice = body.get("tool_choice")
    return {
        "messages": turns,
        "tools": tools or None,
        "tool_choice": choice if isinstance(choice, str) else None,
        **response_request.text_settings(body.get("text")),
    }


def _response_answer(body: Json) -> tuple[Json, object]:
    turns = response_request.chat_messages(None, body["output"], ChatWay(says_all=True))
    return (turns or [{}])[0], body.get("status")


def _response_stream(events: list[Json]) -> Json:
    for event in reversed(events):
        if event.get("type") in ("response.completed", "response.incomplete"):
            whole: Json = event["response"]
            return whole
    raise ValueError("no event with the whole answer")


class _Reader(NamedTuple):
    """Reads one endpoint's requests and answers. stream: puts a streamed answer together."""

    request: Callable[[Json], Json]
    answer: Callable[[Json], tuple[Json, object]]
    stream: Callable[[list[Json]], Json]


_READERS: Final[Mapping[str, _Reader]] = {
    Endpoint.CHAT.value: _Reader(lambda body: body, _chat_answer, _chat_stream),
    Endpoint.MESSAGES.value: _Reader(_message_request, _message_answer, _message_stream),
    Endpoint.RESPONSES.value: _Reader(_response_request, _response_answer, _response_stream),
}
