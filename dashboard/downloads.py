"""Offers a table of a page as a file: made when it is asked for, with formulas escaped."""

import csv
import json
from collections.abc import Callable, Iterable

import pandas as pd
import streamlit as st

from harness.control.serialize import to_plain
from harness.domain.formatting import escape_formula


def to_csv(frame: pd.DataFrame) -> bytes:
    """Writes CSV with a mark by which spreadsheets know UTF-8. Every text stands in quotes:
    where `;` parts the cells, one within it begins no new cell.
    """
    text = frame.map(escape_formula).to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)
    return text.encode("utf-8-sig")


def frame_of(rows: Iterable[object]) -> pd.DataFrame:
    """Builds a row of each record; lists and objects in it become JSON."""
    plain = pd.DataFrame([to_plain(row) for row in rows])
    return plain.map(
        lambda cell: (
            json.dumps(cell, ensure_ascii=False) if isinstance(cell, list | dict) else cell
        )
    )


def offer(name: str, load: Callable[[], pd.DataFrame]) -> None:
    st.download_button(
        "CSV",
        lambda: to_csv(load()),
        f"{name}.csv",
        "text/csv",
        key=f"csv-{name}",
        icon=":material/download:",
        on_click="ignore",
    )
