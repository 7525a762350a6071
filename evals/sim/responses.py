"""The simulator's `POST /v1/responses`, in OpenAI's shapes.

It translates to and from the chat of `chat_completions`; `RESPONSES` is its only export.
"""

import itertools
from collections.abc import Mapping
from typing import Any

from evals.sim.chat_completions import (
    ChatRequest,
    Completion,
    EndpointDialect,
    event,
    function_tools,
    invalid,
    parse_chat,
    response_format,
)


def parse(data: Mapping[str, Any]) -> ChatRequest:
    """Parses a request. Raises Refused. A call's output becomes a message with the role
    `tool`.
    """
    input_ = data.get("input")
    items = (
        [{"role": "user", "content": input_}] if isinstance(input_, str) and input_ else input_
    )
    if not items or not isinstance(items, list) or not all(isinstance(i, dict) for i in items):
        invalid("'input' is required: a text, or a list of objects.", "input")
    system = [{"role": "system", "content": data.get("instructions")}]
    choice = data.get("tool_choice")
    text = data.get("text")
    if isinstance(choice, dict):
        choice = {"function": {"name": choice.get("name")}}
    return parse_chat(
        {
            "model": data.get("model"),
            "messages": [
                *(system if data.get("instructions") else []),
                *map(_message, items),
            ],
            "max_tokens": data.get("max_output_tokens"),
            "stream": data.get("stream"),
            "tools": function_tools(data.get("tools"), "parameters"),
            "tool_choice": choice,
            "parallel_tool_calls": data.get("parallel_tool_calls"),
            "response_format": response_format(
                text.get("format") if isinstance(text, dict) else None
            ),
        }
    )


def _message(item: Mapping[str, Any]) -> dict[str, Any]:
    if str(item.get("type")).endswith("_call_output"):
        return {"role": "tool", "content": item.get("output")}
    return {
        "role": item.get("role") or "assistant",
        "content": item.get("content"),
    }


def body(answer: Completion) -> dict[str, Any]:
    """Writes a whole answer. An answer that was cut off is `incomplete`."""
    cut = answer.finish_reason == "length"
    status = "incomplete" if cut else "completed"
    return {
        "id": f"resp_{answer.fingerprint}_{answer.id}",
        "object": "response",
        "created_at": answer.created,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": None,
        "metadata": {},
        "model": answer.model,
        "output": items(answer, status),
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": {
            "input_tokens": answer.prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": 0,
                "cache_write_tokens": 0,
            },
            "output_tokens": answer.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": answer.prompt_tokens + answer.completion_tokens,
        },
    }


def items(answer: Completion, status: str) -> list[dict[str, Any]]:
    """Writes the output: an item for each call, or one message."""
    message = {"role": "assistant", "content": [part(answer.text)]}
    return [
        {
            "type": "function_call",
            "id": f"fc_{answer.id}_{number}",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
            "status": status,
        }
        for number, call in enumerate(answer.calls)
    ] or [
        {
            "type": "message",
            "id": f"msg_{answer.id}",
            "status": status,
            **message,
        }
    ]


def part(text: str) -> dict[str, Any]:
    return {
        "type": "output_text",
        "text": text,
        "annotations": [],
    }


def error_event(error: Mapping[str, Any]) -> bytes:
    fields = {name: error["error"][name] for name in ("code", "message", "param")}
    return event(
        {
            "type": "error",
            "sequence_number": 0,
            **fields,
        }
    )


def stream(answer: Completion, _request: ChatRequest) -> list[bytes]:
    """Writes the events of a streamed answer. Their sequence numbers rise by one, from 0."""
    whole = body(answer)
    numbers = itertools.count()

    def write(kind: str, **fields: Any) -> bytes:
        kind = f"response.{kind}"
        return event(
            {
                "type": kind,
                "sequence_number": next(numbers),
                **fields,
            }
        )

    in_progress: dict[str, Any] = {"status": "in_progress"}
    open_fields = in_progress | {
        "incomplete_details": None,
        "output": [],
        "usage": None,
    }
    opening = write("created", response=whole | open_fields)
    opening += write("in_progress", response=whole | open_fields)
    frames: list[bytes] = []
    for index, (output, pieces) in enumerate(zip(whole["output"], answer.pieces, strict=True)):
        is_call = output["type"] == "function_call"
        place: dict[str, Any] = {
            "item_id": output["id"],
            "output_index": index,
        }
        empty_fields = in_progress | {
            "arguments" if is_call else "content": "" if is_call else []
        }
        opening_events = write(
            "output_item.added", output_index=index, item=output | empty_fields
        )
        if is_call:
            name = "function_call_arguments"
            delta_fields = dict[str, Any]()
            final_fields = {"name": output["name"], "arguments": output["arguments"]}
        else:
            name = "output_text"
            delta_fields = {"logprobs": []}
            place = place | {"content_index": 0}
            final_fields = {"text": answer.text, "logprobs": []}
            opening_events += write("content_part.added", **place, part=part(""))
        frames.append(opening_events)
        frames += [
            write(
                f"{name}.delta",
                **place,
                delta=piece,
                **delta_fields,
            )
            for piece in pieces
        ]
        closing_events = write(f"{name}.done", **place, **final_fields)
        if not is_call:
            closing_events += write("content_part.done", **place, part=part(answer.text))
        frames.append(
            closing_events + write("output_item.done", output_index=index, item=output)
        )
    frames[0] = opening + frames[0]
    frames[-1] += write(whole["status"], response=whole)
    return frames


RESPONSES = EndpointDialect(parse, body, stream, error_event=error_event)
