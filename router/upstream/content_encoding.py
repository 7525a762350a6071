"""Undo a provider's content encoding, bounded: a gzip bomb never unfolds in memory."""

import zlib
from collections.abc import Iterator

from harness.domain.reliability.failures import FailureClass
from router.upstream.transport import UpstreamFailed

PIECE_BYTES = 64 * 1024
# zlib reads the header and takes gzip or zlib.
EITHER_HEADER = 32 + zlib.MAX_WBITS


class BoundedInflater:
    """Decodes gzip and deflate, in pieces of at most PIECE_BYTES."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(EITHER_HEADER)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Raises UpstreamFailed (malformed) for what is not compressed as it says."""
        while data:
            try:
                piece = self._zlib.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise UpstreamFailed(
                    FailureClass.MALFORMED, f"bad content encoding: {error}"
                ) from None
            if piece:
                yield piece
            if not piece and not self._zlib.unconsumed_tail:
                return
            data = self._zlib.unconsumed_tail


def inflater_for(encoding: str) -> BoundedInflater | None:
    """None for no encoding. Raises UpstreamFailed for one that we did not ask for."""
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip" | "deflate":
            return BoundedInflater()
        case other:
            raise UpstreamFailed(
                FailureClass.MALFORMED, f"content encoding {other[:40]!r} was not asked for"
            )
