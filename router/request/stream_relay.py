"""Relays a stream after its first output, within its time limits. The stream keeps its target.

After the commit point, the text of two models must not mix. So a failure ends the stream
with an error event in the client's protocol. `upstream_call` reads up to the commit point.
`routed_response` writes the bytes that come from here. `router.protocols.event_stream`
reads the events.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Final

from harness.frame.failures import FailureClass
from harness.providers.answer_signs import NO_ORIGIN, read_origin
from router.frame.asgi import Send, WritePiece, refuse_piece
from router.frame.failure import UpstreamFailed
from router.frame.limits import TimeLimit, Timers
from router.frame.replies import EVENTS, Header, passed_on
from router.protocols.event_stream import StreamFilter
from router.recording.internal_errors import RouterPart
from router.upstream.reply_reading import LAST_EVENTS_S
from router.upstream.transport import UpstreamReply

# How long the provider may take to close a finished stream, so that the router can use its
# connection again.
LAST_BYTES_S: Final = 0.2
# The most bytes of a stream that the router holds back; a longer stream is relayed from there.
MOST_HELD_BYTES: Final = 16 * 1024 * 1024
OnEnd = Callable[[FailureClass | None], None]


def _ignore_chunk(_: bytes) -> bool:
    return True


class CommittedStream:
    """Relays a stream.

    failure: why the stream broke off; None while all is well.
    silent_since: when the client got its last bytes, on the event loop's clock; infinite
    while the client must still read some.
    between_s: the longest time without progress between two outputs, in seconds.
    deadline: the end of the request's time, on the event loop's clock.
    on_end: called once, at its close.
    hurried: the client set the deadline, so reaching it is not the provider's failure.
    last_output_at: when the client had its last output, on the event loop's clock.
    longest_gap_s: the longest time between two outputs. Comments and pings are no output.
    hide: removes our credentials from an error.
    judge_usage: returns the failure that the usage of a finished stream shows, if any.
    """

    def __init__(  # noqa: PLR0913 - all by name, except its inputs
        self,
        reply: UpstreamReply,
        events: StreamFilter,
        held: bytes,
        *,
        between_s: float,
        deadline: float,
        hurried: bool,
        timers: Timers,
        on_end: OnEnd,
        hide: Callable[[bytes], bytes],
        judge_usage: Callable[[StreamFilter], FailureClass | None],
    ) -> None:
        self.failure: FailureClass | None = None
        self.events = events
        self.dropped = reply.dropped
        self.refused = reply.refused
        self.opening_s = reply.opening_s
        self._reply = reply
        self._held = held
        self._between_s = between_s
        self._left_s = between_s  # the part of between_s that is left
        self._seen_progress = events.progress_events + reply.progress_events
        self.silent_since = math.inf
        self.last_output_at = math.inf
        self.longest_gap_s = 0.0
        self._has_output = True  # since `last_output_at`
        self._wait_began_s = 0.0
        self._next_due = math.inf  # when the next output is due
        self._write: WritePiece = refuse_piece
        self._deadline = deadline
        self._hurried = hurried
        self._is_clients_end = False
        self._break_reason = ""
        self._loop = timers.loop
        self._timers = timers
        self._on_end: OnEnd | None = on_end
        self._hide = hide
        self._judge_usage = judge_usage
        self._faults: list[tuple[RouterPart, Exception]] = []
        self._origin = NO_ORIGIN
        try:
            self._origin = read_origin(reply.headers)
        except Exception as error:
            # The caller gets the answer; the fault makes it "not measured".
            self._faults.append((RouterPart.STREAM, error))

    @property
    def headers(self) -> list[Header]:
        return passed_on(self._reply.headers)

    @property
    def model(self) -> str:
        """The provider's name for the model; empty in a gateway's fallback answer."""
        origin = self._origin
        return "" if origin.is_fallback else origin.model or self.events.model

    @property
    def is_fallback(self) -> bool:
        """Whether a gateway marks the answer as its fallback's."""
        return self._origin.is_fallback

    @property
    def faults(self) -> Iterator[tuple[RouterPart, Exception]]:
        """Faults of the router's own code in this stream, for `routed_response` to note."""
        yield from self._faults
        if self.events.signals_fault is not None:
            yield RouterPart.GUARDRAILS, self.events.signals_fault

    async def sent(  # noqa: C901 - each way a wait ends
        self, write: WritePiece = refuse_piece
    ) -> AsyncGenerator[bytes, None]:
        """Yields the client's bytes that `write` did not take. Raises no error of the provider.

        A failure becomes the last bytes: an event in the client's protocol that names it.
        The router reads the next chunk only after the server took the last one, so a slow
        client slows the provider, and memory stays bounded.
        """
        events = self.events
        self._write = write
        with self._timers.limit(math.inf) as limit:
            while True:
                if self._held:
                    piece = self._held
                    self._held = b""
                    self.silent_since = math.inf
                    yield self._hide(piece) if events.failure_class else piece
                if self.failure is not None:
                    return
                if events.finished:
                    self.failure = events.failure_class or self._judge_usage(events)
                    return
                if events.failure:
                    failure = events.failure_class or FailureClass.MALFORMED
                    self._break_off(failure, events.failure)
                    continue
                try:
                    self._begin_wait(limit)
                    if await self._reply.pass_on(partial(self._relay, limit)):
                        self._held = events.end()
                        self._note_progress()
                except asyncio.CancelledError:
                    if not limit.is_own_cancellation():
                        raise
                    self._time_out(is_total=self._next_due == self._deadline)
                except UpstreamFailed as error:
                    self._end_early(error.failure, error.detail)
                except Exception as error:
                    self._fail(error)
                finally:
                    limit.when = math.inf

    def _relay(self, limit: TimeLimit, chunk: bytes) -> bool:
        """Passes a chunk on to the client. Returns False if `sent` must do it, or ends."""
        events = self.events
        piece = self._held = events.feed(chunk)
        self._note_progress()
        if events.failure_class or events.finished or events.failure:
            return False
        if piece:
            if not self._write(piece):
                return False
            self._held = b""
            self.silent_since = math.inf
        self._begin_wait(limit)
        return True

    @property
    def is_clients_end(self) -> bool:
        """Whether the client's own deadline, or its slow reading, broke the stream off."""
        return self._is_clients_end

    @property
    def has_unread(self) -> bool:
        """Whether the client still has output to read."""
        return self._has_output

    @property
    def went_well(self) -> bool:
        """Whether the target's own model answered to the end, without a failure or a fault of
        the router.
        """
        events = self.events
        faults = self._faults or events.signals_fault
        return events.finished and not (self.failure or faults or self._origin.is_fallback)

    async def hold(self, until: float) -> None:
        """Reads the whole stream, up to MOST_HELD_BYTES. A route asks for this by `commit:
        whole`.

        Args:
            until: the end of the target's time, on the event loop's clock.

        Raises UpstreamFailed if the stream breaks off; it then does not call `on_end`, and
        another target may answer.
        """
        deadline = self._deadline
        self._deadline = min(until, self._deadline)
        pieces_held: list[bytes] = []
        size = 0
        try:
            async with aclosing(self.sent()) as pieces:
                async for piece in pieces:
                    pieces_held.append(piece)
                    size += len(piece)
                    if size > MOST_HELD_BYTES:
                        break
            if self.failure is not None:
                events = self.events
                reason = self._break_reason or events.failure or "the stream reports a failure"
                raise UpstreamFailed(self.failure, reason, body=events.refusal)  # noqa: TRY301
        except BaseException:
            self._on_end = None
            await self.aclose()
            raise
        self._held = b"".join(pieces_held)
        self._deadline = deadline

    async def aclose(self) -> None:
        """Settles the attempt, and closes the reply.

        Reads the last bytes of a finished stream for up to LAST_BYTES_S, so that its
        connection can serve again.
        """
        self._settle()
        if self.events.finished and self.failure is None:
            try:
                with self._timers.limit(self._loop.time() + LAST_BYTES_S):
                    await self._reply.pass_on(_ignore_chunk)
            except (TimeoutError, UpstreamFailed):
                pass
        await self._reply.aclose()

    def _settle(self) -> None:
        """Calls `on_end` once. A stream that the client left early ends as CANCELLED."""
        on_end = self._on_end
        self._on_end = None
        if on_end is not None:
            early_end = None if self.events.finished else FailureClass.CANCELLED
            try:
                on_end(
                    FailureClass.CANCELLED
                    if self._is_clients_end
                    else self.failure or early_end
                )
            except Exception as error:
                self._faults.append((RouterPart.RECORDING, error))

    def _begin_wait(self, limit: TimeLimit) -> None:
        """Sets the limit to the time when the next output is due."""
        now = self._wait_began_s = self._loop.time()
        if self.silent_since == math.inf:
            self.silent_since = now
        if self._has_output:
            gap_s = now - self.last_output_at
            if gap_s > self.longest_gap_s:  # noqa: PLR1730 - up to Python 3.11, max is a call
                self.longest_gap_s = gap_s
            self.last_output_at = now
            self._has_output = False
        if self.events.finish_reasons and self.events.ended:
            self._left_s = min(self._left_s, LAST_EVENTS_S)
        due = now + self._left_s
        limit.when = self._next_due = min(self._deadline, due)

    def _note_progress(self) -> None:
        """Notes whether the last chunk had progress. Only the provider's own time counts, and a
        ping does not restart it.
        """
        progress = self.events.progress_events + self._reply.progress_events
        if progress != self._seen_progress:
            self._seen_progress = progress
            self._left_s = self._between_s
            # Thinking that the client does not get is progress, and no output.
            self._has_output = bool(self._held)
        else:
            self._left_s -= self._loop.time() - self._wait_began_s

    def _time_out(self, *, is_total: bool) -> None:
        """Ends the stream at a limit. The client's own deadline is not the provider's
        failure, and neither is a client that read until the deadline.
        """
        is_clients = self._hurried or self._wait_began_s >= self._deadline
        self._is_clients_end = is_total and is_clients
        limit_name = "total time" if is_total else "time between chunks"
        self._end_early(FailureClass.TIMEOUT, f"{limit_name} is up")

    def _end_early(self, failure: FailureClass, detail: str) -> None:
        """Breaks the stream off, unless only the protocol's last event is missing."""
        if not self.events.ended:
            self._break_off(failure, detail)
            return
        try:
            self._held = self.events.end()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Breaks the stream off after a fault of the router's own reader."""
        self._faults.append((RouterPart.STREAM, error))
        self._break_off(FailureClass.INTERNAL, "the router failed")

    def _break_off(self, failure: FailureClass, detail: str) -> None:
        self.failure = failure
        self._break_reason = detail
        event = self.events.broken(f"the provider's stream broke off: {detail}", failure)
        self._held = self._hide(event)


