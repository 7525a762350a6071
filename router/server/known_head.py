"""The head of a connection's latest request: clients repeat it, and it need not be parsed
again.
"""

from typing import Any, Final, NamedTuple, Self

from router.frame.asgi import Scope

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
    """A known head. before, after: its bytes around the content-length; place: its header's."""

    before: bytes
    after: bytes
    scope: Scope
    place: int

    @classmethod
    def learn(cls, data: bytes, scope: Scope, body_bytes: int) -> Self | None:
        """Keeps a head. data: begin with the request. body_bytes: found of its body."""
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
        # By the parser's word, the head ends where it is looked for, and the body is the last.
        if not is_length or not digits.isdigit() or body_bytes != len(data) - end:
            return None
        return cls(data[:start], data[start + len(digits) : end], dict(scope), place)

    def read(self, data: bytes) -> tuple[Scope, int, bytes] | None:
        """The scope, the body's length and the bytes after the head; None for another head."""
        before, after, known, place = self
        if not data.startswith(before):
            return None
        start = len(before)
        end = data.find(b"\r", start, start + _MOST_DIGITS + 1)
        if end < 0 or not data.startswith(after, end):
            return None
        digits = data[start:end]
        if not digits.isdigit():
            return None
        scope: dict[str, Any] = dict(known)
        headers = scope["headers"] = known["headers"].copy()
        headers[place] = _NAME, digits
        return scope, int(digits), data[end + len(after) :]
