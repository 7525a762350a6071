"""Sends a stream on by callbacks, while all is well; a task goes on with what is left."""

from collections.abc import Callable, Iterable
from typing import Protocol

from router.frame.failure import UpstreamFailed
from router.frame.replies import Header
from router.frame.timers import Timers
from router.request.routed_response import RoutedResponse
from router.request.stream_relay import LAST_BYTES_S, CommittedStream
from router.upstream.transport import BegunCall


class StreamCycle(Protocol):
    """One request and its streamed answer, on its connection."""

    @property
    def full(self) -> bool:
        """Tells whether the client has enough to read."""
        ...

    def begin_events(self, headers: Iterable[Header]) -> None:
        """Begins an answer of events. Raises RuntimeError for malformed headers."""
        ...

    def write(self, data: bytes, *, more: bool) -> None:
        """Sends a piece of it, the last one without `more`."""
        ...


class DirectStream:
    """Relays one committed stream. Implements Timer: when its next piece must have come.

    hand_over: has a task go on, and ends this. finish: sends the last piece, and records the
    request.
    """

    __slots__ = (
        "_call",
        "_cycle",
        "_ending",
        "_finish",
        "_hand_over",
        "_response",
        "_stream",
        "_timers",
        "when",
    )

    def __init__(
        self,
        stream: CommittedStream,
        call: BegunCall,
        response: RoutedResponse,
        cycle: StreamCycle,
        *,
        timers: Timers,
        hand_over: Callable[[], None],
        finish: Callable[[bytes], None],
    ) -> None:
        self.when = 0.0
        self._stream = stream
        self._call = call
        self._response = response
        self._cycle = cycle
        self._timers = timers
        self._hand_over = hand_over
        self._finish = finish
        self._ending = False

    def start(self) -> None:
        self._timers.add(self)
        self._call.listen(self._on_news)
        try:
            self._cycle.begin_events(self._response.stream_headers(self._stream))
        except Exception:  # noqa: BLE001 - met again by the task
            self._leave()
            return
        self._response.head_sent = True
        self._send(self._stream.take_held() if self._stream.is_well else None)

    def due(self) -> None:
        if self._ending:
            self._close()
            return
        self._stream.end_wait()
        self._leave()

    def abandon(self) -> None:
        self._timers.discard(self)
        self._stream.settle()
        self._call.close()

    def _on_news(self) -> None:
        if self._ending:
            self._end_call()
            return
        try:
            self._send(self._stream.advance(self._call.take()))
        except UpstreamFailed:
            self._stream.end_wait()
            self._leave()
        except Exception as error:  # noqa: BLE001 - noted with the stream
            self._stream.fail(error)
            self._leave()

    def _send(self, piece: bytes | None) -> None:
        stream, cycle = self._stream, self._cycle
        if piece is None:
            self._leave()
            return
        if stream.events.finished:
            self._end(piece)
            return
        response = self._response
        when = stream.begin_wait()
        if piece:
            cycle.write(piece, more=True)
            if response.copies:
                response.copy(piece)
            response.sent_at = stream.waits_since
        if cycle.full or not self._call.under_way:
            self._leave()
            return
        if response.heartbeat_s:
            # What a silent stream needs is for the task.
            when = min(when, response.sent_at + response.heartbeat_s)
        self.when = when

    def _end(self, last: bytes) -> None:
        if last and self._response.copies:
            self._response.copy(last)
        self._response.end_stream(self._timers.loop)
        self._ending = True
        self.when = self._timers.loop.time() + LAST_BYTES_S
        self._stream.settle()
        self._finish(last)
        self._end_call()

    def _end_call(self) -> None:
        """Waits for the provider's last bytes, so that its connection can be used again."""
        try:
            self._call.take()
        except UpstreamFailed:
            self._close()
            return
        if not self._call.under_way:
            self._close()

    def _close(self) -> None:
        self._timers.discard(self)
        self._call.close()

    def _leave(self) -> None:
        self._timers.discard(self)
        self._call.listen(None)
        self._hand_over()
