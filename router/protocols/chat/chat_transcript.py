"""Reads a chat completion's request and answer into the shape of a transcript, for judges,
shadow comparison and captures; puts a streamed answer together first. Anything but text and
tools is left out by name.
"""

from typing import Any, Final

from router.protocols.call_pieces import CallPieces, call_of_piece

Json = dict[str, Any]
_MESSAGE: Final = ("role", "content", "name", "tool_calls", "tool_call_id", "refusal")
_BESIDE: Final = ("tools", "tool_choice", "response_format")


def request_from_chat(body: Json) -> Json:
    messages = [message(entry) for entry in body["messages"]]
    beside = {name: body[name] for name in _BESIDE if body.get(name) is not None}
    return {"messages": messages, **beside}


def message(given: Json) -> Json:
    kept = {name: given[name] for name in _MESSAGE if given.get(name) is not None}
    return {**kept, "content": parts(given.get("content"))}


def parts(content: object) -> object:
    """A text, null, or parts of which only those of text are kept as they are."""
    if not isinstance(content, list):
        return content
    return [
        {"type": "text", "text": part["text"]}
        if isinstance(part.get("text"), str)
        else {"type": "text", "text": f"[{part.get('type', 'part')} left out]"}
        for part in content
    ]


def answer_from_chat(body: Json) -> Json:
    """Returns the first choice's message, and why it ended."""
    choice = next(option for option in body["choices"] if not option.get("index"))
    found = message({"role": "assistant", **choice["message"]})
    return {**found, "finish_reason": choice.get("finish_reason")}


def assemble_chat_stream(events: list[Json]) -> Json:
    """Assembles a stream into the answer as it would have come whole."""
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
    message_: Json = {"content": texts.get("content"), **texts}
    if calls:
        message_["tool_calls"] = [
            _written(call) for index in sorted(calls) for call in calls[index]
        ]
    return {"choices": [{"index": 0, "message": message_, "finish_reason": finish}]}


def _add_call(calls: dict[int, list[CallPieces]], delta: Json, number: int) -> None:
    place = calls.setdefault(delta.get("index", number), [])
    function = delta.get("function") or {}
    piece = delta.get("id"), function.get("name"), function.get("arguments")
    call_of_piece(place, CallPieces, *piece).add(*piece)


def _written(call: CallPieces) -> Json:
    function = {"name": call.name, "arguments": call.text}
    return {"id": call.id, "type": "function", "function": function}
