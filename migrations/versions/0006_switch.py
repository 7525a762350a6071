"""Kill switches: thrown once, lifted at most once, never changed otherwise, never deleted."""

# ruff: noqa: S608 - statements of constants; nothing comes from outside

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

Rules = Sequence[tuple[str, str]]

FIXED = ("id", "route", "kind", "name", "reason", "actor", "created_at", "expires_at", "source")
INSERT: Rules = (
    (
        "version_taken: such a row is there",
        "EXISTS (SELECT 1 FROM switch t WHERE t.id = NEW.id)",
    ),
    ("switch_thrown: a switch is thrown before it is lifted", "NEW.lifted_at IS NOT NULL"),
)
UPDATE: Rules = (
    ("append_only: a switch is lifted once", "OLD.lifted_at IS NOT NULL"),
    ("append_only: a switch is only ever lifted", "NEW.lifted_at IS NULL"),
    (
        "append_only: what was thrown does not change",
        " OR ".join(f"NEW.{column} IS DISTINCT FROM OLD.{column}" for column in FIXED),
    ),
)
DELETE: Rules = (("append_only: switch is never deleted", "1 = 1"),)


def upgrade() -> None:
    op.create_table(
        "switch",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("lifted_at", sa.BigInteger(), nullable=True),
        sa.Column("lifted_by", sa.Text(), nullable=True),
        sa.CheckConstraint("kind IN ('provider', 'target')", name=op.f("ck_switch_kind_known")),
        sa.CheckConstraint("source IN ('cli', 'rest')", name=op.f("ck_switch_source_known")),
        sa.CheckConstraint("trim(reason) <> ''", name=op.f("ck_switch_reason_not_blank")),
        sa.CheckConstraint(
            "(lifted_at IS NULL) = (lifted_by IS NULL)", name=op.f("ck_switch_lifted_by_whom")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_switch")),
    )
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    guard = sqlite_guard if on_sqlite else postgres_guard
    guard("switch_guard", "BEFORE INSERT ON switch", INSERT)
    guard("switch_no_rewrite", "BEFORE UPDATE ON switch", UPDATE)
    guard("switch_no_delete", "BEFORE DELETE ON switch", DELETE)
    if on_sqlite:
        count_changes_on_sqlite()
    else:
        tell_on_postgres()


def sqlite_guard(name: str, when: str, rules: Rules) -> None:
    body = " ".join(
        f"SELECT RAISE(ABORT, '{message}') WHERE {condition};" for message, condition in rules
    )
    # SQLite knows IS DISTINCT FROM only since 3.39, and IS NOT has always meant it.
    body = body.replace("IS DISTINCT FROM", "IS NOT")
    op.execute(f"CREATE TRIGGER {name} {when} FOR EACH ROW BEGIN {body} END")


def postgres_guard(name: str, when: str, rules: Rules) -> None:
    body = " ".join(
        f"IF {condition} THEN RAISE EXCEPTION '{message}'"
        " USING ERRCODE = 'integrity_constraint_violation'; END IF;"
        for message, condition in rules
    )
    give = "OLD" if "DELETE" in when else "NEW"
    op.execute(
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {body} RETURN {give}; END $$"
    )
    op.execute(f"CREATE TRIGGER {name} {when} FOR EACH ROW EXECUTE FUNCTION {name}()")


def count_changes_on_sqlite() -> None:
    for event in ("INSERT", "UPDATE"):
        op.execute(
            f"CREATE TRIGGER switch_changed_{event.lower()} AFTER {event} ON switch"
            " FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END"
        )


def tell_on_postgres() -> None:
    op.execute(
        "CREATE TRIGGER switch_no_truncate BEFORE TRUNCATE ON switch"
        " FOR EACH STATEMENT EXECUTE FUNCTION no_truncate()"
    )
    op.execute(
        "CREATE TRIGGER switch_changed AFTER INSERT OR UPDATE ON switch"
        " FOR EACH STATEMENT EXECUTE FUNCTION serving_changed()"
    )


def downgrade() -> None:
    # With the table go its triggers.
    op.drop_table("switch")
    if op.get_bind().dialect.name != "sqlite":
        for name in ("switch_guard", "switch_no_rewrite", "switch_no_delete"):
            op.execute(f"DROP FUNCTION {name}()")
