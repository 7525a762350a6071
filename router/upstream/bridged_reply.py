"""Translates the answer of a provider that speaks only chat, whole or streamed.

Apart from the bridge, since mypyc compiles no asynchronous generator.
"""

from collections.abc import AsyncIterator

from harness.domain.errors import InputError
from harness.domain.reliability.failures import FailureClass
from router.protocols.chat.dialect import CHAT
from router.protocols.endpoint_translation import TranslatedRequest
from router.protocols.event_stream import Irregularity
from router.request.json_spans import parse_object
from router.upstream.failure import UpstreamFailed
from router.upstream.reply_reading import WrappedReply, chunks_until_end
from router.upstream.transport import UpstreamReply


class BridgedReply(WrappedReply):
    """The chat's answer in the client's protocol; status and headers are the provider's."""

    def __init__(
        self, reply: UpstreamReply, request: TranslatedRequest, *, stream: bool
    ) -> None:
        super().__init__(reply)
        self.dropped = tuple(dict.fromkeys((*request.dropped, *reply.dropped)))
        self._said = request
        self._stream = stream

    async def body(self) -> bytes:
        if self._stream:
            return b"".join([piece async for piece in self.chunks()])
        try:
            members = parse_object(await self._reply.body())
        except InputError as error:
            why = f"answer is not valid: {error}"
            raise UpstreamFailed(FailureClass.MALFORMED, why) from None
        answer = self._said.whole(members)
        self.unended = CHAT.irregularity(members) is Irregularity.NO_FINISH_REASON
        return answer

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields a stream's pieces, one for each of the provider's, if only an empty one: the
        stream lives.
        """
        if not self._stream:
            yield await self.body()
            return
        events = self._said.events()
        async for chunk in chunks_until_end(self._reply.chunks(), lambda: events.ended):
            piece = events.feed(chunk)
            self.progress_events = events.progress_events
            yield piece
            if events.failure is not None:
                raise events.failure
        yield events.end()
        if events.failure is not None:
            raise events.failure
