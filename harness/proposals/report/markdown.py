"""Renders blocks as Markdown. Every text is data: the module escapes or fences it."""

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

MAX_QUOTATION: Final = 700  # characters of a quotation
_FENCE: Final = re.compile("`{3,}")
_MARKDOWN_SIGNS: Final = re.compile(r"([|`*_<>\[\]\\])")


def render_markdown(blocks: Iterable[Block]) -> str:
    """Renders a document, with at most one empty line between its parts."""
    # Terminals show reports too, and would obey control characters in models' texts.
    parts = [part for block in blocks for part in _format_block(block)]
    return escape_controls("\n\n".join(parts).rstrip()) + "\n"


def _format_block(block: Block) -> Iterator[str]:
    """Yields the paragraphs of a block."""
    match block:
        case Heading(text, level):
            yield f"{'#' * level} {_format_inline(text)}"
        case Sentence(text):
            yield _format_inline(text)
        case Facts(rows):
            yield "\n".join(itertools.starmap(_format_fact, rows))
        case BulletList(name, items):
            yield f"**{_escape(name)}:**"
            yield "\n".join(map(_format_bullet, items))
        case Table(heads, rows):
            yield "\n".join(_format_table(heads, rows))
        case Commands(lines):
            yield "\n".join(["```", *lines, "```"])
        case Quotation(name, text):
            yield from filter(None, (_escape(name), "\n".join(_format_fence(text))))
        case Interval():
            return  # the table of suites has its figures
        case Folded(name, blocks):
            yield f"### {_escape(name)}"
            yield from itertools.chain.from_iterable(map(_format_block, blocks))
        case _:
            assert_never(block)


def _format_fact(name: str, text: Text) -> str:
    return f"- **{_escape(name)}:** {_format_inline(text)}"


def _format_bullet(item: Text) -> str:
    return f"- {_format_inline(item)}"


def _format_table(heads: Sequence[str], rows: Sequence[Sequence[Text]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield f"| {' | '.join(map(_format_inline, row))} |"


def _format_inline(text: Text) -> str:
    """Writes a text in one line, with Markdown's signs escaped."""
    return "".join(map(_format_span, split_spans(text))).strip()


def _format_span(span: str | Code | Strong) -> str:
    if isinstance(span, Strong):
        return f"**{_escape(span.text)}**"
    if isinstance(span, str):
        return _escape(span)
    # A code span cannot escape a backtick, and a table splits at a bar even inside a span.
    plain = " ".join(span.text.split()).replace("`", "'").replace("|", "\\|")
    return f"`{plain}`"


def _escape(text: str) -> str:
    return _MARKDOWN_SIGNS.sub(r"\\\1", re.sub(r"\s+", " ", text))


def _format_fence(text: str) -> Sequence[str]:
    """Fences a text with a fence longer than any fence in the text, and marks a shortened
    end.
    """
    shown = text if len(text) <= MAX_QUOTATION else text[:MAX_QUOTATION].rstrip() + " […]"
    longest = max((len(match_) for match_ in _FENCE.findall(shown)), default=2)
    fence = "`" * (longest + 1)
    return (f"{fence}text", *shown.splitlines(), fence)
