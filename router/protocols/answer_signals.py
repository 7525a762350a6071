"""Collects an answer's signals for a rollout's guardrails.

Signals are the length, truncation and refusal of an answer, and its texts and calls if a
guardrail validates them. Each dialect feeds them; `router.request.guardrail_probe` reads
them. They stay in memory and are never stored.
"""

import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Final

from router.conversation.intake import clean_name
from router.frame.body import iter_objects
from router.protocols.answers import (
    AnswerEnding,
    BlockKind,
    CallPieces,
    call_of_piece,
    piece_place,
    read_content,
    read_ending,
)

# Characters kept of an answer. The guardrails judge neither JSON nor calls of a longer answer.
MAX_KEPT_CHARS: Final = 256 * 1024
# Characters at an answer's beginning in which a refusal counts.
OPENING_CHARS: Final = 200
# The size of a text's hash. JSON keeps a number of 48 bits exactly.
DIGEST_BYTES: Final = 6
# Matches few texts: missing a refusal is less harmful than counting an answer as a refusal.
_match_refusal: Final = re.compile(
    r"\s*(?:I(?:['\u2019]m| am) (?:very |so )?sorry,? (?:but |, )?)?"
    r"I (?:can(?:no|['\u2019])t|can not|am not able to|won['\u2019]t|will not)"
    r" (?:help|assist|comply|provide|answer|do that|fulfil|discuss)\b",
    re.IGNORECASE,
).match


class AnswerSignals:
    """The signals of one answer.

    keeps: whether it keeps texts and calls, too.
    length: in characters, with the arguments of calls that it keeps.
    text_length: the texts alone, in characters.
    cut: the answer is too long, or has content that is not text.
    refused: the protocol says that the model or a filter refused.
    """

    __slots__ = (
        "_calls",
        "_hash",
        "_texts",
        "cut",
        "keeps",
        "length",
        "refused",
        "text_length",
        "truncated",
    )

    def __init__(self, *, keeps: bool) -> None:
        self.keeps = keeps
        self.truncated = self.refused = self.cut = False
        self.length = self.text_length = 0
        self._hash = blake2b(digest_size=DIGEST_BYTES)
        self._texts: dict[object, list[str]] = {}
        self._calls: dict[object, list[ToolCallSignal]] = {}

    def text(self, place: object, piece: object) -> None:
        """Adds a piece of the text at `place`. Other content marks the answer as `cut`."""
        if piece is None:
            return
        if not isinstance(piece, str):
            self.cut = True
            return
        kept_piece = piece if self.keeps else piece[: max(0, OPENING_CHARS - self.length)]
        self.length += len(piece)
        self.text_length += len(piece)
        self._hash.update(piece.encode("utf-8", "surrogatepass"))
        if self.keeps and self.length > MAX_KEPT_CHARS:
            self.cut = True
        elif kept_piece:
            self._texts.setdefault(place, []).append(kept_piece)

    def call(
        self,
        place: object,
        name: object,
        arguments: object,
        call_id: object = None,
    ) -> None:
        """Adds a piece of the call at `place`.

        Args:
            arguments: a piece of JSON text, or an object.
            call_id: the provider's id of the call.
        """
        if not self.keeps:
            return
        calls = self._calls.setdefault(place, [])
        call = call_of_piece(calls, ToolCallSignal, call_id, name, arguments)
        if isinstance(arguments, Mapping):
            call.object = call.object or arguments
        elif isinstance(arguments, str):
            self.length += len(arguments)
            if self.length > MAX_KEPT_CHARS:
                self.cut = True
                arguments = None
        call.add(call_id, name, arguments)

    def note_end(self, reason: object) -> None:
        """Notes the answer's finish reason. An empty reason changes nothing."""
        if reason:
            ending = read_ending(reason)
            self.truncated = self.truncated or ending is AnswerEnding.CUT
            self.refused = self.refused or ending is AnswerEnding.REFUSED

    @property
    def text_digest(self) -> int:
        """A hash of the texts, to compare answers; 0 without any text."""
        return int.from_bytes(self._hash.digest()) if self.text_length else 0

    @property
    def declined(self) -> bool:
        """Whether the answer refuses: by its protocol, or by the first words of a text."""
        if self.refused:
            return True
        for pieces in self._texts.values():  # noqa: SIM110 - a generator costs a call per text
            if _match_refusal("".join(pieces)):
                return True
        return False

    def texts(self) -> Iterator[str]:
        """Returns one text for each place. Without `keeps`, it is only the text's beginning."""
        return ("".join(pieces) for pieces in self._texts.values())

    @property
    def calls(self) -> list["ToolCallSignal"]:
        return [call for calls in self._calls.values() for call in calls]


class ToolCallSignal(CallPieces):
    """Collects a tool call. object: its arguments, if the provider sent them as an object."""

    def __init__(self) -> None:
        super().__init__()
        self.object: Mapping[object, object] | None = None

    @property
    def arguments(self) -> Mapping[object, object] | str:
        """Returns the arguments: unparsed text, or an object; an empty object without any."""
        return self.text if self.pieces else self.object or {}


ANY: Mapping[str, object] = {}


def read_schema(response_format: object) -> Mapping[str, object] | None:
    """Returns the schema that a request demands of its answer.

    Returns ANY if the request accepts any object, None if it demands no JSON.

    Args:
        response_format: the request's format in any of the protocols.
    """
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if kind not in ("json_object", "json_schema") or not isinstance(response_format, Mapping):
        return None
    if kind == "json_object":
        return ANY  # OpenAI's protocol ignores a schema for `json_object`
    schema_holder = response_format.get("json_schema", response_format)  # nested only in chats
    schema = schema_holder.get("schema") if isinstance(schema_holder, Mapping) else None
    return schema if isinstance(schema, Mapping) else ANY


def read_signals(
    signals: AnswerSignals,
    choice: Mapping[str, object],
    part: str,
) -> None:
    """Reads the signals of one choice of a chat.

    Args:
        part: `message` or `delta`.
    """
    index = choice.get("index")
    message = choice.get(part)
    if isinstance(message, dict):
        content = message.get("content")
        if content.__class__ is list:
            _read_parts(signals, index, content)
        else:
            signals.text(index, content)
        if message.get("refusal"):
            signals.refused = True
        if message.get("tool_calls"):
            _read_calls(signals, index, message["tool_calls"])
    signals.note_end(choice.get("finish_reason"))


def _read_parts(
    signals: AnswerSignals,
    index: object,
    parts: object,
) -> None:
    for part in iter_objects(parts):
        if part.get("type") not in _TEXT_PARTS:
            signals.cut = True
        for kind, text in read_content([part]):
            if kind is BlockKind.TEXT:
                signals.text(index, text)
            elif kind is BlockKind.REFUSAL:
                signals.refused = True


_TEXT_PARTS: Final = frozenset({"text", "refusal", "thinking"})


def _read_calls(
    signals: AnswerSignals,
    index: object,
    calls: object,
) -> None:
    for number, call in enumerate(iter_objects(calls)):
        place = (index, piece_place(call, number))
        function = call.get("function")
        custom = call.get("custom")
        if isinstance(function, Mapping):
            signals.call(
                place,
                clean_name(function.get("name")),
                function.get("arguments"),
                call.get("id"),
            )
        elif isinstance(custom, Mapping):
            signals.call(
                place,
                custom.get("name"),
                custom.get("input"),
                call.get("id"),
            )
