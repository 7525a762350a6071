"""A mark names the target that wrote a signed piece, so that no other target gets it."""

import json
import re
from base64 import b32encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from harness.domain.routing.target import Target

# No provider's own signature has a full stop: they are base64.
_MARK: Final = re.compile(r"sg\.([a-z2-7]{8})\.")
# Begins a mark in a body; inside a text a quote has a backslash before it.
QUOTED_MARK: Final = b'"sg.'
# Of the ids that a translation writes: no provider stores what they name.
OWN_ID: Final = "sg_"


class MarkedPiece(NamedTuple):
    """A piece as its maker wrote it. maker: empty where it is not known."""

    maker: str
    value: str


def maker_of(target: Target) -> str:
    """Names a target as the maker of what it writes. Another addendum to the prompt is another
    maker: a provider may bind what it signs to the prompt.
    """
    patch = target.request_patch
    named = f"{target.provider}\n{target.model}\n{patch.prompt_addendum}"
    return (
        b32encode(sha256(named.encode("utf-8", "surrogatepass")).digest())[:8].decode().lower()
    )


def mark_piece(value: str, maker: str) -> str:
    return f"sg.{maker}.{value}"


def read_mark(piece: object) -> MarkedPiece:
    """Reads who made a piece. A client may have joined it of several, each with its mark."""
    if not isinstance(piece, str):
        return MarkedPiece("", "")
    found = _MARK.match(piece)
    if found is None:
        return MarkedPiece("", piece)
    return MarkedPiece(found[1], piece.replace(found[0], ""))


def seal_thoughts(blocks: Sequence[Mapping[str, object]]) -> str:
    """Writes marked thoughts of a chat as one piece of their maker's; else empty."""
    values = [value for block in blocks for value in block.values()]
    maker = next((found for value in values if (found := read_mark(value).maker)), "")
    if not maker:
        return ""
    raw = json.dumps(blocks, separators=(",", ":")).encode()
    return mark_piece(urlsafe_b64encode(raw).decode(), maker)


def open_thoughts(piece: object) -> list[dict[str, object]]:
    marked = read_mark(piece)
    try:
        found = json.loads(urlsafe_b64decode(marked.value)) if marked.maker else None
    except (ValueError, RecursionError):
        return []
    blocks = found if isinstance(found, list) else []
    return [block for block in blocks if isinstance(block, dict)]


def is_made_by(text: str, maker: str) -> bool:
    return bool(maker) and (f"sg.{maker}." in text or f"_{OWN_ID}{maker}_" in text)


def own_id(prefix: str, maker: str, rest: str) -> str:
    """Builds the id of an item that a translation writes. maker: who gets it back."""
    return f"{prefix}_{OWN_ID}{maker}_{rest}"


def maker_of_id(id_: object) -> str:
    if not isinstance(id_, str) or not is_own_id(id_):
        return ""
    return id_.partition(f"_{OWN_ID}")[2].partition("_")[0]


def is_own_id(id_: object) -> bool:
    """Tells whether a translation of ours wrote this id, such as `rs_sg_…`."""
    return isinstance(id_, str) and id_.partition("_")[2].startswith(OWN_ID)
