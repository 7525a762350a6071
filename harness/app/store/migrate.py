"""Creates or upgrades a database's schema with alembic, and compares a database with the
schema. All migrations run in one transaction, so a killed migration leaves the database
unchanged.

The migrations are in `migrations/`. Running processes must not import this module, because
alembic loads slowly. They use `schema_revisions`.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext

from harness.app.store import database_roles, schema_revisions, views
from harness.app.store.guards import triggers
from harness.app.store.tables import metadata
from harness.frame import package_data
from harness.frame.database import engine
from harness.frame.errors import DatabaseUnusable
from harness.frame.records.transaction import RoleRefused, translated

_LOCK: Final = 0x53776D67


def upgrade(url: str) -> None:
    """Brings the database to this version's schema. Creates an SQLite file and its folder.

    Several processes may call it at once: one process upgrades, and the others wait. Raises
    StoreUnavailable if the database does not answer. Raises DatabaseUnusable, without a change,
    for a database from before 0.1.0, and for a role that does not own the tables.
    """
    engine.create_folder(engine.parse(url))
    try:
        with _open_transaction(url) as db:
            if db.dialect.name == "postgresql":
                # No limit, because a migration may take long.
                db.exec_driver_sql("SET LOCAL statement_timeout = 0")
                db.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            schema_revisions.find_revision(db)
            command.upgrade(_build_config(db), "head")
            triggers.install(db)
            views.install(db)
    except RoleRefused as error:
        action = f"upgrade the database, which stays as it was ({error.database})"
        raise DatabaseUnusable(database_roles.describe_missing_right(url, action)) from error


@dataclass(frozen=True, slots=True)
class SchemaState:
    """The result of a comparison. The database needs an upgrade if `found` is not `needed`, and
    a repair if there are differences.
    """

    needed: str  # the revision of this version
    found: str | None  # the revision of the database; None without tables
    differences: tuple[str, ...]  # a line for each difference from this version's schema


def compare_schema(url: str) -> SchemaState:
    """Compares the database's schema with this version's. Raises StoreUnavailable;
    DatabaseUnusable for a missing or damaged file, or a database from before 0.1.0.
    """
    engine.require_file(url)
    with _open_transaction(url) as db:
        revision = schema_revisions.find_revision(db)
    return SchemaState(schema_revisions.REVISION, revision, tuple(list_differences(url)))


def list_differences(url: str) -> list[str]:
    """Lists how the database differs from this version in tables, rules, triggers and views."""
    with _open_transaction(url) as db:
        context = MigrationContext.configure(db, opts={"compare_type": True})
        return [
            *(str(difference) for difference in compare_metadata(context, metadata)),
            *rule_differences(db),
            *triggers.list_differences(db),
            *views.list_differences(db),
        ]


def _build_config(db: sa.Connection) -> Config:
    config = Config()
    # Escapes percent signs, which the configuration would interpolate.
    folder = str(package_data.path("migrations")).replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.attributes["connection"] = db
    return config


@contextmanager
def _open_transaction(url: str) -> Iterator[sa.Connection]:
    """Opens a writing transaction on a separate connection. Raises StoreUnavailable."""
    immediate = {engine.BEGIN: "IMMEDIATE"}
    with (
        engine.temporary(url, create=True) as temporary_engine,
        translated(),
        temporary_engine.execution_options(**immediate).begin() as db,
    ):
        yield db


Definitions = Mapping[tuple[str, str], str]

_SPACE_OR_QUOTE: Final = re.compile(r'[\s"]+')

_TEMPORARY: Final = re.compile(r"\bpg_temp(_\d+)?\.")

_POSTGRES: Final = sa.text(
    """
    SELECT t.relname AS "table", c.conname AS name, pg_get_constraintdef(c.oid) AS says
    FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
    WHERE c.contype = 'c' AND t.relnamespace = CAST(:schema AS regnamespace)
    UNION ALL
    SELECT t.relname, i.relname, regexp_replace(pg_get_indexdef(i.oid), ' ON \\S+', ' ON')
    FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
    JOIN pg_class t ON t.oid = x.indrelid
    WHERE t.relnamespace = CAST(:schema AS regnamespace)
    """
)


def rule_differences(db: sa.Connection) -> list[str]:
    """Lists missing and changed CHECK constraints and indexes. Ignores rules that are not
    Swapproof's, and tables that the database lacks, which `list_differences` reports itself.
    """
    expected = build_definitions(db)
    actual = read_definitions(db)
    tables = {table for table, _ in actual}
    return [
        *(
            f"the rule {name} of {table} is missing"
            for table, name in sorted(expected.keys() - actual.keys())
            if table in tables
        ),
        *(
            f"the rule {name} of {table} is not this version's"
            for table, name in sorted(expected.keys() & actual.keys())
            if expected[table, name] != actual[table, name]
        ),
    ]


def read_definitions(db: sa.Connection) -> Definitions:
    """Maps (table, rule) to the definition in the database, in the database's own spelling."""
    if db.dialect.name == "sqlite":
        return _read_sqlite(db)
    schema = db.execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one()
    return _read_postgres(db, str(schema))


