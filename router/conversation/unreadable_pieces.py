"""Unreadable pieces are those that a target refused, and whose maker is not known: they stay
behind at once when the conversation comes again. For one event loop; no I/O.
"""

import re
from typing import Final

from router.conversation.refusals import without_piece
from router.protocols.provider_failures import Piece
from router.recording.bounded_map import BoundedMap
from router.upstream.transport import UpstreamRequest

KEPT: Final = 65_536
# Of these a part can stay behind alone.
_PIECES: Final = frozenset({Piece.THINKING, Piece.REASONING})
_VALUES: Final = re.compile(
    rb'"(?:signature|data|encrypted_content)"\s*:\s*"([^"]+)"|"id"\s*:\s*"(rs_[^"]+)"'
)


class UnreadablePieces:
    """Knows what targets refused of histories, by provider, maker and value."""

    def __init__(self) -> None:
        self._known: BoundedMap[tuple[str, str, bytes], Piece] = BoundedMap(KEPT)
        self.any = False

    def note(self, request: UpstreamRequest, piece: Piece) -> None:
        """Remembers the signed or encrypted values of a request that was refused for them."""
        if piece in _PIECES:
            for value in _values(request.body):
                self._known.put((request.provider.name, request.maker, value), piece)
                self.any = True

    def without(self, request: UpstreamRequest) -> tuple[UpstreamRequest, tuple[str, ...]]:
        """Returns the request without what is known to be refused, and the names of what it
        lost.
        """
        name, maker = request.provider.name, request.maker
        found = {
            value.decode("utf-8", "replace"): piece
            for value in _values(request.body)
            if (piece := self._known.get((name, maker, value))) is not None
        }
        less = None
        if found:
            less = without_piece(request, next(iter(found.values())), frozenset(found))
        return less or (request, ())


def _values(body: bytes) -> set[bytes]:
    return {signed or id_ for signed, id_ in _VALUES.findall(body)}
