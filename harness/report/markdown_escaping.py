"""Pieces of Markdown. What models and people wrote is data here, never markup."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

SHOWN: Final = 700
_FENCE: Final = re.compile("`{3,}")


def fenced(text: str) -> Sequence[str]:
    """In a fence that is longer than any in the text; its end is cut, and that is said."""
    shown = text if len(text) <= SHOWN else text[:SHOWN].rstrip() + " […]"
    longest = max((len(found) for found in _FENCE.findall(shown)), default=2)
    fence = "`" * (longest + 1)
    return (f"{fence}text", *shown.splitlines(), fence)


def cell(text: str) -> str:
    """Of a table: no line breaks, no column marks, no markup."""
    return re.sub(r"([|`*_<>\[\]\\])", r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """A name in a code span, which a table may hold."""
    plain = " ".join(text.split()).replace("`", "'").replace("|", "\\|")
    return f"`{plain}`"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
