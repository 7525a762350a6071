"""Makes a database's schema with alembic, and says how a database differs from it. The whole
way is one transaction: a migration that is killed leaves the database as it was.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext

from harness.frame import package_data
from harness.frame.errors import DatabaseUnusable
from harness.frame.records.database_errors import RoleRefused, translated
from harness.store import constraints, engine, schema_revisions
from harness.store.guards import triggers
from harness.store.postgres import database_roles
from harness.store.tables import metadata

_LOCK: Final = 0x53776D67


def upgrade(url: str) -> None:
    """Brings the database to this version's schema. Creates an SQLite file and its folder.

    Several processes may call it at once: one upgrades, the others wait. Raises
    StoreUnavailable where the database does not answer, DatabaseUnusable for one from before
    0.1.0, which stays as it is, and for a role that does not own the tables.
    """
    engine.make_folder(engine.parse(url))
    try:
        with _connection(url) as db:
            if db.dialect.name == "postgresql":
                # A limit that is meant for the runtime's statements would end a long migration.
                db.exec_driver_sql("SET LOCAL statement_timeout = 0")
                db.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            schema_revisions.find(db)
            command.upgrade(_config(db), "head")
            triggers.install(db)
    except RoleRefused as error:
        what = f"upgrade the database, which stays as it was ({error.database})"
        raise DatabaseUnusable(database_roles.owner_needed(url, what)) from error


@dataclass(frozen=True, slots=True)
class SchemaState:
    needed: str  # the revision of this version
    found: str | None  # the database's, None without any tables
    differences: tuple[str, ...]  # a line for each difference from this version's schema


def state(url: str) -> SchemaState:
    """Compares the database's schema with this version's. Raises DatabaseUnusable for a file
    that is missing or damaged and for a database from before 0.1.0, StoreUnavailable.
    """
    engine.require_file(url)
    with _connection(url) as db:
        found = schema_revisions.find(db)
    return SchemaState(schema_revisions.REVISION, found, tuple(check(url)))


def check(url: str) -> list[str]:
    """Lists how the database differs from this version in tables, rules and triggers."""
    with _connection(url) as db:
        context = MigrationContext.configure(db, opts={"compare_type": True})
        differences = [str(difference) for difference in compare_metadata(context, metadata)]
        return differences + constraints.differences(db) + triggers.differences(db)


def _config(db: sa.Connection) -> Config:
    config = Config()
    # A percent sign would be an interpolation of the configuration's own.
    folder = str(package_data.path("migrations")).replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.attributes["connection"] = db
    return config


@contextmanager
def _connection(url: str) -> Iterator[sa.Connection]:
    immediate = {engine.BEGIN: "IMMEDIATE"}
    with (
        engine.temporary(url, create=True) as made,
        translated(),
        made.execution_options(**immediate).begin() as db,
    ):
        yield db
