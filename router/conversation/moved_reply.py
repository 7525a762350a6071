"""A request's body as its target takes it (`MovedBody`), and the reply to it (`MovedReply`):
with the names of what was left out, and the answer rewritten where it must be, whole or line by
line.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final, NamedTuple

from router.upstream.reply_reading import WrappedReply
from router.upstream.transport import UpstreamReply

NO_NAMES: Final[Mapping[str, str]] = {}


class MovedBody(NamedTuple):
    """A body, ready to send. dropped: fields, as `x-swapgate-degraded` names them. tool_names:
    as the target knows them → as the client calls them.
    """

    body: bytes
    dropped: tuple[str, ...] = ()
    tool_names: Mapping[str, str] = NO_NAMES


# Writes a whole body, or one line of a stream.
Rewrite = Callable[[bytes], bytes]
_LENGTH: Final = b"content-length"


class MovedReply(WrappedReply):
    """A provider's reply, its body written anew by `rewrite`; None for one that stays. refused:
    pieces that the provider refused before.
    """

    def __init__(
        self,
        reply: UpstreamReply,
        dropped: Sequence[str],
        refused: Sequence[str],
        rewrite: Rewrite | None,
    ) -> None:
        super().__init__(reply)
        self.refused = tuple(refused)
        self.dropped = (*dropped, *reply.dropped)
        self._rewrite = rewrite
        self._streams = dict(reply.headers).get(b"content-type", b"").startswith(b"text/event")
        if rewrite is not None:
            self.headers = [header for header in reply.headers if header[0] != _LENGTH]

    async def body(self) -> bytes:
        raw = await self._reply.body()
        self.unended = self._reply.unended
        if self._rewrite is None:
            return raw
        return _by_lines(self._rewrite, raw) if self._streams else self._rewrite(raw)

    async def chunks(self) -> AsyncIterator[bytes]:
        if self._rewrite is not None and not self._streams:
            yield await self.body()
            return
        rest = b""
        async for chunk in self._reply.chunks():
            self.progress_events = self._reply.progress_events
            if self._rewrite is None:
                yield chunk
                continue
            whole, end, rest = (rest + chunk).rpartition(b"\n")
            yield _by_lines(self._rewrite, whole + end)
        if self._rewrite is not None and rest:
            yield self._rewrite(rest)


def _by_lines(rewrite: Rewrite, data: bytes) -> bytes:
    return b"\n".join([rewrite(line) for line in data.split(b"\n")])
