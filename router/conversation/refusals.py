"""A refusal names the piece of a conversation that its provider cannot read (`refused_piece`),
by the table of refusals, and the request is written once more without it (`without_piece`).
Pure.
"""

import json
from collections.abc import Collection
from dataclasses import replace
from typing import Any, Final

from router.conversation.chat_history import give_back_reasoning
from router.conversation.hosted_text import say_files
from router.conversation.message_history import without_thoughts
from router.conversation.moved_reply import MovedBody
from router.conversation.response_history import without_reasoning
from router.protocols.provider_failures import Piece, refusal_row
from router.request.body_patch import to_json
from router.upstream.failure import error_object
from router.upstream.transport import UpstreamRequest

Json = dict[str, Any]
MESSAGES_PATH: Final = "/messages"
RESPONSES_PATH: Final = "/responses"
_SIGNED: Final = ("extra_content", "thinking_blocks", "reasoning_details")


def refused_piece(status: int, body: bytes) -> Piece | None:
    """Names the piece that a refusal is about; None for any other refusal."""
    error = error_object(body)
    row = refusal_row(error, status) if error is not None else None
    return row.loses if row is not None else None


def without_piece(
    request: UpstreamRequest, piece: Piece, values: Collection[str] | None = None
) -> tuple[UpstreamRequest, tuple[str, ...]] | None:
    """Writes a request once more without a piece, or with the one that is wanted; returns it
    with the names of what it lost. values: signed or encrypted ones of what goes, None for all.
    None where that changes nothing.
    """
    moved = _body_without(request, piece, values)
    if moved is None or moved.body == request.body:
        return None
    return replace(request, body=moved.body), moved.dropped


def _body_without(
    request: UpstreamRequest, piece: Piece, values: Collection[str] | None
) -> MovedBody | None:
    # Below an endpoint, as where tokens are counted, stands the same history.
    below = (path for path in (MESSAGES_PATH, RESPONSES_PATH) if request.path.startswith(path))
    match piece, next(below, request.path):
        case Piece.THINKING | Piece.SIGNATURE, "/messages":
            return without_thoughts(request.body, values)
        case Piece.REASONING, "/responses":
            return without_reasoning(request.body, values)
        case Piece.NO_REASONING, "/chat/completions":
            return _with_reasoning(request.body)
        case Piece.THINKING | Piece.SIGNATURE, "/chat/completions":
            return _without_signatures(request.body)
        case Piece.FILE, _:
            return _without_files(request.body, values)
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


def _without_files(body: bytes, values: Collection[str] | None) -> MovedBody:
    """Without the files of the history, and without a tool's container of an earlier turn."""
    asked: Json = json.loads(body)
    history = "input" if "input" in asked else "messages"
    gone = [f"{history}.{kind}" for kind in say_files(asked.get(history), values)]
    if isinstance(asked.get("container"), str):
        gone.append("container")
        del asked["container"]
    for tool in _objects(asked.get("tools")):
        if isinstance(tool.get("container"), str):
            gone.append("tools.container")
            tool["container"] = {"type": "auto"}
    if not gone:
        return MovedBody(body)
    return MovedBody(to_json(asked).encode(), tuple(dict.fromkeys(gone)))


def _objects(value: object) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
