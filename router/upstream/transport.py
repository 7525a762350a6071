"""The interface between the router and the providers: a request, its reply, its failure."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from harness.providers.credential import ProviderKey
from harness.providers.target import Provider
from router.frame.body import CHAT_PATH


@dataclass(slots=True)
class UpstreamRequest:
    provider: Provider
    body: bytes  # JSON, as the provider is to see it
    stream: bool
    # On a connection of its own, since the provider may just have closed the idle ones.
    fresh: bool = False
    path: str = CHAT_PATH  # below the provider's `api_base`
    headers: tuple[tuple[bytes, bytes], ...] = ()  # the client's own that go along
    key: ProviderKey | None = None  # None for none
    max_bytes: int | None = None  # of the answer's body; None for as many as the router takes
    # Who writes the answer, as `router.conversation.intake` names it; empty where nothing of it
    # is to be known again.
    maker: str = ""
    # Paths whose requests become a chat; None as the provider's kind has it.
    bridged: frozenset[str] | None = None


class UpstreamReply:
    """A reply: its head is here, its body arrives. Names of headers are in lower case. A
    transport around another one says by the fields with defaults what it did.
    """

    __slots__ = ()
    status: int
    headers: Sequence[tuple[bytes, bytes]]
    dropped: tuple[str, ...] = ()  # fields of the request that a translation left behind
    # Pieces of the conversation that the provider refused before it gave this reply.
    refused: tuple[str, ...] = ()
    # How much a translation has heard that brings the answer on, of which a client may see
    # nothing: thoughts that were not asked for, a call that waits for its turn.
    progress_events: int = 0
    opening_s: float = 0.0  # to open its connection; 0 for one that stood already
    # The provider did not say why a whole answer ended, so a translation had to say something.
    unended: bool = False
    local: bool = False  # the router itself refuses: no provider was asked

    async def body(self) -> bytes:
        """Reads the whole body, decoded. Raises UpstreamFailed."""
        raise NotImplementedError

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the body, decoded, as it arrives. Raises UpstreamFailed when it breaks off."""
        yield await self.body()

    async def aclose(self) -> None:
        """Gives the connection back if the body was read to its end, else closes it."""


class Transport:
    """Makes one attempt: no retries, no redirects. The caller bounds it by cancelling."""

    __slots__ = ()

    async def send(self, request: UpstreamRequest) -> UpstreamReply:
        """Sends a request; any status is a reply. Raises UpstreamFailed when there is none."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Does nothing where what sends is another's to close."""


TransportFactory = Callable[[Provider], Transport]