# Not followed by an empty line, at which some readers would dispatch an empty event.
COMMENT: Final = b": keep-alive\n"


class Heartbeat:
    """Sends comments while a stream is silent, so that proxies and clients do not give up.

    If the answer's head is not sent yet, a comment begins the answer with status 200: a
    later failure becomes an event.

    interval_s: seconds of silence before a comment.
    since: when the silence began, on the event loop's clock.
    begun: the answer's head is sent.
    under_way: a comment that is being sent; wait for it before you send.
    """

    def __init__(
        self,
        send: Send,
        head: Sequence[Header],
        interval_s: float,
        *,
        since: float,
    ) -> None:
        self.begun = False
        self.under_way: asyncio.Task[None] | None = None
        self._send = send
        self._head = head
        self._interval_s = interval_s
        self._loop = asyncio.get_running_loop()
        self._last_comment_s = since
        self._stream: CommittedStream | None = None
        self._timer = self._loop.call_at(since + interval_s, self._send_if_silent)

    async def watch(self, stream: CommittedStream) -> bool:
        """Sends comments from now on while the stream is silent.

        Returns whether the answer's head is still to be sent.
        """
        if self.under_way is not None:
            await asyncio.wait({self.under_way})
        self._stream = stream
        needs_head = not self.begun
        self.begun = True
        return needs_head

    async def settle(self) -> None:
        """Ends the comments, and waits for the one that is being sent. No comment follows."""
        self._timer.cancel()
        if self.under_way is not None:
            await asyncio.wait({self.under_way})

    def cancel(self) -> None:
        """Ends the comments at once. Use it when the answer has ended or the client has
        left.
        """
        self._timer.cancel()
        if self.under_way is not None:
            self.under_way.cancel()

    def _send_if_silent(self) -> None:
        """Sends a comment if the silence is long enough, and sets the next time to look."""
        since = self._stream.silent_since if self._stream is not None else self._last_comment_s
        quiet_s = self._loop.time() - max(since, self._last_comment_s)
        left_s = self._interval_s
        if self.under_way is None and quiet_s >= left_s:
            self.under_way = self._loop.create_task(self._send_beat())
        elif 0.0 < quiet_s < left_s:
            left_s -= quiet_s
        self._timer = self._loop.call_later(left_s, self._send_if_silent)

    async def _send_beat(self) -> None:
        try:
            if not self.begun:
                self.begun = True
                headers = [*EVENTS, *self._head]
                await self._send(
                    {
                        "type": "http.response.start",
                        "status": 200,
                        "headers": headers,
                    }
                )
            await self._send(
                {
                    "type": "http.response.body",
                    "body": COMMENT,
                    "more_body": True,
                }
            )
        finally:
            self._last_comment_s = self._loop.time()
            self.under_way = None
