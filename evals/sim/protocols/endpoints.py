"""The simulator's text endpoints, by path: chat completions, responses, messages."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from evals.sim.protocols import chat_completions, messages, responses
from evals.sim.protocols.chat_completions import Completion
from evals.sim.protocols.requests import ChatRequest, Refused, error_body, parse_chat


@dataclass(frozen=True)
class EndpointDialect:
    """Describes how the simulator speaks one endpoint's protocol."""

    parse: Callable[[Mapping[str, Any]], ChatRequest]  # raises Refused
    body: Callable[[Completion], dict[str, Any]]
    # Its first event, one for each piece of content, its last.
    stream: Callable[[Completion, ChatRequest], list[bytes]]
    error: Callable[[Refused], dict[str, Any]] = error_body
    # An error's body as the last event of a stream.
    error_event: Callable[[Mapping[str, Any]], bytes] = chat_completions.event
    ping: bytes = b": ping\n\n"  # says nothing


CHAT = EndpointDialect(parse_chat, chat_completions.body, chat_completions.stream)
DIALECTS: Mapping[str, EndpointDialect] = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": EndpointDialect(
        responses.parse, responses.body, responses.stream, error_event=responses.error_event
    ),
    "/v1/messages": EndpointDialect(
        messages.parse, messages.body, messages.stream, messages.error, ping=messages.PING
    ),
}
