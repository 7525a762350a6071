"""Prints rows of figures as a table: a column for each field of their dataclass."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any


def print_rows(title: str, rows: Sequence[Any]) -> None:
    if not rows:
        return
    names = [field.name for field in fields(rows[0])]
    cells = [names, *([_text(getattr(row, name)) for name in names] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(names))]
    print(f"\n{title}")
    for line in cells:
        print("  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)))


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return "" if value is None else str(value)
