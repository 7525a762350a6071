"""Reads a file of any tool into records, by its content and not by its name.

A record has the fields that the tool wrote; `source_formats` recognises the tool. Every error
names the file and, if possible, the line.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from evals.suites.items import DECODER, ESCAPE, json_lines
from harness.frame.errors import InputError
from harness.frame.text_files import csv_records, decode_text, replace_surrogates

# Fields that contain the records if the whole file is one object.
_LIST_FIELDS: Final = (
    "data",
    "items",
    "events",
    "examples",
    "rows",
    "goldens",
    "samples",
    "traces",
)
# Prefixes of a table's columns that together form one object: `inputs.question`, `inputs.id`.
_NESTED_PREFIXES: Final = tuple(
    f"{name}."
    for name in (
        "input",
        "inputs",
        "output",
        "outputs",
        "expected",
        "expected_output",
        "metadata",
        "expectedOutput",
        "reference",
        "reference_outputs",
        "scores",
        "feedback",
    )
)
# JSON's escape of a lone surrogate.
_LONE_SURROGATE: Final = re.compile(
    r"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]"
)
# The first bytes of binary files, and the end of the message about them.
_BINARY: Final[Mapping[bytes, str]] = {
    b"PK\x03\x04": "an archive, such as an Excel workbook or a log of Inspect (`.eval`): save "
    "the sheet as CSV, or write the log by `inspect log dump`",
    b"PAR1": "a Parquet file: convert it to JSON lines or CSV",
    b"\x1f\x8b": "a gzip file: unpack it",
    b"SQLite format 3": "an SQLite database: export the table as CSV",
}


@dataclass(frozen=True)
class SourceRecord:
    place: str  # file:line, or in a JSON list file:place
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class SourceFile:
    """A file's records. names: the fields of all records and of the object around them."""

    path: Path
    form: str  # json, jsonl or csv
    records: Sequence[SourceRecord]
    document: Mapping[str, Any]  # the object around the records; empty without one
    replaced: bool = False  # whether U+FFFD replaces lone surrogates

    @property
    def names(self) -> frozenset[str]:
        record_fields = {name for record in self.records for name in record.fields}
        return frozenset(record_fields | self.document.keys())


def read_source(path: Path) -> SourceFile:
    """Reads a file's records. Raises InputError with the file and, for a fault in the text, its
    line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    check_text_file(data, path)
    text = decode_text(data, str(path))
    if not text.strip():
        raise _say_empty(path)
    if path.suffix.lower() == ".py":
        raise InputError(
            f"{path}: is Python code; a task of Inspect runs as it is: write `task: {path}` "
            "below the suite's name in swapproof.yaml (`swapproof docs open public-suites`)"
        )
    if text.lstrip()[0] not in "{[":
        return _read_csv(path, text)
    try:
        document = DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        if "Extra data" in str(error) or _starts_with_object(text):
            return _read_lines(path, text)
        place = f"{path}:{getattr(error, 'lineno', 1)}"
        raise InputError(f"{place}: not JSON: {error}") from None
    repaired = replace_surrogates(document) if ESCAPE in text else document
    source = _read_document(path, repaired)
    form = "jsonl" if isinstance(document, dict) and "\n" not in text.strip() else "json"
    return replace(source, form=form, replaced=repaired != document)


def check_text_file(data: bytes, path: Path) -> None:
    """Raises InputError for an empty file, and for a binary file.

    Args:
        data: its beginning.
    """
    for start, kind in _BINARY.items():
        if data.startswith(start):
            raise InputError(f"{path}: is {kind}, then import that file")
    if not data.strip():
        raise _say_empty(path)


def _say_empty(path: Path) -> InputError:
    return InputError(f"{path}: is empty; a suite needs at least one item")


def _starts_with_object(text: str) -> bool:
    """Returns whether line 1 alone is a JSON object, so that a later line has the fault."""
    try:
        return isinstance(DECODER.decode(text.lstrip().split("\n", 1)[0]), dict)
    except (ValueError, RecursionError):
        return False


def _read_lines(path: Path, text: str) -> SourceFile:
    records = [
        SourceRecord(f"{path}:{line}", nest_columns(fields))
        for line, fields in json_lines(path)
    ]
    return SourceFile(path, "jsonl", records, {}, bool(_LONE_SURROGATE.search(text)))


def _read_document(path: Path, document: Any) -> SourceFile:
    """Reads a JSON document: a list, an object with one known list, or a single record."""
    outer: Mapping[str, Any] = {}
    entries = document
    if isinstance(document, dict):
        list_fields = [name for name in _LIST_FIELDS if _is_record_list(document.get(name))]
        if len(list_fields) == 1:
            outer = document
            entries = document[list_fields[0]]
        else:
            return SourceFile(
                path,
                "json",
                [SourceRecord(f"{path}:1", nest_columns(document))],
                {},
            )
    for number, record in enumerate(entries, start=1):
        if not isinstance(record, dict):
            raise InputError(
                f"{path}:1: entry {number} of the list must be an object, one for each item"
            )
    records = [
        SourceRecord(f"{path}:{number}", nest_columns(fields))
        for number, fields in enumerate(entries, start=1)
    ]
    return SourceFile(path, "json", records, outer)


def nest_columns(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Builds objects from columns such as `inputs.question`, as tables have them."""
    if not any(name.startswith(_NESTED_PREFIXES) for name in fields):
        return fields
    nested: dict[str, Any] = {}
    for name, value in fields.items():
        parent, dot, child = name.partition(".")
        if not (dot and child and f"{parent}." in _NESTED_PREFIXES):
            nested[name] = value
        elif isinstance(inner := nested.setdefault(parent, {}), dict):
            inner[child] = value
    return nested


def _is_record_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _read_csv(path: Path, text: str) -> SourceFile:
    def fault(line: int, reason: str) -> InputError:
        return InputError(f"{path}:{line}: {reason}")

    records = [
        SourceRecord(
            f"{path}:{line}",
            nest_columns({name: value for name, value in row.items() if name and value}),
        )
        for line, row in csv_records(text, fault)
    ]
    return SourceFile(path, "csv", records, {})
