"""The parts, tool calls, tokens and finish reasons of an answer, in every protocol.

`ENDS` classifies each known finish reason. The router never counts an unknown one as good.
The protocols' readers fill these types and their writers write them, so that a translation
needs one reader and one writer. Streams are filtered in `event_stream`.
"""

from collections.abc import Callable, Iterator, Mapping
from enum import Enum, StrEnum
from typing import Final, NamedTuple, Protocol, TypeVar

from jiter import from_json

from harness.frame.failures import FailureClass
from router.frame.body import iter_objects


class BlockKind(Enum):
    THINKING = "thinking"
    TEXT = "text"
    REFUSAL = "refusal"
    CALL = "call"


class AnswerBlock(NamedTuple):
    """A part of an answer with one kind of content. text: complete, or empty for a block
    that opens.
    """

    kind: BlockKind
    text: str = ""  # for a call: the arguments, as JSON
    call_id: str = ""  # only for a call
    name: str = ""  # only for a call
    sealed: str = ""  # for thinking: the signed blocks, as `seal_thoughts` writes them


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    CALLS = "tool_calls"
    FILTERED = "content_filter"
    UNKNOWN = "unknown"  # `AnswerEnd.word` has the provider's reason


class TokenUsage(NamedTuple):
    """The tokens of one request. input_tokens includes cached and written tokens.

    A count of 0 means that the count is unknown, because each prompt and answer has a
    token. Only the output of an embedding really is 0.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0  # input tokens read from the prompt cache
    written_tokens: int = 0  # input tokens written to the prompt cache
    hour_tokens: int = 0  # written tokens that the cache keeps for an hour
    tier: str = ""  # the service tier, as the provider names it (`Price.for_answer`)


class AnswerHead(NamedTuple):
    """The facts that begin an answer."""

    id: str
    model: str
    created: int = 0  # the provider's time, in seconds since 1970; 0 if absent
    tier: str = ""  # as in `TokenUsage`


class AnswerEnd(NamedTuple):
    """The facts that end an answer. usage: None if the provider counts no tokens."""

    finish: FinishReason
    stop_sequence: str  # the sequence that ended the answer, if the provider names it
    usage: TokenUsage | None
    word: str = ""  # the provider's finish reason, if the router does not know it
    reasoning_tokens: int = 0  # part of the output tokens


class WholeAnswer(NamedTuple):
    """A complete answer. `AnswerWriter` gets the same parts one by one."""

    head: AnswerHead
    blocks: tuple[AnswerBlock, ...]
    end: AnswerEnd


class AnswerWriter(Protocol):
    """Writes an answer: `begin`, then `open`, `more`, `close` for each block, then `end`.

    `error` may follow at any point.
    """

    def begin(self, head: AnswerHead) -> bytes:
        """Begins the answer's events."""

    def open(self, block: AnswerBlock) -> bytes:
        """Opens a block. Its text follows in `more`."""

    def more(self, text: str) -> bytes:
        """Writes a piece of the open block's text; of a call, a piece of its arguments."""

    def close(self, sealed: str = "") -> bytes:
        """Closes the open block.

        Args:
            sealed: the signed blocks of its thinking.
        """

    def end(self, end: AnswerEnd) -> bytes:
        """Writes the answer's last events."""

    def error(self, error: object) -> bytes:
        """Writes an error event.

        Args:
            error: as the provider sent it.
        """


# Higher than any real count. The limit protects sums and database columns from overflow.
MOST_TOKENS: Final = 10**9
NO_USAGE: Final = TokenUsage(0, 0)


def read_usage(value: object, tier: object = None) -> TokenUsage | None:
    """Reads a chat's usage; None without one. Implausible counts are read as 0.

    Moonshot and DeepSeek name the cached tokens beside the details. xAI counts thinking beside
    the completion's tokens, and only the total includes both.
    """
    if not isinstance(value, dict):
        return None
    get = value.get
    details = get("prompt_tokens_details")
    if not details:
        if "cached_tokens" in value:
            details = value
        elif "prompt_cache_hit_tokens" in value:
            details = {"cached_tokens": value["prompt_cache_hit_tokens"]}
    usage = read_usage_with_cache(
        get("prompt_tokens"),
        get("completion_tokens"),
        details,
        tier,
    )
    output_details = get("completion_tokens_details")
    thinking_tokens = (
        output_details.get("reasoning_tokens") if isinstance(output_details, dict) else None
    )
    if thinking_tokens and get("total_tokens") == sum(
        (*usage[:2], read_count(thinking_tokens))
    ):
        return usage._replace(output_tokens=usage.output_tokens + thinking_tokens)
    return usage


