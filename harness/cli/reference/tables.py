"""Writes tables of the reference pages from their registries: metrics, errors with their exit
codes, and the places that hold content.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os.path import relpath
from typing import Final

from harness import docs_pages
from harness.domain import errors
from harness.domain.errors import SwapgateError
from harness.domain.operations.metrics import (
    CONTROL_METRICS,
    PROCESS_COUNTERS,
    ROUTER_METRICS,
    MetricSpec,
)
from harness.domain.privacy.stored_content import BEYOND, COLUMNS, FILES, USERS, ContentColumn

PLACES: Final = ("Place", "What it holds", "Ends", "Deletion of a user")
ERROR_LINE: Final = re.compile(r"^[│├└─ ]+(\w+) +(.+)$", re.MULTILINE)


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


def metric_tables() -> dict[str, str]:
    """Writes a table of metrics for each kind of process that has some."""
    kinds = {
        "router": ROUTER_METRICS,
        "processes": PROCESS_COUNTERS,
        "control": CONTROL_METRICS,
    }
    heads = ("Name", "Kind", "Labels", "Meaning")
    return {name: table(heads, _metric_rows(metrics)) for name, metrics in kinds.items()}


def _metric_rows(metrics: Mapping[str, MetricSpec]) -> Iterable[tuple[str, str, str, str]]:
    for name, spec in metrics.items():
        stored = f"{name}_total" if spec.kind == "counter" else name
        yield code(stored), spec.kind, ", ".join(spec.labels), spec.meaning


def content_tables() -> dict[str, str]:
    """Writes every place with content, and what a deletion does not reach."""
    files = ((file.place, file.holds, file.ends, file.deletion) for file in FILES)
    return {
        "content": table(PLACES, _places(COLUMNS)),
        "users": table(PLACES, _places(USERS)),
        "files": table(PLACES, files),
        "beyond": "\n".join(f"- {text[0].upper()}{text[1:]}." for text in BEYOND),
    }


def _places(columns: Iterable[ContentColumn]) -> Iterable[tuple[str, ...]]:
    for column in columns:
        place = code(f"{column.table}.{column.column}")
        yield place, column.holds, column.ends, column.deletion


def error_table() -> str:
    """Writes the errors in the order of the tree in their module's docstring."""
    classes = {cls.__name__: cls for cls in _below(SwapgateError)}
    rows = []
    for name, meaning in ERROR_LINE.findall(errors.__doc__ or ""):
        cls = classes[name]
        retryable = "yes" if cls.retryable else "no"
        rows.append((code(name), str(cls.exit_code), retryable, meaning))
    return table(("Kind", "Exit code", "Retryable", "Means"), rows)


def _below(cls: type[SwapgateError]) -> Iterator[type[SwapgateError]]:
    for child in cls.__subclasses__():
        yield child
        yield from _below(child)
