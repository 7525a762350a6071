"""Server-sent events: a provider's cut into their data, and ours written."""

from codecs import BOM_UTF8
from collections.abc import Iterator

from harness.domain.reliability.failures import FailureClass
from router.protocols.event_stream import EVENT_END, LONGEST_END, MAX_EVENT_BYTES, event_data
from router.request.body_patch import to_json
from router.upstream.transport import UpstreamFailed


class SsePayloads:
    """The data of each event, however the network cut the bytes."""

    def __init__(self) -> None:
        self._buffer = b""
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Raises UpstreamFailed (malformed) for an event that is too large."""
        looked = max(0, len(self._buffer) - LONGEST_END + 1)
        self._buffer += data
        if not self._begun:
            if len(self._buffer) < len(BOM_UTF8) and BOM_UTF8.startswith(self._buffer):
                return
            self._begun = True
            self._buffer = self._buffer.removeprefix(BOM_UTF8)
        start = 0
        for end in EVENT_END.finditer(self._buffer, looked):
            found = event_data(self._buffer[start : end.start()])
            start = end.end()
            if found is not None:
                yield found
        self._buffer = self._buffer[start:]
        if len(self._buffer) > MAX_EVENT_BYTES:
            raise UpstreamFailed(
                FailureClass.MALFORMED, f"an event larger than {MAX_EVENT_BYTES} bytes"
            )

    def rest(self) -> Iterator[bytes]:
        """The last event, where its end is the stream's."""
        if self._buffer.strip():
            yield from self.feed(b"\n\n")


def write_event(kind: str, data: dict[str, object]) -> bytes:
    """With its `type`, which both Anthropic's and OpenAI's events repeat."""
    return f"event: {kind}\ndata: {to_json({'type': kind, **data})}\n\n".encode()
