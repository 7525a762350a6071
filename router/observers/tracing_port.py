"""What tracing is told of a request; `router.observers.tracing` is the real thing, None is
none.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from harness.domain.reliability.failures import FailureClass
from harness.domain.routing.table import Arm
from router.protocols.usage import Usage
from router.request.body import ClientRequest
from router.snapshot.compiled import Header, ServedRoute, Upstream

Settle = Callable[[FailureClass | None], None]


class Asked(NamedTuple):
    """trace: the client's own headers `traceparent` and `tracestate`."""

    request: ClientRequest
    route: ServedRoute
    arm: Arm
    revision: int
    request_id: str
    trace: Sequence[Header]


class Served(NamedTuple):
    """upstream: whose answer the client got. error: a class of failure, empty for none.

    body: of a whole answer. finish_reasons: of a stream.
    """

    upstream: Upstream | None
    outcome: str
    error: str
    attempts: int
    usage: Usage
    first_token_s: float | None
    body: bytes = b""
    finish_reasons: Sequence[str] = ()


class RequestSpan(Protocol):
    """One request's. passed_up: headers for the attempt that is under way."""

    @property
    def passed_up(self) -> tuple[Header, ...]: ...

    def attempt(self, upstream: Upstream, number: int, settle: Settle) -> Settle:
        """An attempt begins; calling what is returned ends it, and calls `settle`."""
        ...

    def end(self, served: Served) -> None: ...


class Tracing(Protocol):
    def begin(self, asked: Asked) -> RequestSpan: ...

    def close(self) -> None:
        """Send what is left, within a few seconds."""
        ...
