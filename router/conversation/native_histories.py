"""Moves Messages and Responses histories, and removes pieces that only another target
reads.

Both protocols are sent to targets that speak them, so a body changes only where it must.
The rules of makers and ids are in `intake`; chats are moved in `chat_history`. A repair
after a provider's refusal uses the `without_…` functions
(`router.upstream.learned_repairs`).
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from router.conversation.intake import (
    INTAKES,
    OWN_ID,
    RESPONSE_CALL_IDS,
    CallIds,
    MovedBody,
    is_own_id,
    mark_piece,
    read_mark,
)
from router.frame.body import list_objects, to_json
from router.frame.failure import SEND_ALL, Untranslatable

Json = dict[str, Any]
# The member with the signature of thinking, by the block's type.
SIGNATURES: Final = {"thinking": "signature", "redacted_thinking": "data"}
# A turn must not be empty.
_SILENCE: Final = {"type": "text", "text": "(no answer)"}
_IDS: Final = INTAKES["anthropic"].call_ids
MESSAGE_THINKING: Final = "messages.thinking"
# A history without these members and without thinking suits every target.
SIGNED: Final = b'"signature"'
RESULT: Final = b'"tool_result"'


def suits_message(body: bytes) -> bool:
    """Returns whether every target accepts a body as it is, without parsing it."""
    if SIGNED in body or b'"redacted_thinking"' in body:
        return False
    if RESULT not in body:
        return True
    return b'"budget_tokens"' not in body and (_IDS is None or _IDS.suits(body))


def move_message(body: bytes, maker: str) -> MovedBody:
    """Moves a request to its target. Thinking of an unknown maker stays."""
    if suits_message(body):
        return MovedBody(body)
    request: Json = json.loads(body)
    before = to_json(request)
    messages = list(list_objects(request.get("messages")))
    dropped = [MESSAGE_THINKING] if _clear_thoughts(messages, maker) else []
    if not settle_thinking(request, messages):
        dropped.append("thinking")
    if _IDS is not None:
        _rewrite_ids(messages, CallIds(_IDS))
    moved = to_json(request)
    return MovedBody(body if moved == before else moved.encode(), tuple(dropped))


def without_thoughts(body: bytes, values: Collection[str] | None = None) -> MovedBody:
    """Removes the history's thinking. values: only with these signatures; None for all."""

    def stays(block: Json) -> bool:
        place = SIGNATURES.get(str(block.get("type")))
        return place is None or (values is not None and block.get(place) not in values)

    request: Json = json.loads(body)
    messages = list(list_objects(request.get("messages")))
    gone = [_keep(message, stays) for message in messages]
    dropped = [MESSAGE_THINKING] if any(gone) else []
    if not settle_thinking(request, messages):
        dropped.append("thinking")
    return MovedBody(to_json(request).encode(), tuple(dropped))


def settle_thinking(request: Json, messages: Sequence[Json]) -> bool:
    """Removes the thinking budget within a tool loop whose answers have no thinking.

    Anthropic demands the loop's thinking, or a request without a budget.
    Returns False if it removed the budget.
    """
    thinking = request.get("thinking")
    enabled = isinstance(thinking, dict) and thinking.get("type") == "enabled"
    if not enabled or all(_begins_with_thought(turn) for turn in _running_loop(messages)):
        return True
    del request["thinking"]
    return False


def mark_message(answer: Json, maker: str) -> bool:
    """Marks signed thinking in an answer or event with its maker. Returns whether there was
    any.
    """
    delta = answer.get("delta")
    if isinstance(delta, dict) and delta.get("type") == "signature_delta":
        delta["signature"] = mark_piece(str(delta.get("signature") or ""), maker)
        return True
    marked = False
    for block in list_objects(
        [answer.get("content_block"), *list_objects(answer.get("content"))]
    ):
        place = SIGNATURES.get(str(block.get("type")))
        if place and block.get(place):
            block[place] = mark_piece(str(block[place]), maker)
            marked = True
    return marked


