"""Brings a database to a revision of the schema with alembic (`upgrade`, `downgrade`), and says
how it differs from this version's tables, constraints and triggers (`state`, `check`).

A connection is handed to migrations/env.py, so that the whole way is one transaction: a
migration that is killed leaves the database as it was. An upgrade to the newest revision
installs the triggers anew, renews the rights of the runtime's role, and writes down which
older versions may go on.

Processes go on meanwhile. PostgreSQL lets nobody pass who waits for a table behind a migration
that itself waits for a long reader: so it waits `LOCK_WAIT_MS` at most, gives way, and comes
again.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.ddl.sqlite import SQLiteImpl
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from harness import package_data
from harness.domain.errors import ConfigError, Conflict, DatabaseUnusable, StoreUnavailable
from harness.ports import Signatures
from harness.store import constraints, engine, schema_revisions, traffic_backfill
from harness.store.database_errors import RoleRefused, translated
from harness.store.guards import trigger_generation, trigger_signatures, triggers
from harness.store.leader import nobody_leads
from harness.store.postgres import database_roles
from harness.store.schema import metadata
from harness.store.schema.columns import keep_strict

log = logging.getLogger(__name__)

_LOCK: Final = 0x53776D67
LOCK_WAIT_MS: Final = 500
# Between two attempts, so that whoever waited behind the first gets through.
LOCK_PAUSE_S: Final = 2.0
LOCK_ATTEMPTS: Final = 40
# So long writers of traffic wait, about, while what was recorded before is summed up.
HELD_S: Final = 0.1
# PostgreSQL's codes of a lock that was not had in time, and of a deadlock.
_HELD_UP: Final = ("55P03", "40P01")

T = TypeVar("T")


class StrictSQLite(SQLiteImpl):
    """What alembic does on SQLite: each table that a migration makes is a strict one.

    The class takes the place of alembic's own by its name for the database.
    """

    __dialect__ = "sqlite"

    def create_table(self, table: sa.Table, **options: Any) -> None:
        keep_strict(table)
        super().create_table(table, **options)


def upgrade(
    url: str,
    revision: str = "head",
    *,
    signatures: Signatures | None = None,
    replace_triggers: bool = False,
) -> bool:
    """Bring the database to `revision`; an SQLite file and its folder are created.
    Tells whether the triggers are signed.

    signatures: sign which triggers are installed, where this process has the key.
    replace_triggers: install this version's, though those that are there may be a newer one's.

    Several may do so at once: the others wait, and find nothing left to do. A newer database
    that lets this version go on stays as it is. Raises StoreUnavailable when the database does
    not answer, holds the migration up, or a row does not fit; Conflict where an older control
    process leads that the new schema is not made for, a newer version signed the triggers that
    should be replaced, or nothing vouches for triggers that this version does not know;
    DatabaseUnusable for a role that does not own the tables, where there is something to do.
    """
    parsed = engine.parse(url)
    engine.make_folder(parsed)

    def go_on(db: sa.Connection) -> bool:
        if replace_triggers and trigger_generation.has_newer(db):
            if not trigger_signatures.find_unsigned(db, signatures):
                raise Conflict(
                    "a newer version signed the triggers, which stay: go back with its "
                    "`swapgate db downgrade`"
                )
            trigger_generation.forget(db)
        elif not replace_triggers and _is_newest(db):
            # An older schema has an older version's.
            trigger_signatures.require_replaceable(db, signatures)
        _upgrade(parsed, db, revision)
        return _sign_triggers(db, signatures)

    try:
        is_signed = _patiently(url, go_on)
        _sum_up_traffic(url)
    except RoleRefused as error:
        if schema_revisions.is_current(url):
            what = (
                "sign the database's triggers, which is all that is left to do for this "
                f"version ({error.database})"
            )
        else:
            what = f"upgrade the database, which stays as it was ({error.database})"
        raise DatabaseUnusable(database_roles.owner_needed(url, what)) from error
    return is_signed


def _sum_up_traffic(url: str) -> None:
    """Sums up what was recorded before there were sums, some hours in each transaction. Who is
    interrupted has lost nothing, and the next upgrade goes on.
    """
    newest = head()

    def sum_up(db: sa.Connection) -> float | None:
        """Returns how long writers waited; None where nothing is left."""
        if MigrationContext.configure(db).get_current_revision() != newest:
            return None
        began = time.monotonic()
        while not traffic_backfill.is_complete(db):
            traffic_backfill.sum_up_hour(db)
            if (held_s := time.monotonic() - began) > HELD_S:
                return held_s
        return None

    while (held_s := _patiently(url, sum_up)) is not None:
        # SQLite's writers wait in no queue: without a pause they would hardly get through.
        time.sleep(held_s)


def _sign_triggers(db: sa.Connection, signatures: Signatures | None) -> bool:
    if signatures is not None and _is_newest(db):
        with suppress(ConfigError):  # the key is elsewhere
            trigger_signatures.sign(db, signatures)
            return True
    return False


def _is_newest(db: sa.Connection) -> bool:
    return MigrationContext.configure(db).get_current_revision() == head()


def _upgrade(url: sa.URL, db: sa.Connection, revision: str) -> None:
    before = MigrationContext.configure(db).get_current_revision()
    if before is not None and schema_revisions.is_served(db, before):
        return
    schema_revisions.require_known(before)
    target = head() if revision == "head" else revision
    goes_on = before is None or schema_revisions.compatible_from(target) <= before
    with nullcontext() if goes_on else nobody_leads(url, db):
        try:
            command.upgrade(_config(db), revision)
        except RuntimeError as error:
            raise StoreUnavailable(f"the database stays as it was: {error}") from error
        after = MigrationContext.configure(db).get_current_revision()
        if after == head():
            # They are written down in one place, and not migration by migration.
            triggers.install(db)
        if before not in (None, after):
            database_roles.renew(db)
        _write_compatible(db, after)


def _write_compatible(db: sa.Connection, revision: str | None) -> None:
    """Says in the database which older versions may go on with it."""
    columns = {column["name"] for column in sa.inspect(db).get_columns("alembic_version")}
    if "compatible_from" not in columns:
        db.execute(sa.text("ALTER TABLE alembic_version ADD COLUMN compatible_from TEXT"))
    if revision is None:
        return
    oldest = {"oldest": schema_revisions.compatible_from(revision)}
    written = db.execute(sa.text("SELECT compatible_from FROM alembic_version")).scalar()
    if written != oldest["oldest"]:
        db.execute(sa.text("UPDATE alembic_version SET compatible_from = :oldest"), oldest)


@dataclass(frozen=True, slots=True)
class LostPart:
    """Names a table, or one column, that an older schema has not."""

    table: str
    column: str  # "" for the whole table
    rows: int  # of the table


@dataclass(frozen=True, slots=True)
class Downgrade:
    """Describes a way back: from which revision to which, and what goes with it."""

    before: str
    after: str
    lost: tuple[LostPart, ...]
    is_signed: bool  # so that the older version's upgrade installs its triggers


def downgrade(
    url: str,
    revision: str = "-1",
    *,
    signatures: Signatures | None = None,
    dry_run: bool = False,
) -> Downgrade:
    """Go back to `revision`, by default one step (`base`: no tables). What newer tables held is
    lost; says what that is. dry_run: undo all of it in the end. signatures: sign that an older
    version may replace the triggers, where this process has the key.

    Raises Conflict where a control process leads, where a migration does not go back over what
    is there, and for a revision that is no earlier one.
    """
    parsed = engine.parse(url)

    def go_back(db: sa.Connection) -> Downgrade:
        with nobody_leads(parsed, db):
            found = _downgrade(db, revision, signatures)
        if dry_run:
            raise _Undone(found)
        return found

    try:
        return _patiently(url, go_back)
    except _Undone as undone:
        return undone.found


class _Undone(Exception):
    def __init__(self, found: Downgrade) -> None:
        super().__init__()
        self.found = found


def _downgrade(db: sa.Connection, revision: str, signatures: Signatures | None) -> Downgrade:
    before = MigrationContext.configure(db).get_current_revision()
    schema_revisions.require_known(before)
    there = _columns(db)
    try:
        with db.begin_nested() as trial:
            command.downgrade(_config(db), revision)
            left = _columns(db)
            trial.rollback()
        # As long as they are there.
        lost = tuple(_lost_parts(db, there, left))
        command.downgrade(_config(db), revision)
    except RuntimeError as error:
        raise Conflict(f"the database stays as it was: {error}") from error
    except CommandError as error:
        raise Conflict(f"the database stays at revision {before}: {error}") from error
    after = MigrationContext.configure(db).get_current_revision()
    _write_compatible(db, after)
    trigger_generation.forget(db)
    is_signed = False
    if signatures is not None and after is not None:
        with suppress(ConfigError):  # the key is elsewhere
            trigger_signatures.release(db, signatures)
            is_signed = True
    return Downgrade(before or "", after or "base", lost, is_signed)


def _columns(db: sa.Connection) -> dict[str, set[str]]:
    inspector = sa.inspect(db)
    return {
        table: {column["name"] for column in inspector.get_columns(table)}
        for table in inspector.get_table_names()
    }


def _lost_parts(
    db: sa.Connection, there: dict[str, set[str]], left: dict[str, set[str]]
) -> Iterator[LostPart]:
    for table in sorted(there):
        columns = [""] if table not in left else sorted(there[table] - left[table])
        for column in columns:
            count = sa.select(sa.func.count()).select_from(sa.table(table))
            yield LostPart(table, column, db.execute(count).scalar_one())


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


@dataclass(frozen=True, slots=True)
class SchemaState:
    """Describes a database's schema, compared with the one that this version needs."""

    needed: str  # the revision of this version
    found: str | None  # the database's, None without any tables
    differences: tuple[str, ...]  # a line each, of what is not as this version needs it
    is_newer: bool = False  # a newer version made it
    is_served: bool = False  # and lets this one go on with it
    has_newer_triggers: bool = False  # it says that a newer version installed them
    # Why nothing vouches for that, or for triggers that this version does not know; "" where a
    # signature does, or where there are none such.
    unsigned_triggers: str = ""