def read_usage_with_cache(
    input_count: object,
    output_count: object,
    details: object,
    tier: object = None,
) -> TokenUsage:
    """Reads the counts of OpenAI's protocols.

    Args:
        details: splits the input tokens by their use of the cache.
        tier: the answer's service tier; a value that is not text counts as no tier.

    Cached and written tokens are at most the input tokens.
    """
    if isinstance(input_count, float):
        input_count = read_count(input_count)
    if isinstance(output_count, float):
        output_count = read_count(output_count)
    # Inlines `read_count`, because every answer passes here.
    input_tokens = (
        input_count if isinstance(input_count, int) and 0 < input_count <= MOST_TOKENS else 0
    )
    output_tokens = (
        output_count if isinstance(output_count, int) and 0 < output_count <= MOST_TOKENS else 0
    )
    tier = tier if isinstance(tier, str) else ""
    if not details or not isinstance(details, dict):
        return TokenUsage(input_tokens, output_tokens, 0, 0, 0, tier)
    cached_tokens = min(read_count(details.get("cached_tokens")), input_tokens)
    # OpenAI's name. Otherwise the name by which gateways and LiteLLM pass on Anthropic's count.
    cache_writes = details.get("cache_write_tokens") or details.get("cache_creation_tokens")
    if not cache_writes:
        return TokenUsage(input_tokens, output_tokens, cached_tokens, 0, 0, tier)
    written_tokens = min(read_count(cache_writes), input_tokens - cached_tokens)
    hour_tokens = min(
        read_hour_count(details.get("cache_creation_token_details")), written_tokens
    )
    return TokenUsage(
        input_tokens, output_tokens, cached_tokens, written_tokens, hour_tokens, tier
    )


def read_hour_count(details: object) -> int:
    """Reads the tokens that the cache keeps for an hour; 0 without the count."""
    if not isinstance(details, dict):
        return 0
    return read_count(details.get("ephemeral_1h_input_tokens"))


def read_count(value: object) -> int:
    """Reads a count of tokens; 0 for a value that is no number up to MOST_TOKENS.

    Some providers weigh cached tokens by their price: such a count is rounded.
    """
    if isinstance(value, int):
        return value if 0 < value <= MOST_TOKENS else 0
    return round(value) if isinstance(value, float) and 0 < value <= MOST_TOKENS else 0


class AnswerEnding(StrEnum):
    """The meaning of a finish reason, in any protocol."""

    GOOD = "good"
    CUT = "cut"  # the caller's or the model's length limit
    REFUSED = "refused"  # the model or a filter refuses
    FAILED = "failed"
    UNKNOWN = "unknown"  # an irregularity if there is output, else a failure


_E = AnswerEnding
_F = FailureClass

# Finish reasons in lower case, by protocol; some providers have additional reasons.
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
    "vllm": {
        "abort": _E.FAILED,
        "eos_token": _E.GOOD,
        "eos": _E.GOOD,
    },
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
_ENDING_BY_WORD: Final = {word: end for words in ENDS.values() for word, end in words.items()}


def read_ending(reason: object) -> AnswerEnding:
    """Returns the meaning of a finish reason.

    Google's chats prefix the reason with a filter's name: `function_call_filter: …`.
    """
    word = str(reason).lower()
    return _ENDING_BY_WORD.get(word) or _ENDING_BY_WORD.get(
        word.rpartition(": ")[2], AnswerEnding.UNKNOWN
    )


def ending_failure(
    reason: object,
    *,
    has_output: bool,
    silence: bool,
) -> FailureClass | None:
    """Returns the failure that a finish reason means, if any.

    Args:
        has_output: the answer has output other than thinking.
        silence: the route accepts empty answers.
    """
    ending = read_ending(reason)
    if ending is AnswerEnding.FAILED or (ending is AnswerEnding.UNKNOWN and not has_output):
        return _F.ABORTED
    if has_output or silence or ending is not AnswerEnding.GOOD:
        return None
    return _F.EMPTY


def describe_failed_ending(failure: FailureClass, reason: object) -> str:
    """Returns the detail of a failure that an answer's ending caused."""
    if failure is _F.EMPTY:
        return f"an answer without words, calls or a refusal (it ended with {str(reason)!r})"
    return f"the provider ended its answer with {str(reason)[:60]!r}"


def read_content(content: object) -> Iterator[tuple[BlockKind, str]]:
    """Yields the kinds and texts of a content: a text, or parts of OpenAI and Mistral."""
    if isinstance(content, str):
        yield BlockKind.TEXT, content
    for part in iter_objects(content):
        match part.get("type"):
            case "text":
                yield BlockKind.TEXT, str(part.get("text") or "")
            case "refusal":
                yield BlockKind.REFUSAL, str(part.get("refusal") or "")
            case "thinking":
                for thought in iter_objects(part.get("thinking")):
                    yield BlockKind.THINKING, str(thought.get("text") or "")
            case _:
                pass


