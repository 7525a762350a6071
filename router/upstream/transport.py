"""The transport is the interface between the router and the providers: a request
(`UpstreamRequest`), its reply (`UpstreamReply`), or an `UpstreamFailed`. Also reads what a
transport around another one says of a reply: dropped fields, hidden progress, a missing end.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, NamedTuple, Protocol

from harness.domain.providers.credentials import ProviderKey
from harness.domain.routing.target import Provider

CHAT_PATH: Final = "/chat/completions"


class UpstreamRequest(NamedTuple):
    """Describes one attempt, ready to send."""

    provider: Provider
    body: bytes  # JSON, as the provider is to see it
    stream: bool
    # On a connection of its own, since the provider may just have closed the idle ones.
    fresh: bool = False
    path: str = CHAT_PATH  # below the provider's `api_base`
    headers: tuple[tuple[bytes, bytes], ...] = ()  # the client's own that go along
    key: ProviderKey | None = None  # None for none


class UpstreamReply(Protocol):
    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """Lists the headers as they came; names in lower case."""
        ...

    async def body(self) -> bytes:
        """Reads the whole body, decoded. Raises UpstreamFailed."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """Yields the body, decoded, as it arrives. Raises UpstreamFailed when it breaks off."""
        ...

    async def aclose(self) -> None:
        """Gives the connection back if the body was read to its end, else closes it."""
        ...


def dropped_fields_of(reply: UpstreamReply) -> tuple[str, ...]:
    """Fields of the request that a translation left behind; empty for what went as it was.

    A transport around another one hands it on, as an attribute of its own reply.
    """
    found: tuple[str, ...] = getattr(reply, "dropped", ())
    return found


def hidden_progress(reply: UpstreamReply) -> int:
    """How much a translation has heard that brings the answer on, of which a client may see
    nothing: thoughts that were not asked for, a call that waits for its turn.
    """
    found: int = getattr(reply, "progress_events", 0)
    return found


def is_unended(reply: UpstreamReply) -> bool:
    """Tells whether the provider did not say why a whole answer ended, so that a translation
    had to say something.
    """
    found: bool = getattr(reply, "unended", False)
    return found


class Transport(Protocol):
    """Makes one attempt; never tries again, never follows a redirect.

    Only the connection's own timeout is its business; the caller bounds the rest by
    cancelling.
    """

    async def send(self, request: UpstreamRequest) -> UpstreamReply:
        """Sends a request; any status is a reply. Raises UpstreamFailed when there is none."""
        ...

    async def aclose(self) -> None: ...


TransportFactory = Callable[[Provider], Transport]
