"""Brings a database to a revision of the schema with alembic (`upgrade`, `downgrade`), and says
how it differs from this version's tables, constraints and triggers (`state`, `check`).

A connection is handed to migrations/env.py, so that the whole way is one transaction: a
migration that is killed leaves the database as it was. An upgrade to the newest revision
installs the triggers anew and renews the rights of the runtime's role.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.ddl.sqlite import SQLiteImpl
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from harness import package_data
from harness.domain.errors import DatabaseUnusable, StoreUnavailable
from harness.store import constraints, engine, postgres_roles, schema_revisions, triggers
from harness.store.database_errors import translated
from harness.store.schema import metadata
from harness.store.schema.columns import keep_strict

_LOCK: Final = 0x53776D67


class StrictSQLite(SQLiteImpl):
    """What alembic does on SQLite: each table that a migration makes is a strict one.

    The class takes the place of alembic's own by its name for the database.
    """

    __dialect__ = "sqlite"

    def create_table(self, table: sa.Table, **options: Any) -> None:
        keep_strict(table)
        super().create_table(table, **options)


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database to `revision`; an SQLite file and its folder are created.

    Several may do so at once: the others wait, and find nothing left to do.
    Raises StoreUnavailable when the database does not answer, or a row does not fit.
    """
    _make_folder(engine.parse(url))
    with exclusive(url) as db:
        before = MigrationContext.configure(db).get_current_revision()
        schema_revisions.check(before)
        try:
            command.upgrade(_config(db), revision)
        except RuntimeError as error:
            raise StoreUnavailable(f"the database stays as it was: {error}") from error
        after = MigrationContext.configure(db).get_current_revision()
        if after == head():
            # They are written down in one place, and not migration by migration.
            triggers.install(db)
        if before not in (None, after):
            postgres_roles.renew(db)


def downgrade(url: str, revision: str) -> None:
    """Go back to `revision` (`base`: no tables). What newer tables held is lost."""
    with exclusive(url) as db:
        command.downgrade(_config(db), revision)


def current(url: str) -> str | None:
    """Returns the database's schema revision; None for an empty database."""
    parsed = engine.parse(url)
    if parsed.get_backend_name() == "sqlite" and not engine.file_of(parsed).exists():
        return None
    with _connection(url) as db:
        return MigrationContext.configure(db).get_current_revision()


def revisions() -> list[str]:
    """Lists all revisions of the schema, the oldest first."""
    script = ScriptDirectory.from_config(_config())
    return [revision.revision for revision in script.walk_revisions()][::-1]


def head() -> str:
    """The newest revision that this version knows."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def require_file(url: str) -> None:
    """Requires that SQLite's file exists; else raises DatabaseUnusable."""
    parsed = engine.parse(url)
    if parsed.get_backend_name() == "sqlite" and not engine.file_of(parsed).exists():
        raise DatabaseUnusable(
            f"there is no database at {engine.file_of(parsed)}: bring the file back from a "
            "backup, fix `database_url`, or make a new one with `swapgate init`"
        )


@dataclass(frozen=True, slots=True)
class SchemaState:
    """Describes a database's schema, compared with the one that this version needs."""

    needed: str  # the revision of this version
    found: str | None  # the database's, None without any tables
    differences: tuple[str, ...]  # a line each, of what is not as this version needs it
    is_newer: bool = False  # a newer version made it


def state(url: str) -> SchemaState:
    """Compares the database's schema with this version's. Raises DatabaseUnusable for a file
    that is missing or damaged, StoreUnavailable.
    """
    require_file(url)
    found = current(url)
    try:
        schema_revisions.check(found)
    except DatabaseUnusable as error:
        return SchemaState(head(), found, (str(error),), is_newer=True)
    return SchemaState(head(), found, tuple(check(url)))


def check(url: str) -> list[str]:
    """Lists how the database differs from this version in tables, rules and triggers, a line
    each.
    """
    with _connection(url) as db:
        context = MigrationContext.configure(db, opts={"compare_type": True})
        differences = [str(difference) for difference in compare_metadata(context, metadata)]
        return differences + constraints.differences(db) + triggers.differences(db)


def _config(db: sa.Connection | None = None) -> Config:
    config = Config()
    # A percent sign would be an interpolation of the configuration's own.
    folder = str(package_data.path("migrations")).replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.attributes["connection"] = db
    return config


def _make_folder(url: sa.URL) -> None:
    if url.get_backend_name() != "sqlite":
        return
    folder = engine.file_of(url).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(
            f"cannot create the folder {folder} ({error.strerror}): choose another place with "
            "`database_url`"
        ) from error


@contextmanager
def _connection(url: str, *, migrating: bool = False) -> Iterator[sa.Connection]:
    made = engine.make(engine.parse(url), create=True, poolclass=NullPool)
    if migrating and made.dialect.name == "sqlite":
        # A table that is copied is away for a moment, and with it what others refer to.
        sa.event.listen(made, "connect", _check_no_references)
    immediate = made.execution_options(**{engine.BEGIN: "IMMEDIATE"})
    try:
        with translated(), immediate.begin() as db:
            yield db
    finally:
        made.dispose()


def _check_no_references(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:  # noqa: ARG001 - the event's signature
    connection.cursor().execute("PRAGMA foreign_keys = OFF")


@contextmanager
def exclusive(url: str) -> Iterator[sa.Connection]:
    """Opens a transaction beside which no migration runs; SQLite checks no references in it."""
    with _connection(url, migrating=True) as db:
        if db.dialect.name == "postgresql":
            db.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        yield db
