"""Cuts the history of a Responses answer into pieces to store, and joins stored pieces again.

A route with `responses_state` keeps its answers. Before the router chooses a target, the whole
history replaces `previous_response_id` and `item_reference`. So every target gets a request
without references. Pure; `router.server.kept_responses` reads and writes the database.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

from router.conversation.intake import is_own_id, mark_piece
from router.conversation.native_histories import ENCRYPTED, TYPES_WITHOUT_ID
from router.frame.body import to_json

PREVIOUS: Final = "previous_response_id"
_REFERENCE: Final = "item_reference"
# The statuses of an answer that later requests may continue.
_FINISHED_STATUSES: Final = frozenset({"completed", "incomplete"})

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
    """An item of a history. maker: the target that made it; empty if a client made it.

    piece: the id of the stored piece; empty for a new item.
    """

    item: Any
    maker: str = ""
    piece: str = ""


class CutHistory(NamedTuple):
    """An answer's history in pieces.

    new: the contents to store, by id. kept: the ids of the pieces that the database already
    has.
    """

    new: Mapping[str, Json]
    kept: Sequence[str]


def list_references(request: Json) -> Sequence[str]:
    """Lists the ids of the answer and the items that a request refers to, in order."""
    previous_id = _previous_id(request)
    return [
        *([previous_id] if previous_id else ()),
        *filter(None, map(_referred_id, _input_items(request.get("input")))),
    ]


def list_pieces(request: Json, names: Mapping[str, Json]) -> Sequence[str]:
    """Lists the ids of the stored pieces of a request's history. Raises NotKept.

    Args:
        names: the stored contents of its references, by id.
    """
    return [item.piece for item in _iter_outline(request, names) if item.piece]


def join_history(
    request: Json,
    names: Mapping[str, Json],
    pieces: Mapping[str, Json],
) -> Sequence[HistoryItem]:
    """Returns the whole history of a request. Raises NotKept.

    Args:
        names: the stored contents, by id.
        pieces: the stored contents, by id.
    """
    history = []
    for entry in _iter_outline(request, names):
        if not entry.piece:
            history.append(entry)
            continue
        content = pieces.get(entry.piece)
        if content is None or "item" not in content:
            raise NotKept(*entry.item)
        history.append(entry._replace(item=content["item"], maker=content.get("maker", "")))
    return history


def _iter_outline(request: Json, names: Mapping[str, Json]) -> Iterator[HistoryItem]:
    """Yields the history's items. Raises NotKept.

    Instead of a stored piece, an item has the piece's reference: the field and the id.
    """
    if previous := _previous_id(request):
        earlier = names.get(previous, {}).get("history")
        if earlier is None:
            raise NotKept(PREVIOUS, previous)
        yield from (HistoryItem((PREVIOUS, previous), "", piece) for piece in earlier)
    for number, item in enumerate(_input_items(request.get("input"))):
        id_ = _referred_id(item)
        if not id_:
            yield HistoryItem(item)
            continue
        piece = names.get(id_, {}).get("piece")
        if piece is None:
            raise NotKept(f"input[{number}]", id_)
        yield HistoryItem((f"input[{number}]", id_), "", piece)


def _previous_id(request: Json) -> str:
    previous = request.get(PREVIOUS)
    return previous if isinstance(previous, str) else ""


def joined_body(request: Json, history: Sequence[HistoryItem]) -> bytes:
    """Returns the request with its whole history as `input`, and without references."""
    body = {name: value for name, value in request.items() if name != PREVIOUS}
    return to_json({**body, "input": [*map(_prepare_item, history)]}).encode()


def cut_history(
    history: Sequence[HistoryItem],
    answer: Json,
    maker: str,
    user_hash: str,
) -> CutHistory | None:
    """Cuts an answer and the history before it; None if the answer cannot be continued.

    Args:
        maker: the maker of the target that answered.
        user_hash: a hash of the users that the request names. Users do not share pieces, so
            that the deletion of one user removes no piece of another user.
    """
    answer_id = answer.get("id")
    output = answer.get("output")
    is_finished = answer.get("status") in _FINISHED_STATUSES and isinstance(output, list)
    if not (isinstance(answer_id, str) and answer_id and is_finished):
        return None
    new_contents: dict[str, Json] = {}
    piece_order: list[str] = []
    stored_pieces = [item.piece for item in history if item.piece]
    answer_items = [HistoryItem(item, maker) for item in output or ()]
    for item in (*history, *answer_items):
        piece = item.piece
        if not piece:
            content = {"item": item.item, **({"maker": item.maker} if item.maker else {})}
            piece = _piece_id(content, user_hash)
            new_contents[piece] = content
        piece_order.append(piece)
    for item, piece in zip(answer_items, piece_order[len(history) :], strict=True):
        item_id = item.item.get("id") if isinstance(item.item, Mapping) else None
        if isinstance(item_id, str) and item_id:
            new_contents[item_id] = {"piece": piece}
    new_contents[answer_id] = {"history": piece_order}
    return CutHistory(new_contents, stored_pieces)


def _input_items(items: object) -> Sequence[Any]:
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    return items if isinstance(items, list) else ()


def _referred_id(item: object) -> str:
    """Returns the id to which an item refers; empty for a complete item.

    A reference may lack its type.
    """
    if not isinstance(item, Mapping):
        return ""
    is_bare = "type" not in item and item.keys() == {"id"}
    id_ = item.get("id") if item.get("type") == _REFERENCE or is_bare else None
    return id_ if isinstance(id_, str) else ""


def _prepare_item(history_item: HistoryItem) -> object:
    """Returns an item in a form that every target accepts.

    Texts and calls lose their ids, because only their maker knows the ids. Reasoning that
    only its maker can find by its id gets a mark, like signed pieces.
    """
    item = history_item.item
    if not history_item.maker or not isinstance(item, Mapping):
        return item
    if item.get("type") in TYPES_WITHOUT_ID:
        return {name: value for name, value in item.items() if name != "id"}
    is_found_by_id = item.get("type") == "reasoning" and not item.get(ENCRYPTED)
    if not is_found_by_id or is_own_id(item.get("id")):
        return item
    return {**item, ENCRYPTED: mark_piece("", history_item.maker)}


def _piece_id(content: Json, user_hash: str) -> str:
    text = json.dumps([user_hash, content], sort_keys=True, separators=(",", ":"))
    return f"piece:{sha256(text.encode()).hexdigest()[:40]}"
