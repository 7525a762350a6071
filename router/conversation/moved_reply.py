"""The reply to a conversation that was moved: with the names of what was left out, and the
answer rewritten where it must be, whole or line by line (`MovedReply`). Also a refusal whose
body was read.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from router.upstream.transport import (
    UpstreamReply,
    dropped_fields_of,
    hidden_progress,
    is_local,
    is_unended,
    opening_seconds,
)

Header = tuple[bytes, bytes]
# Writes a whole body, or one line of a stream.
Rewrite = Callable[[bytes], bytes]
_LENGTH: Final = b"content-length"


class ReadRefusal:
    """A refusal whose body was read."""

    def __init__(self, reply: UpstreamReply, body: bytes) -> None:
        self.status = reply.status
        self.local = is_local(reply)
        self.headers: Sequence[Header] = list(reply.headers)
        self._reply = reply
        self._body = body

    async def body(self) -> bytes:
        return self._body

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._body

    async def aclose(self) -> None:
        await self._reply.aclose()


class MovedReply:
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
        self.refused = tuple(refused)
        self.dropped = (*dropped, *dropped_fields_of(reply))
        self.opening_s = opening_seconds(reply)
        self._reply = reply
        self._rewrite = rewrite
        self._streams = dict(reply.headers).get(b"content-type", b"").startswith(b"text/event")

    @property
    def status(self) -> int:
        return self._reply.status

    @property
    def headers(self) -> Sequence[Header]:
        """The provider's, but for the length of a body that is rewritten."""
        headers = self._reply.headers
        if self._rewrite is None:
            return headers
        return [header for header in headers if header[0] != _LENGTH]

    @property
    def progress_events(self) -> int:
        return hidden_progress(self._reply)

    @property
    def local(self) -> bool:
        return is_local(self._reply)

    @property
    def unended(self) -> bool:
        return is_unended(self._reply)

    async def body(self) -> bytes:
        raw = await self._reply.body()
        if self._rewrite is None:
            return raw
        return _by_lines(self._rewrite, raw) if self._streams else self._rewrite(raw)

    async def chunks(self) -> AsyncIterator[bytes]:
        if self._rewrite is not None and not self._streams:
            yield await self.body()
            return
        rest = b""
        async for chunk in self._reply.chunks():
            if self._rewrite is None:
                yield chunk
                continue
            whole, end, rest = (rest + chunk).rpartition(b"\n")
            yield _by_lines(self._rewrite, whole + end)
        if self._rewrite is not None and rest:
            yield self._rewrite(rest)

    async def aclose(self) -> None:
        await self._reply.aclose()


def _by_lines(rewrite: Rewrite, data: bytes) -> bytes:
    return b"\n".join([rewrite(line) for line in data.split(b"\n")])
