"""`POST /v1/responses` reads requests and writes answers in OpenAI's shapes."""

from collections.abc import Iterator, Mapping
from typing import Any

from evals.sim.protocols.chat_completions import PIECE, Completion
from evals.sim.protocols.dialect import named_event
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
    told = error["error"]
    fields = {name: told[name] for name in ("code", "message", "param")}
    return named_event({"type": "error", "sequence_number": 0, **fields})


class ResponseStreamEvents:
    """The stream of one answer: its head, a delta for each word, its end."""

    def __init__(self, answer: Completion, _request: ChatRequest) -> None:
        self._answer = answer
        self._whole = body(answer)
        self._number = 0

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = named_event({"type": kind, "sequence_number": self._number, **fields})
        self._number += 1
        return event

    def opening(self) -> bytes:
        first = frame(self._answer, "in_progress")
        made = item(self._answer, "in_progress")
        empty: dict[str, Any] = {"arguments": ""} if self._answer.call else {"content": []}
        made |= empty
        head = (
            self._event("response.created", response=first)
            + self._event("response.in_progress", response=first)
            + self._event("response.output_item.added", output_index=0, item=made)
        )
        if self._answer.call:
            return head
        return head + self._of_part("response.content_part.added", part=part(""))

    def _of_part(self, kind: str, **fields: Any) -> bytes:
        place = {"item_id": self._whole["output"][0]["id"], "output_index": 0}
        if not self._answer.call:
            place["content_index"] = 0
        return self._event(kind, **place, **fields)

    def content(self) -> Iterator[bytes]:
        call = self._answer.call
        if call:
            for piece in PIECE.findall(call.arguments):
                yield self._of_part("response.function_call_arguments.delta", delta=piece)
            return
        for piece in PIECE.findall(self._answer.text):
            yield self._of_part("response.output_text.delta", delta=piece, logprobs=[])

    def finish(self) -> bytes:
        answer, (made,) = self._answer, self._whole["output"]
        if answer.call:
            done = self._of_part(
                "response.function_call_arguments.done",
                name=answer.call.name,
                arguments=answer.call.arguments,
            )
        else:
            done = self._of_part("response.output_text.done", text=answer.text, logprobs=[])
            done += self._of_part("response.content_part.done", part=part(answer.text))
        done += self._event("response.output_item.done", output_index=0, item=made)
        return done + self._event(f"response.{self._whole['status']}", response=self._whole)
