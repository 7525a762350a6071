"""Reads users' text files (encodings, JSON lines, CSV): data files, scores, and results of
other tools.
"""

import codecs
import csv
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from harness.frame.canonical_text import canonical
from harness.frame.errors import InputError

# UTF-32 first, because its byte order mark begins with that of UTF-16.
_BYTE_ORDER_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_SEPARATORS: Final = (",", ";", "\t", "|")
_QUOTED: Final = re.compile('"[^"]*"')

# About four million items, which the gate compares in memory.
MAX_BYTES: Final = 128 * 2**20

# A cell may contain a whole conversation. MAX_BYTES limits the file.
csv.field_size_limit(sys.maxsize)


def read_text(path: str) -> str:
    """Reads the text of a file or pipe, without its byte order mark. Raises InputError with the
    file's name, also for more than MAX_BYTES.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        raise InputError(f"{path}: cannot be read: {reason}") from None
    if len(data) > MAX_BYTES:
        raise InputError(
            f"{path}: larger than {MAX_BYTES // 2**20} MiB; keep only the columns that you need"
        )
    return decode_text(data, path)


def decode_text(data: bytes, place: str) -> str:
    """Decodes UTF-8, or UTF-16 and UTF-32 with a mark. Raises InputError as `place:line: …`."""
    encoding = next(
        (name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), "utf-8-sig"
    )
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        name = encoding.removesuffix("-sig").upper()
        raise InputError(f"{place}:{line}: not {name} text; save it as UTF-8") from None


def replace_surrogates(value: Any) -> Any:
    """Replaces lone surrogates in a JSON value with U+FFFD, because UTF-8 cannot
    encode them.
    """
    match value:
        case str():
            return _LONE_SURROGATE.sub("\ufffd", value)
        case list():
            return [replace_surrogates(inner) for inner in value]
        case dict():
            return {
                replace_surrogates(key): replace_surrogates(part) for key, part in value.items()
            }
        case _:
            return value


def text_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yields number and text of each line that is not blank. Only a line feed ends a line."""
    # Not splitlines(), because JSON strings may contain U+2028 and other breaks.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line


def csv_rows(
    text: str, fault: Callable[[int, str], InputError]
) -> Iterator[tuple[int, list[str]]]:
    """Yields the first line number and the cells of each row that is not empty. Raises the
    error that `fault` builds.
    """
    # Encoded, because StringIO needs four bytes for each character.
    lines = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8", newline="")
    reader = csv.reader(lines, strict=True, delimiter=detect_separator(text))
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise fault(line, f"not CSV: {error}") from None
        if any(cell.strip() for cell in cells):
            yield line, cells


def csv_records(
    text: str, fault: Callable[[int, str], InputError]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the first line number of each row, and its cells by the header's names. Raises the
    errors of csv_rows().
    """
    rows = csv_rows(text, fault)
    _, header = next(rows, (1, []))
    names: Sequence[str] = [canonical(name).strip() for name in header]
    duplicate = next((name for name in names if name and names.count(name) > 1), None)
    if duplicate is not None:
        raise fault(1, f"two columns have the name {duplicate!r}: rename or remove one")
    for line, cells in rows:
        if len(cells) > len(names):
            raise fault(line, "the row has more cells than the header has names")
        yield line, dict(zip(names, cells, strict=False))


def detect_separator(text: str) -> str:
    """Returns the separator of a table's cells, by its header."""
    header = next((line for _, line in text_lines(text)), "")
    unquoted = _QUOTED.sub("", header)
    return max(_SEPARATORS, key=unquoted.count)
