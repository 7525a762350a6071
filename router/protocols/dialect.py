"""A dialect is the interface to one endpoint's protocol: what the router must know of it to
patch a request for its target, tell callers apart, check an answer, filter a stream, and word
errors.
"""

from collections.abc import Mapping
from typing import Protocol

from harness.domain.routing.capabilities import Endpoint
from harness.domain.routing.target import Target
from router.protocols.answer_signals import AnswerSignals
from router.protocols.event_stream import Irregularity, StreamFilter
from router.protocols.usage import TokenUsage
from router.request.body import ClientRequest
from router.request.json_spans import ParsedObject
from router.server.replies import Reply


class ProtocolDialect(Protocol):
    """Reads and writes one endpoint's protocol. Holds nothing of a request."""

    endpoint: Endpoint
    path: str  # below a provider's `api_base` that ends in `/v1`
    # The client's headers that go to the provider, with what is sent where the client has none;
    # empty for nothing.
    passed_up: Mapping[bytes, bytes]
    call_mark: str  # stands in every answer that calls a tool

    def opening(self, request: ClientRequest, skipped: int = 0) -> list[object]:
        """Returns what every later turn of the conversation begins with; empty when unknown.

        skipped: messages of the user before its first one, which belong to a template.
        """
        ...

    def patched(
        self, request: ClientRequest, target: Target, *, serialize_tools: bool = False
    ) -> bytes:
        """The body as the target is to see it. serialize_tools: one tool call at a time."""
        ...

    def checked(self, members: ParsedObject, *, silence: bool = False) -> TokenUsage | None:
        """Returns the usage of a whole answer. Raises UpstreamFailed for a body that is no
        answer: one without content, unless it was cut or refused or `silence` is an answer,
        and one whose end says that the provider failed.
        """
        ...

    def irregularity(self, members: ParsedObject) -> Irregularity | None:
        """What is irregular about the end of a whole answer, which was checked."""
        ...

    def schema(self, request: ClientRequest) -> Mapping[str, object] | None:
        """Returns the schema of the JSON that the answer is to be; empty for any, None when
        none was asked for.
        """
        ...

    def tools(self, request: ClientRequest) -> Mapping[str, object]:
        """Returns the offered tools' parameters as JSON schemas, by name; None for a tool
        without one.
        """
        ...

    def note_signals(self, signals: AnswerSignals, members: ParsedObject) -> None:
        """Enter what a whole answer said."""
        ...

    def stream(self, request: ClientRequest, json_name: str | None) -> StreamFilter: ...

    def error(self, reply: Reply, request_id: str) -> Reply:
        """An error of ours, or a provider's, as this endpoint's clients know it."""
        ...
