"""Moves a Messages history: leaves out thinking that another target signed."""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

from router.conversation.call_ids import CallIds
from router.conversation.intake import INTAKES, MovedBody
from router.conversation.makers import mark_piece, read_mark
from router.frame.body_patch import to_json
from router.frame.object_lists import list_objects

Json = dict[str, Any]
# Where the protocol has a thought's signature, by the block's type.
SIGNATURES: Final = {"thinking": "signature", "redacted_thinking": "data"}
# A turn must say something.
_SILENCE: Final = {"type": "text", "text": "(no answer)"}
_IDS: Final = INTAKES["anthropic"].call_ids
HISTORY: Final = "messages.thinking"
# Without one of these and without thinking, nothing of a history has to be moved.
SIGNED: Final = b'"signature"'
RESULT: Final = b'"tool_result"'


def suits_message(body: bytes) -> bool:
    if SIGNED in body or b'"redacted_thinking"' in body:
        return False
    if RESULT not in body:
        return True
    return b'"budget_tokens"' not in body and (_IDS is None or _IDS.suits(body))


def move_message(body: bytes, maker: str) -> MovedBody:
    """Moves a request to its target. Thinking of an unknown maker goes along."""
    if suits_message(body):
        return MovedBody(body)
    asked: Json = json.loads(body)
    before = to_json(asked)
    messages = list(list_objects(asked.get("messages")))
    dropped = [HISTORY] if _clear_thoughts(messages, maker) else []
    if not settle_thinking(asked, messages):
        dropped.append("thinking")
    if _IDS is not None:
        _rewrite_ids(messages, CallIds(_IDS))
    moved = to_json(asked)
    return MovedBody(body if moved == before else moved.encode(), tuple(dropped))


def without_thoughts(body: bytes, values: Collection[str] | None = None) -> MovedBody:
    """Leaves out the history's thinking. values: signatures of what goes; None for all."""

    def stays(block: Json) -> bool:
        place = SIGNATURES.get(str(block.get("type")))
        return place is None or (values is not None and block.get(place) not in values)

    asked: Json = json.loads(body)
    messages = list(list_objects(asked.get("messages")))
    gone = [_keep(message, stays) for message in messages]
    dropped = [HISTORY] if any(gone) else []
    if not settle_thinking(asked, messages):
        dropped.append("thinking")
    return MovedBody(to_json(asked).encode(), tuple(dropped))


def settle_thinking(request: Json, messages: Sequence[Json]) -> bool:
    """Asks for no budget of thinking in the middle of a tool loop whose answers came without
    thinking: Anthropic wants the loop's thinking back, or a request without any. False where it
    took the budget out.
    """
    thinking = request.get("thinking")
    enabled = isinstance(thinking, dict) and thinking.get("type") == "enabled"
    if not enabled or all(_begins_with_thought(turn) for turn in _running_loop(messages)):
        return True
    del request["thinking"]
    return False


def mark_message(answer: Json, maker: str) -> bool:
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
    """Keeps what this maker signed, as it wrote it, and pieces of unknown signers.
    Tells whether any was left out.
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


def _keep(message: Json, wanted: Any) -> bool:
    content = message.get("content")
    if message.get("role") != "assistant" or not isinstance(content, list):
        return False
    kept = [block for block in content if not isinstance(block, dict) or wanted(block)]
    if len(kept) == len(content):
        return False
    content[:] = kept or [_SILENCE]
    return True


def _running_loop(messages: Sequence[Json]) -> Iterator[Json]:
    """The answers since the user's last words, if a tool's result is the last of all."""
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
