"""Moves Messages and Responses histories, and removes pieces that only another target reads.

The targets speak the client's protocol, so a body changes only where it must. The rules of
makers and ids are in `intake`; `chat_history` moves chats. A repair
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
_NO_ANSWER_TEXT: Final = {"type": "text", "text": "(no answer)"}
_CALL_ID_RULE: Final = INTAKES["anthropic"].call_ids
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
    return b'"budget_tokens"' not in body and (
        _CALL_ID_RULE is None or _CALL_ID_RULE.suits(body)
    )


def move_message(body: bytes, maker: str) -> MovedBody:
    """Moves a request to its target. Thinking of an unknown maker stays."""
    if suits_message(body):
        return MovedBody(body)
    request: Json = json.loads(body)
    old_text = to_json(request)
    messages = list(list_objects(request.get("messages")))
    dropped = [MESSAGE_THINKING] if _clear_thinking(messages, maker) else []
    if not settle_thinking(request, messages):
        dropped.append("thinking")
    if _CALL_ID_RULE is not None:
        _rewrite_ids(messages, CallIds(_CALL_ID_RULE))
    new_text = to_json(request)
    return MovedBody(body if new_text == old_text else new_text.encode(), tuple(dropped))


def without_thoughts(body: bytes, values: Collection[str] | None = None) -> MovedBody:
    """Removes the history's thinking.

    Args:
        values: only with these signatures; None for all.
    """

    def is_kept(block: Json) -> bool:
        signature_name = SIGNATURES.get(str(block.get("type")))
        return signature_name is None or (
            values is not None and block.get(signature_name) not in values
        )

    request: Json = json.loads(body)
    messages = list(list_objects(request.get("messages")))
    removals = [_keep_blocks(message, is_kept) for message in messages]
    dropped = [MESSAGE_THINKING] if any(removals) else []
    if not settle_thinking(request, messages):
        dropped.append("thinking")
    return MovedBody(to_json(request).encode(), tuple(dropped))


def settle_thinking(request: Json, messages: Sequence[Json]) -> bool:
    """Removes the thinking budget within a tool loop if its answers have no thinking.

    Anthropic demands the loop's thinking, or a request without a budget.
    Returns False if it removed the budget.
    """
    thinking = request.get("thinking")
    has_budget = isinstance(thinking, dict) and thinking.get("type") == "enabled"
    if not has_budget or all(_begins_with_thought(turn) for turn in _running_loop(messages)):
        return True
    del request["thinking"]
    return False


def mark_message(answer: Json, maker: str) -> bool:
    """Marks signed thinking in an answer or event with its maker.

    Returns whether any exists.
    """
    delta = answer.get("delta")
    if isinstance(delta, dict) and delta.get("type") == "signature_delta":
        delta["signature"] = mark_piece(str(delta.get("signature") or ""), maker)
        return True
    has_marked = False
    for block in list_objects(
        [answer.get("content_block"), *list_objects(answer.get("content"))]
    ):
        signature_name = SIGNATURES.get(str(block.get("type")))
        if signature_name and block.get(signature_name):
            block[signature_name] = mark_piece(str(block[signature_name]), maker)
            has_marked = True
    return has_marked


def _clear_thinking(messages: Iterable[Json], maker: str) -> bool:
    """Keeps thinking of this maker, without the mark, and of unknown makers.

    Returns whether it removed any.
    """

    def is_readable(block: Json) -> bool:
        signature_name = SIGNATURES.get(str(block.get("type")))
        if signature_name is None:
            return True
        piece = read_mark(block.get(signature_name))
        block[signature_name] = piece.value
        return bool(piece.value) and piece.maker in ("", maker)

    removals = [_keep_blocks(message, is_readable) for message in messages]
    return any(removals)


def _keep_blocks(message: Json, is_kept: Any) -> bool:
    content = message.get("content")
    if message.get("role") != "assistant" or not isinstance(content, list):
        return False
    kept_blocks = [block for block in content if not isinstance(block, dict) or is_kept(block)]
    if len(kept_blocks) == len(content):
        return False
    content[:] = kept_blocks or [_NO_ANSWER_TEXT]
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
        is_assistant = message.get("role") == "assistant"
        if is_assistant:
            ids.begin_turn()
        for block in list_objects(message.get("content")):
            if is_assistant and block.get("type") == "tool_use":
                block["id"] = ids.of_call(block.get("id"))
            elif block.get("type") == "tool_result":
                block["tool_use_id"] = ids.of_result(block.get("tool_use_id"))


ENCRYPTED: Final = "encrypted_content"
INPUT_REASONING: Final = "input.reasoning"
_OWN_ID_PART: Final = f"_{OWN_ID}".encode()
_REASONING_ITEM: Final = re.compile(rb'"type"\s*:\s*"reasoning"')
# Types of items that need no id. A provider that knows the id demands the item's reasoning.
TYPES_WITHOUT_ID: Final = frozenset({"message", "function_call", "custom_tool_call"})
_CALL_TYPES: Final = frozenset({"function_call", "custom_tool_call"})
_RESULT_TYPES: Final = frozenset({"function_call_output", "custom_tool_call_output"})
_REASONING_MEMBERS: Final = (ENCRYPTED, "summary", "content")
ADVICE: Final = f"the router translated that answer, and no provider stores it; {SEND_ALL}"


def suits_response(body: bytes) -> bool:
    """Returns whether every target accepts a body as it is, without parsing it."""
    return (
        _OWN_ID_PART not in body
        and not _REASONING_ITEM.search(body)
        and RESPONSE_CALL_IDS.suits(body)
    )


def move_response(body: bytes, maker: str) -> MovedBody:
    """Moves a request to its target. Raises Untranslatable for references to unstored items."""
    if suits_response(body):
        return MovedBody(body)
    request: Json = json.loads(body)
    check_references(request)
    old_text = to_json(request)
    items = request.get("input")
    dropped: tuple[str, ...] = ()
    if isinstance(items, list):
        is_stored = request.get("store") is not False
        kept_items = [
            item
            for item, after in pairwise((*items, None))
            if _is_readable(item, maker, is_stored=is_stored or _is_stray(item, after))
        ]
        if len(kept_items) < len(items):
            dropped = (INPUT_REASONING,)
        _clear_ids(kept_items, every=len(kept_items) < len(items))
        _rewrite_item_ids(kept_items, CallIds(RESPONSE_CALL_IDS))
        request["input"] = kept_items
    new_text = to_json(request)
    return MovedBody(body if new_text == old_text else new_text.encode(), dropped)


def without_reasoning(body: bytes, values: Collection[str] | None = None) -> MovedBody:
    """Removes reasoning and its items' ids.

    Args:
        values: only these contents or ids; None: all.
    """
    request: Json = json.loads(body)
    items = request.get("input")
    if not isinstance(items, list):
        return MovedBody(body)
    kept_items = [
        item
        for item, after in pairwise((*items, None))
        if not _is_reasoning(item)
        or _is_stray(item, after)
        or not (values is None or item.get(ENCRYPTED) in values or item.get("id") in values)
    ]
    _clear_ids(kept_items, every=True)
    request["input"] = kept_items
    dropped = (INPUT_REASONING,) if len(kept_items) < len(items) else ("input.id",)
    return MovedBody(to_json(request).encode(), dropped)


def check_references(request: Mapping[str, object]) -> None:
    """Refuses references to a translated answer. Raises Untranslatable."""
    if is_own_id(request.get("previous_response_id")):
        raise Untranslatable(f"`previous_response_id`: {ADVICE}", "previous_response_id")
    items = request.get("input")
    for number, item in enumerate(items if isinstance(items, list) else ()):
        is_reference = isinstance(item, dict) and item.get("type") == "item_reference"
        if is_reference and is_own_id(item.get("id")):
            place = f"input[{number}]"
            raise Untranslatable(f"`{place}` is a reference: {ADVICE}", place)


def mark_response(answer: Json, maker: str) -> bool:
    """Marks encrypted reasoning in an answer or event with its maker.

    Returns whether any exists.
    """
    response = answer.get("response")
    output = (response if isinstance(response, dict) else answer).get("output")
    has_marked = False
    for item in (
        answer.get("item"),
        *(output if isinstance(output, list) else ()),
    ):
        if isinstance(item, dict) and item.get("type") == "reasoning" and item.get(ENCRYPTED):
            item[ENCRYPTED] = mark_piece(str(item[ENCRYPTED]), maker)
            has_marked = True
    return has_marked


def _is_reasoning(item: object) -> bool:
    return isinstance(item, dict) and item.get("type") == "reasoning"


def _is_readable(
    item: object,
    maker: str,
    *,
    is_stored: bool,
) -> bool:
    """Returns whether the target can read the item.

    Args:
        is_stored: the provider finds items by id.
    """
    if not isinstance(item, dict) or item.get("type") != "reasoning":
        return True
    piece = read_mark(item.get(ENCRYPTED))
    if piece.value:
        item[ENCRYPTED] = piece.value
        return piece.maker in ("", maker)
    if piece.maker:
        del item[ENCRYPTED]  # `kept_history` wrote only a mark: its maker stores the item
    is_of_maker = piece.maker in ("", maker)
    return is_stored and is_of_maker and bool(item.get("id")) and not is_own_id(item["id"])


def _is_stray(item: object, after: object) -> bool:
    """Returns whether an item is only an id of reasoning, without an answer or call after it.

    No model writes such an item, so the client gets the provider's refusal.
    """
    if not isinstance(item, dict) or any(item.get(name) for name in _REASONING_MEMBERS):
        return False
    is_answer = isinstance(after, dict) and (
        str(after.get("type")).endswith(("_call", "reasoning"))
        or after.get("role") == "assistant"
    )
    return _is_reasoning(item) and not is_answer


def _clear_ids(items: Iterable[object], *, every: bool) -> None:
    """Removes ids that no provider knows, from items that are complete without an id.

    Args:
        every: also removes the provider's ids, because the history lost their reasoning.
    """
    for item in items:
        if (
            not isinstance(item, dict)
            or str(item.get("type") or "message") not in TYPES_WITHOUT_ID
        ):
            continue
        if every or is_own_id(item.get("id")):
            item.pop("id", None)


def _rewrite_item_ids(items: Iterable[object], ids: CallIds) -> None:
    for item in items:
        if not isinstance(item, dict):
            continue
        if str(item.get("type")) in _CALL_TYPES:
            item["call_id"] = ids.of_call(item.get("call_id"))
        elif str(item.get("type")) in _RESULT_TYPES:
            item["call_id"] = ids.of_result(item.get("call_id"))