def state(url: str, signatures: Signatures | None = None) -> SchemaState:
    """Compares the database's schema with this version's, and what a newer version installed
    with what it signed. Raises DatabaseUnusable for a file that is missing or damaged,
    StoreUnavailable.
    """
    engine.require_file(url)
    found = current(url)
    try:
        schema_revisions.require_known(found)
    except DatabaseUnusable as error:
        with _connection(url) as db:
            if schema_revisions.is_served(db, str(found)):
                return SchemaState(head(), found, (), is_newer=True, is_served=True)
        return SchemaState(head(), found, (str(error),), is_newer=True)
    with _connection(url) as db:
        newer, is_newest = trigger_generation.has_newer(db), found == head()
        unsigned = trigger_signatures.find_unsigned(db, signatures) if is_newest else ""
    return SchemaState(
        head(),
        found,
        tuple(check(url, signatures)),
        has_newer_triggers=newer,
        unsigned_triggers=unsigned,
    )


def check(url: str, signatures: Signatures | None = None) -> list[str]:
    """Lists how the database differs from this version in tables, rules and triggers, a line
    each.
    """
    with _connection(url) as db:
        context = MigrationContext.configure(db, opts={"compare_type": True})
        differences = [str(difference) for difference in compare_metadata(context, metadata)]
        return differences + constraints.differences(db) + triggers.differences(db, signatures)


def _config(db: sa.Connection | None = None) -> Config:
    config = Config()
    # A percent sign would be an interpolation of the configuration's own.
    folder = str(package_data.path("migrations")).replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.attributes["connection"] = db
    return config


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
            # A limit that is meant for the runtime's statements would end a long migration.
            db.exec_driver_sql("SET LOCAL statement_timeout = 0")
            db.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        yield db


def _patiently(url: str, work: Callable[[sa.Connection], T]) -> T:
    """Do the work in one transaction beside which no migration runs, and that makes nobody wait
    for long; it is tried again where others hold it up.
    """
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        try:
            with exclusive(url) as db:
                if db.dialect.name == "postgresql":
                    db.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}")
                return work(db)
        except StoreUnavailable as error:
            if not _is_held_up(error) or attempt == LOCK_ATTEMPTS:
                raise
            if attempt == 1:
                log.warning("others hold tables that the migration needs; trying again")
        time.sleep(LOCK_PAUSE_S)
    raise AssertionError("the last attempt returns or raises")


def _is_held_up(error: StoreUnavailable) -> bool:
    cause = error.__cause__
    driver = cause.orig if isinstance(cause, sa.exc.DBAPIError) else None
    return getattr(driver, "sqlstate", None) in _HELD_UP