def is_thinking(content: object) -> bool:
    """Returns whether a content consists of thinking alone, in Mistral's parts."""
    return (
        content.__class__ is list
        and bool(content)
        and all(
            isinstance(part, dict) and part.get("type") == "thinking"
            for part in iter_objects(content)
        )
    )


def piece_place(call: Mapping[str, object], number: int) -> str:
    """Returns the place of a call's piece in its answer.

    The place is the piece's index. Some servers omit it at first; then the piece's number
    in the event takes its place.
    """
    index = call.get("index")
    return str(number if index is None else index)


NO_JSON: Final = object()
EMPTY: Final = "{}"
BROKEN_CALL: Final = "a tool call whose arguments are not a JSON object"


def parse_json(text: str) -> object:
    """Parses JSON, which may contain a lone surrogate. Returns NO_JSON for other text."""
    try:
        return from_json(text.encode("utf-8", "replace"), allow_inf_nan=False)
    except (ValueError, RecursionError):
        return NO_JSON


Call = TypeVar("Call", bound="CallPieces")


class CallPieces:
    """The received part of a tool call.

    sent_id, number: the id and index that a client gets.

    A piece that repeats the whole name so far does not extend it. A name ends when
    arguments begin. Some providers stream several calls in one place: after complete
    arguments, another object, name or id begins the next call. An empty object is a
    placeholder if arguments without a name follow it.
    """

    def __init__(self) -> None:
        self.id = ""
        self.sent_id = ""
        self.number = 0
        self.name = ""
        self.pieces: list[str] = []  # pieces of the arguments

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def whole(self) -> bool:
        """Whether the arguments so far are a complete JSON object."""
        text = self.text
        return text.rstrip().endswith("}") and isinstance(parse_json(text), Mapping)

    @property
    def broken(self) -> bool:
        """Whether there are arguments that are not a complete JSON object."""
        return bool(self.pieces) and not self.whole

    @property
    def is_empty(self) -> bool:
        """Returns whether the arguments are an empty object, which later pieces may replace."""
        return self.text.strip() == EMPTY

    def takes(
        self,
        call_id: object,
        name: object,
        arguments: object,
    ) -> bool:
        """Returns whether a piece belongs to this call, and not to a next one in the same
        place.
        """
        other_id = bool(call_id and self.id and call_id != self.id)
        other_name = bool(name and self.name and name != self.name)
        if not self.pieces:
            return not (other_id and other_name)
        if not (name or other_id) and self.is_empty:
            return True
        return not ((_opens_object(arguments) or other_id or other_name) and self.whole)

    def add(
        self,
        call_id: object,
        name: object,
        arguments: object,
    ) -> str:
        """Adds a piece. Returns its part of the arguments, empty without one."""
        if isinstance(call_id, str) and not self.id:
            self.id = call_id
        if isinstance(name, str) and name != self.name and not self.pieces:
            self.name += name
        if not isinstance(arguments, str) or not arguments:
            return ""
        if _opens_object(arguments) and self.is_empty:
            self.pieces.clear()
        self.pieces.append(arguments)
        return arguments


def _opens_object(arguments: object) -> bool:
    return isinstance(arguments, str) and arguments.lstrip().startswith("{")


def call_of_piece(
    calls: list[Call],
    create_call: Callable[[], Call],
    call_id: object,
    name: object,
    arguments: object,
) -> Call:
    """Returns the call that a piece continues, or adds a new call to `calls`.

    A new call without a name inherits the last call's name.
    """
    if not calls or not calls[-1].takes(call_id, name, arguments):
        call = create_call()
        call.name = calls[-1].name if calls and not name else ""
        calls.append(call)
    return calls[-1]


class CallCollector:
    """Joins the pieces of calls by their place in the answer, not by id or name."""

    __slots__ = ("_by_place",)

    def __init__(self) -> None:
        self._by_place: dict[object, list[CallPieces]] = {}

    def add(
        self,
        place: object,
        call_id: object,
        name: object,
        arguments: object,
    ) -> CallPieces:
        """Adds a piece to the call at its place, and returns the call."""
        calls = self._by_place.setdefault(place, [])
        call = call_of_piece(calls, CallPieces, call_id, name, arguments)
        call.add(call_id, name, arguments)
        return call

    @property
    def broken(self) -> bool:
        """Whether the arguments of any call are not a JSON object."""
        return any(call.broken for calls in self._by_place.values() for call in calls)
