"""What an answer consists of, whatever protocol says it."""

from enum import Enum, StrEnum
from typing import NamedTuple, Protocol


class Kind(Enum):
    THINKING = "thinking"
    TEXT = "text"
    REFUSAL = "refusal"
    CALL = "call"


class Block(NamedTuple):
    """text: of a call its arguments, as JSON. call_id, name: of a call alone."""

    kind: Kind
    text: str = ""
    call_id: str = ""
    name: str = ""


class Finish(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    CALLS = "tool_calls"
    FILTERED = "content_filter"


class Tokens(NamedTuple):
    """cached: of the input. reasoning: of the output."""

    input: int
    output: int
    cached: int = 0
    reasoning: int = 0


class Head(NamedTuple):
    """created: seconds since 1970, as the provider says; 0 when it does not."""

    id: str
    model: str
    created: int = 0


class End(NamedTuple):
    """stop_sequence: the one that was met, where the provider tells; else empty."""

    finish: Finish
    stop_sequence: str
    tokens: Tokens | None


class Answered(NamedTuple):
    """A whole answer."""

    head: Head
    blocks: tuple[Block, ...]
    end: End


class Writer(Protocol):
    """Writes a stream: `begin`, each block (`open`, `more`, `close`), `end`.

    An `error` may come at any point, and nothing after it.
    """

    def begin(self, head: Head) -> bytes: ...

    def open(self, block: Block) -> bytes: ...

    def more(self, text: str) -> bytes: ...

    def close(self) -> bytes: ...

    def end(self, end: End) -> bytes: ...

    def error(self, error: object) -> bytes: ...
