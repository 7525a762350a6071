"""Writes small `.xlsx` files, from rows or from the XML of their parts."""

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

MAIN: Final = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATED: Final = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE: Final = "http://schemas.openxmlformats.org/package/2006/relationships"


def write_workbook(
    file: Path,
    sheet: str,
    *,
    sheets: Iterable[tuple[str, str]] = (("Results", "visible"),),
    parts: Mapping[str, str] | None = None,
) -> Path:
    """Writes a workbook whose visible sheets share one XML.

    Args:
        sheets: names and states.
    """
    entries = "".join(
        f'<sheet name="{escape(name)}" sheetId="{number}" state="{state}" r:id="rId{number}"/>'
        for number, (name, state) in enumerate(sheets, start=1)
    )
    relations = "".join(
        f'<Relationship Id="rId{number}" Type="{RELATED}/worksheet" '
        f'Target="worksheets/sheet{number}.xml"/>'
        for number, _ in enumerate(sheets, start=1)
    )
    contents = {
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{RELATED}">'
        f"<sheets>{entries}</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE}">{relations}'
        "</Relationships>",
        **{
            f"xl/worksheets/sheet{number}.xml": sheet
            for number, (_, state) in enumerate(sheets, start=1)
            if state == "visible"
        },
        **(parts or {}),
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return file


def sheet_of(rows: Iterable[Iterable[object]], after: str = "") -> str:
    """Returns a sheet's XML: numbers as numbers, texts inline.

    Args:
        after: XML of `mergeCells`.
    """
    lines = "".join(f"<row>{''.join(map(_cell, row))}</row>" for row in rows)
    return f'<worksheet xmlns="{MAIN}"><sheetData>{lines}</sheetData>{after}</worksheet>'


def _cell(value: object) -> str:
    if value is None:
        return "<c/>"
    if isinstance(value, int | float):
        return f"<c><v>{value}</v></c>"
    text = str(value)
    if text.startswith("<c"):
        return text
    return f'<c t="inlineStr"><is><t>{escape(text)}</t></is></c>'
