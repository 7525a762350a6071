"""Writes docs/reference/privacy.md from `domain.privacy.stored_content`."""

from collections.abc import Iterable

from harness.cli.reference.markdown_table import code, link, page, table
from harness.domain.privacy.stored_content import BEYOND, COLUMNS, FILES, USERS, ContentColumn

HEADS = ("Place", "What it holds", "Ends", "Deletion of a user")


def privacy_page() -> str:
    """Writes the page of every place with content."""
    return page(
        "Where content is",
        "Every column and file that can hold what people and models wrote, or that tells one "
        f"user from another. How to use it: {link('how-to/privacy', 'privacy')}. A test holds "
        "this page against the schema of the database: no column of text is missing.",
        "## Content",
        table(HEADS, _rows(COLUMNS)),
        "## Users",
        table(HEADS, _rows(USERS)),
        "## Files",
        table(
            HEADS,
            ((f.place, f.holds, f.ends, f.deletion) for f in FILES),
        ),
        "## What a deletion does not reach",
        "\n".join(f"- {sentence[0].upper()}{sentence[1:]}." for sentence in BEYOND),
    )


def _rows(columns: Iterable[ContentColumn]) -> Iterable[tuple[str, ...]]:
    for column in columns:
        place = code(f"{column.table}.{column.column}")
        yield place, column.holds, column.ends, column.deletion
