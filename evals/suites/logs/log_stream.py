"""Reads a file of records in parts, so that a log of any size needs little memory.

JSON lines and CSV are read as a stream. Another JSON document is read whole, and refused above
`MAX_DOCUMENT_BYTES`.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

from evals.suites.items import DECODER
from evals.suites.source_records import (
    SourceFile,
    SourceRecord,
    check_text_file,
    nest_columns,
    read_source,
)
from harness.frame.canonical_text import canonical
from harness.frame.errors import InputError
from harness.frame.formatting import format_bytes
from harness.frame.text_files import detect_separator, replace_surrogates

# A document takes about ten times its size in memory.
MAX_DOCUMENT_BYTES: Final = 64 * 2**20
PART_BYTES: Final = 4 * 2**20  # of text, in one part of a stream
_MAX_LINE_BYTES: Final = 64 * 2**20
_SURROGATE: Final = b"\\ud"


_NUL: Final = "\0"


def stream_source(path: Path) -> Iterator[SourceFile]:
    """Yields a file's records in parts of about PART_BYTES.

    Raises InputError for an unreadable or empty file, a broken line, and a document that is too
    large to read whole.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(4096)
            check_text_file(start, path)
            file.seek(0)
            if size <= MAX_DOCUMENT_BYTES and not _is_streamed(start, file):
                yield read_source(path)
                return
            file.seek(0)
            yield from _stream_parts(path, file, start, size)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _is_streamed(start: bytes, file: BinaryIO) -> bool:
    """Tells whether a file is a table or JSON lines, and more than one line of either."""
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return False  # UTF-16 and UTF-32 are read whole
    if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"["):
        return True
    first = _read_line(file)
    return bool(first) and bool(_read_line(file)) and _decode_object(first) is not None


def _read_line(file: BinaryIO) -> bytes:
    """Returns the next line that is not blank; empty at the end."""
    while line := file.readline(_MAX_LINE_BYTES):
        if stripped := line.strip():
            return stripped
    return b""


def _decode_object(line: bytes) -> Mapping[str, Any] | None:
    """Decodes a line with a JSON object; None for another line."""
    try:
        value = DECODER.decode(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _stream_parts(path: Path, file: BinaryIO, start: bytes, size: int) -> Iterator[SourceFile]:
    if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"["):
        yield from _stream_table(path)
        return
    first = _read_line(file)
    if _decode_object(first) is None:
        raise InputError(
            f"{path}: is one JSON document of {format_bytes(size)}, and Swapproof reads a "
            f"document of at most {format_bytes(MAX_DOCUMENT_BYTES)} whole: write it as JSON "
            f"lines, such as by `jq -c '.[]' {path.name} > {path.stem}.jsonl`, then give that "
            "file"
        )
    file.seek(0)
    yield from _stream_lines(path, file)


def _stream_lines(path: Path, file: BinaryIO) -> Iterator[SourceFile]:
    records: list[SourceRecord] = []
    part_bytes = 0
    number = 0
    while line := file.readline(_MAX_LINE_BYTES):
        number += 1
        if len(line) >= _MAX_LINE_BYTES:
            size = format_bytes(_MAX_LINE_BYTES)
            raise InputError(f"{path}:{number}: the line is longer than {size}: split the file")
        if not line.strip():
            continue
        records.append(SourceRecord(f"{path}:{number}", _read_record(path, number, line)))
        part_bytes += len(line)
        if part_bytes >= PART_BYTES:
            yield SourceFile(path, "jsonl", records, {})
            records = []
            part_bytes = 0
    if records:
        yield SourceFile(path, "jsonl", records, {})


def _read_record(path: Path, number: int, line: bytes) -> Mapping[str, Any]:
    try:
        value = DECODER.decode(line.decode("utf-8-sig").strip())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}:{number}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}:{number}: must be a JSON object, one for each record")
    return nest_columns(replace_surrogates(value) if _SURROGATE in line.lower() else value)


def _stream_table(path: Path) -> Iterator[SourceFile]:
    with path.open(encoding="utf-8-sig", newline="") as text:
        try:
            yield from _read_table(path, text)
        except UnicodeDecodeError:
            raise InputError(f"{path}: is not UTF-8 text; save it as UTF-8") from None


def _read_table(path: Path, text: TextIO) -> Iterator[SourceFile]:
    records: list[SourceRecord] = []
    part_bytes = 0
    header = text.readline(_MAX_LINE_BYTES)
    if len(header) >= _MAX_LINE_BYTES or _NUL in header:
        raise InputError(f"{path}:1: is neither JSON nor the header of a table")
    separator = detect_separator(header)
    text.seek(0)
    reader = csv.reader(text, strict=True, delimiter=separator)
    names = [canonical(name).strip() for name in next(reader, [])]
    line = reader.line_num + 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise InputError(f"{path}:{line}: not CSV: {error}") from None
        if any(cells):
            records.append(SourceRecord(f"{path}:{line}", _read_row(path, line, cells, names)))
            part_bytes += sum(map(len, cells))
        line = reader.line_num + 1
        if part_bytes >= PART_BYTES:
            yield SourceFile(path, "csv", records, {})
            records = []
            part_bytes = 0
    if line <= 2 and not records:
        raise InputError(f"{path}: has a header and no row; export the requests too")
    if records:
        yield SourceFile(path, "csv", records, {})


def _read_row(
    path: Path, line: int, cells: Sequence[str], names: Sequence[str]
) -> Mapping[str, Any]:
    if len(cells) > len(names):
        raise InputError(f"{path}:{line}: the row has more cells than the header has names")
    pairs = zip(names, cells, strict=False)
    return nest_columns({name: cell for name, cell in pairs if name and cell})
