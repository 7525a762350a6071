"""Cuts the history of a Responses answer into pieces to store, and joins stored pieces again.

A route with `responses_state` keeps its answers. So `previous_response_id` and `item_reference`
become the whole history before the router chooses a target: whichever target answers, gets a
request without references. Pure; `router.server.kept_responses` reads and writes the database.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

from router.conversation.intake import is_own_id, mark_piece
from router.conversation.native_histories import BY_CONTENT, ENCRYPTED
from router.frame.body import to_json

PREVIOUS: Final = "previous_response_id"
_REFERENCE: Final = "item_reference"
# The statuses of an answer that later requests may continue.
_ENDED: Final = frozenset({"completed", "incomplete"})

Json = Mapping[str, Any]


class NotKept(Exception):
    """A request refers to an answer or item that its caller does not have here.

    param: the field with the reference. id: as the client sent it.
    """

    def __init__(self, param: str, id_: str) -> None:
        super().__init__(f"{param}: {id_}")
        self.param = param
        self.id = id_


class HistoryItem(NamedTuple):
    """An item of a history. maker: the target that made it; empty if a client did, or unknown.

    piece: the id of the stored piece; empty for a new item.
    """

    item: Any
    maker: str = ""
    piece: str = ""


class CutHistory(NamedTuple):
    """An answer's history, cut up. new: contents to store, by id. kept: ids of pieces that are
    stored already.
    """

    new: Mapping[str, Json]
    kept: Sequence[str]


def list_references(request: Json) -> Sequence[str]:
    """Lists the ids of the answer and the items that a request refers to, in order."""
    previous = _previous(request)
    return [
        *([previous] if previous else ()),
        *filter(None, map(_referred, _given(request.get("input")))),
    ]


def list_pieces(request: Json, names: Mapping[str, Json]) -> Sequence[str]:
    """Lists the ids of the stored pieces of a request's history. Raises NotKept.

    names: the stored contents of its references, by id.
    """
    return [item.piece for item in _outline(request, names) if item.piece]


def join_history(
    request: Json,
    names: Mapping[str, Json],
    pieces: Mapping[str, Json],
) -> Sequence[HistoryItem]:
    """Returns the whole history of a request. Raises NotKept.

    names, pieces: the stored contents, by id.
    """
    history = []
    for entry in _outline(request, names):
        if not entry.piece:
            history.append(entry)
            continue
        content = pieces.get(entry.piece)
        if content is None or "item" not in content:
            raise NotKept(*entry.item)
        history.append(entry._replace(item=content["item"], maker=content.get("maker", "")))
    return history


def _outline(request: Json, names: Mapping[str, Json]) -> Iterator[HistoryItem]:
    """Yields the history's items. The item of a stored piece is yet the reference to it: the
    field, and the id. Raises NotKept.
    """
    if previous := _previous(request):
        earlier = names.get(previous, {}).get("history")
        if earlier is None:
            raise NotKept(PREVIOUS, previous)
        yield from (HistoryItem((PREVIOUS, previous), "", piece) for piece in earlier)
    for number, item in enumerate(_given(request.get("input"))):
        id_ = _referred(item)
        if not id_:
            yield HistoryItem(item)
            continue
        piece = names.get(id_, {}).get("piece")
        if piece is None:
            raise NotKept(f"input[{number}]", id_)
        yield HistoryItem((f"input[{number}]", id_), "", piece)


def _previous(request: Json) -> str:
    previous = request.get(PREVIOUS)
    return previous if isinstance(previous, str) else ""


def joined_body(request: Json, history: Sequence[HistoryItem]) -> bytes:
    """Returns the request with its whole history as `input`, and without references."""
    body = {name: value for name, value in request.items() if name != PREVIOUS}
    return to_json({**body, "input": [*map(_sendable, history)]}).encode()


def cut_history(
    history: Sequence[HistoryItem],
    answer: Json,
    maker: str,
    user_hash: str,
) -> CutHistory | None:
    """Cuts an answer and the history before it; None if the answer cannot be continued.

    maker: of the target that answered. user_hash: of the users that the request names. Users do
    not share pieces, so that the deletion of one user takes nothing from another user.
    """
    id_ = answer.get("id")
    output = answer.get("output")
    is_whole = answer.get("status") in _ENDED and isinstance(output, list)
    if not (isinstance(id_, str) and id_ and is_whole):
        return None
    new: dict[str, Json] = {}
    order: list[str] = []
    kept = [item.piece for item in history if item.piece]
    made = [HistoryItem(item, maker) for item in output or ()]
    for item in (*history, *made):
        piece = item.piece
        if not piece:
            content = {"item": item.item, **({"maker": item.maker} if item.maker else {})}
            piece = _piece_id(content, user_hash)
            new[piece] = content
        order.append(piece)
    for item, piece in zip(made, order[len(history) :], strict=True):
        own = item.item.get("id") if isinstance(item.item, Mapping) else None
        if isinstance(own, str) and own:
            new[own] = {"piece": piece}
    new[id_] = {"history": order}
    return CutHistory(new, kept)


def _given(items: object) -> Sequence[Any]:
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    return items if isinstance(items, list) else ()


def _referred(item: object) -> str:
    """Returns the id to which an item refers; empty for a whole item. The type is optional."""
    if not isinstance(item, Mapping):
        return ""
    is_bare = "type" not in item and item.keys() == {"id"}
    id_ = item.get("id") if item.get("type") == _REFERENCE or is_bare else None
    return id_ if isinstance(id_, str) else ""


def _sendable(entry: HistoryItem) -> object:
    """Returns an item as any target takes it.

    An answer's text and calls are whole without their ids, which only their maker knows.
    Reasoning that only its maker finds, by its id, gets a mark, as signed pieces have.
    """
    item = entry.item
    if not entry.maker or not isinstance(item, Mapping):
        return item
    if item.get("type") in BY_CONTENT:
        return {name: value for name, value in item.items() if name != "id"}
    by_id = item.get("type") == "reasoning" and not item.get(ENCRYPTED)
    if not by_id or is_own_id(item.get("id")):
        return item
    return {**item, ENCRYPTED: mark_piece("", entry.maker)}


def _piece_id(content: Json, user_hash: str) -> str:
    text = json.dumps([user_hash, content], sort_keys=True, separators=(",", ":"))
    return f"piece:{sha256(text.encode()).hexdigest()[:40]}"