def build_definitions(db: sa.Connection) -> Definitions:
    """Returns this version's definitions as this database spells them. To get the spelling,
    creates the tables in a temporary place.
    """
    if db.dialect.name == "sqlite":
        memory_engine = sa.create_engine("sqlite://")
        try:
            with memory_engine.begin() as empty:
                metadata.create_all(empty)
                return _read_sqlite(empty)
        finally:
            memory_engine.dispose()
    _require_temporary_tables(db)
    savepoint = db.begin_nested()
    try:
        temporary_schema = db.execution_options(schema_translate_map={None: "pg_temp"})
        metadata.create_all(temporary_schema, checkfirst=False)
        schema = db.execute(
            sa.text("SELECT pg_my_temp_schema()::regnamespace::text")
        ).scalar_one()
        return _read_postgres(db, str(schema))
    finally:
        savepoint.rollback()
        db.execution_options(schema_translate_map=None)


def _require_temporary_tables(db: sa.Connection) -> None:
    """Raises DatabaseUnusable if the role may not create temporary tables. Roles may by
    default.
    """
    if not views.can_compare(db):
        role = db.execute(sa.text("SELECT current_user")).scalar_one()
        raise DatabaseUnusable(
            f"the role {role} may not create temporary tables, which the comparison of the "
            "database's rules needs: run this with the tables' owner in `database_url`"
        )


def _read_postgres(db: sa.Connection, schema: str) -> Definitions:
    rows = db.execute(_POSTGRES, {"schema": schema})
    return {
        (row.table, row.name): _TEMPORARY.sub("", row.says)
        for row in rows
        if row.table in metadata.tables
    }


def _read_sqlite(db: sa.Connection) -> Definitions:
    inspector = sa.inspect(db)
    definitions: dict[tuple[str, str], str] = {}
    for table in set(inspector.get_table_names()) & set(metadata.tables):
        for constraint in inspector.get_check_constraints(table):
            definitions[table, str(constraint["name"])] = _normalize(constraint["sqltext"])
    indexes = "SELECT tbl_name, name, sql FROM sqlite_master WHERE type = 'index' AND sql <> ''"
    for table, name, sql in db.execute(sa.text(indexes)):
        if table in metadata.tables:
            definitions[table, name] = _normalize(sql)
    return definitions


def _normalize(text: str) -> str:
    """Removes differences of spelling: spaces, quotes, case and enclosing brackets."""
    normalized = _SPACE_OR_QUOTE.sub(" ", text).strip().lower()
    while normalized.startswith("(") and normalized.endswith(")") and _is_enclosed(normalized):
        normalized = normalized[1:-1].strip()
    return normalized.replace("( ", "(").replace(" )", ")").replace(" ,", ",")


def _is_enclosed(text: str) -> bool:
    """Returns whether the last bracket closes the first one."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place == len(text) - 1
    return False
