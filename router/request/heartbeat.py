"""The heartbeat sends comments in a client's stream while it waits for events, so that no proxy
hangs up.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from router.frame.asgi import Message, Send
from router.frame.replies import EVENTS, Header

# Without an empty line, at which some readers dispatch what they have, be it nothing.
COMMENT: Final = b": keep-alive\n"


class Heartbeat:
    """Sends between the events of one stream, and before its first output, too.

    A beat that comes before the answer's head begins the answer: then it is a 200, and what
    fails later is sent as an event. `send` is to be used for everything that the client gets.

    since: of the silence, on the event loop's clock. begun: the head was sent before.
    """

    def __init__(
        self,
        send: Send,
        head: Sequence[Header],
        interval_s: float,
        *,
        since: float,
        begun: bool = False,
    ) -> None:
        self.begun = begun
        self._send = send
        self._head = head
        self._interval_s = interval_s
        self._loop = asyncio.get_running_loop()
        self._last = since
        self._sending = False
        self._beat: asyncio.Task[None] | None = None
        self._timer = self._loop.call_at(since + interval_s, self._due)

    async def send(self, message: Message) -> None:
        """Sends an ASGI message; a head after a beat that began the answer is left out."""
        if self._beat is not None:
            await asyncio.wait({self._beat})
        if message["type"] == "http.response.start":
            if self.begun:
                return
            self.begun = True
        self._sending = True
        try:
            await self._send(message)
        finally:
            self._sending = False
            self._last = self._loop.time()

    async def settle(self) -> None:
        """Stops the beats: none begins from now on, and one that has begun is whole."""
        self._timer.cancel()
        if self._beat is not None:
            await asyncio.wait({self._beat})

    def cancel(self) -> None:
        """Cancels, at the end of all, a beat that is still under way."""
        self._timer.cancel()
        if self._beat is not None:
            self._beat.cancel()

    def _due(self) -> None:
        quiet_s = self._loop.time() - self._last
        # A client that is slow to read needs no proof that we live.
        if self._sending or self._beat is not None or quiet_s < self._interval_s:
            left_s = max(0.0, self._interval_s - quiet_s) or self._interval_s
            self._timer = self._loop.call_later(left_s, self._due)
            return
        self._beat = self._loop.create_task(self._send_beat())
        self._timer = self._loop.call_later(self._interval_s, self._due)

    async def _send_beat(self) -> None:
        try:
            if not self.begun:
                self.begun = True
                headers = [*EVENTS, *self._head]
                await self._send(
                    {"type": "http.response.start", "status": 200, "headers": headers}
                )
            await self._send({"type": "http.response.body", "body": COMMENT, "more_body": True})
        finally:
            self._last = self._loop.time()
            self._beat = None
