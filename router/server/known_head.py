"""Keeps the head of a connection's latest request: clients repeat it, so the router need
not parse it again.

Only the value of content-length may differ. `connection` uses a kept head; any doubt about
a head leads back to the parser.
"""

from typing import Any, Final, NamedTuple, Self

from router.frame.asgi import Scope

# Bounds the memory of each connection, because the client chooses the size of the head.
MAX_KNOWN_BYTES: Final = 4096
_END: Final = b"\r\n\r\n"
# The end of `content-length`, which is the same in lower case and with capitals.
_LENGTH: Final = b"ength: "
_NAME: Final = b"content-length"
_MOST_DIGITS: Final = 9
# Headers that change how a request is read; a head with one of them is not kept.
_UNUSUAL: Final = frozenset({b"transfer-encoding", b"expect", b"upgrade"})


class KnownHead(NamedTuple):
    """A known head.

    before, after: its bytes around the value of content-length.
    place: the index of that header.
    """

    before: bytes
    after: bytes
    scope: dict[str, Any]
    place: int

    @classmethod
    def learn(
        cls,
        data: bytes,
        scope: Scope,
        body_bytes: int,
    ) -> Self | None:
        """Keeps a head; None for a head that must be parsed each time.

        Args:
            data: the bytes that begin with the request.
            body_bytes: how many bytes of the body the parser found in data.
        """
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        names = [name for name, _ in headers]
        end = data.find(_END) + len(_END)
        if end > MAX_KNOWN_BYTES or names.count(_NAME) != 1 or _UNUSUAL & set(names):
            return None
        place = names.index(_NAME)
        start = data.find(_LENGTH, 0, end) + len(_LENGTH)
        line = data.rfind(b"\n", 0, start) + 1
        digits = headers[place][1]
        is_length = data[line:start].lower() == _NAME + b": " and data.startswith(digits, start)
        # The parser's body length confirms that the head ends at the first blank line, and that
        # nothing follows the body.
        if not is_length or not digits.isdigit() or body_bytes != len(data) - end:
            return None
        return cls(data[:start], data[start + len(digits) : end], dict(scope), place)

    def read(self, data: bytes) -> tuple[Scope, int, bytes] | None:
        """Returns the scope, the body's length and the bytes after the head.

        Returns None if data begins with another head.
        """
        before, after, known_scope, place = self
        if not data.startswith(before):
            return None
        start = len(before)
        end = data.find(b"\r", start, start + _MOST_DIGITS + 1)
        if end < 0 or not data.startswith(after, end):
            return None
        digits = data[start:end]
        if not digits.isdigit():
            return None
        scope = known_scope.copy()
        headers = scope["headers"] = known_scope["headers"].copy()
        headers[place] = _NAME, digits
        return scope, int(digits), data[end + len(after) :]
