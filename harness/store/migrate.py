"""The schema's history: bring a database to a revision, and compare it with the tables.

A connection is handed to migrations/env.py, so that the whole way is one transaction: a
migration that is killed leaves the database as it was.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.pool import NullPool

from harness import shipped
from harness.domain.errors import StoreUnavailable
from harness.store.sql import engine
from harness.store.sql.failures import translated
from harness.store.tables import TRIGGERS, metadata

_LOCK: Final = 0x53776D67


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database to `revision`; an SQLite file and its folder are created.

    Several may do so at once: the others wait, and find nothing left to do.
    Raises StoreUnavailable when the database does not answer.
    """
    _make_folder(engine.parse(url))
    with _alone(url) as db:
        command.upgrade(_config(db), revision)


def downgrade(url: str, revision: str) -> None:
    """Go back to `revision` (`base`: no tables). What newer tables held is lost."""
    with _alone(url) as db:
        command.downgrade(_config(db), revision)


def current(url: str) -> str | None:
    """The database's revision; None for an empty database."""
    parsed = engine.parse(url)
    if parsed.get_backend_name() == "sqlite" and not engine.file_of(parsed).exists():
        return None
    with _connection(url) as db:
        return MigrationContext.configure(db).get_current_revision()


def revisions() -> list[str]:
    """All of them, the oldest first."""
    script = ScriptDirectory.from_config(_config())
    return [each.revision for each in script.walk_revisions()][::-1]


def head() -> str:
    """The newest revision that this version knows."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def check(url: str) -> list[str]:
    """What differs between the tables and the database, a line each; empty when nothing."""
    with _connection(url) as db:
        context = MigrationContext.configure(db, opts={"compare_type": True})
        differences = [str(each) for each in compare_metadata(context, metadata)]
        return differences + _missing_checks(db) + _missing_triggers(db)


def _missing_checks(db: sa.Connection) -> list[str]:
    inspector = sa.inspect(db)
    present = set(inspector.get_table_names())
    missing = []
    for table in metadata.sorted_tables:
        if table.name not in present:
            continue
        found = {check["name"] for check in inspector.get_check_constraints(table.name)}
        missing += [
            f"the check {check.name} of {table.name} is missing"
            for check in table.constraints
            if isinstance(check, sa.CheckConstraint) and check.name not in found
        ]
    return missing


def _missing_triggers(db: sa.Connection) -> list[str]:
    query = (
        "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        if db.dialect.name == "sqlite"
        else "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled = 'O'"
    )
    found = {name for (name,) in db.execute(sa.text(query))}
    return [f"the trigger {name} is missing" for name in sorted(TRIGGERS - found)]


def _config(db: sa.Connection | None = None) -> Config:
    config = Config()
    # A percent sign would be an interpolation of the configuration's own.
    folder = str(shipped.path("migrations")).replace("%", "%%")
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
def _connection(url: str) -> Iterator[sa.Connection]:
    made = engine.make(engine.parse(url), create=True, poolclass=NullPool)
    immediate = made.execution_options(**{engine.BEGIN: "IMMEDIATE"})
    try:
        with translated(), immediate.begin() as db:
            yield db
    finally:
        made.dispose()


@contextmanager
def _alone(url: str) -> Iterator[sa.Connection]:
    with _connection(url) as db:
        if db.dialect.name == "postgresql":
            db.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        yield db
