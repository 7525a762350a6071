"""Writes answer blocks as an Anthropic message or its events, and Anthropic's errors.

The last step of a translation: `message_request` has translated the request, and
`chat.answer_reader` reads the chat's answer. `anthropic_error` writes every error reply to
a client of this protocol.
"""

import json
import re
from collections.abc import Mapping
from typing import Final

from harness.frame.failures import FailureClass
from router.conversation.intake import mark_piece
from router.frame.body import to_json
from router.frame.replies import Reply
from router.protocols.answers import (
    NO_USAGE,
    AnswerBlock,
    AnswerEnd,
    AnswerHead,
    BlockKind,
    FinishReason,
    TokenUsage,
    WholeAnswer,
)
from router.protocols.event_stream import write_event

_STOP_REASONS: Final[Mapping[FinishReason, str]] = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.CALLS: "tool_use",
    FinishReason.FILTERED: "refusal",
}


def write_message(answer: WholeAnswer, maker: str = "") -> bytes:
    """Writes a whole answer as a message.

    Args:
        maker: the target that made the thinking; empty to write no mark.
    """
    content = [_write_block(block, _maker_mark(maker)) for block in answer.blocks]
    return to_json(
        {
            **_write_head(answer.head),
            "content": content,
            **_write_stop(answer.end),
        }
        | {"usage": message_usage(answer.end.usage)}
    ).encode()


class MessageEventWriter:
    """Writes a stream's events.

    maker: the target that made the thinking. input_tokens: an estimate for the first event,
    because a chat counts its tokens only at the end. Claude Code shows the estimate as the
    used context: https://github.com/router-for-me/CLIProxyAPI/issues/1700.
    """

    def __init__(self, maker: str = "", input_tokens: int = 0) -> None:
        self._maker_mark = _maker_mark(maker)
        self._input_tokens = input_tokens
        self._number = -1
        self._kind = BlockKind.TEXT

    def begin(self, head: AnswerHead) -> bytes:
        start = {
            **_write_head(head),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        }
        usage = message_usage(
            NO_USAGE._replace(input_tokens=self._input_tokens, tier=head.tier)
        )
        return write_event("message_start", {"message": {**start, "usage": usage}})

    def open(self, block: AnswerBlock) -> bytes:
        self._number += 1
        self._kind = block.kind
        block_start = {"index": self._number, "content_block": _write_block(block)}
        return write_event("content_block_start", block_start)

    def more(self, text: str) -> bytes:
        match self._kind:
            case BlockKind.CALL:
                delta = {"type": "input_json_delta", "partial_json": text}
            case BlockKind.THINKING:
                delta = {"type": "thinking_delta", "thinking": text}
            case _:
                delta = {"type": "text_delta", "text": text}
        return write_event("content_block_delta", {"index": self._number, "delta": delta})

    def close(self, sealed: str = "") -> bytes:
        stop = write_event("content_block_stop", {"index": self._number})
        signature = sealed or self._maker_mark
        if self._kind is not BlockKind.THINKING or not signature:
            return stop
        signed = {"type": "signature_delta", "signature": signature}
        delta = {"index": self._number, "delta": signed}
        return write_event("content_block_delta", delta) + stop

    def end(self, end: AnswerEnd) -> bytes:
        data: dict[str, object] = {
            "delta": _write_stop(end),
            "usage": message_usage(end.usage),
        }
        return write_event("message_delta", data) + write_event("message_stop", {})

    def error(self, error: object) -> bytes:
        return write_event("error", {"error": error})


def message_usage(usage: TokenUsage | None) -> dict[str, object]:
    """Returns the usage in a message's form.

    Anthropic's `input_tokens` excludes tokens read from the cache or written to it.
    """
    input_tokens, output_tokens, cached, written, hour, tier = usage or NO_USAGE
    counts: dict[str, object] = {
        "input_tokens": input_tokens - cached - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": output_tokens,
    }
    if hour:
        counts["cache_creation"] = {
            "ephemeral_5m_input_tokens": written - hour,
            "ephemeral_1h_input_tokens": hour,
        }
    if tier:
        counts["service_tier"] = tier
    return counts


