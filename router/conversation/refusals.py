"""The table of refusals of a conversation's pieces: by its code and words a provider's refusal
names the piece that it cannot read (`refused_piece`), and the request is written once more
without it (`without_piece`). Pure.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any, Final, NamedTuple

from router.conversation.chat_history import give_back_reasoning
from router.conversation.message_history import without_thoughts
from router.conversation.moved_body import MovedBody
from router.conversation.response_history import without_reasoning
from router.conversation.unknown_fields import (
    fields_of_betas,
    refused_field,
    without_betas,
    without_field,
)
from router.request.body_patch import to_json
from router.upstream.transport import UpstreamRequest

Json = dict[str, Any]
MESSAGES_PATH: Final = "/messages"
RESPONSES_PATH: Final = "/responses"
STATUSES: Final = frozenset({400, 404, 422})


class Piece(StrEnum):
    """What a provider may refuse of a conversation that another one began."""

    THINKING = "thinking"  # signed by another, or bound to another prompt
    REASONING = "reasoning"  # encrypted for another, or not stored here
    NO_REASONING = "no_reasoning"  # it is wanted back, and is not there
    SIGNATURE = "signature"  # of a call, which another signed
    BETA = "beta"  # a header that it does not know
    FIELD = "field"  # one that it does not know


class RefusedPiece(NamedTuple):
    """A piece that was refused. name: of a field its path, of betas their names."""

    piece: Piece
    name: str = ""


# By the code of the error.
_CODES: Final[Mapping[str, Piece]] = {"invalid_encrypted_content": Piece.REASONING}
# By words in its message, in lower case and without quotes; the first that fits.
_WORDS: Final[tuple[tuple[str, Piece], ...]] = (
    ("invalid signature in thinking block", Piece.THINKING),
    ("invalid data in redacted_thinking block", Piece.THINKING),
    ("bound to a different conversation", Piece.THINKING),
    ("blocks in the latest assistant message cannot be modified", Piece.THINKING),
    ("expected thinking or redacted_thinking, but found", Piece.THINKING),
    ("must start with a thinking block", Piece.THINKING),
    ("encrypted content could not be", Piece.REASONING),
    ("encrypted_content could not be", Piece.REASONING),
    ("could not be decrypted", Piece.REASONING),
    ("items are not persisted when store", Piece.REASONING),
    ("was provided without its required", Piece.REASONING),
    ("reasoning_content in the thinking mode must be passed back", Piece.NO_REASONING),
    ("reasoning_content is missing in assistant", Piece.NO_REASONING),
    ("missing a thought_signature", Piece.SIGNATURE),
    ("thought signature is not valid", Piece.SIGNATURE),
)
_ITEM_UNKNOWN: Final = re.compile(r"item with id \S+ not found")
_BETA_UNKNOWN: Final = re.compile(r"unexpected value\(s\) (.+?) for the anthropic-beta header")
_SIGNED: Final = ("extra_content", "thinking_blocks", "reasoning_details")


def refused_piece(status: int, body: bytes) -> RefusedPiece | None:
    """Names the piece that a refusal is about; None for any other refusal."""
    if status not in STATUSES:
        return None
    error = _error(body)
    code = _CODES.get(str(error.get("code")))
    if code is not None:
        return RefusedPiece(code)
    message = str(error.get("message")).lower().translate(_NO_QUOTES)
    for words, piece in _WORDS:
        if words in message:
            return RefusedPiece(piece)
    if _ITEM_UNKNOWN.search(message):
        return RefusedPiece(Piece.REASONING)
    if betas := _BETA_UNKNOWN.search(message):
        return RefusedPiece(Piece.BETA, betas[1])
    field = refused_field(error)
    return RefusedPiece(Piece.FIELD, field) if field else None


_NO_QUOTES: Final = str.maketrans("", "", "`'\"")


def without_piece(
    request: UpstreamRequest, refused: RefusedPiece
) -> tuple[UpstreamRequest, tuple[str, ...]] | None:
    """Writes a request once more without a piece, or with the one that is wanted; returns it
    with the names of what it lost. None where that changes nothing.
    """
    if refused.piece is Piece.BETA:
        names = [name.strip() for name in refused.name.split(",")]
        return _with_headers(request, without_betas(request.headers, names), names)
    moved = _body_without(request, refused)
    if moved is None or moved.body == request.body:
        return None
    less = replace(request, body=moved.body)
    if refused.piece is Piece.FIELD:
        betas = fields_of_betas(request.headers, refused.name)
        less = replace(less, headers=without_betas(request.headers, betas))
    return less, moved.dropped


def _with_headers(
    request: UpstreamRequest, headers: tuple[tuple[bytes, bytes], ...], names: list[str]
) -> tuple[UpstreamRequest, tuple[str, ...]] | None:
    if headers == request.headers:
        return None
    return replace(request, headers=headers), tuple(names)


def _body_without(request: UpstreamRequest, refused: RefusedPiece) -> MovedBody | None:
    # Below an endpoint, as where tokens are counted, stands the same history.
    below = (path for path in (MESSAGES_PATH, RESPONSES_PATH) if request.path.startswith(path))
    match refused.piece, next(below, request.path):
        case Piece.FIELD, _:
            return without_field(request.body, refused.name)
        case Piece.THINKING, "/messages":
            return without_thoughts(request.body)
        case Piece.REASONING, "/responses":
            return without_reasoning(request.body)
        case Piece.NO_REASONING, "/chat/completions":
            return _with_reasoning(request.body)
        case ((Piece.THINKING | Piece.SIGNATURE), "/chat/completions"):
            return _without_signatures(request.body)
        case _:
            return None


def _with_reasoning(body: bytes) -> MovedBody:
    chat: Json = json.loads(body)
    give_back_reasoning(_objects(chat.get("messages")))
    return MovedBody(to_json(chat).encode())


def _without_signatures(body: bytes) -> MovedBody:
    chat: Json = json.loads(body)
    gone: dict[str, None] = {}
    for message in _objects(chat.get("messages")):
        for place in (message, *_objects(message.get("tool_calls"))):
            for name in _SIGNED:
                if place.pop(name, None) is not None:
                    gone[name] = None
    return MovedBody(to_json(chat).encode(), tuple(gone)) if gone else MovedBody(body)


def _error(body: bytes) -> Json:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    error = found.get("error", found) if isinstance(found, dict) else None
    return error if isinstance(error, dict) else {}


def _objects(value: object) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