def _clear_thoughts(messages: Iterable[Json], maker: str) -> bool:
    """Keeps thinking of this maker, without the mark, and of unknown makers.

    Returns whether it removed any.
    """

    def is_readable(block: Json) -> bool:
        place = SIGNATURES.get(str(block.get("type")))
        if place is None:
            return True
        piece = read_mark(block.get(place))
        block[place] = piece.value
        return bool(piece.value) and piece.maker in ("", maker)

    left = [_keep(message, is_readable) for message in messages]
    return any(left)


def _keep(message: Json, stays: Any) -> bool:
    content = message.get("content")
    if message.get("role") != "assistant" or not isinstance(content, list):
        return False
    kept = [block for block in content if not isinstance(block, dict) or stays(block)]
    if len(kept) == len(content):
        return False
    content[:] = kept or [_SILENCE]
    return True


def _running_loop(messages: Sequence[Json]) -> Iterator[Json]:
    """Yields the answers since the user's last text, if the last message is a tool's result."""
    for message in reversed(messages):
        if message.get("role") == "assistant":
            yield message
        elif message.get("role") == "user":
            blocks = list_objects(message.get("content"))
            if not any(block.get("type") == "tool_result" for block in blocks):
                return


def _begins_with_thought(message: Json) -> bool:
    first = next(iter(list_objects(message.get("content"))), None)
    return first is not None and str(first.get("type")) in SIGNATURES


def _rewrite_ids(messages: Iterable[Json], ids: CallIds) -> None:
    for message in messages:
        assistant = message.get("role") == "assistant"
        if assistant:
            ids.begin_turn()
        for block in list_objects(message.get("content")):
            if assistant and block.get("type") == "tool_use":
                block["id"] = ids.of_call(block.get("id"))
            elif block.get("type") == "tool_result":
                block["tool_use_id"] = ids.of_result(block.get("tool_use_id"))


ENCRYPTED: Final = "encrypted_content"
INPUT_REASONING: Final = "input.reasoning"
_OWN: Final = f"_{OWN_ID}".encode()
_REASONING: Final = re.compile(rb'"type"\s*:\s*"reasoning"')
# Items that need no id. If a provider knows the id, it demands the reasoning before it.
BY_CONTENT: Final = frozenset({"message", "function_call", "custom_tool_call"})
_CALLS: Final = frozenset({"function_call", "custom_tool_call"})
_RESULTS: Final = frozenset({"function_call_output", "custom_tool_call_output"})
_REASONING_WORDS: Final = (ENCRYPTED, "summary", "content")
ADVICE: Final = f"the router translated that answer, and no provider stores it; {SEND_ALL}"


def suits_response(body: bytes) -> bool:
    """Returns whether every target accepts a body as it is, without parsing it."""
    return _OWN not in body and not _REASONING.search(body) and RESPONSE_CALL_IDS.suits(body)


def move_response(body: bytes, maker: str) -> MovedBody:
    """Moves a request to its target. Raises Untranslatable for references to unstored items."""
    if suits_response(body):
        return MovedBody(body)
    request: Json = json.loads(body)
    check_references(request)
    before = to_json(request)
    items = request.get("input")
    dropped: tuple[str, ...] = ()
    if isinstance(items, list):
        stored = request.get("store") is not False
        kept = [
            item
            for item, after in pairwise((*items, None))
            if _is_readable(item, maker, stored=stored or _is_stray(item, after))
        ]
        if len(kept) < len(items):
            dropped = (INPUT_REASONING,)
        _clear_ids(kept, every=len(kept) < len(items))
        _rewrite_item_ids(kept, CallIds(RESPONSE_CALL_IDS))
        request["input"] = kept
    moved = to_json(request)
    return MovedBody(body if moved == before else moved.encode(), dropped)


