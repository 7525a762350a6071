"""A known head is the head of a connection's latest request that came whole. A client sends the
same head with request after request, but for the length of the body: such a request need not be
parsed again, and what its head says need not be worked out again.
"""

from typing import Any, Final, NamedTuple, Self

from router.server.asgi import Scope

# A connection keeps its own, whose size is the client's choice.
MAX_KNOWN_BYTES: Final = 4096
_END: Final = b"\r\n\r\n"
# Of `content-length`, as clients write it: in small letters, or with capitals.
_LENGTH: Final = b"ength: "
_NAME: Final = b"content-length"
_MOST_DIGITS: Final = 9
# Heads that ask for more than to be answered.
_UNUSUAL: Final = frozenset({b"transfer-encoding", b"expect", b"upgrade"})


class KnownHead(NamedTuple):
    """Holds a head without the digits of its content-length.

    before, after: its bytes on both sides of these. scope: as the parser read it. place: of the
    content-length among the headers.
    """

    before: bytes
    after: bytes
    scope: Scope
    place: int

    @classmethod
    def learn(cls, data: bytes, scope: Scope) -> Self | None:
        """Keeps the head of a request, which a parser read as `scope`; None for a head that
        another request cannot be known by. data: the whole request, and nothing else.
        """
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        named = [name for name, _ in headers]
        end = data.find(_END) + len(_END)
        if end > MAX_KNOWN_BYTES or named.count(_NAME) != 1 or _UNUSUAL & set(named):
            return None
        place = named.index(_NAME)
        start = data.find(_LENGTH, 0, end) + len(_LENGTH)
        line = data.rfind(b"\n", 0, start) + 1
        digits = headers[place][1]
        is_length = data[line:start].lower() == _NAME + b": " and data.startswith(digits, start)
        # The parser's word: with it, the head ends where it is looked for.
        if not is_length or not digits.isdigit() or int(digits) != len(data) - end:
            return None
        return cls(data[:start], data[start + len(digits) : end], dict(scope), place)

    def read(self, data: bytes) -> tuple[Scope, bytes] | None:
        """Reads a request with this head and the whole of its body, and returns both; None for
        any other bytes.
        """
        before, after, known, place = self
        if not data.startswith(before):
            return None
        start = len(before)
        end = data.find(b"\r", start, start + _MOST_DIGITS + 1)
        if end < 0 or not data.startswith(after, end):
            return None
        digits, body_at = data[start:end], end + len(after)
        if not digits.isdigit() or int(digits) != len(data) - body_at:
            return None
        scope: dict[str, Any] = dict(known)
        headers = scope["headers"] = known["headers"].copy()
        headers[place] = headers[place][0], digits
        return scope, data[body_at:]
