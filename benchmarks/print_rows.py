"""Prints tables: of dataclass instances, with a column for each field, or of cells."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any


def print_rows(title: str, rows: Sequence[Any]) -> None:
    if rows:
        names = [field.name for field in fields(rows[0])]
        print_cells(
            title,
            [
                names,
                *([getattr(row, name) for name in names] for row in rows),
            ],
        )


def print_cells(title: str, lines: Sequence[Sequence[object]]) -> None:
    """Prints a table.

    Args:
        lines: the first line has the headings.
    """
    cells = [[_text(value) for value in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"\n{title}")
    for line in cells:
        print("  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)))


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return "" if value is None else str(value)
