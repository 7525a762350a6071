"""The table of what each provider's reason to end an answer means.

A word that is not in it is never silently a success.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from harness.domain.reliability.failures import FailureClass


class AnswerEnding(StrEnum):
    GOOD = "good"
    CUT = "cut"  # a limit of length: the caller's, or the model's
    REFUSED = "refused"  # the model or a filter declines
    FAILED = "failed"  # the provider gave up
    UNKNOWN = "unknown"  # with words it is passed on, and counted as irregular; else it failed


_E, _F = AnswerEnding, FailureClass
# In lower case, by protocol and by the providers that have words of their own.
ENDS: Final[Mapping[str, Mapping[str, AnswerEnding]]] = {
    "chat": {
        "stop": _E.GOOD,
        "tool_calls": _E.GOOD,
        "function_call": _E.GOOD,
        "length": _E.CUT,
        "content_filter": _E.REFUSED,
    },
    "messages": {
        "end_turn": _E.GOOD,
        "stop_sequence": _E.GOOD,
        "tool_use": _E.GOOD,
        "pause_turn": _E.GOOD,
        "compaction": _E.GOOD,
        "max_tokens": _E.CUT,
        "model_context_window_exceeded": _E.CUT,
        "refusal": _E.REFUSED,
    },
    "responses": {
        "completed": _E.GOOD,
        "max_output_tokens": _E.CUT,
        "max_tool_calls": _E.CUT,
        "incomplete": _E.CUT,
        "failed": _E.FAILED,
        "cancelled": _E.FAILED,
    },
    "deepseek": {"insufficient_system_resource": _E.FAILED},
    "mistral": {"model_length": _E.CUT, "error": _E.FAILED},
    "vllm": {"abort": _E.FAILED, "eos_token": _E.GOOD, "eos": _E.GOOD},
    "zhipu": {"sensitive": _E.REFUSED, "network_error": _E.FAILED},
    "cohere": {
        "complete": _E.GOOD,
        "tool_call": _E.GOOD,
        "error_toxic": _E.REFUSED,
        "error_limit": _E.CUT,
        "user_cancel": _E.FAILED,
        "timeout": _E.FAILED,
    },
    "ollama": {"load": _E.FAILED, "unload": _E.FAILED},
    "bedrock": {
        "guardrail_intervened": _E.REFUSED,
        "content_filtered": _E.REFUSED,
        "malformed_model_output": _E.FAILED,
        "malformed_tool_use": _E.FAILED,
    },
    "google": {
        "safety": _E.REFUSED,
        "recitation": _E.REFUSED,
        "blocklist": _E.REFUSED,
        "prohibited_content": _E.REFUSED,
        "spii": _E.REFUSED,
        "language": _E.REFUSED,
        "image_safety": _E.REFUSED,
        "image_prohibited_content": _E.REFUSED,
        "image_recitation": _E.REFUSED,
        "model_armor": _E.REFUSED,
        "malformed_function_call": _E.FAILED,
        "unexpected_tool_call": _E.FAILED,
        "malformed_response": _E.FAILED,
        "too_many_tool_calls": _E.FAILED,
        "missing_thought_signature": _E.FAILED,
        "no_image": _E.FAILED,
        "image_other": _E.FAILED,
        "other": _E.FAILED,
        "finish_reason_unspecified": _E.FAILED,
    },
    "others": {"server_error": _E.FAILED, "aborted": _E.FAILED},
}
_BY_WORD: Final = {word: end for words in ENDS.values() for word, end in words.items()}


def read_ending(reason: object) -> AnswerEnding:
    """Google's chats have a filter's name before the word: `function_call_filter: …`."""
    word = str(reason).lower()
    return _BY_WORD.get(word) or _BY_WORD.get(word.rpartition(": ")[2], AnswerEnding.UNKNOWN)


def ending_failure(reason: object, *, has_output: bool, silence: bool) -> FailureClass | None:
    """Classifies an end. has_output: no thoughts. silence: no output is an answer, too."""
    ending = read_ending(reason)
    if ending is AnswerEnding.FAILED or (ending is AnswerEnding.UNKNOWN and not has_output):
        return _F.ABORTED
    if has_output or silence or ending is not AnswerEnding.GOOD:
        return None
    return _F.EMPTY


def ending_words(failure: FailureClass, reason: object) -> str:
    if failure is _F.EMPTY:
        return f"an answer without words, calls or a refusal (it ended with {str(reason)!r})"
    return f"the provider ended its answer with {str(reason)[:60]!r}"
