"""The transport is the interface between the router and the providers: a request
(`UpstreamRequest`), its reply (`UpstreamReply`), or an `UpstreamFailed`. Also reads what a
transport around another one says of a reply: dropped fields, hidden progress, a missing end.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

from harness.domain.providers.credentials import ProviderKey
from harness.domain.routing.target import Provider

CHAT_PATH: Final = "/chat/completions"


@dataclass(slots=True)
class UpstreamRequest:
    """Describes one attempt, ready to send."""

    provider: Provider
    body: bytes  # JSON, as the provider is to see it
    stream: bool
    # On a connection of its own, since the provider may just have closed the idle ones.
    fresh: bool = False
    path: str = CHAT_PATH  # below the provider's `api_base`
    headers: tuple[tuple[bytes, bytes], ...] = ()  # the client's own that go along
    key: ProviderKey | None = None  # None for none
    max_bytes: int | None = None  # of the answer's body; None for as many as the router takes
    # Who writes the answer, as `router.conversation.makers` names it; empty where nothing of it
    # is to be known again.
    maker: str = ""
    # Paths whose requests become a chat; None as the provider's kind has it.
    bridged: frozenset[str] | None = None


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


def refused_pieces_of(reply: UpstreamReply) -> tuple[str, ...]:
    """Pieces of the conversation that the provider refused before it gave this reply to a
    request without them.
    """
    found: tuple[str, ...] = getattr(reply, "refused", ())
    return found


def hidden_progress(reply: UpstreamReply) -> int:
    """How much a translation has heard that brings the answer on, of which a client may see
    nothing: thoughts that were not asked for, a call that waits for its turn.
    """
    found: int = getattr(reply, "progress_events", 0)
    return found


def opening_seconds(reply: UpstreamReply) -> float:
    """How long it took to open the connection of a reply; 0 for one that stood already."""
    found: float = getattr(reply, "opening_s", 0.0)
    return found


def is_unended(reply: UpstreamReply) -> bool:
    """Tells whether the provider did not say why a whole answer ended, so that a translation
    had to say something.
    """
    found: bool = getattr(reply, "unended", False)
    return found


def is_local(reply: UpstreamReply) -> bool:
    """Tells whether a refusal is the router's own: no provider was asked."""
    found: bool = getattr(reply, "local", False)
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


class CallState(Enum):
    """How far the answer of a begun call is."""

    WAITING = auto()  # nothing of it is here
    BEGUN = auto()  # its head is, and more is to come
    WHOLE = auto()  # all of it, of a 2xx, without an encoding
    UNUSUAL = auto()  # anything else: another status, an encoding, a large or a broken answer


# Up to Python 3.11, to find a member in its class takes ten times as long.
WAITING: Final = CallState.WAITING
BEGUN: Final = CallState.BEGUN
WHOLE: Final = CallState.WHOLE
UNUSUAL: Final = CallState.UNUSUAL


class BegunCall(Protocol):
    """A request that is sent, whose answer no task waits for. Either `reply` or `close` ends
    it.
    """

    def listen(self, on_news: Callable[[], None] | None) -> None:
        """Has a function called whenever `state` may have changed; None: no more."""
        ...

    @property
    def state(self) -> CallState: ...

    def whole(self) -> tuple[int, Sequence[tuple[bytes, bytes]], bytes]:
        """Returns status, headers and body of a whole answer, which came as it is; `reply`
        would return it as well. Raises UpstreamFailed for one that is too large.
        """
        ...

    def head(self) -> UpstreamReply:
        """Returns the answer whose head is here. Its `chunks` yield what `take` did not."""
        ...

    @property
    def under_way(self) -> bool:
        """Tells whether more of the answer is awaited."""
        ...

    def peek(self) -> bytes:
        """Returns what of the body is here and was not taken yet."""
        ...

    def take(self) -> bytes:
        """Takes what `peek` returns. Raises UpstreamFailed, and takes nothing, for a body that
        is too large.
        """
        ...

    async def reply(self) -> UpstreamReply:
        """Waits for the answer's head, as `Transport.send` does. Raises UpstreamFailed."""
        ...

    def close(self) -> None:
        """Gives the connection back if the answer is whole, else closes it."""
        ...


def begin_call(transport: Transport, request: UpstreamRequest) -> BegunCall | None:
    """Sends a request without a task to wait in; None for a transport that cannot, or cannot
    now: `send` is for everything. Raises UpstreamFailed.
    """
    begin = begin_of(transport)
    return begin(request) if begin is not None else None


def begin_of(transport: Transport) -> Callable[[UpstreamRequest], BegunCall | None] | None:
    """Finds the transport's own `begin_call`; None for one that has none."""
    begin: Callable[[UpstreamRequest], BegunCall | None] | None
    begin = getattr(transport, "begin", None)
    return begin


async def settled_reply(
    transport: Transport, request: UpstreamRequest, reply: UpstreamReply
) -> UpstreamReply:
    """Returns the reply to a begun call, or to one more try where the transport knows how to
    mend what the provider refused. Raises UpstreamFailed.
    """
    settle: Callable[[UpstreamRequest, UpstreamReply], Awaitable[UpstreamReply]] | None
    settle = getattr(transport, "settled", None)
    return reply if settle is None else await settle(request, reply)


TransportFactory = Callable[[Provider], Transport]
