"""Prints data on stdout (JSON documents, tables, facts) and notes on stderr. A terminal gets
drawn tables, a pipe plain text.
"""

import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

import click

from harness.frame.configuration.config_conversion import ConversionNote, ConversionOutcome
from harness.frame.formatting import DASH, escape_controls, format_harm, format_timestamp
from harness.frame.pagination import INVALID_ROWS_HINT, Page
from harness.frame.plain_data import to_shown, write_json
from harness.interfaces.cli.frame.session import Session

T = TypeVar("T")


def timestamp(moment: datetime | None) -> str:
    return format_timestamp(moment) if moment else DASH


def describe_harm(distance_to_trip: float) -> str:
    return f"evidence of harm: {format_harm(distance_to_trip)}"


def note_page(page: Page[Any]) -> None:
    """Prints notes: the rows without a valid signature, and the option for the next page."""
    for fault in page.invalid:
        note(f"{fault.name}: {INVALID_ROWS_HINT}")
    if page.next is not None:
        note(f"{len(page)} of {page.total:,}: `--after {page.next}` shows the next")


Row = Sequence[object]
# A table may cut words longer than this, such as paths.
UNCUT_CHARACTERS = 24
LINE_COLUMNS = 120
INDENT = "    "
GAP = 3  # blanks between columns
MOST_NAMED: Final = 20  # names in a cell


def name_some(names: Sequence[str]) -> str:
    """Joins at most MOST_NAMED names for a table's cell."""
    first_names = ", ".join(names[:MOST_NAMED])
    omitted_count = len(names) - MOST_NAMED
    return f"{first_names} and {omitted_count:,} more" if omitted_count > 0 else first_names


def document(value: object) -> None:
    """Prints one JSON document. Infinity and NaN, which JSON lacks, become null."""
    click.echo(write_json(value, indent=2))


def note(text: str) -> None:
    """Prints progress or advice on stderr, so that a pipe carries only data."""
    click.echo(escape_controls(text), err=True)


def paragraph(text: str) -> None:
    """Prints a note, wrapped at LINE_COLUMNS characters."""
    lines = text.splitlines()
    wrapped = (textwrap.fill(line, LINE_COLUMNS, break_on_hyphens=False) for line in lines)
    note("\n".join(wrapped))


def wants_document() -> bool:
    return click.get_current_context().ensure_object(Session).json


def pick(value: object, *names: str) -> dict[str, object]:
    """Returns the named attributes of a value, for a document."""
    return {name: getattr(value, name) for name in names}


def plain_fields(value: object) -> dict[str, object]:
    """Returns a dataclass as a dict of JSON values, to which callers add keys."""
    plain = to_shown(value)
    return dict(plain) if isinstance(plain, dict) else {}


def documented(value: object) -> bool:
    """Prints the document with `--json`, and returns whether it did. After True, callers print
    nothing else.
    """
    if wants_document():
        document(value)
    return wants_document()


def record(value: object, pairs: Iterable[tuple[str, object]]) -> None:
    """Prints a value: the document with `--json`, else its facts."""
    if not documented(value):
        facts(pairs)


def answer(
    value: object,
    text: str,
    *,
    advice: str = "",
) -> None:
    """Prints a command's result: the document with `--json`, else text and advice."""
    if documented(value):
        return
    click.echo(text)
    if advice:
        note(advice)


def listing(
    rows: Sequence[T],
    cells: Callable[[T], Mapping[str, object]],
    *,
    empty: str,
    as_document: Callable[[Sequence[T]], object] = tuple,
) -> None:
    """Prints a list, or one page of it: a document with `--json`, else a table.

    Args:
        cells: returns the cells of a row, by column heading.
        as_document: converts the rows for the document; by default the document has the rows.
    """
    if isinstance(rows, Page):
        note_page(rows)
    if wants_document():
        document(as_document(rows))
    else:
        table_of(rows, cells, empty=empty)


def table_of(
    rows: Iterable[T],
    cells: Callable[[T], Mapping[str, object]],
    *,
    empty: str = "",
) -> None:
    columns_of_rows = [cells(row) for row in rows]
    table(
        list(columns_of_rows[0]) if columns_of_rows else (),
        [list(columns.values()) for columns in columns_of_rows],
        empty=empty,
    )


