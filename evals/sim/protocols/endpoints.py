"""The simulator's text endpoints, by path: chat completions, responses, messages."""

from collections.abc import Mapping
from typing import Any

from evals.sim.protocols import chat_completions, messages, responses
from evals.sim.protocols.dialect import EndpointDialect
from evals.sim.protocols.http_exchange import encoded
from evals.sim.protocols.requests import error_body, parse_chat


def _openais(status: int, message: str, code: str | None, param: str | None) -> dict[str, Any]:
    return error_body(status, message, code=code, param=param)


def _unnamed(data: Mapping[str, Any]) -> bytes:
    return b"data: " + encoded(data) + b"\n\n"


CHAT = EndpointDialect(
    parse=parse_chat,
    body=chat_completions.body,
    events=lambda answer, request: chat_completions.ChatStreamEvents(
        answer, include_usage=request.include_usage
    ),
    error=_openais,
    error_event=_unnamed,
)
RESPONSES = EndpointDialect(
    parse=responses.parse,
    body=responses.body,
    events=responses.ResponseStreamEvents,
    error=_openais,
    error_event=responses.error_event,
)
MESSAGES = EndpointDialect(
    parse=messages.parse,
    body=messages.body,
    events=messages.MessageStreamEvents,
    error=messages.error,
    error_event=messages.error_event,
    ping=messages.PING,
)
DIALECTS: Mapping[str, EndpointDialect] = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": RESPONSES,
    "/v1/messages": MESSAGES,
}


def dialect_of(path: str) -> EndpointDialect:
    """Returns the dialect of a path; chat's for a path that is none of these."""
    return DIALECTS.get(path, CHAT)
