"""Checks whether a database has this version's schema. This module does not import alembic,
which loads slowly, because each process needs the check at its start.

It changes nothing: `migrate` creates and upgrades schemas.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import sqlalchemy as sa

from harness.app.store.tables import metadata
from harness.frame.errors import DatabaseUnusable

# The newest migration.
REVISION: Final = "0.1.0"

_REVISION: Final = sa.text("SELECT version_num FROM alembic_version")
# Selects table, column, and whether the column needs a value.
_COLUMNS_QUERIES: Final = {
    "sqlite": sa.text(
        'SELECT t.name, c.name, c."notnull" AND c.dflt_value IS NULL'
        " FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.type = 'table'"
    ),
    "postgresql": sa.text(
        "SELECT t.relname, c.attname, c.attnotnull AND NOT c.atthasdef"
        " FROM pg_class t JOIN pg_attribute c ON c.attrelid = t.oid"
        " WHERE t.relnamespace = quote_ident(current_schema())::regnamespace"
        " AND t.relkind IN ('r', 'p') AND c.attnum > 0 AND NOT c.attisdropped"
    ),
}


def is_current(url: str) -> bool:
    """Returns whether the schema is this version's. Returns False if the database does not
    answer.
    """
    from harness.app.store.guards import triggers  # noqa: PLC0415 - few processes need it

    try:
        with _open_reading(url) as db:
            return find_revision(db) is not None and triggers.are_installed(db)
    except (sa.exc.SQLAlchemyError, DatabaseUnusable):
        return False


def require_supported(url: str) -> None:
    """Raises DatabaseUnusable if the database is from before 0.1.0. Ignores a database that
    does not answer.
    """
    with suppress(sa.exc.SQLAlchemyError), _open_reading(url) as db:
        find_revision(db)


@contextmanager
def _open_reading(url: str) -> Iterator[sa.Connection]:
    from harness.frame.database import engine  # noqa: PLC0415 - only a starting process needs it

    with engine.temporary(url) as temporary_engine:
        _, options = engine.OPTIONS[temporary_engine.dialect.name]
        with temporary_engine.execution_options(**options).begin() as db:
            yield db


def find_revision(db: sa.Connection) -> str | None:
    """Returns the revision; None without tables. Raises DatabaseUnusable for another schema."""
    columns = _read_columns(db)
    has_version_table = "alembic_version" in columns
    revision = db.execute(_REVISION).scalar() if has_version_table else None
    our_tables = columns.keys() & metadata.tables.keys()
    if revision is None and not our_tables:
        return None
    if revision != REVISION:
        raise DatabaseUnusable(
            _describe_unsupported(f"schema revision {revision or 'unknown'}")
        )
    if misfit := next(_find_misfits(columns), ""):
        raise DatabaseUnusable(_describe_unsupported(misfit))
    return REVISION


def has_schema(db: sa.Connection) -> bool:
    """Returns whether the schema exists. Raises DatabaseUnusable for another
    version's schema.
    """
    revision = db.execute(_REVISION).scalar()
    if revision not in (None, REVISION):
        raise DatabaseUnusable(_describe_unsupported(f"schema revision {revision}"))
    return revision is not None


def _read_columns(db: sa.Connection) -> dict[str, dict[str, bool]]:
    """Maps each table to its columns, and each column to whether a row must give it a value."""
    columns: dict[str, dict[str, bool]] = {}
    for table, column, is_required in db.execute(_COLUMNS_QUERIES[db.dialect.name]):
        columns.setdefault(table, {})[column] = bool(is_required)
    return columns


def _find_misfits(actual_columns: dict[str, dict[str, bool]]) -> Iterator[str]:
    """Yields the columns that the database lacks, and unknown columns that would refuse this
    version's rows. Ignores other unknown columns.
    """
    for name, table in metadata.tables.items():
        our_columns = table.columns.keys()
        table_columns = actual_columns.get(name, {})
        yield from (
            f"no column {name}.{column}"
            for column in our_columns
            if column not in table_columns
        )
        for column, is_required in table_columns.items():
            if is_required and column not in our_columns:
                yield f"a column {name}.{column}"


def _describe_unsupported(reason: str) -> str:
    return (
        f"the database is from before 0.1.0 ({reason}, and this version needs {REVISION}): "
        "Swapproof cannot upgrade it, and has not changed it. For a new installation, set "
        "`home` to a new folder and `database_url` to a new database, then run `swapproof init`"
    )
