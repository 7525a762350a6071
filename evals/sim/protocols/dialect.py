"""`EndpointDialect` holds what differs between the simulator's text endpoints: how one parses
requests and writes bodies, stream events and errors.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from evals.sim.protocols.chat_completions import Completion
from evals.sim.protocols.http_exchange import encoded
from evals.sim.protocols.requests import ChatRequest


class StreamEvents(Protocol):
    """The stream of one answer; each method gives ready bytes."""

    def opening(self) -> bytes: ...

    def content(self) -> Iterator[bytes]:
        """Writes the content piece by piece."""
        ...

    def finish(self) -> bytes: ...


@dataclass(frozen=True)
class EndpointDialect:
    """Describes how the simulator speaks one endpoint's protocol."""

    parse: Callable[[Mapping[str, Any]], ChatRequest]  # raises Refused
    body: Callable[[Completion], dict[str, Any]]
    events: Callable[[Completion, ChatRequest], StreamEvents]
    # Of status, message, code and param.
    error: Callable[[int, str, str | None, str | None], dict[str, Any]]
    # An error's body as the last event of a stream.
    error_event: Callable[[Mapping[str, Any]], bytes]
    ping: bytes = b": ping\n\n"  # says nothing


def named_event(data: Mapping[str, Any]) -> bytes:
    """Writes an event whose name is its data's `type`."""
    return f"event: {data['type']}\n".encode() + b"data: " + encoded(data) + b"\n\n"
