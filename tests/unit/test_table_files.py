"""A SQLite file of our tables is whole for SQLite's own check."""

import sqlite3

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateTable

from harness.app.store.tables import metadata

pytestmark = pytest.mark.req("G4")
VALUES = {"INTEGER": 1, "REAL": 1.5, "TEXT": "a", "BLOB": b"a"}


@pytest.mark.parametrize("name", sorted(metadata.tables))
@pytest.mark.parametrize("has_nulls", [False, True], ids=["full", "nulls"])
def test_the_integrity_check_accepts_each_table_with_a_row(
    name: str, *, has_nulls: bool
) -> None:
    """SQLite 3.40, of Debian 12, reports a NULL that is not there in a STRICT table WITHOUT
    ROWID whose key's columns do not come first.
    """
    table = metadata.tables[name]
    with sqlite3.connect(":memory:") as db:
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.execute(str(CreateTable(table).compile(dialect=sqlite.dialect())))
        row = {
            column.name: None if column.nullable and has_nulls else value_of(column)
            for column in table.columns
        }
        names = ", ".join(f'"{column}"' for column in row)
        marks = ", ".join("?" for _ in row)
        db.execute(f'INSERT INTO "{name}" ({names}) VALUES ({marks})', [*row.values()])  # noqa: S608 - our own names

        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()


def value_of(column: sa.Column[object]) -> object:
    return VALUES[column.type.compile(dialect=sqlite.dialect())]
