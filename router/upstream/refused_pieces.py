"""Removes content that a provider refuses from a conversation that another provider began."""

import json
import re
from collections.abc import Collection
from dataclasses import replace
from typing import Any, Final

from router.conversation.chat_history import give_back_reasoning
from router.conversation.hosted_tools import files_to_text
from router.conversation.intake import MovedBody
from router.conversation.native_histories import (
    without_reasoning,
    without_thoughts,
)
from router.frame.body import (
    MESSAGES_PATH,
    RESPONSES_PATH,
    list_objects,
    to_json,
)
from router.protocols.provider_refusals import Piece
from router.upstream.transport import UpstreamRequest

Json = dict[str, Any]
_VALUES: Final = re.compile(
    rb'"(?:signature|data|encrypted_content|file_id)"\s*:\s*"([^"]+)"|"id"\s*:\s*"(rs_[^"]+)"'
)
_SIGNED: Final = ("extra_content", "thinking_blocks", "reasoning_details")


def without_piece(
    request: UpstreamRequest,
    piece: Piece,
    values: Collection[str] | None = None,
) -> tuple[UpstreamRequest, tuple[str, ...]] | None:
    """Removes content of one kind; None if nothing changed. values: only content with one of
    these ids or signatures.
    """
    moved = _body_without(request, piece, values)
    if moved is None or moved.body == request.body:
        return None
    return replace(request, body=moved.body), moved.dropped


def _body_without(
    request: UpstreamRequest,
    piece: Piece,
    values: Collection[str] | None,
) -> MovedBody | None:
    # Paths below an endpoint, such as the token count, have the same history.
    below = (path for path in (MESSAGES_PATH, RESPONSES_PATH) if request.path.startswith(path))
    match piece, next(below, request.path):
        case Piece.THINKING | Piece.SIGNATURE, "/messages":
            return without_thoughts(request.body, values)
        case Piece.REASONING, "/responses":
            return without_reasoning(request.body, values)
        case Piece.NO_REASONING, "/chat/completions":
            chat: Json = json.loads(request.body)
            give_back_reasoning(list_objects(chat.get("messages")))
            return MovedBody(to_json(chat).encode())
        case Piece.THINKING | Piece.SIGNATURE, "/chat/completions":
            return _without_signatures(request.body)
        case Piece.FILE, _:
            return _without_files(request.body, values)
        case _:
            return None


def _without_signatures(body: bytes) -> MovedBody:
    chat: Json = json.loads(body)
    gone: dict[str, None] = {}
    for message in list_objects(chat.get("messages")):
        for place in (message, *list_objects(message.get("tool_calls"))):
            for name in _SIGNED:
                if place.pop(name, None) is not None:
                    gone[name] = None
    return MovedBody(to_json(chat).encode(), tuple(gone)) if gone else MovedBody(body)


def _without_files(body: bytes, values: Collection[str] | None) -> MovedBody:
    asked: Json = json.loads(body)
    history = "input" if "input" in asked else "messages"
    gone = [f"{history}.{kind}" for kind in files_to_text(asked.get(history), values)]
    if isinstance(asked.get("container"), str):
        gone.append("container")
        del asked["container"]
    for tool in list_objects(asked.get("tools")):
        if isinstance(tool.get("container"), str):
            gone.append("tools.container")
            tool["container"] = {"type": "auto"}
    if not gone:
        return MovedBody(body)
    return MovedBody(to_json(asked).encode(), tuple(dict.fromkeys(gone)))


def read_values(body: bytes) -> set[bytes]:
    """Returns the signatures and ids in a body by which a refused piece is known again."""
    return {signed or id_ for signed, id_ in _VALUES.findall(body)}
