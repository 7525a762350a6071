"""Builds a transcript: a request and its answer in a chat completion's shape, whatever their
protocol, for judges, shadow comparison and captures.

Texts and tools alone: pictures, sound and files cannot be redacted, and are left out by name.
Raises ValueError, TypeError, KeyError or AttributeError for what is no request or answer.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from harness.domain.routing.capabilities import Endpoint
from router.protocols.chat import chat_transcript
from router.protocols.messages import message_transcript
from router.protocols.responses import response_transcript
from router.protocols.sse import SsePayloads

Json = dict[str, Any]
READERS: Final[Mapping[str, Callable[[Json], Json]]] = {
    Endpoint.CHAT.value: chat_transcript.request_from_chat,
    Endpoint.MESSAGES.value: message_transcript.request_from_message,
    Endpoint.RESPONSES.value: response_transcript.request_from_response,
}
ANSWERS: Final[Mapping[str, Callable[[Json], Json]]] = {
    Endpoint.CHAT.value: chat_transcript.answer_from_chat,
    Endpoint.MESSAGES.value: message_transcript.answer_from_message,
    Endpoint.RESPONSES.value: response_transcript.answer_from_response,
}
STREAMS: Final[Mapping[str, Callable[[list[Json]], Json]]] = {
    Endpoint.CHAT.value: chat_transcript.assemble_chat_stream,
    Endpoint.MESSAGES.value: message_transcript.assemble_message_stream,
    Endpoint.RESPONSES.value: response_transcript.assemble_response_stream,
}


def build_transcript(endpoint: str, request: str, answer: str, *, stream: bool) -> Json:
    """Gathers `messages`, perhaps `tools`, `tool_choice`, `response_format`, and `answer`."""
    whole = STREAMS[endpoint](_events(answer)) if stream else json.loads(answer)
    return {**READERS[endpoint](json.loads(request)), "answer": ANSWERS[endpoint](whole)}


def _events(text: str) -> list[Json]:
    """The data of each server-sent event, but for the last mark."""
    parser = SsePayloads()
    payloads = [*parser.read(text.encode()), *parser.rest()]
    return [json.loads(payload) for payload in payloads if payload != b"[DONE]"]
