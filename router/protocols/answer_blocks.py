"""The parts of an answer, whichever protocol carries it; translations read and write these."""

from enum import Enum, StrEnum
from typing import NamedTuple, Protocol


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


class AnswerTokens(NamedTuple):
    input: int
    output: int
    cached: int = 0  # of the input
    reasoning: int = 0  # of the output
    written: int = 0  # of the input, what was written to the prompt cache
    hour: int = 0  # of these, what it keeps for an hour


class AnswerHead(NamedTuple):
    """What a provider says before its answer."""

    id: str
    model: str
    created: int = 0  # seconds since 1970, as the provider says; 0 when it does not


class AnswerEnd(NamedTuple):
    finish: FinishReason
    stop_sequence: str  # the one that was met, where the provider names it; else empty
    tokens: AnswerTokens | None
    word: str = ""  # the provider's, where nothing is known of it


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
