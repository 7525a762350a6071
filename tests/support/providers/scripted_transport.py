"""The scripted transport stands in for providers in tests: it plays each answer from a script
(status, bytes, pauses, resets), without a network.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from harness.domain.reliability.failures import FailureClass
from router.upstream.failure import UpstreamFailed
from router.upstream.transport import CallState, UpstreamReply, UpstreamRequest


class ScriptedEvent(Enum):
    HANG = "nothing more comes, the connection stays open"
    RESET = "the connection breaks off"


@dataclass(frozen=True)
class ScriptedTurn:
    """One answer: its head, then steps: bytes, a pause in seconds, or a ScriptedEvent."""

    status: int = 200
    headers: Mapping[str, str] = field(
        default_factory=lambda: {"content-type": "application/json"}
    )
    steps: tuple[bytes | float | ScriptedEvent, ...] = ()
    refuse: bool = False  # nobody listens there
    hang: bool = False  # the connection is taken, and nothing comes


class ScriptedTransport:
    """Asks `script` for the turn of every request; keeps the requests in `seen`."""

    def __init__(self, script: Callable[[UpstreamRequest], ScriptedTurn]) -> None:
        self.seen: list[UpstreamRequest] = []
        self.open_replies = 0
        self._script = script

    async def send(self, request: UpstreamRequest) -> "ScriptedReply":
        self.seen.append(request)
        turn = self._script(request)
        if turn.hang:
            await asyncio.Event().wait()
        return self.play(turn)

    def begin(self, request: UpstreamRequest) -> "ScriptedCall | None":
        if request.fresh:
            return None
        self.seen.append(request)
        return ScriptedCall(self._script(request), self)

    def play(self, turn: ScriptedTurn) -> "ScriptedReply":
        if turn.refuse:
            raise UpstreamFailed(FailureClass.CONNECT, "refused")
        if turn.steps[:1] == (ScriptedEvent.RESET,):
            raise UpstreamFailed(FailureClass.CONNECT, "reset before the first byte")
        self.open_replies += 1
        return ScriptedReply(turn, self)

    async def aclose(self) -> None: ...


class ScriptedCall:
    """Implements BegunCall: an answer of bytes alone comes whole, any other not."""

    def __init__(self, turn: ScriptedTurn, transport: ScriptedTransport) -> None:
        self._turn = turn
        self._transport = transport
        self._on_news: Callable[[], None] | None = None
        self._came = False

    def listen(self, on_news: Callable[[], None] | None) -> None:
        self._on_news = on_news
        if on_news is not None:
            asyncio.get_running_loop().call_soon(self._come)

    def _come(self) -> None:
        self._came = not self._turn.hang
        if self._on_news is not None:
            self._on_news()

    @property
    def state(self) -> CallState:
        turn = self._turn
        if not self._came:
            return CallState.WAITING
        names = {name.lower() for name in turn.headers}
        plain = all(isinstance(step, bytes) for step in turn.steps)
        plain = plain and 200 <= turn.status < 300 and "content-encoding" not in names
        return CallState.WHOLE if plain and not turn.refuse else CallState.UNUSUAL

    def whole(self) -> tuple[UpstreamReply, bytes]:
        steps = [step for step in self._turn.steps if isinstance(step, bytes)]
        return ScriptedReply(self._turn, self._transport), b"".join(steps)

    async def reply(self) -> "ScriptedReply":
        if self._turn.hang:
            await asyncio.Event().wait()
        return self._transport.play(self._turn)

    def close(self) -> None:
        self._on_news = None


class ScriptedReply:
    def __init__(self, turn: ScriptedTurn, transport: ScriptedTransport) -> None:
        self.status = turn.status
        self.headers: Sequence[tuple[bytes, bytes]] = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in turn.headers.items()
        ]
        self._turn = turn
        self._transport = transport
        self._closed = False

    async def body(self) -> bytes:
        return b"".join([piece async for piece in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        for step in self._turn.steps:
            match step:
                case bytes():
                    yield step
                case ScriptedEvent.HANG:
                    await asyncio.Event().wait()
                case ScriptedEvent.RESET:
                    raise UpstreamFailed(FailureClass.CONNECT, "reset")
                case _:
                    await asyncio.sleep(step)

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._transport.open_replies -= 1
