"""The interface between the router and the providers: a request, its reply, its failure.

`transports` chooses an implementation by the provider's kind;
`router.request.upstream_call` uses it. A failure is `router.frame.failure.UpstreamFailed`.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.providers.credential import ProviderKey
from harness.providers.models.capabilities import Capabilities
from harness.providers.target import Provider
from router.frame.body import CHAT_PATH


class ToolWay(StrEnum):
    """How to send a chat with tools to a model that may refuse tools beside reasoning."""

    AS_SENT = "as_sent"  # the caller gets the refusal, because it knows another way
    LAST = "last"  # the transport repairs the request, or the client gets the refusal


@dataclass(slots=True)
class UpstreamRequest:
    """A request to a provider. A transport may replace its body, path and headers."""

    provider: Provider
    body: bytes  # JSON for the provider
    stream: bool
    # Use a new connection: the provider may have closed the idle connections.
    fresh: bool = False
    path: str = CHAT_PATH  # below the provider's `api_base`
    headers: tuple[tuple[bytes, bytes], ...] = ()  # the client's forwarded headers
    key: ProviderKey | None = None
    max_bytes: int | None = None  # limit of the answer's body; None for the router's limit
    # The target's name as a maker (`router.conversation.intake`); empty if no mark is needed.
    maker: str = ""
    # The paths from which requests become a chat; None for the paths of the provider's kind.
    bridged: frozenset[str] | None = None
    # The target's abilities; None if only the provider and the body name the model.
    can: Capabilities | None = None
    thinking: bool = False  # the client wants to see the thinking
    # How to send a chat with tools; None if the transport chooses.
    tool_way: ToolWay | None = None

    def abilities(self) -> Capabilities:
        """Returns the abilities of the model in the body."""
        if self.can is not None:
            return self.can
        return self.provider.abilities(str(json.loads(self.body).get("model")))


# Gets a piece of a body. Returns False to stop.
TakeChunk = Callable[[bytes], bool]


class UpstreamReply:
    """A reply with a complete head; its body still arrives. Header names are in lower case.

    A transport that wraps another transport reports its changes in the fields with defaults.
    """

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    dropped: tuple[str, ...] = ()  # fields of the request that a translation omitted
    # Pieces of the conversation that the provider refused before this reply.
    refused: tuple[str, ...] = ()
    # Number of translated provider events with progress. The client may not see them:
    # unrequested thinking, or a call that waits until an earlier call ends.
    progress_events: int = 0
    opening_s: float = 0.0  # time to open the connection; 0 for a reused connection
    # The provider sent no finish reason in a complete answer, so a translation chose one.
    unended: bool = False
    local: bool = False  # the router refuses the request without a call to the provider
    unable: bool = False  # see `UpstreamFailed`
    _arriving: AsyncIterator[bytes] | None = None  # the chunks that `pass_on` reads
    # The provider's usage, if a translation wrote the one in the body; None if it sent none.
    given_usage: object = None
    # The translation of a stream begins it with an estimate of the input tokens.
    estimates_input: bool = False

    @property
    def named(self) -> Mapping[bytes, bytes]:
        """The last header of each name."""
        return dict(self.headers)

    async def body(self) -> bytes:
        """Returns the complete decoded body. Raises UpstreamFailed."""
        raise NotImplementedError

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the decoded body as it arrives. Raises UpstreamFailed if it breaks off."""
        yield await self.body()

    async def pass_on(self, take: TakeChunk) -> bool:
        """Calls `take` with the decoded body as it arrives. Returns whether the body ended.

        Stops if `take` returns False; a further call continues there. Raises UpstreamFailed
        if the body breaks off, and the errors of `take`.
        """
        if self._arriving is None:
            self._arriving = self.chunks()
        async for chunk in self._arriving:
            if not take(chunk):
                return False
        return True

    async def aclose(self) -> None:
        """Returns the connection to the pool after the body's end, else closes it."""


class Transport:
    """Makes one attempt, without retries or redirects. The caller limits it by cancelling."""

    __slots__ = ()

    async def send(self, request: UpstreamRequest) -> UpstreamReply:
        """Sends a request. Any status is a reply. Raises UpstreamFailed without a reply."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Closes the connections that the transport owns."""


TransportFactory = Callable[[Provider], Transport]
