"""Plays each answer of a provider from a script, without a network."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from harness.frame.failures import FailureClass
from router.frame.failure import UpstreamFailed
from router.upstream.transport import CallState, Transport, UpstreamReply, UpstreamRequest


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
    """Implements BegunCall: a stream comes step by step, another answer of bytes alone whole,
    and any other not.
    """

    def __init__(self, turn: ScriptedTurn, transport: ScriptedTransport) -> None:
        self._turn = turn
        self._transport = transport
        self._on_news: Callable[[], None] | None = None
        self._came = False
        self._awaited = False
        self._pauses = False
        self._head: ScriptedReply | None = None  # of a stream

    def listen(self, on_news: Callable[[], None] | None) -> None:
        self._on_news = on_news
        if on_news is not None and not self._awaited:
            self._come_in(0)

    def _come_in(self, wait_s: float) -> None:
        self._awaited = True
        asyncio.get_running_loop().call_later(wait_s, self._come)

    def _come(self) -> None:
        self._awaited = False
        if self._on_news is None:
            return
        turn = self._turn
        self._came = not turn.hang
        streams = turn.headers.get("content-type", "").startswith("text/event-stream")
        if self._came and streams and self._is_good:
            self._take_step(self.head())
        self._on_news()

    def _take_step(self, reply: "ScriptedReply") -> None:
        """The next step happens; those behind it wait for their turn."""
        if self._pauses:
            self._pauses = False
            reply.steps.popleft()
        step = reply.steps[0] if reply.steps else None
        if isinstance(step, bytes):
            reply.here += step
            reply.steps.popleft()
            self._come_in(0)
        elif isinstance(step, float):
            self._pauses = True  # a task that takes over meanwhile waits for it once more
            self._come_in(step)

    @property
    def _is_good(self) -> bool:
        turn = self._turn
        named = {name.lower() for name in turn.headers}
        is_reset = turn.steps[:1] == (ScriptedEvent.RESET,)
        good = 200 <= turn.status < 300 and "content-encoding" not in named
        return good and not (turn.refuse or is_reset)

    @property
    def under_way(self) -> bool:
        steps = self.head().steps
        return bool(steps) and steps[0] is not ScriptedEvent.RESET

    @property
    def state(self) -> CallState:
        if not self._came:
            return CallState.WAITING
        if not self._is_good:
            return CallState.UNUSUAL
        if self._head is not None:
            if self.under_way:
                return CallState.BEGUN
            return CallState.UNUSUAL if self._head.steps else CallState.WHOLE
        whole = all(isinstance(step, bytes) for step in self._turn.steps)
        return CallState.WHOLE if whole else CallState.UNUSUAL

    def head(self) -> "ScriptedReply":
        if self._head is None:
            self._head = self._transport.play(self._turn)
        return self._head

    def peek(self) -> bytes:
        return self.head().here

    def take(self) -> bytes:
        reply = self.head()
        taken, reply.here = reply.here, b""
        return taken

    def whole(self) -> tuple[int, Sequence[tuple[bytes, bytes]], bytes]:
        steps = [step for step in self._turn.steps if isinstance(step, bytes)]
        reply = ScriptedReply(self._turn, self._transport)
        return reply.status, reply.headers, b"".join(steps)

    async def reply(self) -> "ScriptedReply":
        if self._turn.hang:
            await asyncio.Event().wait()
        return self.head()

    def close(self) -> None:
        self._on_news = None
        if self._head is not None:
            self._head.close()


class ScriptedReply(UpstreamReply):
    """A reply that plays its turn's steps. here: of the body, what came and was not read."""

    def __init__(self, turn: ScriptedTurn, transport: ScriptedTransport) -> None:
        self.status = turn.status
        self.headers: Sequence[tuple[bytes, bytes]] = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in turn.headers.items()
        ]
        self.steps = deque(turn.steps)
        self.here = b""
        self._transport = transport
        self._closed = False

    async def body(self) -> bytes:
        return b"".join([piece async for piece in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        while self.here or self.steps:
            if self.here:
                piece, self.here = self.here, b""
                yield piece
                continue
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
