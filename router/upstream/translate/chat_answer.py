"""Shapes answers exactly as OpenAI does.

The translations of all kinds end here. litellm's shapes differ in details that clients
notice: ids, finish reasons, counts of tokens. Refusals are in `provider_errors`.
"""

from collections.abc import Mapping
from typing import Any, Final

from router.conversation.intake import clean_name
from router.protocols.answers import AnswerEnding, read_count, read_ending

Json = dict[str, Any]

FINISH_REASONS: Final = frozenset({"stop", "length", "tool_calls", "content_filter"})
_REASON_BY_ENDING: Final[Mapping[AnswerEnding, str]] = {
    AnswerEnding.GOOD: "stop",
    AnswerEnding.CUT: "length",
    AnswerEnding.REFUSED: "content_filter",
}
_HOUR_TOKENS: Final = "ephemeral_1h_input_tokens"
_SEPARATOR: Final = "__thought__"


def completion(
    parsed: Mapping[str, Any],
    *,
    answer_id: str,
    model: str,
    reason: object,
    tier: object,
) -> Json:
    """Shapes an answer.

    Args:
        parsed: litellm's form of the answer.
        answer_id: the answer's id; if it is empty, litellm's id takes its place.
        reason: the provider's finish reason, because litellm may hide a bad one.
        tier: the service tier, if the answer names one.
    """
    choice = parsed["choices"][0]
    message = chat_message(choice.get("message") or {})
    chat_choice: Json = {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": None,
            "refusal": None,
            **message,
        },
        "logprobs": choice.get("logprobs"),
        "finish_reason": finish_reason(
            reason or choice.get("finish_reason"),
            has_calls="tool_calls" in message,
        ),
    }
    return {
        "id": answer_id or parsed.get("id") or "",
        "object": "chat.completion",
        "created": int(parsed.get("created") or 0),
        "model": model,
        "choices": [chat_choice],
        "usage": chat_usage(parsed.get("usage")),
        **_tier_member(tier),
    }


def _tier_member(tier: object) -> Json:
    return {"service_tier": tier} if tier and isinstance(tier, str) else {}


def chat_message(source: Mapping[str, Any], *, is_streamed: bool = False) -> Json:
    """Keeps the members of a message or delta that clients know.

    Args:
        is_streamed: calls get their index.
    """
    message: Json = {}
    for name in (
        "content",
        "reasoning_content",
        "thinking_blocks",
        "annotations",
        "images",
    ):
        if source.get(name):
            message[name] = source[name]
    calls = source.get("tool_calls")
    if calls:
        message["tool_calls"] = [_build_call(call, is_streamed=is_streamed) for call in calls]
    specific_fields = source.get("provider_specific_fields")
    signatures = (
        specific_fields.get("thought_signatures")
        if isinstance(specific_fields, Mapping)
        else None
    )
    if signatures and not calls:
        message["extra_content"] = _signature_member(signatures[0])
    return message


def _build_call(source: Mapping[str, Any], *, is_streamed: bool) -> Json:
    """Builds a call. Cuts the signature out of litellm's id.

    OpenAI's ids have at most 40 characters, which is too few for the signature.
    """
    function = source.get("function") or {}
    call: Json = {"index": source.get("index", 0)} if is_streamed else {}
    if source.get("id"):
        call["id"] = source["id"].split(_SEPARATOR, 1)[0]
        call["type"] = "function"
    name_member = {"name": clean_name(function["name"])} if function.get("name") else {}
    call["function"] = {
        **name_member,
        "arguments": function.get("arguments") or "",
    }
    specific_fields = source.get("provider_specific_fields")
    if isinstance(specific_fields, Mapping) and specific_fields.get("thought_signature"):
        call["extra_content"] = _signature_member(specific_fields["thought_signature"])
    return call


def _signature_member(signature: object) -> Json:
    return {"google": {"thought_signature": signature}}


def finish_reason(reason: object, *, has_calls: bool) -> str:
    """Returns OpenAI's finish reason.

    An unknown reason stays, so that the client does not read it as a good one.
    """
    if has_calls and reason in (None, "", "stop"):
        return "tool_calls"
    if not reason or reason in FINISH_REASONS:
        return str(reason or "stop")
    # A failed or unknown reason must not become a good one.
    word = _REASON_BY_ENDING.get(read_ending(reason), str(reason))
    return "tool_calls" if has_calls and word == "stop" else word


def chat_usage(source: object) -> Json:
    """Returns a chat's usage.

    Prompt tokens include cached and written tokens; completion tokens include reasoning.
    """
    usage = source if isinstance(source, Mapping) else {}
    prompt_tokens = read_count(usage.get("prompt_tokens"))
    output_tokens = read_count(usage.get("completion_tokens"))
    prompt_details = usage.get("prompt_tokens_details") or {}
    output_details = usage.get("completion_tokens_details") or {}
    details: Json = {"cached_tokens": read_count(prompt_details.get("cached_tokens"))}
    written_tokens = read_count(prompt_details.get("cache_creation_tokens"))
    if written_tokens:
        details["cache_creation_tokens"] = written_tokens
        written_details = prompt_details.get("cache_creation_token_details")
        if isinstance(written_details, Mapping) and (
            hour_tokens := read_count(written_details.get(_HOUR_TOKENS))
        ):
            details["cache_creation_token_details"] = {_HOUR_TOKENS: hour_tokens}
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
        "prompt_tokens_details": details,
        "completion_tokens_details": {
            "reasoning_tokens": read_count(output_details.get("reasoning_tokens"))
        },
    }


class ChunkMaker:
    """Builds a stream's chunks with its id, model and time, and begins it with the role."""

    def __init__(self) -> None:
        self.id = ""
        self.model = ""
        self.created = 0
        self.tier: object = None  # the service tier, once an event names it
        self._has_begun = False
        self._has_calls = False

    def deltas(self, message: Json) -> list[Json]:
        """Returns the chunk of a delta, after the opening chunk if it is the first one."""
        self._has_calls = self._has_calls or "tool_calls" in message
        chunks = []
        if not self._has_begun:
            self._has_begun = True
            chunks.append(self._build_chunk({"role": "assistant", "content": ""}))
        if message:
            chunks.append(self._build_chunk(message))
        return chunks

    def finish(self, reason: object) -> Json:
        return self._build_chunk({}, finish_reason(reason, has_calls=self._has_calls))

    def usage(self, source: object) -> Json:
        """Returns the last chunk, which has the usage and no choice."""
        return {
            **self._build_head(),
            "choices": [],
            "usage": chat_usage(source),
        }

    def _build_chunk(self, delta: Json, finish: str | None = None) -> Json:
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": None,
            "finish_reason": finish,
        }
        return {**self._build_head(), "choices": [choice]}

    def _build_head(self) -> Json:
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            **_tier_member(self.tier),
        }
