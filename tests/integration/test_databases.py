"""The databases that tests get are fresh and apart."""

import sqlite3

import psycopg
import pytest

pytestmark = pytest.mark.both_databases


def open_database(url: str) -> "sqlite3.Connection | psycopg.Connection":
    if url.startswith("sqlite:///"):
        return sqlite3.connect(url.removeprefix("sqlite:///"))
    return psycopg.connect(url.replace("+psycopg", ""))


@pytest.mark.parametrize("visit", [1, 2])
def test_each_test_gets_an_empty_database_of_its_own(
    empty_database_url: str, visit: int
) -> None:
    db = open_database(empty_database_url)
    db.execute("CREATE TABLE visits (visit integer)")
    db.execute("INSERT INTO visits VALUES (1)")
    db.commit()

    assert db.execute("SELECT visit FROM visits").fetchall() == [(1,)], f"visit {visit}"
    db.close()
