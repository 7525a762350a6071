"""Puts the rows of a backup in the place of a whole database (`replace_database`): on SQLite in
a new file, which then takes the name of the one before; on PostgreSQL in one transaction.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from harness.store import engine, migrate
from harness.store.sqlite_file import INDEX, LOG
from harness.store.table_copy import TableDigest, TableRows, replace_rows

PARTS = ("", LOG, INDEX)


@dataclass(frozen=True, slots=True)
class ReplacedDatabase:
    """Names the database that got the rows, and the files that were set aside for it."""

    name: str  # SQLite's file; of PostgreSQL the database's name
    set_aside: tuple[Path, ...]


def replace_database(
    url: str,
    schema: str,
    parts: Iterable[TableRows],
    expected: Mapping[str, TableDigest],
    *,
    suffix: str,
) -> ReplacedDatabase:
    """Replaces all rows by those of a backup; see `table_copy.replace_rows`, also for what it
    raises. PostgreSQL's schema is still the backup's afterwards. suffix: of the names of files
    that are set aside.
    """
    parsed = engine.parse(url)
    if parsed.get_backend_name() == "postgresql":
        replace_rows(url, schema, parts, expected)
        return ReplacedDatabase(str(parsed.database), ())
    file = engine.file_of(parsed)
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        replace_rows(_url_of(parsed, draft), schema, parts, expected)
        migrate.upgrade(_url_of(parsed, draft))
        aside = _set_aside(file, suffix)
        draft.replace(file)
    finally:
        for ending in PARTS:
            draft.with_name(f"{draft.name}{ending}").unlink(missing_ok=True)
    return ReplacedDatabase(str(file), aside)


def _url_of(like: sa.URL, file: Path) -> str:
    return like.set(database=str(file)).render_as_string(hide_password=False)


def _set_aside(file: Path, suffix: str) -> tuple[Path, ...]:
    """Sets a file aside with its write-ahead log, which would damage the new file.

    The file goes first: without it nobody opens the log.
    """
    aside = []
    for ending in PARTS:
        place = file.with_name(f"{file.name}{ending}")
        with suppress(FileNotFoundError):
            aside.append(place.replace(file.with_name(f"{file.name}{suffix}{ending}")))
    return tuple(aside)
