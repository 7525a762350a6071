"""Moves a chat's history to a target of another kind. A suitable body stays unchanged.

The rules of each kind are in `intake`, files and hosted tools in `hosted_tools`. Histories
of Anthropic's and OpenAI's own protocols are in `native_histories`. This module changes a
request before it is sent, and marks answers; it translates no protocol.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any, Final

from harness.routing.reliability.turn_order import ANSWER
from router.conversation.hosted_tools import files_to_text
from router.conversation.intake import (
    QUOTED_MARK,
    CallIds,
    HistoryIntake,
    MovedBody,
    mark_piece,
    read_mark,
)
from router.conversation.native_histories import SIGNATURES
from router.frame.body import list_objects, to_json

_NAME_MEMBER: Final = re.compile(rb'"name"\s*:\s*"([^"]*)"')
_UNUSUAL_CHARACTER: Final = re.compile(r"[^A-Za-z0-9_-]")
_HASH_DIGITS: Final = 8


class ToolNames:
    """Renames tools whose names a target refuses.

    clients: maps the target's name to the client's, to restore names in the answer. A new
    name has a digest of the old one, so that a tool keeps its name in every turn.
    """

    def __init__(self, pattern: re.Pattern[str], longest: int) -> None:
        self.clients: dict[str, str] = {}  # the target's name → the client's
        self._pattern = pattern
        self._longest = longest

    def rename(self, holder: dict[str, object]) -> None:
        """Renames a tool, call or result, in place, if the target refuses its name."""
        name = holder.get("name")
        if not isinstance(name, str) or self._pattern.fullmatch(name):
            return
        digest = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_DIGITS]
        plain_name = _UNUSUAL_CHARACTER.sub("_", name)[: self._longest - _HASH_DIGITS - 3]
        new_name = (
            f"f_{plain_name}_{digest}"
            if not plain_name[:1].isalpha()
            else f"{plain_name}_{digest}"
        )
        self.clients[new_name] = name
        holder["name"] = new_name


def has_refused_name(body: bytes, pattern: re.Pattern[str]) -> bool:
    """Returns whether a body with tools has a name that does not match, without parsing it."""
    return b'"tools"' in body and any(
        not pattern.fullmatch(name.decode("utf-8", "replace"))
        for name in _NAME_MEMBER.findall(body)
    )


def with_client_names(data: bytes, names: Mapping[str, str]) -> bytes:
    """Restores the client's tool names in a part of an answer. `data` must not cut a name."""
    name_pattern = b"|".join(re.escape(name.encode()) for name in names)

    def restore(match: re.Match[bytes]) -> bytes:
        return match[1] + json.dumps(names[match[2].decode()]).encode()

    return re.sub(rb'("name"\s*:\s*)"(' + name_pattern + rb')"', restore, data)


Json = dict[str, Any]
# The beginning of every field for tools, calls and results. CPython searches a long body four
# times as fast for at most five bytes.
TOOL_FIELDS: Final = b'"tool'
_CALLS_FIELD: Final = b'"tool_calls"'
FILE_ID: Final = b'"file_id"'
_GOOGLE_SIGNATURE: Final = "thought_signature"
_DEVELOPER: Final = b'"developer"'
# A JSON key. Inside a text, a backslash precedes each quote.
_JSON_KEY: Final = re.compile(rb'"([^"\\]*)"\s*:')
# Keys of plain chats. A chat with other keys is parsed.
_KNOWN_KEYS: Final = frozenset(
    b"model messages role content name type text stream stream_options include_usage "
    b"temperature top_p max_tokens max_completion_tokens stop seed n presence_penalty "
    b"frequency_penalty response_format reasoning_effort image_url url detail".split()
)
REASONING: Final = "reasoning_content"


def suits_chat(body: bytes, intake: HistoryIntake) -> bool:
    """Returns whether the target accepts a body unchanged, without parsing it.

    May return False for a suitable body: `move_chat` then finds nothing to change.
    """
    # Up to Python 3.11, `in` raises an error inside, which costs more than a short search.
    find = body.find
    if find(QUOTED_MARK) >= 0 or (not intake.reads_file_ids and find(FILE_ID) >= 0):
        return False
    if not intake.knows_developer and find(_DEVELOPER) >= 0:
        return False
    if intake.members and not _KNOWN_KEYS.issuperset(_JSON_KEY.findall(body)):
        return False
    for quoted in intake.quoted:
        if find(quoted) >= 0:
            return False
    if find(TOOL_FIELDS) < 0:
        return True
    return not (
        ((intake.demands_reasoning or intake.answers_after_result) and _CALLS_FIELD in body)
        or (intake.call_ids is not None and not intake.call_ids.suits(body))
        or (intake.tool_names is not None and has_refused_name(body, intake.tool_names))
    )


