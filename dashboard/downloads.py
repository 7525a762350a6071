"""Offers a table of a page as a file: made when it is asked for, with formulas escaped."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

import pandas as pd
import streamlit as st

from harness.control.serialize import escape_surrogates, to_plain
from harness.domain.formatting import escape_formula


def to_csv(frame: pd.DataFrame) -> bytes:
    """Writes CSV with a mark by which spreadsheets know UTF-8. Every text stands in quotes:
    where `;` parts the cells, one within it begins no new cell.
    """
    text = frame.map(escape_formula).to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)
    return text.encode("utf-8-sig")


def to_parquet(frame: pd.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.map(escape_formula).to_parquet(file, index=False)
    return file.getvalue()


def to_jsonl(lines: Iterable[Mapping[str, object]]) -> bytes:
    written = (json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return escape_surrogates("".join(written)).encode()


FORMATS: Final[Sequence[tuple[str, str, Callable[[pd.DataFrame], bytes]]]] = (
    ("CSV", "text/csv", to_csv),
    ("Parquet", "application/vnd.apache.parquet", to_parquet),
)


def frame_of(rows: Iterable[object]) -> pd.DataFrame:
    return pd.DataFrame([_cells(row) for row in rows])


def _cells(row: object) -> dict[str, object]:
    plain = to_plain(row)
    fields = plain if isinstance(plain, dict) else {"value": plain}
    return {
        name: json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
        for name, value in fields.items()
    }


def offer(name: str, load: Callable[[], pd.DataFrame]) -> None:
    with st.container(horizontal=True):
        for label, mime, write in FORMATS:
            suffix = label.lower()
            st.download_button(
                label,
                partial(_write, write, load),
                f"{name}.{suffix}",
                mime,
                key=f"{suffix}-{name}",
                icon=":material/download:",
                on_click="ignore",
            )


def _write(write: Callable[[pd.DataFrame], bytes], load: Callable[[], pd.DataFrame]) -> bytes:
    return write(load())
