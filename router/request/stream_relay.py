"""A committed stream (`CommittedStream`) is one whose first output came: it is relayed to its
end or to an error event, within the limits for its pauses and whole time, and never to another
target. `hold` takes it in whole before anything is sent.
"""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Iterator,
    Sequence,
)
from contextlib import aclosing
from typing import Final

from harness.domain.reliability.failures import FailureClass
from router.protocols.answer_signals import AnswerSignals
from router.protocols.event_stream import StreamFilter
from router.protocols.usage import TokenUsage
from router.server.headers import Header, passed_on
from router.server.internal_errors import RouterPart
from router.server.timers import Timers
from router.upstream.failure import UpstreamFailed
from router.upstream.reply_reading import LAST_EVENTS_S
from router.upstream.transport import UpstreamReply, dropped_fields_of, hidden_progress

# How long a finished stream may take to close, so that its connection can be used again.
LAST_BYTES_S: Final = 0.2
# Of a stream that is held back until it is complete; what is longer is sent on from there.
MOST_HELD_BYTES: Final = 16 * 1024 * 1024
OnEnd = Callable[[FailureClass | None], None]


class CommittedStream:
    """Relays a stream whose first output came. failure: why it broke off, None while it did
    not. on_end: called once, when it closes. hurried: the client set the deadline, and passing
    it is no failure of the provider's. hide: takes our credentials out of an error.
    """

    def __init__(  # noqa: PLR0913 - all by name but what it reads
        self,
        reply: UpstreamReply,
        chunks: AsyncIterator[bytes],
        events: StreamFilter,
        held: bytes,
        *,
        between_s: float,
        deadline: float,
        hurried: bool,
        timers: Timers,
        on_end: OnEnd,
        hide: Callable[[bytes], bytes],
    ) -> None:
        self.failure: FailureClass | None = None
        self._reply = reply
        self._chunks = chunks
        self._events = events
        self._held = held
        self._between_s = between_s
        self._left_s = between_s  # of it, until the answer has to go on
        self._moved = -1
        self._deadline = deadline
        self._hurried = hurried
        self._blameless = False
        self._why = ""
        self._loop = timers.loop
        self._limit = timers.limit(deadline)
        self._on_end: OnEnd | None = on_end
        self._hide = hide
        self._faults: list[tuple[RouterPart, Exception]] = []

    @property
    def headers(self) -> list[Header]:
        return passed_on(self._reply.headers)

    @property
    def dropped(self) -> tuple[str, ...]:
        return dropped_fields_of(self._reply)

    @property
    def finish_reasons(self) -> Sequence[str]:
        return self._events.finish_reasons

    @property
    def irregularities(self) -> Collection[str]:
        return self._events.irregularities

    @property
    def model(self) -> str:
        """Names the model as the provider did; empty if it did not."""
        return self._events.model

    @property
    def signals(self) -> AnswerSignals | None:
        return self._events.signals

    @property
    def usage(self) -> TokenUsage:
        return self._events.used()

    @property
    def faults(self) -> Iterator[tuple[RouterPart, Exception]]:
        """Yields the faults of our own, with the part where each was."""
        yield from self._faults
        if self._events.signals_fault is not None:
            yield RouterPart.GUARDRAILS, self._events.signals_fault

    async def sent(self) -> AsyncGenerator[bytes, None]:
        """What the client gets, piece by piece. Raises nothing of the upstream's."""
        events = self._events
        out = self._held
        while True:
            if out:
                yield self._hide(out) if events.failure_class else out
            if events.finished:
                self.failure = events.failure_class
                return
            if events.failure:
                failure = events.failure_class or FailureClass.MALFORMED
                yield self._broken(failure, events.failure)
                return
            try:
                chunk = await self._next()
            except UpstreamFailed as error:
                if not events.ended:
                    yield self._broken(error.failure, error.detail)
                    return
                chunk = None  # everything was said but for the protocol's last word
            except Exception as error:
                yield self._failed(error)
                return
            try:
                out = events.end() if chunk is None else events.feed(chunk)
            except Exception as error:
                yield self._failed(error)
                return

    async def hold(self, until: float) -> None:
        """Takes a stream in to its end before anything of it is sent, or up to MOST_HELD_BYTES.

        until: on the event loop's clock. Closes it and raises UpstreamFailed where it breaks
        off before that; `on_end` is then not called.
        """
        deadline, self._deadline = self._deadline, min(until, self._deadline)
        held: list[bytes] = []
        size = 0
        try:
            async with aclosing(self.sent()) as pieces:
                async for piece in pieces:
                    held.append(piece)
                    size += len(piece)
                    if size > MOST_HELD_BYTES:
                        break
            if self.failure is not None:
                events = self._events
                why = self._why or events.failure or "the stream says that it failed"
                raise UpstreamFailed(self.failure, why, body=events.refusal)  # noqa: TRY301
        except BaseException:
            self._on_end = None
            await self.aclose()
            raise
        self._held, self._deadline = b"".join(held), deadline

    async def aclose(self) -> None:
        """Ends the upstream's work if it is not done."""
        told, self._on_end = self._on_end, None
        if told is not None:
            left = None if self._events.finished else FailureClass.CANCELLED
            try:
                told(FailureClass.CANCELLED if self._blameless else self.failure or left)
            except Exception as error:
                self._faults.append((RouterPart.RECORDING, error))
        if self._events.finished and self.failure is None:
            try:
                async with asyncio.timeout(LAST_BYTES_S):
                    async for _ in self._chunks:
                        pass
            except (TimeoutError, UpstreamFailed):
                pass
        await self._reply.aclose()

    async def _next(self) -> bytes | None:
        """None at the end. Only waiting for the upstream counts, not a slow client.

        What does not bring the answer on, such as a ping, gives it no new time.
        """
        moved = self._events.progress_events + hidden_progress(self._reply)
        if moved != self._moved:
            self._moved = moved
            self._left_s = self._between_s
        now = self._loop.time()
        if self._events.ended:
            self._left_s = min(self._left_s, LAST_EVENTS_S)
        limit = min(now + self._left_s, self._deadline)
        try:
            self._limit.when = limit
            with self._limit:
                chunk = await anext(self._chunks, None)
        except TimeoutError:
            whole = limit == self._deadline
            self._blameless = whole and self._hurried
            what = "total time" if whole else "time between chunks"
            raise UpstreamFailed(FailureClass.TIMEOUT, f"{what} is up") from None
        self._left_s -= self._loop.time() - now
        return chunk

    def _failed(self, error: Exception) -> bytes:
        """What reads this answer failed: nobody knows what it would have said."""
        self._faults.append((RouterPart.STREAM, error))
        return self._broken(FailureClass.INTERNAL, "the router failed")

    def _broken(self, failure: FailureClass, detail: str) -> bytes:
        self.failure, self._why = failure, detail
        said = self._events.broken(f"the provider's stream broke off: {detail}", failure)
        return self._hide(said)
