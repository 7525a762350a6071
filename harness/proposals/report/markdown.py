"""Renders blocks as Markdown. Every text is data: it is escaped, or stands in a fence."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, assert_never

from harness.frame.formatting import escape_controls
from harness.proposals.report.blocks import (
    Block,
    BulletList,
    Code,
    Commands,
    Facts,
    Folded,
    Heading,
    Interval,
    Quotation,
    Sentence,
    Strong,
    Table,
    Text,
    split_spans,
)

SHOWN: Final = 700  # characters of a quotation
_FENCE: Final = re.compile("`{3,}")
_SIGNS: Final = re.compile(r"([|`*_<>\[\]\\])")


def render_markdown(blocks: Iterable[Block]) -> str:
    """Renders a document, with at most one empty line between its parts."""
    # Terminals show reports too, and would obey control characters in models' texts.
    parts = [part for block in blocks for part in _parts(block)]
    return escape_controls("\n\n".join(parts).rstrip()) + "\n"


def _parts(block: Block) -> Iterator[str]:
    """Yields the paragraphs of a block."""
    match block:
        case Heading(text, level):
            yield f"{'#' * level} {_inline(text)}"
        case Sentence(text):
            yield _inline(text)
        case Facts(rows):
            yield "\n".join(itertools.starmap(_fact, rows))
        case BulletList(name, items):
            yield f"**{_escape(name)}:**"
            yield "\n".join(map(_bullet, items))
        case Table(heads, rows):
            yield "\n".join(_table(heads, rows))
        case Commands(lines):
            yield "\n".join(["```", *lines, "```"])
        case Quotation(name, text):
            yield from filter(None, (_escape(name), "\n".join(_fence(text))))
        case Interval():
            return  # the table of suites has its figures
        case Folded(name, blocks):
            yield f"### {_escape(name)}"
            yield from itertools.chain.from_iterable(map(_parts, blocks))
        case _:
            assert_never(block)


def _fact(name: str, text: Text) -> str:
    return f"- **{_escape(name)}:** {_inline(text)}"


def _bullet(item: Text) -> str:
    return f"- {_inline(item)}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[Text]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield f"| {' | '.join(map(_inline, row))} |"


def _inline(text: Text) -> str:
    """Writes a text in one line, with Markdown's signs escaped."""
    return "".join(map(_span, split_spans(text))).strip()


def _span(span: str | Code | Strong) -> str:
    if isinstance(span, Strong):
        return f"**{_escape(span.text)}**"
    if isinstance(span, str):
        return _escape(span)
    # A code span cannot escape a backtick, and a table splits at a bar even inside a span.
    plain = " ".join(span.text.split()).replace("`", "'").replace("|", "\\|")
    return f"`{plain}`"


def _escape(text: str) -> str:
    return _SIGNS.sub(r"\\\1", re.sub(r"\s+", " ", text))


def _fence(text: str) -> Sequence[str]:
    """Fences a text with a fence longer than any in the text, and marks a cut end."""
    shown = text if len(text) <= SHOWN else text[:SHOWN].rstrip() + " […]"
    longest = max((len(match_) for match_ in _FENCE.findall(shown)), default=2)
    fence = "`" * (longest + 1)
    return (f"{fence}text", *shown.splitlines(), fence)
