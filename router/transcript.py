"""A request and its answer in one shape, whatever protocol they came in: a chat completion's.

Texts and tools alone: pictures, sound and files cannot be redacted, and are left out by name.
Raises ValueError, TypeError, KeyError or AttributeError for what is none.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from harness.domain.routing.capabilities import Endpoint
from router import transcript_chat, transcript_messages, transcript_responses

Json = dict[str, Any]
READERS: Final[Mapping[str, Callable[[Json], Json]]] = {
    Endpoint.CHAT.value: transcript_chat.asked,
    Endpoint.MESSAGES.value: transcript_messages.asked,
    Endpoint.RESPONSES.value: transcript_responses.asked,
}
ANSWERS: Final[Mapping[str, Callable[[Json], Json]]] = {
    Endpoint.CHAT.value: transcript_chat.answer,
    Endpoint.MESSAGES.value: transcript_messages.answer,
    Endpoint.RESPONSES.value: transcript_responses.answer,
}
STREAMS: Final[Mapping[str, Callable[[list[Json]], Json]]] = {
    Endpoint.CHAT.value: transcript_chat.assembled,
    Endpoint.MESSAGES.value: transcript_messages.assembled,
    Endpoint.RESPONSES.value: transcript_responses.assembled,
}


def transcript(endpoint: str, asked: str, answer: str, *, stream: bool) -> Json:
    """`messages`, perhaps `tools`, `tool_choice`, `response_format`, and `answer`."""
    whole = STREAMS[endpoint](_events(answer)) if stream else json.loads(answer)
    return {**READERS[endpoint](json.loads(asked)), "answer": ANSWERS[endpoint](whole)}


def _events(text: str) -> list[Json]:
    """The data of each server-sent event, but for the last mark."""
    data: list[Json] = []
    for event in text.replace("\r\n", "\n").replace("\r", "\n").split("\n\n"):
        lines = [line[5:].strip() for line in event.split("\n") if line.startswith("data:")]
        if lines and lines != ["[DONE]"]:
            data.append(json.loads("\n".join(lines)))
    return data
