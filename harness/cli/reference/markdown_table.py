"""Writes what generated pages are made of: the head of a page, tables, links to other pages."""

from collections.abc import Iterable, Sequence
from os.path import relpath

from harness import docs_pages

NOTE = "<!-- Written by `swapgate docs generate`; do not edit. -->"


def page(title: str, *parts: str) -> str:
    """Writes a page: its title, the note that it is generated, its parts."""
    return "\n\n".join([f"# {title}", NOTE, *parts]) + "\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Writes a table; a cell is Markdown on one line."""
    lines = [_row(heads), _row(["---"] * len(heads))]
    return "\n".join([*lines, *(_row(row) for row in rows)])


def link(page: str, text: str) -> str:
    """Writes a link from a page in docs/reference to another, named as `swapgate docs open`
    takes it; `#section` may follow. Raises NotFound.
    """
    name, mark, section = page.partition("#")
    markdown = docs_pages.find_page(name).markdown
    return f"[{text}]({relpath(markdown, docs_pages.DOCS / 'reference')}{mark}{section})"


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def _row(cells: Sequence[str]) -> str:
    escaped = [" ".join(cell.split()).replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"