def _write_head(head: AnswerHead) -> dict[str, object]:
    message_id = head.id if head.id.startswith("msg_") else f"msg_{head.id}"
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": head.model,
    }


def _maker_mark(maker: str) -> str:
    """Returns the maker's mark. It is not a signature: only the provider could sign."""
    return mark_piece("", maker) if maker else ""


def _write_block(block: AnswerBlock, signature: str = "") -> dict[str, object]:
    match block.kind:
        case BlockKind.CALL:
            arguments = json.loads(block.text or "{}")
            return {
                "type": "tool_use",
                "id": block.call_id,
                "name": block.name,
                "input": arguments,
            }
        case BlockKind.THINKING:
            return {
                "type": "thinking",
                "thinking": block.text,
                "signature": block.sealed or signature,
            }
        case _:
            return {"type": "text", "text": block.text}


def _write_stop(end: AnswerEnd) -> dict[str, object]:
    """Returns the members with the stop reason.

    A reason that the router does not know stays, so that the client does not read a good
    ending.
    """
    reason = "stop_sequence" if end.stop_sequence else end.word or _STOP_REASONS[end.finish]
    return {
        "stop_reason": reason,
        "stop_sequence": end.stop_sequence or None,
    }


_TYPE_BY_STATUS: Final[Mapping[int, str]] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
TYPE_BY_CLASS: Final[Mapping[FailureClass, str]] = {
    FailureClass.OVERLOADED: "overloaded_error",
    FailureClass.RATE_LIMITED: "rate_limit_error",
    FailureClass.TIMEOUT: "timeout_error",
}
_TOO_LONG: Final = "context_length_exceeded"
# Other providers' names for the limit, before the number.
_LIMIT: Final = re.compile(
    r"(?:context length|prompt length|context size|context window|tokens allowed|limit)"
    r"\D{0,20}(\d[\d,]*)",
    re.IGNORECASE,
)
_NUMBER: Final = re.compile(r"\d[\d,]*")


def anthropic_error(reply: Reply, request_id: str) -> Reply:
    """Puts a JSON error into Anthropic's shape, unless it has that shape.

    The type follows the status. A conversation that is too long gets Anthropic's own
    message.
    """
    parsed = json.loads(reply.body)
    if isinstance(parsed, dict) and parsed.get("type") == "error":
        return reply
    error = parsed.get("error") if isinstance(parsed, dict) else None
    anthropic_fields = (
        dict(error) if isinstance(error, dict) else {"message": str(error or parsed)[:500]}
    )
    kind = "invalid_request_error" if reply.status < 500 else "api_error"
    anthropic_fields["type"] = _TYPE_BY_STATUS.get(reply.status, kind)
    if anthropic_fields.get("code") == _TOO_LONG:
        anthropic_fields["message"] = _too_long_message(anthropic_fields)
    body = {
        "type": "error",
        "error": anthropic_fields,
        "request_id": request_id,
    }
    headers = (*reply.headers, (b"request-id", request_id.encode()))
    return Reply(reply.status, headers, json.dumps(body).encode())


def _too_long_message(error: Mapping[str, object]) -> str:
    """Returns Anthropic's message, because its clients then shorten the conversation."""
    message = str(error.get("message") or "")
    # llama.cpp
    tokens = error.get("n_prompt_tokens")
    most = error.get("n_ctx")
    if not isinstance(tokens, int) or not isinstance(most, int):
        limit = _LIMIT.search(message)
        numbers = [int(number.replace(",", "")) for number in _NUMBER.findall(message)]
        if limit is None:
            return f"prompt is too long: {message}"
        most = int(limit[1].replace(",", ""))
        tokens = max([most + 1, *numbers])
    return f"prompt is too long: {tokens} tokens > {most} maximum"
