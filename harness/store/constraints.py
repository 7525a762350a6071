"""Compares the database's CHECKs and indexes with this version's, as the database itself
spells them: created beside the real ones, read, and thrown away. Comparing names alone would
be fooled by a CHECK (true) of the right name.
"""

import re
from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa

from harness.frame.errors import DatabaseUnusable
from harness.store.tables import metadata

Definitions = Mapping[tuple[str, str], str]
_BLANK: Final = re.compile(r'[\s"]+')
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


def differences(db: sa.Connection) -> list[str]:
    ours, theirs = shipped(db), present(db)
    tables = {table for table, _ in theirs}
    return [
        *(
            f"the rule {name} of {table} is missing"
            for table, name in sorted(ours.keys() - theirs.keys())
            if table in tables
        ),
        *(
            f"the rule {name} of {table} is not this version's"
            for table, name in sorted(ours.keys() & theirs.keys())
            if ours[table, name] != theirs[table, name]
        ),
    ]


def present(db: sa.Connection) -> Definitions:
    if db.dialect.name == "sqlite":
        return _in_sqlite(db)
    schema = db.execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one()
    return _in_postgres(db, str(schema))


def shipped(db: sa.Connection) -> Definitions:
    """Returns this version's definitions as this database spells them."""
    if db.dialect.name == "sqlite":
        beside = sa.create_engine("sqlite://")
        try:
            with beside.begin() as empty:
                metadata.create_all(empty)
                return _in_sqlite(empty)
        finally:
            beside.dispose()
    _require_temporary_tables(db)
    made = db.begin_nested()
    try:
        beside_us = db.execution_options(schema_translate_map={None: "pg_temp"})
        metadata.create_all(beside_us, checkfirst=False)
        own = db.execute(sa.text("SELECT pg_my_temp_schema()::regnamespace::text")).scalar_one()
        return _in_postgres(db, str(own))
    finally:
        made.rollback()
        db.execution_options(schema_translate_map=None)


def _require_temporary_tables(db: sa.Connection) -> None:
    """Everybody has the right, unless an administrator took it from PUBLIC."""
    may = "SELECT has_database_privilege(current_database(), 'TEMPORARY')"
    if not db.execute(sa.text(may)).scalar_one():
        who = db.execute(sa.text("SELECT current_user")).scalar_one()
        raise DatabaseUnusable(
            f"the role {who} may not make temporary tables, with which the rules of the "
            "database are compared: run this with the tables' owner in `database_url`"
        )


def _in_postgres(db: sa.Connection, schema: str) -> Definitions:
    rows = db.execute(_POSTGRES, {"schema": schema})
    return {
        (row.table, row.name): _TEMPORARY.sub("", row.says) for row in rows if _is_ours(row)
    }


def _is_ours(row: sa.Row[tuple[str, str, str]]) -> bool:
    return row.table in metadata.tables


def _in_sqlite(db: sa.Connection) -> Definitions:
    inspector = sa.inspect(db)
    found: dict[tuple[str, str], str] = {}
    for table in set(inspector.get_table_names()) & set(metadata.tables):
        for check in inspector.get_check_constraints(table):
            found[table, str(check["name"])] = _normalized(check["sqltext"])
    indexes = "SELECT tbl_name, name, sql FROM sqlite_master WHERE type = 'index' AND sql <> ''"
    for table, name, sql in db.execute(sa.text(indexes)):
        if table in metadata.tables:
            found[table, name] = _normalized(sql)
    return found


def _normalized(text: str) -> str:
    said = _BLANK.sub(" ", text).strip().lower()
    while said.startswith("(") and said.endswith(")") and _encloses(said):
        said = said[1:-1].strip()
    return said.replace("( ", "(").replace(" )", ")").replace(" ,", ",")


def _encloses(text: str) -> bool:
    """Whether the first bracket is closed by the last."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place == len(text) - 1
    return False
