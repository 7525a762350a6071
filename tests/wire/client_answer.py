"""An answer as the official client received it, whole or streamed, in one form."""

from dataclasses import dataclass, field
from typing import Any

import openai

from tests.wire.server import Json


@dataclass
class ClientAnswer:
    """message: as it goes back in the next request."""

    text: str = ""
    reasoning: str = ""
    calls: list[Json] = field(default_factory=list)
    finish: str | None = None
    usage: Any = None
    message: Json = field(default_factory=dict)
    model: str = ""


def ask(client: openai.OpenAI, *, stream: bool, **request: Any) -> ClientAnswer:
    return _streamed(client, request) if stream else _whole(client, request)


def _whole(client: openai.OpenAI, request: Json) -> ClientAnswer:
    done = client.chat.completions.create(**request)
    (choice,) = done.choices
    said = choice.message.model_dump(exclude_none=True)
    return ClientAnswer(
        text=said.get("content") or "",
        reasoning=said.get("reasoning_content") or "",
        calls=said.get("tool_calls") or [],
        finish=choice.finish_reason,
        usage=done.usage,
        message=said,
        model=done.model,
    )


def _streamed(client: openai.OpenAI, request: Json) -> ClientAnswer:
    heard, extra = ClientAnswer(), {}
    asked: Json = {**request, "stream": True, "stream_options": {"include_usage": True}}
    chunks: Any = client.chat.completions.create(**asked)
    for chunk in chunks:
        heard.usage = chunk.usage or heard.usage
        heard.model = chunk.model
        for choice in chunk.choices:
            delta = choice.delta.model_dump(exclude_none=True)
            heard.text += delta.get("content") or ""
            heard.reasoning += delta.get("reasoning_content") or ""
            for name in ("thinking_blocks", "extra_content"):
                if name in delta:
                    extra[name] = delta[name]
            for piece in delta.get("tool_calls", ()):
                _add(heard.calls, piece)
            heard.finish = choice.finish_reason or heard.finish
    heard.message = {"role": "assistant", "content": heard.text or None, **extra}
    if heard.calls:
        heard.message["tool_calls"] = heard.calls
    return heard


def _add(calls: list[Json], piece: Json) -> None:
    index = piece.pop("index")
    if index == len(calls):
        calls.append(piece)
        return
    calls[index]["function"]["arguments"] += piece["function"]["arguments"]
