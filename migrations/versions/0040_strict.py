"""SQLite's tables hold what their types say, and have no rowid.

Tables that a version from before made are copied; those that migrations make by now are strict
from the start. PostgreSQL needs nothing of it. The guards that came with this revision
(harness/store/guards) are installed with the newest one, and go with this one.
"""

# ruff: noqa: S608 - names of our own tables

import re
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0034"
branch_labels = None
depends_on = None

# With STRICT, and the rest that a table without rowid needs.
OLDEST = (3, 37, 0)
TYPES = {
    "BIGINT": "INTEGER",
    "BOOLEAN": "INTEGER",
    "DOUBLE PRECISION": "REAL",
    "DOUBLE": "REAL",
    "FLOAT": "REAL",
    "VARCHAR": "TEXT",
}
QUOTED_OR_TYPE = re.compile(rf"'(?:[^']|'')*'|\"[^\"]*\"|\b(?:{'|'.join(TYPES)})\b(?:\(\d+\))?")
HOLDS = {
    "INTEGER": ("a whole number", "'integer', 'null'"),
    "REAL": ("a number", "'real', 'integer', 'null'"),
    "TEXT": ("a text", "'text', 'null'"),
}
NEW_GUARDS = {
    "route_version_proof_guard": "route_version",
    "proposal_no_delete": "proposal",
    "rollout_no_rewrite": "rollout",
    "rollout_no_delete": "rollout",
}


def upgrade() -> None:
    db = op.get_bind()
    if db.dialect.name != "sqlite":
        return
    loose = [
        name
        for name, no_rowid, strict in db.exec_driver_sql(
            "SELECT name, wr, strict FROM pragma_table_list WHERE schema = 'main'"
            " AND type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'alembic_version'"
        ).all()
        if not (no_rowid and strict)
    ]
    if not loose:
        return
    check_version(db)
    # A rename reads every trigger, also those whose table is away just then.
    triggers = db.exec_driver_sql(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
    ).all()
    for name, _ in triggers:
        db.exec_driver_sql(f'DROP TRIGGER "{name}"')
    for table in loose:
        check_rows(db, table)
        copy(db, table)
    for _, text in triggers:
        db.exec_driver_sql(text)
    check_references(db)


def check_version(db: sa.Connection) -> None:
    version = db.exec_driver_sql("SELECT sqlite_version()").scalar_one()
    if tuple(map(int, version.split("."))) < OLDEST:
        raise RuntimeError(
            f"this Python has SQLite {version}, and its tables need 3.37 or newer: use another"
            " Python, or PostgreSQL"
        )


def check_rows(db: sa.Connection, table: str) -> None:
    """Raises RuntimeError for the first row that holds something else than its columns say."""
    keys = [f'"{key}"' for key in key_of(db, table)]
    for column, type_ in columns_of(db, table):
        words, kinds = HOLDS[strict_type(type_)]
        row = db.exec_driver_sql(
            f'SELECT {", ".join(keys)}, quote("{column}"), typeof("{column}") FROM "{table}"'
            f' WHERE typeof("{column}") NOT IN ({kinds}) LIMIT 1'
        ).first()
        if row is not None:
            where = ", ".join(
                f"{key.strip(chr(34))} = {value!r}"
                for key, value in zip(keys, row, strict=False)
            )
            raise RuntimeError(
                f"the table {table} has a row ({where}) whose column {column} holds"
                f" {row[-2][:80]} ({row[-1]}) and not {words}: correct or remove that row, for"
                " example from a backup"
            )


def copy(db: sa.Connection, table: str) -> None:
    text = db.exec_driver_sql(
        "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)
    ).scalar_one()
    indexes = db.exec_driver_sql(
        "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ?"
        " AND sql IS NOT NULL",
        (table,),
    ).all()
    columns = ", ".join(f'"{column}"' for column, _ in columns_of(db, table))
    _, _, body = text.partition("(")
    db.exec_driver_sql(
        f'CREATE TABLE "strict_{table}" ({strict_words(body)} STRICT, WITHOUT ROWID'
    )
    db.exec_driver_sql(
        f'INSERT INTO "strict_{table}" ({columns}) SELECT {columns} FROM "{table}"'
    )
    db.exec_driver_sql(f'DROP TABLE "{table}"')
    db.exec_driver_sql(f'ALTER TABLE "strict_{table}" RENAME TO "{table}"')
    for (index,) in indexes:
        db.exec_driver_sql(index)


def strict_words(text: str) -> str:
    """The columns with STRICT's types; what stands in quotes is no type."""

    def word(found: re.Match[str]) -> str:
        return found[0] if found[0][0] in "'\"" else strict_type(found[0])

    return QUOTED_OR_TYPE.sub(word, text)


def strict_type(name: str) -> str:
    plain = name.partition("(")[0].upper()
    return TYPES.get(plain, plain)


def columns_of(db: sa.Connection, table: str) -> list[tuple[str, str]]:
    found = db.exec_driver_sql("SELECT name, type FROM pragma_table_info(?)", (table,))
    return [(name, type_) for name, type_ in found]


def key_of(db: sa.Connection, table: str) -> Iterator[str]:
    found = db.exec_driver_sql(
        "SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", (table,)
    )
    yield from (name for (name,) in found)


def check_references(db: sa.Connection) -> None:
    broken = db.exec_driver_sql("PRAGMA foreign_key_check").first()
    if broken is not None:
        raise RuntimeError(
            f"the table {broken[0]} has a row that refers to a row of {broken[2]} that is not"
            " there: correct or remove it, for example from a backup"
            f" (`PRAGMA foreign_key_check({broken[0]})` lists such rows)"
        )


def downgrade() -> None:
    # The older version does well with strict tables.
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    for name in NEW_GUARDS:
        if on_sqlite:
            op.execute(f"DROP TRIGGER IF EXISTS {name}")
        else:
            op.execute(f"DROP FUNCTION IF EXISTS {name}() CASCADE")
    if not on_sqlite:
        for table in ("proposal", "rollout"):
            op.execute(f"DROP TRIGGER IF EXISTS {table}_no_truncate ON {table}")