def move_chat(
    body: bytes,
    intake: HistoryIntake,
    maker: str = "",
) -> MovedBody:
    """Rewrites a chat for its target.

    Args:
        maker: the result of `maker_of`. The target gets only pieces that this maker signed.

    Removes fields that the kind refuses, replaces files by text, and gives calls and tools
    acceptable ids and names.
    """
    if suits_chat(body, intake):
        return MovedBody(body)
    chat: Json = json.loads(body)
    old_text = to_json(chat)
    dropped: dict[str, None] = {}
    _remove_fields(chat, intake.refused, dropped)
    messages = list(list_objects(chat.get("messages")))
    dropped.update(dict.fromkeys(_fit_members(messages, intake)))
    if intake.answers_after_result and _CALLS_FIELD in body:
        messages = chat["messages"] = list(_insert_answers(messages))
    if QUOTED_MARK in body:
        dropped.update(dict.fromkeys(_clear_signed_pieces(messages, maker)))
    if not intake.reads_file_ids:
        dropped.update(dict.fromkeys(f"messages.{kind}" for kind in files_to_text(messages)))
    if intake.call_ids is not None:
        _rewrite_ids(messages, CallIds(intake.call_ids))
    if intake.demands_reasoning:
        give_back_reasoning(messages)
    names = ToolNames(intake.tool_names, intake.longest_name) if intake.tool_names else None
    if names is not None:
        for holder in _name_holders(chat, messages):
            names.rename(holder)
    new_text = to_json(chat)
    if new_text == old_text:
        return MovedBody(body)
    return MovedBody(new_text.encode(), tuple(dropped), names.clients if names else {})


def _fit_members(messages: Iterable[Json], intake: HistoryIntake) -> Iterator[str]:
    """Renames roles and removes members that the kind does not know, in place.

    Yields the names of the removed members.
    """
    for message in messages:
        if not intake.knows_developer and message.get("role") == "developer":
            message["role"] = "system"
        for name in list(message) if intake.members else ():
            if name not in intake.members and message.pop(name) is not None:
                yield f"messages.{name}"


def _insert_answers(messages: Iterable[Json]) -> Iterator[Json]:
    """Inserts an answer between a tool's result and a user's message."""
    last_role: object = None
    for message in messages:
        if last_role == "tool" and message.get("role") == "user":
            yield dict(ANSWER)
        yield message
        last_role = message.get("role")


def mark_chat(answer: Json, maker: str) -> bool:
    """Marks the signed pieces of an answer or event with their maker, in place.

    Returns whether there were any.
    """
    has_marked = False
    for choice in list_objects(answer.get("choices")):
        for message in (choice.get("message"), choice.get("delta")):
            for holder, name in _signed_members(message) if isinstance(message, dict) else ():
                holder[name] = mark_piece(str(holder[name]), maker)
                has_marked = True
    return has_marked


def _clear_signed_pieces(messages: Iterable[Json], maker: str) -> Iterator[str]:
    """Keeps signed pieces of this maker (without the mark) and of unknown makers.

    Removes pieces of other makers; yields their names.
    """
    for message in messages:
        for holder, name in list(_signed_members(message)):
            piece = read_mark(holder[name])
            holder[name] = piece.value
            if piece.maker not in ("", maker):
                del holder[name]
        blocks = message.get("thinking_blocks")
        if isinstance(blocks, list):
            signatures = SIGNATURES.values()
            signed_blocks = [
                block
                for block in blocks
                if isinstance(block, dict) and any(block.get(name) for name in signatures)
            ]
            if len(signed_blocks) < len(blocks):
                yield "thinking_blocks"
            message["thinking_blocks"] = signed_blocks
            if not signed_blocks:
                del message["thinking_blocks"]


def _signed_members(message: Json) -> Iterator[tuple[Json, str]]:
    for block in list_objects(message.get("thinking_blocks")):
        name = SIGNATURES.get(str(block.get("type")))
        if name and block.get(name):
            yield block, name
    for holder in (message, *list_objects(message.get("tool_calls"))):
        extra = holder.get("extra_content")
        google = extra.get("google") if isinstance(extra, dict) else None
        if isinstance(google, dict) and google.get(_GOOGLE_SIGNATURE):
            yield google, _GOOGLE_SIGNATURE


def give_back_reasoning(messages: Iterable[Json]) -> None:
    """Adds empty reasoning to answers with tool calls.

    Some kinds refuse such answers without reasoning.
    """
    for message in messages:
        if message.get("role") == "assistant" and message.get("tool_calls"):
            message.setdefault(REASONING, "")


def without_reasoning(messages: Iterable[Json], names: Iterable[str]) -> bool:
    """Removes members with reasoning from messages, in place. Returns whether any existed."""
    removed = [message.pop(name, None) for message in messages for name in names]
    return any(value is not None for value in removed)


def _rewrite_ids(messages: Iterable[Json], ids: CallIds) -> None:
    for message in messages:
        if message.get("role") == "assistant":
            ids.begin_turn()
            for call in list_objects(message.get("tool_calls")):
                call["id"] = ids.of_call(call.get("id"))
        elif message.get("role") == "tool":
            message["tool_call_id"] = ids.of_result(message.get("tool_call_id"))


def _name_holders(chat: Json, messages: Iterable[Json]) -> Iterator[Json]:
    choice = chat.get("tool_choice")
    calls = [call for message in messages for call in list_objects(message.get("tool_calls"))]
    chosen = [choice] if isinstance(choice, dict) else []
    for holder in (
        *list_objects(chat.get("tools")),
        *chosen,
        *calls,
    ):
        if isinstance(holder.get("function"), dict):
            yield holder["function"]
    yield from (message for message in messages if message.get("role") == "tool")


def _remove_fields(
    chat: Json,
    names: Iterable[str],
    dropped: dict[str, None],
) -> None:
    holders = [chat]
    for message in list_objects(chat.get("messages")):
        holders += [message, *list_objects(message.get("content"))]
        holders += list_objects(message.get("tool_calls"))
    for tool in list_objects(chat.get("tools")):
        holders += [
            tool,
            *([tool["function"]] if isinstance(tool.get("function"), dict) else []),
        ]
    for holder in holders:
        for name in names:
            if holder.pop(name, None) is not None:
                dropped[name] = None