def without_reasoning(body: bytes, values: Collection[str] | None = None) -> MovedBody:
    """Removes reasoning and its items' ids. values: only these contents or ids; None: all."""
    request: Json = json.loads(body)
    items = request.get("input")
    if not isinstance(items, list):
        return MovedBody(body)
    kept = [
        item
        for item, after in pairwise((*items, None))
        if not _is_reasoning(item)
        or _is_stray(item, after)
        or not (values is None or item.get(ENCRYPTED) in values or item.get("id") in values)
    ]
    _clear_ids(kept, every=True)
    request["input"] = kept
    dropped = (INPUT_REASONING,) if len(kept) < len(items) else ("input.id",)
    return MovedBody(to_json(request).encode(), dropped)


def check_references(request: Mapping[str, object]) -> None:
    """Refuses references to a translated answer. Raises Untranslatable."""
    if is_own_id(request.get("previous_response_id")):
        raise Untranslatable(f"`previous_response_id`: {ADVICE}", "previous_response_id")
    items = request.get("input")
    for number, item in enumerate(items if isinstance(items, list) else ()):
        reference = isinstance(item, dict) and item.get("type") == "item_reference"
        if reference and is_own_id(item.get("id")):
            place = f"input[{number}]"
            raise Untranslatable(f"`{place}` is a reference: {ADVICE}", place)


def mark_response(answer: Json, maker: str) -> bool:
    """Marks encrypted reasoning in an answer or event with its maker. Returns whether there
    was any.
    """
    whole = answer.get("response")
    output = (whole if isinstance(whole, dict) else answer).get("output")
    marked = False
    for item in (
        answer.get("item"),
        *(output if isinstance(output, list) else ()),
    ):
        if isinstance(item, dict) and item.get("type") == "reasoning" and item.get(ENCRYPTED):
            item[ENCRYPTED] = mark_piece(str(item[ENCRYPTED]), maker)
            marked = True
    return marked


def _is_reasoning(item: object) -> bool:
    return isinstance(item, dict) and item.get("type") == "reasoning"


def _is_readable(
    item: object,
    maker: str,
    *,
    stored: bool,
) -> bool:
    """Returns whether the target can read the item. stored: the provider finds items by id."""
    if not isinstance(item, dict) or item.get("type") != "reasoning":
        return True
    piece = read_mark(item.get(ENCRYPTED))
    if piece.value:
        item[ENCRYPTED] = piece.value
        return piece.maker in ("", maker)
    if piece.maker:
        del item[ENCRYPTED]  # a mark alone: `kept_history` says who stores this reasoning
    is_theirs = piece.maker in ("", maker)
    return stored and is_theirs and bool(item.get("id")) and not is_own_id(item["id"])


def _is_stray(item: object, after: object) -> bool:
    """Returns whether an item is a reasoning id without an answer or call after it. No model
    writes such an item, so the client gets the provider's refusal.
    """
    if not isinstance(item, dict) or any(item.get(name) for name in _REASONING_WORDS):
        return False
    answers = isinstance(after, dict) and (
        str(after.get("type")).endswith(("_call", "reasoning"))
        or after.get("role") == "assistant"
    )
    return _is_reasoning(item) and not answers


def _clear_ids(items: Iterable[object], *, every: bool) -> None:
    """Removes ids that no provider knows, or all ids of items that are complete without
    them.

    every: also removes the provider's ids, because the history lost their reasoning.
    """
    for item in items:
        if not isinstance(item, dict) or str(item.get("type") or "message") not in BY_CONTENT:
            continue
        if every or is_own_id(item.get("id")):
            item.pop("id", None)


def _rewrite_item_ids(items: Iterable[object], ids: CallIds) -> None:
    for item in items:
        if not isinstance(item, dict):
            continue
        if str(item.get("type")) in _CALLS:
            item["call_id"] = ids.of_call(item.get("call_id"))
        elif str(item.get("type")) in _RESULTS:
            item["call_id"] = ids.of_result(item.get("call_id"))
