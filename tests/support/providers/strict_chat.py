"""A strict chat provider refuses what OpenAI refuses, and plays a weather agent.

Asked with tools it calls them, two at once unless told not to; given their results, it repeats
them in words.
"""

import json
from collections.abc import Iterator
from typing import Any

from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import EVENTS, ReceivedRequest

FIELDS = frozenset(
    {
        "model",
        "messages",
        "stream",
        "stream_options",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "stop",
        "user",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "response_format",
        "reasoning_effort",
        "seed",
        "logprobs",
        "top_logprobs",
        "service_tier",
        "n",
        "verbosity",
        "prompt_cache_key",
        "metadata",
        "store",
    }
)
CITIES = ("Oslo", "Rome")
USAGE = {
    "prompt_tokens": 20,
    "completion_tokens": 9,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 3},
}


class Refused(Exception):
    """What OpenAI would answer with 400."""


def script_turn(asked: ReceivedRequest) -> ScriptedTurn:
    body = asked.json
    try:
        check(body)
    except Refused as error:
        told = {"message": str(error), "type": "invalid_request_error", "param": None}
        return ScriptedTurn(400, steps=(json.dumps({"error": told | {"code": None}}).encode(),))
    message, finish = reply(body)
    return streamed(body, message, finish) if body.get("stream") else whole(message, finish)


def check(body: dict[str, Any]) -> None:
    unknown = set(body) - FIELDS
    if unknown:
        raise Refused(f"Unrecognized request arguments supplied: {sorted(unknown)}")
    if not isinstance(body.get("messages"), list) or not body["messages"]:
        raise Refused("messages must not be empty")
    offered = {tool["function"]["name"] for tool in body.get("tools", [])}
    if "tools" in body and not offered:
        raise Refused("[] is too short - 'tools'")
    if "tool_choice" in body and not offered:
        raise Refused("'tool_choice' is only allowed when 'tools' are specified")
    if "parallel_tool_calls" in body and not offered:
        raise Refused("'parallel_tool_calls' is only allowed when 'tools' are specified")
    choice = body.get("tool_choice", "auto")
    if isinstance(choice, dict) and choice["function"]["name"] not in offered:
        raise Refused("the chosen tool is not offered")
    if isinstance(choice, str) and choice not in ("auto", "none", "required"):
        raise Refused(f"Invalid value: {choice!r} - 'tool_choice'")
    if "stream_options" in body and not body.get("stream"):
        raise Refused("'stream_options' is only allowed when 'stream' is enabled")
    check_turns(body["messages"])


def check_turns(messages: list[dict[str, Any]]) -> None:
    waiting: list[str] = []
    for number, message in enumerate(messages):
        if waiting and message["role"] != "tool":
            raise Refused(f"tool_call_ids did not have response messages: {waiting}")
        allowed = {
            "system": {"role", "content", "name"},
            "user": {"role", "content", "name"},
            "assistant": {"role", "content", "tool_calls", "refusal", "name"},
            "tool": {"role", "content", "tool_call_id"},
        }.get(message["role"])
        if allowed is None or set(message) - allowed:
            raise Refused(f"messages[{number}]: unknown fields in {sorted(message)}")
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                raise Refused("role 'tool' must be a response to preceding 'tool_calls'")
            waiting.remove(message["tool_call_id"])
            if not isinstance(message["content"], str):
                raise Refused("a tool's content must be text")
        elif message["role"] == "assistant" and message.get("tool_calls"):
            for call in message["tool_calls"]:
                json.loads(call["function"]["arguments"])
                waiting.append(call["id"])
        else:
            check_content(message.get("content"))
    if waiting:
        raise Refused(f"tool_call_ids did not have response messages: {waiting}")


def check_content(content: object) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list) or not content:
        raise Refused("content must be a string or a list of parts")
    for part in content:
        known = {"text": "text", "image_url": "image_url", "file": "file"}.get(part["type"])
        if known is None or set(part) != {"type", known}:
            raise Refused(f"Invalid content part: {part}")


def reply(body: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The message and its finish reason."""
    said: dict[str, Any] = {"role": "assistant", "content": None}
    results = [message["content"] for message in body["messages"] if message["role"] == "tool"]
    if body.get("tools") and not results and body.get("tool_choice") != "none":
        name = body["tools"][0]["function"]["name"]
        cities = CITIES[:1] if body.get("parallel_tool_calls") is False else CITIES
        said["content"] = "Let me look."
        said["tool_calls"] = [
            {
                "id": f"call_{city}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps({"city": city})},
            }
            for city in cities
        ]
        return said, "tool_calls"
    if body.get("response_format"):
        return said | {"content": '{"colour": "red"}'}, "stop"
    said["content"] = " and ".join(results) or "Hello there."
    if body.get("reasoning_effort"):
        said["reasoning_content"] = f"Thought with {body['reasoning_effort']} effort."
    return said, "stop"


def whole(message: dict[str, Any], finish: str) -> ScriptedTurn:
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "strict-1",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": USAGE,
    }
    return ScriptedTurn(steps=(json.dumps(answer).encode(),))


def deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": ""}
    for name in ("reasoning_content", "content"):
        for word in (message.get(name) or "").split(" "):
            if word:
                yield {name: word + " "}
    for index, call in enumerate(message.get("tool_calls", ())):
        function = call["function"]
        begun = {"index": index, "id": call["id"], "type": "function"}
        yield {"tool_calls": [begun | {"function": function | {"arguments": ""}}]}
        for piece in (function["arguments"][:5], function["arguments"][5:]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def chunk(choices: list[dict[str, Any]], usage: object = None) -> bytes:
    data = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "strict-1",
        "choices": choices,
        "usage": usage,
    }
    return f"data: {json.dumps(data)}\n\n".encode()


def pieces(message: dict[str, Any], finish: str, *, usage: bool = True) -> tuple[bytes, ...]:
    said = [chunk([{"index": 0, "delta": d, "finish_reason": None}]) for d in deltas(message)]
    last = chunk([{"index": 0, "delta": {}, "finish_reason": finish}])
    counted = (chunk([], USAGE),) if usage else ()
    return (*said, last, *counted, b"data: [DONE]\n\n")


def streamed(body: dict[str, Any], message: dict[str, Any], finish: str) -> ScriptedTurn:
    asked = (body.get("stream_options") or {}).get("include_usage") is True
    return ScriptedTurn(headers=EVENTS, steps=pieces(message, finish, usage=asked))
