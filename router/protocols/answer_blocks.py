"""Answer blocks are the parts of a model's answer (thinking, text, refusal, tool call) with its
head, end and tokens, whichever protocol carries it; `AnswerWriter` is the interface that writes
them as a stream. A translation between protocols reads into and writes from these.
"""

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
    """Writes a stream: `begin`, each block (`open`, `more`, `close`), `end`.

    An `error` may come at any point, and nothing after it.
    """

    def begin(self, head: AnswerHead) -> bytes: ...

    def open(self, block: AnswerBlock) -> bytes: ...

    def more(self, text: str) -> bytes: ...

    def close(self, sealed: str = "") -> bytes: ...

    def end(self, end: AnswerEnd) -> bytes: ...

    def error(self, error: object) -> bytes: ...
