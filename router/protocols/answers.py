"""The parts, tokens and ends of an answer, whichever protocol carries it.

`ENDS` says what each reason to end an answer means. No other word is silently a success.
"""

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import Final, NamedTuple, Protocol

from harness.frame.failures import FailureClass


class BlockKind(Enum):
    THINKING = "thinking"
    TEXT = "text"
    REFUSAL = "refusal"
    CALL = "call"


class AnswerBlock(NamedTuple):
    kind: BlockKind
    text: str = ""  # of a call its arguments, as JSON
    call_id: str = ""  # call_id, name: of a call alone
    name: str = ""
    sealed: str = ""  # of a thought what its maker signed, as `seal_thoughts` writes it


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    CALLS = "tool_calls"
    FILTERED = "content_filter"
    UNKNOWN = "unknown"  # the answer's own word is `AnswerEnd.word`


class TokenUsage(NamedTuple):
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0  # of the input, what the prompt cache had
    written_tokens: int = 0  # of the input, what was written to it
    hour_tokens: int = 0  # of these, what it keeps for an hour


class AnswerHead(NamedTuple):
    id: str
    model: str
    created: int = 0  # seconds since 1970, as the provider says; 0 when it does not


class AnswerEnd(NamedTuple):
    finish: FinishReason
    stop_sequence: str  # the one that was met, where the provider names it; else empty
    usage: TokenUsage | None
    word: str = ""  # the provider's, where nothing is known of it
    reasoning_tokens: int = 0  # of the output


class WholeAnswer(NamedTuple):
    head: AnswerHead
    blocks: tuple[AnswerBlock, ...]
    end: AnswerEnd


class AnswerWriter(Protocol):
    """Writes `begin`, each block (`open`, `more`, `close`), `end`; `error` at any point."""

    def begin(self, head: AnswerHead) -> bytes: ...

    def open(self, block: AnswerBlock) -> bytes: ...

    def more(self, text: str) -> bytes: ...

    def close(self, sealed: str = "") -> bytes: ...

    def end(self, end: AnswerEnd) -> bytes: ...

    def error(self, error: object) -> bytes: ...


# No conversation is so long; and neither sums nor databases have room for just any number.
MOST_TOKENS: Final = 10**9


NO_USAGE: Final = TokenUsage(0, 0)


def read_usage(value: object) -> TokenUsage | None:
    if not isinstance(value, dict):
        return None
    return usage_with_cache(
        value.get("prompt_tokens"),
        value.get("completion_tokens"),
        value.get("prompt_tokens_details"),
    )


def usage_with_cache(given: object, made: object, details: object) -> TokenUsage:
    # As `read_count` has them: every answer comes here.
    input_tokens = given if isinstance(given, int) and 0 < given <= MOST_TOKENS else 0
    output_tokens = made if isinstance(made, int) and 0 < made <= MOST_TOKENS else 0
    if not details or not isinstance(details, dict):
        return TokenUsage(input_tokens, output_tokens)
    cached = min(read_count(details.get("cached_tokens")), input_tokens)
    # OpenAI's own name, and the name that other gateways and the library use for Anthropic's.
    told = details.get("cache_write_tokens") or details.get("cache_creation_tokens")
    if not told:
        return TokenUsage(input_tokens, output_tokens, cached)
    written = min(read_count(told), input_tokens - cached)
    hour = min(read_hour_count(details.get("cache_creation_token_details")), written)
    return TokenUsage(input_tokens, output_tokens, cached, written, hour)


def read_hour_count(details: object) -> int:
    if not isinstance(details, dict):
        return 0
    return read_count(details.get("ephemeral_1h_input_tokens"))


def read_count(value: object) -> int:
    return value if isinstance(value, int) and 0 < value <= MOST_TOKENS else 0


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
