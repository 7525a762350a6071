"""Writes answer blocks as a chat completion or its chunks.

The last step of a translation: the target serves the chat by Responses only, and
`responses.answer_reader` reads its answer. `conversation.intake` packs and unpacks the
encrypted reasoning.
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
_FIELD_BY_KIND: Final[Mapping[BlockKind, str]] = {
    BlockKind.THINKING: "reasoning_content",
    BlockKind.TEXT: "content",
    BlockKind.REFUSAL: "refusal",
}


def write_chat(answer: WholeAnswer, custom: frozenset[str] = frozenset()) -> bytes:
    """Writes a whole answer as a chat completion.

    Args:
        custom: tools whose input is text.
    """
    message: Json = {"role": "assistant", "content": None, "refusal": None}
    for block in answer.blocks:
        if block.kind is BlockKind.CALL:
            message.setdefault("tool_calls", []).append(_write_call(block, custom))
            continue
        field = _FIELD_BY_KIND[block.kind]
        if block.text:
            earlier_text = message.get(field)
            message[field] = f"{earlier_text}{_GAP}{block.text}" if earlier_text else block.text
        if block.sealed:
            message.setdefault("thinking_blocks", []).extend(open_thoughts(block.sealed))
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": _finish_word(answer.end),
    }
    head = _write_head(answer.head, answer.end.usage.tier if answer.end.usage else "")
    usage = {"usage": chat_usage(answer.end)} if answer.end.usage else {}
    completion = {**head, "object": "chat.completion", "choices": [choice], **usage}
    return to_json(completion).encode()


class ChatChunkWriter:
    """Writes a stream's chunks. custom: names of tools whose input is text."""

    def __init__(self, custom: frozenset[str] = frozenset()) -> None:
        self._custom = custom
        self._write_head: Json = {}
        self._block = AnswerBlock(BlockKind.TEXT)
        self._calls = 0
        self._opened_kinds: set[BlockKind] = set()  # kinds of the blocks so far

    def begin(self, head: AnswerHead) -> bytes:
        self._write_head = {**_write_head(head, head.tier), "object": "chat.completion.chunk"}
        return self._write_delta({"role": "assistant", "content": "", "refusal": None})

    def open(self, block: AnswerBlock) -> bytes:
        self._block = block
        is_repeated = block.kind in self._opened_kinds
        self._opened_kinds.add(block.kind)
        if block.kind is BlockKind.CALL:
            self._calls += 1
            call = _write_call(block, self._custom)
            return self._write_delta({"tool_calls": [{"index": self._calls - 1, **call}]})
        return self._write_delta({_FIELD_BY_KIND[block.kind]: _GAP}) if is_repeated else b""

    def more(self, text: str) -> bytes:
        block = self._block
        if block.kind is not BlockKind.CALL:
            return self._write_delta({_FIELD_BY_KIND[block.kind]: text})
        name, field = _call_form(block.name, self._custom)
        piece = {"index": self._calls - 1, name: {field: text}}
        return self._write_delta({"tool_calls": [piece]})

    def close(self, sealed: str = "") -> bytes:
        blocks = open_thoughts(sealed)
        return self._write_delta({"thinking_blocks": blocks}) if blocks else b""

    def end(self, end: AnswerEnd) -> bytes:
        if end.usage and end.usage.tier:
            self._write_head["service_tier"] = end.usage.tier
        out = self._write_delta({}, _finish_word(end))
        if end.usage:
            out += _write_line({**self._write_head, "choices": [], "usage": chat_usage(end)})
        return out + _DONE

    def error(self, error: object) -> bytes:
        return _write_line({"error": error})

    def _write_delta(self, delta: Json, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _write_line({**self._write_head, "choices": [choice]})


def chat_usage(end: AnswerEnd) -> Json:
    """Returns the usage in a chat's form. Tokens of thinking are at most the output tokens."""
    if end.usage is None:
        return {}
    input_tokens, output_tokens, cached, written, *_ = end.usage
    write_details = {"cache_write_tokens": written} if written else {}
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": cached, **write_details},
        "completion_tokens_details": {
            "reasoning_tokens": min(end.reasoning_tokens, output_tokens)
        },
    }


def _write_head(head: AnswerHead, tier: str) -> Json:
    tier_member = {"service_tier": tier} if tier else {}
    answer_id = f"chatcmpl-{head.id.removeprefix('chatcmpl-')}"
    return {"id": answer_id, "created": head.created, "model": head.model, **tier_member}


def _finish_word(end: AnswerEnd) -> str:
    return end.word if end.finish is FinishReason.UNKNOWN else end.finish.value


def _call_form(name: str, custom: frozenset[str]) -> tuple[str, str]:
    """Returns the type of a call, and the member that has its arguments."""
    return ("custom", "input") if name in custom else ("function", "arguments")


def _write_call(block: AnswerBlock, custom: frozenset[str]) -> Json:
    kind, field = _call_form(block.name, custom)
    return {"id": block.call_id, "type": kind, kind: {"name": block.name, field: block.text}}


def _write_line(value: Json) -> bytes:
    return f"data: {to_json(value)}\n\n".encode()
