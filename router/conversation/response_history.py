"""Moves Responses items: leaves out another target's encrypted reasoning and its ids."""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise
from typing import Any, Final

from router.conversation.call_ids import CallIds
from router.conversation.intake import RESPONSE_CALL_IDS, MovedBody
from router.conversation.makers import OWN_ID, is_own_id, mark_piece, read_mark
from router.frame.body_patch import to_json
from router.frame.failure import SEND_ALL, Untranslatable

Json = dict[str, Any]
ENCRYPTED: Final = "encrypted_content"
HISTORY: Final = "input.reasoning"
_OWN: Final = f"_{OWN_ID}".encode()
_REASONING: Final = re.compile(rb'"type"\s*:\s*"reasoning"')
# Items that do without their id. A provider that knows it wants the reasoning before it too.
_BY_CONTENT: Final = frozenset({"message", "function_call", "custom_tool_call"})
_CALLS: Final = frozenset({"function_call", "custom_tool_call"})
_RESULTS: Final = frozenset({"function_call_output", "custom_tool_call_output"})
_REASONING_WORDS: Final = (ENCRYPTED, "summary", "content")
ADVICE: Final = f"a translation made it, and nothing of it is stored: {SEND_ALL}"


def suits_response(body: bytes) -> bool:
    return _OWN not in body and not _REASONING.search(body) and RESPONSE_CALL_IDS.suits(body)


def move_response(body: bytes, maker: str) -> MovedBody:
    """Moves a request to its target. Raises Untranslatable for what is stored nowhere."""
    if suits_response(body):
        return MovedBody(body)
    asked: Json = json.loads(body)
    check_references(asked)
    before = to_json(asked)
    items = asked.get("input")
    dropped: tuple[str, ...] = ()
    if isinstance(items, list):
        stored = asked.get("store") is not False
        kept = [
            item
            for item, after in pairwise((*items, None))
            if _is_readable(item, maker, stored=stored or _is_stray(item, after))
        ]
        if len(kept) < len(items):
            dropped = (HISTORY,)
        _clear_ids(kept, every=len(kept) < len(items))
        _rewrite_ids(kept, CallIds(RESPONSE_CALL_IDS))
        asked["input"] = kept
    moved = to_json(asked)
    return MovedBody(body if moved == before else moved.encode(), dropped)


def without_reasoning(body: bytes, values: Collection[str] | None = None) -> MovedBody:
    """Leaves out reasoning and its items' ids. values: of what goes; None for all."""
    asked: Json = json.loads(body)
    items = asked.get("input")
    if not isinstance(items, list):
        return MovedBody(body)
    kept = [
        item
        for item, after in pairwise((*items, None))
        if not _is_reasoning(item) or _is_stray(item, after) or not _is_one_of(item, values)
    ]
    _clear_ids(kept, every=True)
    asked["input"] = kept
    dropped = (HISTORY,) if len(kept) < len(items) else ("input.id",)
    return MovedBody(to_json(asked).encode(), dropped)


def check_references(request: Mapping[str, object]) -> None:
    """Refuses what refers to an answer of a translation. Raises Untranslatable."""
    if is_own_id(request.get("previous_response_id")):
        raise Untranslatable(f"`previous_response_id`: {ADVICE}", "previous_response_id")
    items = request.get("input")
    for number, item in enumerate(items if isinstance(items, list) else ()):
        reference = isinstance(item, dict) and item.get("type") == "item_reference"
        if reference and is_own_id(item.get("id")):
            place = f"input[{number}]"
            raise Untranslatable(f"`{place}` is a reference: {ADVICE}", place)


def mark_response(answer: Json, maker: str) -> bool:
    whole = answer.get("response")
    output = (whole if isinstance(whole, dict) else answer).get("output")
    marked = False
    for item in (answer.get("item"), *(output if isinstance(output, list) else ())):
        if isinstance(item, dict) and item.get("type") == "reasoning" and item.get(ENCRYPTED):
            item[ENCRYPTED] = mark_piece(str(item[ENCRYPTED]), maker)
            marked = True
    return marked


def _is_reasoning(item: object) -> bool:
    return isinstance(item, dict) and item.get("type") == "reasoning"


def _is_readable(item: object, maker: str, *, stored: bool) -> bool:
    """stored: the provider keeps what it answers, and knows an item by its id."""
    if not isinstance(item, dict) or item.get("type") != "reasoning":
        return True
    piece = read_mark(item.get(ENCRYPTED))
    if piece.value:
        item[ENCRYPTED] = piece.value
        return piece.maker in ("", maker)
    return stored and not piece.maker and bool(item.get("id")) and not is_own_id(item["id"])


def _is_one_of(item: Json, values: Collection[str] | None) -> bool:
    return values is None or item.get(ENCRYPTED) in values or item.get("id") in values


def _is_stray(item: object, after: object) -> bool:
    """Tells whether an item is the id of reasoning that led to no answer and no call: a client
    wrote it, not a model, so the provider's refusal is for the client to read.
    """
    if not isinstance(item, dict) or any(item.get(name) for name in _REASONING_WORDS):
        return False
    answers = isinstance(after, dict) and (
        str(after.get("type")).endswith(("_call", "reasoning"))
        or after.get("role") == "assistant"
    )
    return _is_reasoning(item) and not answers


def _clear_ids(items: Iterable[object], *, every: bool) -> None:
    """every: those of the provider too, as the reasoning that belongs to them is gone."""
    for item in items:
        if not isinstance(item, dict) or str(item.get("type") or "message") not in _BY_CONTENT:
            continue
        if every or is_own_id(item.get("id")):
            item.pop("id", None)


def _rewrite_ids(items: Iterable[object], ids: CallIds) -> None:
    for item in items:
        if not isinstance(item, dict):
            continue
        if str(item.get("type")) in _CALLS:
            item["call_id"] = ids.of_call(item.get("call_id"))
        elif str(item.get("type")) in _RESULTS:
            item["call_id"] = ids.of_result(item.get("call_id"))
