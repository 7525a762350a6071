"""Writes a table of the dashboard as a file to download, CSV or Parquet. What models and suites
wrote cannot run as a formula in a spreadsheet.
"""

import csv
import io

import pandas as pd

from harness.domain.formatting import escape_formula


def to_csv(frame: pd.DataFrame) -> bytes:
    """Writes a frame as CSV in UTF-8, with a mark by which spreadsheets know the encoding.

    Every text stands in quotes: where `;` parts the cells, one within it begins no new cell.
    """
    text = escaped(frame).to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)
    return text.encode("utf-8-sig")


def to_parquet(frame: pd.DataFrame) -> bytes:
    """Writes a frame as Parquet."""
    file = io.BytesIO()
    escaped(frame).to_parquet(file, index=False)
    return file.getvalue()


def escaped(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the frame with every text made safe from being read as a formula."""
    return frame.map(escape_formula)