def findings(
    rows: Iterable[T],
    cells: Callable[[T], Mapping[str, object]],
    next_step: Callable[[T], str],
) -> None:
    """Prints checks as a table of at most LINE_COLUMNS columns. The last column is wrapped, and
    the next step follows on its own line, so that a user can copy it.

    Args:
        next_step: returns an empty string if there is no next step.
    """
    columns_and_steps = [(cells(row), next_step(row)) for row in rows]
    if not columns_and_steps:
        return
    headings = list(columns_and_steps[0][0])
    texts = [
        [_format_cell(value) for value in columns.values()] for columns, _ in columns_and_steps
    ]
    aligned = _align_columns([headings, *texts])
    last_column_start = aligned[0].rindex(headings[-1])
    width = min(LINE_COLUMNS, shutil.get_terminal_size((LINE_COLUMNS, 0)).columns)
    click.echo(aligned[0])
    for line, row, (_, step) in zip(aligned[1:], texts, columns_and_steps, strict=True):
        room = max(UNCUT_CHARACTERS, width - last_column_start)
        wrapped = textwrap.wrap(row[-1], room, break_on_hyphens=False)
        click.echo(line[:last_column_start] + f"\n{' ' * last_column_start}".join(wrapped))
        if step:
            advice = f"next: {escape_controls(step)}"
            room = width - len(INDENT)
            for part in textwrap.wrap(advice, room, break_on_hyphens=False):
                click.echo(f"{INDENT}{part}")


def table(
    headings: Sequence[str],
    rows: Iterable[Row],
    *,
    empty: str,
) -> None:
    """Prints a table.

    Args:
        empty: the note for a table without rows.
    """
    texts = [[_format_cell(value) for value in row] for row in rows]
    if not texts:
        note(empty)
    elif sys.stdout.isatty():
        _draw_table(headings, texts)
    else:
        for line in _align_columns([list(headings), *texts]):
            click.echo(line)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Prints name and value, one pair per line; omits values of None. Indents further lines of
    a value, so that user-written text cannot look like a fact.
    """
    present = [(name, value) for name, value in pairs if value is not None]
    indent = "\n" + " " * (max((len(name) for name, _ in present), default=0) + 2)
    lines = [[name, indent.join(_format_cell(value).split("\n"))] for name, value in present]
    for line in _align_columns(lines):
        click.echo(line)


def _format_cell(value: object) -> str:
    if isinstance(value, datetime):
        return timestamp(value)
    return "–" if value is None or value == "" else escape_controls(str(value))


def _align_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _draw_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - only a terminal needs it
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console()
    if _find_min_width(headings, rows) > console.width:
        _print_blocks(headings, rows)
        return
    rich_table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        rich_table.add_column(heading, overflow="fold")
    for row in rows:
        # Text, because rich would parse a str as markup.
        rich_table.add_row(*(Text(cell) for cell in row))
    console.print(rich_table)


def _find_min_width(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    columns = zip(headings, *rows, strict=True)
    words = ([len(word) for cell in column for word in cell.split()] for column in columns)
    widths = [min(UNCUT_CHARACTERS, max(lengths, default=0)) for lengths in words]
    return sum(widths) + GAP * (len(widths) - 1)


def _print_blocks(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints each row as lines of heading and value, for a narrow terminal."""
    for number, row in enumerate(rows):
        if number:
            click.echo()
        for line in _align_columns(list(zip(headings, row, strict=True))):
            click.echo(line)


_MARKS: Final = {
    ConversionOutcome.TAKEN: "✓",
    ConversionOutcome.CHANGED: "~",
    ConversionOutcome.LEFT: "✗",
}


def conversion(notes: Sequence[ConversionNote]) -> None:
    if not notes:
        return
    table(
        ("place", "key", "", "result"),
        [
            (
                note.place,
                note.key,
                f"{_MARKS[note.outcome]} {note.outcome}",
                note.text,
            )
            for note in notes
        ],
        empty="",
    )
    counts = Counter(note.outcome for note in notes)
    click.echo(", ".join(f"{counts[outcome]} {outcome}" for outcome in ConversionOutcome))
