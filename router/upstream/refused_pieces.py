"""Removes content that a provider refuses.

Mostly, another provider began the conversation. Or a client cut a text within an emoji.
"""

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
_VALUE_MEMBER: Final = re.compile(
    rb'"(?:signature|data|encrypted_content|file_id)"\s*:\s*"([^"]+)"|"id"\s*:\s*"(rs_[^"]+)"'
)
# An escape of JSON. A pair of surrogates is one escape; the groups are single surrogates.
_ESCAPE: Final = re.compile(
    rb"\\(?:"
    rb"u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|.)",
    re.DOTALL,
)
_SIGNED_MEMBERS: Final = ("extra_content", "thinking_blocks", "reasoning_details")


def without_piece(
    request: UpstreamRequest,
    piece: Piece,
    values: Collection[str] | None = None,
) -> tuple[UpstreamRequest, tuple[str, ...]] | None:
    """Removes content of one kind. Returns None if the request did not change.

    Args:
        values: removes only content with one of these ids or signatures; None to remove all.
    """
    if piece is Piece.HALF_CHARACTER:
        moved_body: MovedBody | None = _write_whole_characters(request.body)
    else:
        moved_body = _remove_piece(request, piece, values)
    if moved_body is None or moved_body.body == request.body:
        return None
    return replace(request, body=moved_body.body), moved_body.dropped


def _remove_piece(
    request: UpstreamRequest,
    piece: Piece,
    values: Collection[str] | None,
) -> MovedBody | None:
    # Paths below an endpoint, such as the token count, have the same history.
    endpoint_paths = (
        path for path in (MESSAGES_PATH, RESPONSES_PATH) if request.path.startswith(path)
    )
    match piece, next(endpoint_paths, request.path):
        case Piece.THINKING | Piece.SIGNATURE, "/messages":
            return without_thoughts(request.body, values)
        case Piece.REASONING, "/responses":
            return without_reasoning(request.body, values)
        case Piece.NO_REASONING, "/chat/completions":
            chat: Json = json.loads(request.body)
            give_back_reasoning(list_objects(chat.get("messages")))
            return MovedBody(to_json(chat).encode())
        case Piece.THINKING | Piece.SIGNATURE, "/chat/completions":
            return _remove_signatures(request.body)
        case Piece.FILE, _:
            return _replace_files(request.body, values)
        case _:
            return None


def _remove_signatures(body: bytes) -> MovedBody:
    chat: Json = json.loads(body)
    removed: dict[str, None] = {}
    for message in list_objects(chat.get("messages")):
        for holder in (message, *list_objects(message.get("tool_calls"))):
            for name in _SIGNED_MEMBERS:
                if holder.pop(name, None) is not None:
                    removed[name] = None
    return MovedBody(to_json(chat).encode(), tuple(removed)) if removed else MovedBody(body)


def _write_whole_characters(body: bytes) -> MovedBody:
    """Replaces each single surrogate by U+FFFD, as `String.toWellFormed` of JavaScript does."""
    written = _ESCAPE.sub(lambda escape: rb"\ufffd" if escape["half"] else escape[0], body)
    return MovedBody(written, (Piece.HALF_CHARACTER,))


def _replace_files(body: bytes, values: Collection[str] | None) -> MovedBody:
    sent_body: Json = json.loads(body)
    history = "input" if "input" in sent_body else "messages"
    removed = [f"{history}.{kind}" for kind in files_to_text(sent_body.get(history), values)]
    if isinstance(sent_body.get("container"), str):
        removed.append("container")
        del sent_body["container"]
    for tool in list_objects(sent_body.get("tools")):
        if isinstance(tool.get("container"), str):
            removed.append("tools.container")
            tool["container"] = {"type": "auto"}
    if not removed:
        return MovedBody(body)
    return MovedBody(to_json(sent_body).encode(), tuple(dict.fromkeys(removed)))


def read_values(body: bytes) -> set[bytes]:
    """Returns the signatures and ids in a body. They identify a refused piece later."""
    return {signed or id_ for signed, id_ in _VALUE_MEMBER.findall(body)}
