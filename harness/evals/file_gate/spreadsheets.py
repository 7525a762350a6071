"""Reads the first sheet of an `.xlsx` file as a CSV text, so that every table parser reads it.

Format: ECMA-376, part 1, chapter 18 (SpreadsheetML). The reader follows no link and no external
entity, and refuses a document type definition. A formula counts by its stored value.
"""

import csv
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from xml.parsers import expat

from harness.frame.errors import InputError

MAX_UNPACKED_BYTES: Final = 50 * 2**20
_WORKBOOK: Final = "xl/workbook.xml"
_RELATIONS: Final = "xl/_rels/workbook.xml.rels"
_STRINGS: Final = "xl/sharedStrings.xml"
_STYLES: Final = "xl/styles.xml"
# The first bytes of old Excel files, and of encrypted ones of every version.
_OLD_FORMAT: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_SUFFIXES: Final = frozenset({".xlsx", ".xlsm", ".xlsb", ".ods"})
_SAVE_AS: Final = "save it as .xlsx without a password, or as CSV"
_UNREADABLE: Final = (
    OSError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    expat.ExpatError,
    ValueError,  # a malformed number, or an unknown encoding
)
_REFERENCE: Final = re.compile(r"\$?([A-Z]{1,3})\$?([0-9]{1,7})")
_LAST_COLUMN: Final = 16_384  # XFD, the last column of a sheet
_LAST_ROW: Final = 1_048_576
_MAX_CELLS: Final = 20_000_000  # with the empty cells between filled ones
# Built-in number formats of dates and times (ECMA-376, part 1, 18.8.30), and the letters of
# such formats.
_DATE_FORMATS: Final = frozenset(
    {*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)}
)
_DATE_LETTERS: Final = re.compile(r"[dmyhs]", re.IGNORECASE)
# Texts, colours and conditions inside a number format.
_FORMAT_TEXTS: Final = re.compile(r'"[^"]*"|\\.|\[[^\]]*\]|_.|\*.')
_LINE_BREAKS: Final = re.compile(r"\s*[\r\n]+\s*")


@dataclass(frozen=True, slots=True)
class Sheet:
    """The first visible sheet of a workbook."""

    name: str
    sheet_count: int  # all sheets of the workbook
    text: str  # as CSV; row N is line N

    @property
    def remark(self) -> str:
        """Names the sheet if the workbook has others; else empty."""
        if self.sheet_count == 1:
            return ""
        return f"the first sheet, {self.name!r}, of {self.sheet_count} is read"


def is_spreadsheet(path: str) -> bool:
    """Tells whether a file is a workbook of any kind, also of a kind that cannot be read."""
    file = Path(path)
    if not file.is_file():
        return False
    try:
        with file.open("rb") as opened:
            start = opened.read(len(_OLD_FORMAT))
        if start == _OLD_FORMAT or (start.startswith(b"PK") and file.suffix in _SUFFIXES):
            return True
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            return any(name.startswith("xl/") for name in names) or _is_open_document(archive)
    except _UNREADABLE:
        return False


def _is_open_document(archive: zipfile.ZipFile) -> bool:
    return {"mimetype", "content.xml"} <= {*archive.namelist()}


def read_sheet(path: str) -> Sheet:
    """Reads the first visible sheet. Raises InputError with the file's name."""
    try:
        with zipfile.ZipFile(Path(path)) as archive:
            return _read_workbook(archive)
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(path) else f"{path}: {text}") from None
    except _UNREADABLE:
        raise InputError(f"{path}: cannot be read as a spreadsheet: {_SAVE_AS}") from None


def _read_workbook(archive: zipfile.ZipFile) -> Sheet:
    if _WORKBOOK not in archive.namelist():
        raise InputError(f"is a spreadsheet of another format: {_SAVE_AS}")
    parts = _Parts(archive)
    book = _BookReader()
    parts.parse(_WORKBOOK, book.start)
    visible = [sheet for sheet in book.sheets if sheet["state"] != "hidden"]
    if not visible:
        raise InputError("has no visible sheet")
    targets: dict[str, str] = {}

    def add_target(tag: str, attributes: Mapping[str, str]) -> None:
        if tag == "Relationship":
            targets[attributes.get("Id", "")] = attributes.get("Target", "")

    if _RELATIONS in archive.namelist():
        parts.parse(_RELATIONS, add_target)
    target = targets.get(visible[0]["id"], "worksheets/sheet1.xml")
    name = target.removeprefix("/") if target.startswith("/") else f"xl/{target}"
    strings = _TextReader("si")
    if _STRINGS in archive.namelist():
        parts.parse(_STRINGS, strings.start, strings.end, strings.add)
    styles = _StyleReader()
    if _STYLES in archive.namelist():
        parts.parse(_STYLES, styles.start, styles.end)
    cells = _CellReader(strings.texts, styles.date_styles, book.first_day)
    parts.parse(name, cells.start, cells.end, cells.add)
    if not cells.rows:
        raise InputError(
            f"its first sheet, {visible[0]['name']!r}, is empty: put the table there"
        )
    _check_merged(cells)
    return Sheet(visible[0]["name"], len(book.sheets), _write_csv(cells.rows))


