"""The tracing port is the interface to a tracer: what it gets as a request begins and ends, and
as an attempt does. `router.observers.tracing` implements it with OpenTelemetry.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from harness.domain.reliability.failures import FailureClass
from harness.domain.routing.table import Arm
from router.protocols.usage import TokenUsage
from router.request.body import ClientRequest
from router.server.headers import Header
from router.snapshot.compiled import CompiledRoute, CompiledTarget

Settle = Callable[[FailureClass | None], None]


class SpanInput(NamedTuple):
    """Describes a request as it begins."""

    request: ClientRequest
    route: CompiledRoute
    arm: Arm
    revision: int
    request_id: str
    trace: Sequence[Header]  # the client's `traceparent` and `tracestate`
    copy_refused: bool = (
        False  # nobody keeps its prompt and answer, wherever content is asked for
    )


class SpanResult(NamedTuple):
    """Describes what became of a request."""

    upstream: CompiledTarget | None  # whose answer the client got
    outcome: str
    error: str  # a class of failure, empty for none
    attempts: int
    usage: TokenUsage
    first_token_s: float | None
    body: bytes = b""  # of a whole answer
    finish_reasons: Sequence[str] = ()  # of a stream


class RequestSpan(Protocol):
    """Records one request and its attempts in a trace. passed_up: headers for the attempt that
    is under way.
    """

    @property
    def passed_up(self) -> tuple[Header, ...]: ...

    def attempt(self, upstream: CompiledTarget, number: int, settle: Settle) -> Settle:
        """An attempt begins; calling what is returned ends it, and calls `settle`."""
        ...

    def end(self, served: SpanResult) -> None: ...


class Tracing(Protocol):
    def begin(self, span_input: SpanInput) -> RequestSpan: ...

    def close(self) -> None:
        """Send what is left, within a few seconds."""
        ...
