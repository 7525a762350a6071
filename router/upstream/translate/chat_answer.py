"""Shapes answers exactly as OpenAI does.

The translations of all kinds end here. litellm's shapes differ in details that clients
notice: ids, finish reasons, counts of tokens. Refusals are in `provider_errors`.
"""

from collections.abc import Mapping
from typing import Any, Final

from router.conversation.intake import clean_name
from router.protocols.answers import AnswerEnding, read_ending

Json = dict[str, Any]

FINISH_REASONS: Final = frozenset({"stop", "length", "tool_calls", "content_filter"})
_FINISHES: Final[Mapping[AnswerEnding, str]] = {
    AnswerEnding.GOOD: "stop",
    AnswerEnding.CUT: "length",
    AnswerEnding.REFUSED: "content_filter",
}
_HOUR: Final = "ephemeral_1h_input_tokens"
_SEPARATOR: Final = "__thought__"


def completion(
    given: Mapping[str, Any],
    *,
    id_: str,
    model: str,
    reason: object,
    tier: object,
) -> Json:
    """Shapes an answer.

    id_, model: of the answer; if id_ is empty, litellm's id is used. reason: the provider's
    finish reason; litellm may hide a bad one. tier: the service tier, if the answer names one.
    """
    choice = given["choices"][0]
    message = chat_message(choice.get("message") or {})
    shaped: Json = {
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
            calls="tool_calls" in message,
        ),
    }
    return {
        "id": id_ or given.get("id") or "",
        "object": "chat.completion",
        "created": int(given.get("created") or 0),
        "model": model,
        "choices": [shaped],
        "usage": chat_usage(given.get("usage")),
        **_named_tier(tier),
    }


def _named_tier(tier: object) -> Json:
    return {"service_tier": tier} if tier and isinstance(tier, str) else {}


def chat_message(given: Mapping[str, Any], *, streamed: bool = False) -> Json:
    """Keeps the members of a message or delta that clients know. streamed: calls get their
    index.
    """
    found: Json = {}
    for name in (
        "content",
        "reasoning_content",
        "thinking_blocks",
        "annotations",
        "images",
    ):
        if given.get(name):
            found[name] = given[name]
    calls = given.get("tool_calls")
    if calls:
        found["tool_calls"] = [_call(call, streamed=streamed) for call in calls]
    more = given.get("provider_specific_fields")
    signatures = more.get("thought_signatures") if isinstance(more, Mapping) else None
    if signatures and not calls:
        found["extra_content"] = _signed(signatures[0])
    return found


def _call(given: Mapping[str, Any], *, streamed: bool) -> Json:
    """OpenAI's ids have at most 40 characters, too few for the signature in litellm's ids."""
    function = given.get("function") or {}
    call: Json = {"index": given.get("index", 0)} if streamed else {}
    if given.get("id"):
        call["id"] = given["id"].split(_SEPARATOR, 1)[0]
        call["type"] = "function"
    named = {"name": clean_name(function["name"])} if function.get("name") else {}
    call["function"] = {
        **named,
        "arguments": function.get("arguments") or "",
    }
    more = given.get("provider_specific_fields")
    if isinstance(more, Mapping) and more.get("thought_signature"):
        call["extra_content"] = _signed(more["thought_signature"])
    return call


def _signed(signature: object) -> Json:
    return {"google": {"thought_signature": signature}}


def finish_reason(reason: object, *, calls: bool) -> str:
    """Returns OpenAI's finish reason. An unknown reason stays, so that it is not read as a
    good one.
    """
    if calls and reason in (None, "", "stop"):
        return "tool_calls"
    if not reason or reason in FINISH_REASONS:
        return str(reason or "stop")
    # A failed or unknown reason must not become a good one.
    word = _FINISHES.get(read_ending(reason), str(reason))
    return "tool_calls" if calls and word == "stop" else word


def chat_usage(given: object) -> Json:
    """Prompt tokens include cached and written tokens; completion tokens include reasoning."""
    usage = given if isinstance(given, Mapping) else {}
    prompt = _count(usage.get("prompt_tokens"))
    output = _count(usage.get("completion_tokens"))
    of_prompt = usage.get("prompt_tokens_details") or {}
    of_output = usage.get("completion_tokens_details") or {}
    details: Json = {"cached_tokens": _count(of_prompt.get("cached_tokens"))}
    written = _count(of_prompt.get("cache_creation_tokens"))
    if written:
        details["cache_creation_tokens"] = written
        split = of_prompt.get("cache_creation_token_details")
        if isinstance(split, Mapping) and (hour := _count(split.get(_HOUR))):
            details["cache_creation_token_details"] = {_HOUR: hour}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": details,
        "completion_tokens_details": {
            "reasoning_tokens": _count(of_output.get("reasoning_tokens"))
        },
    }


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


class ChunkMaker:
    """Builds a stream's chunks with its id, model and time, and begins it with the role."""

    def __init__(self) -> None:
        self.id = ""
        self.model = ""
        self.created = 0
        self.tier: object = None  # the service tier, once an event names it
        self._begun = False
        self._calls = False

    def deltas(self, message: Json) -> list[Json]:
        """Returns the chunk of a delta, after the opening chunk if it is the first one."""
        self._calls = self._calls or "tool_calls" in message
        found = []
        if not self._begun:
            self._begun = True
            found.append(self._chunk({"role": "assistant", "content": ""}))
        if message:
            found.append(self._chunk(message))
        return found

    def finish(self, reason: object) -> Json:
        return self._chunk({}, finish_reason(reason, calls=self._calls))

    def usage(self, given: object) -> Json:
        """Returns the last chunk, which has the usage and no choice."""
        return {
            **self._head(),
            "choices": [],
            "usage": chat_usage(given),
        }

    def _chunk(self, delta: Json, finish: str | None = None) -> Json:
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": None,
            "finish_reason": finish,
        }
        return {**self._head(), "choices": [choice]}

    def _head(self) -> Json:
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            **_named_tier(self.tier),
        }
