"""Plays each answer of a provider from a script, without a network."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from harness.frame.failures import FailureClass
from router.frame.failure import UpstreamFailed
from router.upstream.transport import (
    Transport,
    UpstreamReply,
    UpstreamRequest,
)


class ScriptedEvent(Enum):
    HANG = "nothing more comes, the connection stays open"
    RESET = "the connection breaks off"


@dataclass(frozen=True)
class ScriptedTurn:
    status: int = 200
    headers: Mapping[str, str] = field(
        default_factory=lambda: {"content-type": "application/json"}
    )
    steps: tuple[bytes | float | ScriptedEvent, ...] = ()
    refuse: bool = False  # nobody listens there
    hang: bool = False  # the connection is taken, and nothing comes


class ScriptedTransport(Transport):
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

    def play(self, turn: ScriptedTurn) -> "ScriptedReply":
        if turn.refuse:
            raise UpstreamFailed(FailureClass.CONNECT, "refused")
        if turn.steps[:1] == (ScriptedEvent.RESET,):
            raise UpstreamFailed(FailureClass.CONNECT, "reset before the first byte")
        self.open_replies += 1
        return ScriptedReply(turn, self)

    async def aclose(self) -> None: ...


class ScriptedReply(UpstreamReply):
    """A reply that plays its turn's steps."""

    def __init__(self, turn: ScriptedTurn, transport: ScriptedTransport) -> None:
        self.status = turn.status
        self.headers: Sequence[tuple[bytes, bytes]] = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in turn.headers.items()
        ]
        self.steps = deque(turn.steps)
        self._transport = transport
        self._closed = False

    async def body(self) -> bytes:
        return b"".join([piece async for piece in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        while self.steps:
            match self.steps.popleft():
                case bytes() as step:
                    yield step
                case ScriptedEvent.HANG:
                    await asyncio.Event().wait()
                case ScriptedEvent.RESET:
                    raise UpstreamFailed(FailureClass.CONNECT, "reset")
                case float() | int() as pause_s:
                    await asyncio.sleep(pause_s)

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._transport.open_replies -= 1
