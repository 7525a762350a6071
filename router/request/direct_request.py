"""Serves a request that came whole, and its stream, by callbacks: no task, no coroutine.

What is unusual leaves it for a task: before the first byte goes to a provider, or with the
attempt that is under way.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from router.access.front_door import FrontDoor
from router.frame.asgi import BODY, App, Message, Receive, Scope, Send, send_reply
from router.frame.failure import UpstreamFailed
from router.frame.replies import Header, Reply
from router.frame.timers import Timers
from router.request.model_endpoint import ModelEndpoint
from router.request.routed_response import RoutedResponse
from router.request.stream_relay import LAST_BYTES_S, CommittedStream
from router.request.upstream_call import BegunStream, FirstAttempt
from router.upstream.transport import UNUSUAL, WAITING, WHOLE, BegunCall


class DirectCycle(Protocol):
    """One request and its answer, on its connection. `begin_events` and `answer` raise
    RuntimeError for malformed headers.
    """

    begun: bool

    @property
    def full(self) -> bool: ...

    def begin_events(self, headers: Iterable[Header]) -> None: ...

    def write(self, data: bytes, *, more: bool) -> None: ...

    def on_leaving(self, call: Callable[[], None] | None) -> None:
        """Has a function called once when the client leaves, or now if it has left."""
        ...

    def answer(self, reply: Reply, headers: Iterable[Header]) -> None: ...

    def resume(self, app: App) -> None: ...


class DirectStream:
    """Relays one committed stream. Implements Timer: when its next piece must have come.
    hand_over: has a task go on. finish: sends the last piece, and records the request.
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
        cycle: DirectCycle,
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
        except Exception:
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
        except Exception as error:
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


