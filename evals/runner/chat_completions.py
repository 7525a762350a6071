"""Builds a target's chat completion request, and parses the reply.

Pure: `provider_client` sends the requests. The router builds its requests by itself; only the
meaning of the target's parameters and its request patch is the same.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.frame.text_files import replace_surrogates
from harness.gate.pins import ServedModel
from harness.providers.answer_signs import (
    LONGEST_NAME,
    NO_ORIGIN,
    AnswerOrigin,
    reports_no_tokens,
)
from harness.providers.target import Price, RequestTarget

Message = Mapping[str, Any]


class MalformedReply(Exception):
    """A reply with status 200 is not a chat completion. The text gives the reason."""


@dataclass(frozen=True, slots=True)
class ReplyToolCall:
    id: str
    name: str
    arguments: str  # the provider's JSON text


@dataclass(frozen=True, slots=True)
class ChatReply:
    """A provider's answer. finish: the finish reason; empty if the provider sent none. Token
    counts are 0 if the provider reports no usage.
    """

    text: str
    tool_calls: tuple[ReplyToolCall, ...]
    finish: str
    input_tokens: int  # includes cached tokens
    cached_tokens: int
    output_tokens: int
    model: str
    fingerprint: str
    # Whether its usage reports 0 tokens; False without a usage.
    no_tokens: bool = False
    is_fallback: bool = False  # a gateway says that its fallback answered
    tier: str = ""  # the service tier, as the provider names it

    @property
    def served(self) -> ServedModel:
        return ServedModel(self.model, self.fingerprint)

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def cost_usd(self, price: Price | None) -> float | None:
        """Returns the cost in US dollars; None if the price of its tier or its usage is
        unknown.
        """
        if price is None or not self.input_tokens:
            return None
        counts = self.input_tokens, self.output_tokens, self.cached_tokens
        return price.answer_usd(*counts, tier=self.tier)


def request_body(
    target: RequestTarget,
    messages: Sequence[Message],
    settings: Mapping[str, Any],
    tools: Sequence[Message] = (),
) -> dict[str, Any]:
    """Builds a request.

    Args:
        settings: the suite's settings, such as the temperature.

    The target's parameters replace settings, so that the eval measures the deployed target.
    The request patch replaces both. The request omits null fields.
    """
    patch = target.request_patch
    fields: dict[str, Any] = {
        **settings,
        **target.parameters,
        **patch.parameters,
    }
    if fields.get("max_completion_tokens") is not None:
        fields.pop("max_tokens", None)
    if tools:
        fields["tools"] = list(tools)
    if patch.response_format is not None:
        fields["response_format"] = dict(patch.response_format)
    sent_fields = {key: value for key, value in fields.items() if value is not None}
    sent_fields.pop("stream", None)
    return {
        **sent_fields,
        "model": target.model,
        "messages": with_addendum(messages, patch.prompt_addendum),
    }


def with_addendum(messages: Sequence[Message], addendum: str) -> list[dict[str, Any]]:
    """Appends the addendum to the system message, or adds a system message."""
    copied = [dict(message) for message in messages]
    if not addendum:
        return copied
    for message in copied:
        if message["role"] == "system" and isinstance(message["content"], str):
            message["content"] = f"{message['content']}\n\n{addendum}"
            return copied
    return [{"role": "system", "content": addendum}, *copied]


def parse_reply(raw: bytes, origin: AnswerOrigin = NO_ORIGIN) -> ChatReply:
    """Parses the body of a chat completion. Raises MalformedReply.

    Args:
        origin: the sender that the headers name. Its model takes precedence over the body's.
    """
    try:
        # A lone surrogate in an answer must not break its evaluation.
        payload = replace_surrogates(json.loads(raw))
    except (ValueError, RecursionError):
        raise MalformedReply("the answer is not JSON") from None
    if not isinstance(payload, dict):
        raise MalformedReply("the answer is not a JSON object")
    if payload.get("error"):
        raise MalformedReply("the answer is an error inside a 200")
    try:
        choice = payload["choices"][0]
        message = choice["message"]
        return ChatReply(
            text=_read_text(message),
            tool_calls=tuple(
                ReplyToolCall(
                    str(call["id"]),
                    call["function"]["name"],
                    _read_arguments(call["function"]),
                )
                for call in message.get("tool_calls") or ()
            ),
            finish=str(choice.get("finish_reason") or ""),
            **_read_usage(payload.get("usage") or {}),
            model=origin.model or str(payload.get("model") or ""),
            fingerprint=str(payload.get("system_fingerprint") or _find_provider(payload)),
            is_fallback=origin.is_fallback,
            no_tokens=reports_no_tokens(payload.get("usage")),
            tier=str(payload.get("service_tier") or ""),
        )
    except (LookupError, TypeError, AttributeError, ValueError):
        raise MalformedReply("the answer is not a chat completion") from None


def _find_provider(payload: Mapping[str, Any]) -> str:
    """Returns the provider that OpenRouter names; empty without one."""
    provider = payload.get("provider")
    return provider[:LONGEST_NAME] if isinstance(provider, str) else ""


def _read_arguments(function: Mapping[str, Any]) -> Any:
    """Returns the arguments as text. Some servers send an object; the router allows it too."""
    arguments = function["arguments"]
    return json.dumps(arguments) if isinstance(arguments, dict) else arguments


def _read_text(message: Mapping[str, Any]) -> str:
    """Returns the text of a message. A refusal counts as the answer; text parts are joined."""
    content = message.get("content")
    if content is None:
        return str(message.get("refusal") or "")
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def _read_usage(usage: Mapping[str, Any]) -> dict[str, int]:
    """Reads the usage. Cached tokens are never more than the input tokens that contain them."""
    details = usage.get("prompt_tokens_details") or {}
    input_tokens = int(usage.get("prompt_tokens") or 0)
    return {
        "input_tokens": input_tokens,
        "cached_tokens": min(int(details.get("cached_tokens") or 0), input_tokens),
        "output_tokens": int(usage.get("completion_tokens") or 0),
    }
