"""Writes answer blocks as a chat completion or its chunks.

The end of a translation: `responses.answer_reader` reads the answer of a target that serves a
chat by Responses only. `conversation.intake` packs and unpacks the encrypted reasoning.
"""

from collections.abc import Mapping
from typing import Any, Final

from router.conversation.intake import open_thoughts
from router.frame.body import to_json
from router.protocols.answers import (
    AnswerBlock,
    AnswerEnd,
    AnswerHead,
    BlockKind,
    FinishReason,
    WholeAnswer,
)

Json = dict[str, Any]
_DONE: Final = b"data: [DONE]\n\n"
_GAP: Final = "\n\n"
_FIELDS: Final[Mapping[BlockKind, str]] = {
    BlockKind.THINKING: "reasoning_content",
    BlockKind.TEXT: "content",
    BlockKind.REFUSAL: "refusal",
}


def write_chat(answer: WholeAnswer, custom: frozenset[str] = frozenset()) -> bytes:
    """Writes a whole answer as a chat completion. custom: tools whose input is text."""
    message: Json = {"role": "assistant", "content": None, "refusal": None}
    for block in answer.blocks:
        if block.kind is BlockKind.CALL:
            message.setdefault("tool_calls", []).append(_call(block, custom))
            continue
        field = _FIELDS[block.kind]
        if block.text:
            before = message.get(field)
            message[field] = f"{before}{_GAP}{block.text}" if before else block.text
        if block.sealed:
            message.setdefault("thinking_blocks", []).extend(open_thoughts(block.sealed))
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": _reason(answer.end),
    }
    head = _head(answer.head, answer.end.usage.tier if answer.end.usage else "")
    usage = {"usage": chat_usage(answer.end)} if answer.end.usage else {}
    whole = {**head, "object": "chat.completion", "choices": [choice], **usage}
    return to_json(whole).encode()


class ChatChunkWriter:
    """Writes a stream's chunks. custom: names of tools whose input is text."""

    def __init__(self, custom: frozenset[str] = frozenset()) -> None:
        self._custom = custom
        self._head: Json = {}
        self._block = AnswerBlock(BlockKind.TEXT)
        self._calls = 0
        self._begun: set[BlockKind] = set()  # kinds of the blocks so far

    def begin(self, head: AnswerHead) -> bytes:
        self._head = {**_head(head, head.tier), "object": "chat.completion.chunk"}
        return self._delta({"role": "assistant", "content": "", "refusal": None})

    def open(self, block: AnswerBlock) -> bytes:
        self._block = block
        again = block.kind in self._begun
        self._begun.add(block.kind)
        if block.kind is BlockKind.CALL:
            self._calls += 1
            call = _call(block, self._custom)
            return self._delta({"tool_calls": [{"index": self._calls - 1, **call}]})
        return self._delta({_FIELDS[block.kind]: _GAP}) if again else b""

    def more(self, text: str) -> bytes:
        block = self._block
        if block.kind is not BlockKind.CALL:
            return self._delta({_FIELDS[block.kind]: text})
        name, field = _form(block.name, self._custom)
        piece = {"index": self._calls - 1, name: {field: text}}
        return self._delta({"tool_calls": [piece]})

    def close(self, sealed: str = "") -> bytes:
        blocks = open_thoughts(sealed)
        return self._delta({"thinking_blocks": blocks}) if blocks else b""

    def end(self, end: AnswerEnd) -> bytes:
        if end.usage and end.usage.tier:
            self._head["service_tier"] = end.usage.tier
        out = self._delta({}, _reason(end))
        if end.usage:
            out += _line({**self._head, "choices": [], "usage": chat_usage(end)})
        return out + _DONE

    def error(self, error: object) -> bytes:
        return _line({"error": error})

    def _delta(self, delta: Json, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _line({**self._head, "choices": [choice]})


def chat_usage(end: AnswerEnd) -> Json:
    """Returns the usage as a chat has it. Tokens of thinking are at most the output tokens."""
    if end.usage is None:
        return {}
    input_tokens, output_tokens, cached, written, *_ = end.usage
    more = {"cache_write_tokens": written} if written else {}
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": cached, **more},
        "completion_tokens_details": {
            "reasoning_tokens": min(end.reasoning_tokens, output_tokens)
        },
    }


def _head(head: AnswerHead, tier: str) -> Json:
    named = {"service_tier": tier} if tier else {}
    own = f"chatcmpl-{head.id.removeprefix('chatcmpl-')}"
    return {"id": own, "created": head.created, "model": head.model, **named}


def _reason(end: AnswerEnd) -> str:
    return end.word if end.finish is FinishReason.UNKNOWN else end.finish.value


def _form(name: str, custom: frozenset[str]) -> tuple[str, str]:
    """Returns the type of a call, and the name of its text."""
    return ("custom", "input") if name in custom else ("function", "arguments")


def _call(block: AnswerBlock, custom: frozenset[str]) -> Json:
    kind, field = _form(block.name, custom)
    return {"id": block.call_id, "type": kind, kind: {"name": block.name, field: block.text}}


def _line(value: Json) -> bytes:
    return f"data: {to_json(value)}\n\n".encode()