class _Parts:
    """Parses an archive's parts, at most MAX_UNPACKED_BYTES together."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._left_bytes = MAX_UNPACKED_BYTES

    def parse(
        self,
        name: str,
        start: Callable[[str, Mapping[str, str]], None],
        end: Callable[[str], None] | None = None,
        text: Callable[[str], None] | None = None,
    ) -> None:
        """Calls the functions for each element, with local names. Raises InputError."""
        try:
            size_bytes = self._archive.getinfo(name).file_size
        except KeyError:
            raise InputError(f"has no part {name!r}: {_SAVE_AS}") from None
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            limit = MAX_UNPACKED_BYTES // 2**20
            raise InputError(
                f"is larger than {limit} MiB unpacked: keep only the columns that you need"
            )
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = _refuse_document_type
        parser.StartElementHandler = lambda tag, attributes: start(_local(tag), attributes)
        if end is not None:
            parser.EndElementHandler = lambda tag: end(_local(tag))
        if text is not None:
            parser.buffer_text = True
            parser.CharacterDataHandler = text
        # ZipFile reads no more bytes than the part declares.
        parser.Parse(self._archive.read(name), True)  # noqa: FBT003 - the C function has no names


def _refuse_document_type(*_: object) -> None:
    raise InputError(f"has a document type definition, which Swapproof never reads: {_SAVE_AS}")


def _local(name: str) -> str:
    """Removes the prefix of a namespace, which each program chooses for itself."""
    return name.rpartition(":")[2] if ":" in name else name


class _BookReader:
    """Collects the sheets of a workbook, in its order, and the day that dates count from."""

    def __init__(self) -> None:
        self.sheets: list[dict[str, str]] = []
        # Day 1 is 1 January 1900; Excel counts a 29 February 1900, which never was.
        self.first_day = datetime(1899, 12, 30)  # noqa: DTZ001 - cells have no time zone

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag == "sheet":
            state = attributes.get("state", "visible")
            hidden = "hidden" if state in {"hidden", "veryHidden"} else "visible"
            relation = next(
                (value for key, value in attributes.items() if _local(key) == "id"), ""
            )
            name = attributes.get("name", "")
            self.sheets.append({"name": name, "id": relation, "state": hidden})
        elif tag == "workbookPr" and attributes.get("date1904") in {"1", "true"}:
            self.first_day = datetime(1904, 1, 1)  # noqa: DTZ001 - cells have no time zone


class _TextReader:
    """Collects the texts of elements with runs of text, without phonetic hints."""

    def __init__(self, tag: str) -> None:
        self.texts: list[str] = []
        self._tag = tag
        self._parts: list[str] = []
        self._is_text = False
        self._is_hint = False

    def start(self, tag: str, _: Mapping[str, str]) -> None:
        if tag == self._tag:
            self._parts = []
        self._is_text = tag == "t"
        self._is_hint = self._is_hint or tag == "rPh"

    def end(self, tag: str) -> None:
        self._is_text = False
        if tag == "rPh":
            self._is_hint = False
        if tag == self._tag:
            self.texts.append("".join(self._parts))

    def add(self, text: str) -> None:
        if self._is_text and not self._is_hint:
            self._parts.append(text)


class _StyleReader:
    """Finds the styles that show a number as a date or a time."""

    def __init__(self) -> None:
        self.date_styles: set[int] = set()
        self._formats: dict[int, str] = {}
        self._is_cell_style = False
        self._style_count = 0

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag == "numFmt":
            number = int(attributes.get("numFmtId", "0"))
            self._formats[number] = attributes.get("formatCode", "")
        elif tag == "cellXfs":
            self._is_cell_style = True
        elif tag == "xf" and self._is_cell_style:
            number = int(attributes.get("numFmtId", "0"))
            code = _FORMAT_TEXTS.sub("", self._formats.get(number, ""))
            is_date = bool(_DATE_LETTERS.search(code)) and code.lower() != "general"
            if is_date if number in self._formats else number in _DATE_FORMATS:
                self.date_styles.add(self._style_count)
            self._style_count += 1

    def end(self, tag: str) -> None:
        if tag == "cellXfs":
            self._is_cell_style = False


@dataclass(slots=True)
class _CellReader:
    """Collects the texts of a sheet's cells by row and column, both from 1."""

    strings: Sequence[str]
    date_styles: set[int]
    first_day: datetime
    rows: dict[int, dict[int, str]] = field(default_factory=dict)
    merged: list[str] = field(default_factory=list)
    _row: int = 0
    _column: int = 0
    _attributes: Mapping[str, str] = field(default_factory=dict)
    _parts: list[str] = field(default_factory=list)
    _tag: str = ""
    _is_hint: bool = False
    _has_formula: bool = False

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._tag = tag
        if tag == "row":
            # Row and cell references are optional; without one, the next place counts.
            self._row = int(attributes.get("r") or self._row + 1)
            self._column = 0
        elif tag == "c":
            place = _REFERENCE.fullmatch(attributes.get("r", ""))
            self._column = _column_number(place[1]) if place else self._column + 1
            self._attributes = attributes
            self._parts = []
            self._has_formula = False
        elif tag == "f":
            self._has_formula = True
        elif tag == "rPh":
            self._is_hint = True
        elif tag == "mergeCell":
            self.merged.append(attributes.get("ref", ""))

    def add(self, text: str) -> None:
        if self._tag in {"v", "t"} and not self._is_hint:
            self._parts.append(text)

    def end(self, tag: str) -> None:
        self._tag = ""
        if tag == "rPh":
            self._is_hint = False
        elif tag == "c":
            text = self._read_text()
            if text.strip():
                self.rows.setdefault(self._row, {})[self._column] = text

    def _read_text(self) -> str:
        text = "".join(self._parts)
        kind = self._attributes.get("t", "n")
        if not text:
            if self._has_formula and kind != "str":
                raise InputError(
                    f"cell {_name_cell(self._row, self._column)} has a formula without a "
                    "stored value: open the file in a spreadsheet program, and save it"
                )
            return ""
        if kind == "s":
            place = int(text)
            if not 0 <= place < len(self.strings):
                raise InputError(f"has no text number {place}: {_SAVE_AS}")
            return self.strings[place]
        if kind == "b":
            return "true" if text == "1" else "false"
        if kind == "n" and int(self._attributes.get("s", "0")) in self.date_styles:
            return self._read_date(text)
        return text

    def _read_date(self, text: str) -> str:
        try:
            moment = self.first_day + timedelta(days=float(text))
        except (ValueError, OverflowError):
            return text
        seconds = round(moment.second + moment.microsecond / 1e6)
        moment = moment.replace(second=0, microsecond=0) + timedelta(seconds=seconds)
        return moment.date().isoformat() if float(text).is_integer() else moment.isoformat(" ")


