"""Puts the maker's mark on what an answer signed or encrypted: in a whole answer, or in one
line of a stream. Pure.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from router.conversation.chat_history import mark_chat
from router.conversation.message_history import mark_message
from router.conversation.moved_reply import Rewrite
from router.conversation.refusals import MESSAGES_PATH, RESPONSES_PATH
from router.conversation.response_history import mark_response
from router.request.body_patch import to_json
from router.upstream.transport import CHAT_PATH

Marker = Callable[[dict[str, Any], str], bool]
_MARKERS: Final[Mapping[str, Marker]] = {
    CHAT_PATH: mark_chat,
    MESSAGES_PATH: mark_message,
    RESPONSES_PATH: mark_response,
}
# In a request whose answer may have something to mark, in that answer.
THINKS: Final = b'thinking"'  # or `redacted_thinking`
ENCRYPTED: Final = b"encrypted_content"
_ASKS: Final = {MESSAGES_PATH: THINKS, RESPONSES_PATH: ENCRYPTED}
_SIGNED: Final = (
    b'"signature',
    b'"redacted_thinking"',
    b'"encrypted_content"',
    b'"thought_signature"',
)
_DATA: Final = b"data:"


def may_sign(path: str, body: bytes) -> bool:
    """Tells whether the answer to a request may have something to mark."""
    asks = _ASKS.get(path)
    return asks is not None and asks in body


def answer_marker(path: str, maker: str) -> Rewrite:
    """What marks the answers of a maker. path: of the endpoint."""
    return partial(_marked, _MARKERS[path], maker)


def _marked(mark: Marker, maker: str, data: bytes) -> bytes:
    """data: a whole body, or a line of a stream."""
    if not any(name in data for name in _SIGNED):
        return data
    start = len(_DATA) if data.startswith(_DATA) else 0
    try:
        said = json.loads(data[start:])
    except (ValueError, RecursionError):
        return data  # the endpoint's own reader says what is wrong with it
    if not isinstance(said, dict) or not mark(said, maker):
        return data
    return data[:start] + (b" " if start else b"") + to_json(said).encode()
