"""The probe of a provider that speaks Anthropic's Messages and no chat."""

import json
from typing import Final

from evals.wire import MalformedReply, Reply
from harness.domain.targets import Target

MAX_TOKENS: Final = 64


def body(target: Target, question: str) -> dict[str, object]:
    """The question, with the target's parameters and its request patch."""
    patch = target.request_patch
    return {
        "max_tokens": MAX_TOKENS,
        **target.parameters,
        **patch.parameters,
        **({"system": patch.prompt_addendum} if patch.prompt_addendum else {}),
        "model": target.model,
        "messages": [{"role": "user", "content": question}],
    }


def reply(raw: bytes) -> Reply:
    """Raises MalformedReply for what is no message."""
    try:
        message = json.loads(raw)
        blocks, usage = message["content"], message["usage"]
        return Reply(
            text="".join(str(each["text"]) for each in blocks if each["type"] == "text"),
            tool_calls=(),
            finish=str(message["stop_reason"]),
            input_tokens=int(usage["input_tokens"]),
            cached_tokens=0,
            output_tokens=int(usage["output_tokens"]),
            model=str(message["model"]),
            fingerprint="",
        )
    except (ValueError, LookupError, TypeError, RecursionError):
        raise MalformedReply("a 200 that is no message") from None
