"""`POST /v1/responses` reads requests and writes answers in OpenAI's shapes."""

import itertools
from collections.abc import Mapping
from typing import Any

from evals.sim.protocols.chat_completions import PIECE, Completion, StreamFrames, event
from evals.sim.protocols.requests import (
    ChatRequest,
    chat_tools,
    invalid,
    parse_chat,
    parse_limit,
)


def parse(data: Mapping[str, Any]) -> ChatRequest:
    """Reads the body of a request for a response as a chat's. Raises Refused (400)."""
    given = data.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) and given else given
    if not isinstance(items, list) or not items:
        invalid("Missing required parameter: 'input'.", "input", "missing_required_parameter")
    if not all(isinstance(item, dict) for item in items):
        invalid("Each of 'input' must be an object.", "input")
    system = [{"role": "system", "content": data.get("instructions")}]
    choice, text = data.get("tool_choice"), data.get("text")
    if isinstance(choice, dict):
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    return parse_chat(
        {
            "model": data.get("model"),
            "messages": [*(system if data.get("instructions") else []), *map(_message, items)],
            "max_tokens": parse_limit(data, "max_output_tokens"),
            "stream": data.get("stream"),
            "stream_options": {"include_usage": True},
            "tools": chat_tools(data.get("tools"), "parameters"),
            "tool_choice": choice,
            "response_format": text.get("format") if isinstance(text, dict) else None,
        }
    )


def _message(item: Mapping[str, Any]) -> dict[str, Any]:
    called = item.get("type") == "function_call_output"
    role = "tool" if called else item.get("role") or "assistant"
    return {"role": role, "content": item.get("output" if called else "content")}


def body(answer: Completion) -> dict[str, Any]:
    """The answer to a request that does not stream."""
    cut = answer.finish_reason == "length"
    status = "incomplete" if cut else "completed"
    details = {"reason": "max_output_tokens"} if cut else None
    return {
        **frame(answer, status),
        "incomplete_details": details,
        "output": [item(answer, status)],
        "usage": {
            "input_tokens": answer.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": answer.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": answer.prompt_tokens + answer.completion_tokens,
        },
    }


def frame(answer: Completion, status: str) -> dict[str, Any]:
    """Builds a response without its output; its id says that it is simulated."""
    return {
        "id": f"resp_{answer.fingerprint}_{answer.id}",
        "object": "response",
        "created_at": answer.created,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": answer.model,
        "output": [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": None,
    }


def item(answer: Completion, status: str) -> dict[str, Any]:
    if answer.call:
        return {
            "type": "function_call",
            "id": f"fc_{answer.id}",
            "call_id": answer.call.id,
            "name": answer.call.name,
            "arguments": answer.call.arguments,
            "status": status,
        }
    return {
        "type": "message",
        "id": f"msg_{answer.id}",
        "status": status,
        "role": "assistant",
        "content": [part(answer.text)],
    }


def part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def error_event(error: Mapping[str, Any]) -> bytes:
    fields = {name: error["error"][name] for name in ("code", "message", "param")}
    return event({"type": "error", "sequence_number": 0, **fields})


def stream(answer: Completion, _request: ChatRequest) -> StreamFrames:
    """The stream of one answer: its head, a delta for each word, its end."""
    call, whole, numbers = answer.call, body(answer), itertools.count()
    (output,) = whole["output"]
    extra: dict[str, Any] = {} if call else {"logprobs": []}
    place = {"item_id": output["id"], "output_index": 0}
    place |= {} if call else {"content_index": 0}

    def write(kind: str, **fields: Any) -> bytes:
        kind = f"response.{kind}"
        return event({"type": kind, "sequence_number": next(numbers), **fields})

    first, begun = frame(answer, "in_progress"), item(answer, "in_progress")
    begun["arguments" if call else "content"] = "" if call else []
    opening = write("created", response=first) + write("in_progress", response=first)
    opening += write("output_item.added", output_index=0, item=begun)
    if call:
        name, text = "function_call_arguments", call.arguments
        last: dict[str, Any] = {"name": call.name, "arguments": text}
    else:
        name, text = "output_text", answer.text
        last = {"text": text, "logprobs": []}
        opening += write("content_part.added", **place, part=part(""))
    pieces = [
        write(f"{name}.delta", **place, delta=piece, **extra) for piece in PIECE.findall(text)
    ]
    finish = write(f"{name}.done", **place, **last)
    if not call:
        finish += write("content_part.done", **place, part=part(text))
    finish += write("output_item.done", output_index=0, item=output)
    return StreamFrames(opening, pieces, finish + write(whole["status"], response=whole))
