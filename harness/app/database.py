"""Migrates and checks the configured database: brings its schema to the newest revision, says
how it differs, gives a PostgreSQL role its rights, and hides the password of its URL.
`sql_store` is the store for what only the database's owner does, such as signing rows.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from harness.app.installation import Installation, job_queue
from harness.domain.errors import (
    ConfigError,
)
from harness.domain.settings import RunQueueKind, Settings
from harness.runtime import secret_files

if TYPE_CHECKING:
    from harness.store.migrate import SchemaState as SchemaState  # noqa: PLC0414 - for callers
    from harness.store.store import Store


HIDDEN = "***"
_PASSWORD_PARAMETER: Final = re.compile(r"(?i)([?&](?:ssl)?password=)[^&#]*")


def without_password(url: str) -> str:
    """Hides the passwords of an address: before the host, and among its parameters."""
    password = urlsplit(url).password
    shown = url.replace(f":{password}@", f":{HIDDEN}@") if password else url
    return _PASSWORD_PARAMETER.sub(rf"\1{HIDDEN}", shown)


def sql_store(installation: Installation) -> "Store":
    """The database itself, for what no port has: signing and taking out rows as its owner."""
    from harness.store.store import Store  # noqa: PLC0415 - SQLAlchemy takes its time

    store = installation.store
    if not isinstance(store, Store):
        raise ConfigError("this installation has no database whose rows could be signed")
    return store


def import_store() -> None:
    """Imports what all who use the database need of it."""
    from harness.store import sql  # noqa: F401, PLC0415 - SQLAlchemy takes its time


def require_database(settings: Settings) -> None:
    """Checks, for who serves, that the database is there: a new, empty one would hide that it
    is away.

    Raises DatabaseUnusable where SQLite's file is missing, for one from before 0.1.0, and
    behind a pooler in transaction mode.
    """
    from harness.store import engine, schema_revisions  # noqa: PLC0415 - SQLAlchemy takes its time
    from harness.store.postgres.database_roles import require_own_session  # noqa: PLC0415 - as above

    engine.require_file(settings.database_url)
    require_own_session(settings.database_url)
    schema_revisions.refuse_earlier(settings.database_url)


def upgrade_database(settings: Settings) -> None:
    """Bring the database to this version's schema; makes a missing SQLite file.

    Raises DatabaseUnusable for a database from before 0.1.0 and behind a pooler in transaction
    mode, StoreUnavailable.
    """
    from harness.store import schema_revisions  # noqa: PLC0415 - SQLAlchemy takes its time
    from harness.store.postgres.database_roles import require_own_session  # noqa: PLC0415 - as above

    require_own_session(settings.database_url)
    if settings.database_url.startswith("sqlite"):
        secret_files.writable_home(settings)
    if not schema_revisions.is_current(settings.database_url):
        from harness.store import migrate  # noqa: PLC0415 - alembic takes its time

        migrate.upgrade(settings.database_url)
    if settings.control.queue is RunQueueKind.PROCRASTINATE:
        job_queue(settings).install(settings.database_url)


def grant_runtime(settings: Settings, role: str, *, only_show: bool) -> Sequence[str]:
    """Gives a role of PostgreSQL what running Swapgate needs; returns the statements.

    only_show: change nothing. Raises InputError, NotFound, DatabaseUnusable.
    """
    from harness.store.postgres import database_roles  # noqa: PLC0415

    return database_roles.grant(settings.database_url, role, only_show=only_show)


def role_that_does_both(settings: Settings) -> str | None:
    """Returns the database role in use where it could change the tables, too; else None."""
    from harness.store.postgres import database_roles  # noqa: PLC0415

    return database_roles.does_both(settings.database_url)


def schema_state(settings: Settings) -> "SchemaState":
    """Compares the database's schema with this version's: both revisions, and what differs.

    Raises DatabaseUnusable for a database that is missing, damaged or behind a pooler in
    transaction mode, StoreUnavailable.
    """
    from harness.store import migrate  # noqa: PLC0415
    from harness.store.postgres.database_roles import require_own_session  # noqa: PLC0415

    require_own_session(settings.database_url)
    return migrate.state(settings.database_url)
