"""Reads the rows of a CSV file with named columns. Each fault names its file and line."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.frame.canonical_text import canonical
from harness.frame.errors import InputError
from harness.frame.suggestions import did_you_mean
from harness.frame.text_files import csv_rows

_COUNT: Final = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of a table in a file, with its cells by column."""

    place: str
    line: int
    cells: Mapping[str, str]

    def error(self, message: str) -> InputError:
        return InputError(f"{self.place}:{self.line}: {message}")

    def name(self, column: str) -> str:
        """Returns a cell. Raises InputError if it is empty."""
        if not self.cells[column]:
            raise self.error(f"{column} is empty")
        return self.cells[column]

    def count(self, column: str) -> int:
        """Returns a cell's number. Raises InputError if it is not a whole number from 0."""
        text = self.cells[column]
        if not _COUNT.fullmatch(text):
            raise self.error(f"{column} is {text!r}; it must be a whole number, 0 or more")
        return int(text)


def table_rows(
    text: str,
    place: str,
    required: Sequence[str],
    optional: Sequence[str],
) -> Iterator[TableRow]:
    """Reads a CSV file by the names of its columns, in any order and case. Ignores other
    columns. Raises InputError, which begins with FILE:LINE, at the first fault.
    """
    numbered = csv_rows(text, lambda line, wrong: InputError(f"{place}:{line}: {wrong}"))
    try:
        line, names = next(numbered)
    except StopIteration:
        columns = ",".join(required)
        raise InputError(f"{place}:1: the file is empty; it needs a line {columns}") from None
    header = [canonical(name).strip().lower() for name in names]
    _check_header(f"{place}:{line}", header, required, optional)
    for line, values in numbered:
        if len(values) != len(header):
            raise InputError(
                f"{place}:{line}: {len(values)} fields, but the header has {len(header)}"
            )
        plain = (canonical(value).strip() for value in values)
        cells = dict(zip(header, plain, strict=True))
        yield TableRow(place, line, cells)


def _check_header(
    where: str,
    header: Sequence[str],
    required: Sequence[str],
    optional: Sequence[str],
) -> None:
    for name in (*required, *optional):
        if header.count(name) > 1:
            raise InputError(f"{where}: column {name!r} occurs twice")
    for name in required:
        if name in header:
            continue
        unknown = [column for column in header if column not in (*required, *optional)]
        columns = f"; the file has {', '.join(header)}, and needs {', '.join(required)}"
        hint = did_you_mean(name, unknown, otherwise=columns)
        raise InputError(f"{where}: column {name!r} is missing{hint}")