class DirectRequest:
    """One request from its head to the end of its answer. Implements Timer: an attempt's time
    limit. response, first: how far it came, for the task that goes on.
    """

    __slots__ = (
        "_begun_at",
        "_call",
        "_cycle",
        "_door",
        "_endpoint",
        "_scope",
        "_stream",
        "_until",
        "first",
        "id",
        "response",
        "when",
    )

    def __init__(
        self,
        door: FrontDoor,
        endpoint: ModelEndpoint,
        cycle: DirectCycle,
        scope: Scope,
        id_: Header,
    ) -> None:
        self.id = id_
        self.when = 0.0
        self.first: FirstAttempt | None = None
        self._begun_at: float | None = None  # when the answer's head came
        self._stream: BegunStream | DirectStream | None = None
        self._door = door
        self._endpoint = endpoint
        self._cycle = cycle
        self._scope = scope

    def start(self) -> None:
        refusal = self._admit()
        if refusal is None:
            self._ask()
        else:
            told = self._door.client_reply(self._scope, self.id, refusal)
            self._cycle.answer(told, (self.id,))

    def due(self) -> None:
        self._leave_open()

    def _admit(self) -> Reply | None:
        door = self._door
        try:
            caller = door.identify(self._scope)
            if isinstance(caller, Reply):
                return caller
            if refusal := door.enter():
                return refusal
        except Exception as error:
            return door.note_failure(self.id, error)
        grant, serving = caller
        try:
            prepared = self._endpoint.prepare(
                self._scope,
                body=self._scope[BODY],
                grant=grant,
                serving=serving,
                request_id=self.id,
            )
        except Exception as error:
            door.leave()
            return door.note_failure(self.id, error)
        if isinstance(prepared, Reply):
            door.leave()
            return prepared
        self.response = prepared
        return None

    def _ask(self) -> None:
        dispatcher, response = self._endpoint.dispatcher, self.response
        try:
            self.first = dispatcher.begin(response.job)
        except Exception:
            self.first = None
        first = self.first
        if first is None or first.call is None:
            self._cycle.resume(self._go_on)
            return
        self._call: BegunCall = first.call
        self._until = first.made.until
        self.when = min(first.made.until, first.started + first.first_s)
        if response.heartbeat_s:
            # What a silent stream needs is for the task.
            self.when = min(self.when, response.sent_at + response.heartbeat_s)
        dispatcher.timers.add(self)
        self._call.listen(self._on_call)
        self._cycle.on_leaving(self._left)

    def _on_call(self) -> None:
        state = self._call.state
        if state is WAITING:
            return
        if state is UNUSUAL:
            self._leave_open()
            return
        if self.response.job.request.stream:
            self._read_stream()
            return
        if self._begun_at is None:
            # From here on, the answer has the rest of the attempt's time.
            self._begun_at = self._endpoint.dispatcher.timers.loop.time()
            self.when = self._until
        if state is WHOLE:
            self._finish()

    def _read_stream(self) -> None:
        dispatcher, first = self._endpoint.dispatcher, self._begun_attempt()
        response = self.response
        begun = self._stream
        if begun is None:
            begun = self._stream = dispatcher.begin_stream(response.job, first)
        if not isinstance(begun, BegunStream):
            self._leave_open()
            return
        try:
            stream = begun.read()
        except Exception:
            self._leave_open()
            return
        if stream is None:
            return
        dispatcher.timers.discard(self)
        dispatcher.enter_stream(response.job, first, stream, response.progress)
        self._stream = DirectStream(
            stream,
            self._call,
            response,
            self._cycle,
            timers=dispatcher.timers,
            hand_over=self._hand_over,
            finish=self._finish_stream,
        )
        self._stream.start()

    def _hand_over(self) -> None:
        self._stream = None  # they know each other, and would wait to be collected
        self._cycle.on_leaving(None)
        self._cycle.resume(self._go_on)

    def _finish_stream(self, last: bytes) -> None:
        self._stream = None
        self._cycle.on_leaving(None)
        self._cycle.write(last, more=False)
        self._endpoint.finish(self.response)
        self._door.leave()

    def _finish(self) -> None:
        response = self.response
        dispatcher = self._endpoint.dispatcher
        first, begun_at = self.first, self._begun_at
        if first is None or not dispatcher.enter_answer(
            response.job, first, response.progress, begun_at
        ):
            self._leave_open()
            return
        dispatcher.timers.discard(self)
        fault: Exception | None = None
        try:
            self._cycle.answer(*response.whole())
        except Exception as error:
            fault = error
        self._endpoint.finish(self.response)
        self._door.leave()
        if fault is not None:
            told = self._door.note_failure(self.id, fault)
            if not self._cycle.begun:
                told = self._door.client_reply(self._scope, self.id, told)
                self._cycle.answer(told, (self.id,))

    def _left(self) -> None:
        self._release()
        stream, self._stream = self._stream, None
        if isinstance(stream, DirectStream):
            stream.abandon()
        else:
            job = self.response.job
            self._endpoint.dispatcher.cancel(job, self._begun_attempt())
        self._endpoint.note_leaving(self.response)
        self._endpoint.finish(self.response)
        self._door.leave()

    def _leave_open(self) -> None:
        self.first = self._begun_attempt()
        self._release()
        self._call.listen(None)
        self._cycle.resume(self._go_on)

    async def _go_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = self.response.head_sent
        failed: Reply | None = None

        def noting_send(message: Message) -> Awaitable[None]:
            nonlocal begun
            begun = True
            return send(message)

        try:
            try:
                await self._endpoint.serve(self.response, receive, noting_send, self.first)
            finally:
                self._door.leave()
        except Exception as error:
            failed = self._door.note_failure(self.id, error)
            if begun:
                raise
        if failed is not None:
            told = self._door.client_reply(scope, self.id, failed)
            await send_reply(send, told, (self.id,))

    def _begun_attempt(self) -> FirstAttempt:
        if self.first is None:
            raise RuntimeError("no attempt was begun")
        self.first.begun_at = self._begun_at
        return self.first

    def _release(self) -> None:
        self._endpoint.dispatcher.timers.discard(self)
        self._cycle.on_leaving(None)
