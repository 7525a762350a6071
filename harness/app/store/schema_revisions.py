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
_COLUMNS: Final = {
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
    """Returns whether the database needs no `migrate.upgrade`. False if that is unknown."""
    from harness.app.store.guards import triggers  # noqa: PLC0415 - few processes need it

    try:
        with _reading(url) as db:
            return find(db) is not None and triggers.are_installed(db)
    except (sa.exc.SQLAlchemyError, DatabaseUnusable):
        return False


def refuse_earlier(url: str) -> None:
    """Raises DatabaseUnusable if the database answers and is from before 0.1.0."""
    with suppress(sa.exc.SQLAlchemyError), _reading(url) as db:
        find(db)


@contextmanager
def _reading(url: str) -> Iterator[sa.Connection]:
    from harness.frame.database import engine  # noqa: PLC0415 - only a starting process needs it

    with engine.temporary(url) as made:
        _, options = engine.OPTIONS[made.dialect.name]
        with made.execution_options(**options).begin() as db:
            yield db


def find(db: sa.Connection) -> str | None:
    """Returns the revision; None without tables. Raises DatabaseUnusable for another schema."""
    columns = _columns(db)
    versioned = "alembic_version" in columns
    revision = db.execute(_REVISION).scalar() if versioned else None
    ours = columns.keys() & metadata.tables.keys()
    if revision is None and not ours:
        return None
    if revision != REVISION:
        raise DatabaseUnusable(_from_before(f"schema revision {revision or 'unknown'}"))
    if misfit := next(_misfits(columns), ""):
        raise DatabaseUnusable(_from_before(misfit))
    return REVISION


def is_usable(db: sa.Connection) -> bool:
    """Returns whether the schema exists. Raises DatabaseUnusable for another
    version's schema.
    """
    revision = db.execute(_REVISION).scalar()
    if revision not in (None, REVISION):
        raise DatabaseUnusable(_from_before(f"schema revision {revision}"))
    return revision is not None


def _columns(db: sa.Connection) -> dict[str, dict[str, bool]]:
    """Maps table to column to whether a row must give the column a value."""
    found: dict[str, dict[str, bool]] = {}
    for table, column, is_required in db.execute(_COLUMNS[db.dialect.name]):
        found.setdefault(table, {})[column] = bool(is_required)
    return found


def _misfits(found: dict[str, dict[str, bool]]) -> Iterator[str]:
    """Lists columns that this version needs and the database lacks, and unknown columns that
    would refuse this version's rows. Further optional columns are no misfit.
    """
    for name, table in metadata.tables.items():
        ours = table.columns.keys()
        theirs = found.get(name, {})
        yield from (f"no column {name}.{column}" for column in ours if column not in theirs)
        for column, is_required in theirs.items():
            if is_required and column not in ours:
                yield f"a column {name}.{column}"


def _from_before(found: str) -> str:
    return (
        f"the database is from before 0.1.0 ({found}, and this version needs {REVISION}): "
        "Swapgate cannot upgrade it, and has not changed it. For a new installation, set "
        "`home` to a new folder and `database_url` to a new database, then run `swapgate init`"
    )
