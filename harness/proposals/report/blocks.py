"""Blocks of a document for people.

`document` builds them once from a comparison. `markdown`, `page` and the command line each
render them. Texts are plain: a renderer escapes every text for its medium, so a text that a
model or a person wrote stays data.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Code:
    """A name or a command inside a sentence."""

    text: str


@dataclass(frozen=True, slots=True)
class Strong:
    """Important words inside a sentence."""

    text: str


Span = str | Code | Strong
Text = Span | tuple[Span, ...]


def split_spans(text: Text) -> tuple[Span, ...]:
    """Returns the spans of a text."""
    return text if isinstance(text, tuple) else (text,)


def plain_text(text: Text) -> str:
    """Returns a text without its emphasis."""
    return "".join(span if isinstance(span, str) else span.text for span in split_spans(text))


def mark_code(sentence: str) -> Text:
    """Turns the `backticks` of a sentence into spans of code. Use it for Swapproof's own
    sentences.
    """
    parts = sentence.split("`")
    if len(parts) % 2 == 0:  # a backtick without its end is no code
        return sentence
    spans = (Code(part) if index % 2 else part for index, part in enumerate(parts))
    return tuple(span for span in spans if span)


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading. level: 1 for the document's title, then 2 and 3."""

    text: Text
    level: int = 2


@dataclass(frozen=True, slots=True)
class Sentence:
    """One or several sentences, as a paragraph."""

    text: Text


@dataclass(frozen=True, slots=True)
class Facts:
    """Named facts: (name, text)."""

    rows: Sequence[tuple[str, Text]]


@dataclass(frozen=True, slots=True)
class BulletList:
    """A list. name: its title, such as `Against the swap`."""

    name: str
    items: Sequence[Text]


@dataclass(frozen=True, slots=True)
class Table:
    """A table with at least one row."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Text]]


@dataclass(frozen=True, slots=True)
class Commands:
    """Shell commands to copy, one a line."""

    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Quotation:
    """A text from or to a model. name: such as `Incumbent`; may be empty."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference with its 95 % interval, to draw. Shares of 1, candidate minus incumbent."""

    name: str
    delta: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Folded:
    """Details that a page folds, and that a terminal leaves to the report."""

    name: str
    blocks: Sequence["Block"]


Block = (
    Heading | Sentence | Facts | BulletList | Table | Commands | Quotation | Interval | Folded
)
Blocks = Iterator[Block]