def _column_number(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - ord("A") + 1
    return min(number, _LAST_COLUMN)


def _name_cell(row: int, column: int) -> str:
    letters = ""
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return f"{letters}{row}"


def _check_merged(cells: _CellReader) -> None:
    """Raises InputError for merged cells in the table: only the first has a value."""
    header = _find_header(cells.rows)
    for place in cells.merged:
        last = _REFERENCE.fullmatch(place.rpartition(":")[2])
        if last and int(last[2]) >= header:
            raise InputError(
                f"cells {place} are merged, so all but the first are empty: unmerge them, and "
                "give each cell its own value"
            )


def _find_header(rows: Mapping[int, Mapping[int, str]]) -> int:
    """Returns the number of the header's row: the first row with two filled cells."""
    filled = sorted(row for row, cells in rows.items() if len(cells) > 1)
    return min(filled, default=min(rows, default=1))


def _write_csv(rows: Mapping[int, Mapping[int, str]]) -> str:
    """Writes the rows from the header on. Line breaks in cells become spaces, so that a line's
    number is the row's number.
    """
    header = _find_header(rows)
    numbers = sorted(row for row in rows if row >= header)
    width = max(max(rows[row]) for row in numbers)
    if len(numbers) * width > _MAX_CELLS or numbers[-1] > _LAST_ROW:
        raise InputError("has too many cells: keep only the rows and columns that you need")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    last_row = 0
    for row in numbers:
        text.write("\n" * (row - last_row - 1))
        cells = (rows[row].get(column, "") for column in range(1, width + 1))
        writer.writerow([_LINE_BREAKS.sub(" ", cell) for cell in cells])
        last_row = row
    return text.getvalue()
