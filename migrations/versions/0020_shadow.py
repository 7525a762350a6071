"""Shadows: started once, ended at most once, one at a time on a route, never deleted."""

# ruff: noqa: S608 - statements of constants; nothing comes from outside

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

Rules = Sequence[tuple[str, str]]

FIXED = (
    "id",
    "route",
    "incumbent",
    "candidate",
    "data_class",
    "share_bps",
    "at_once",
    "requests_per_day",
    "usd_per_day",
    "proposal",
    "reason",
    "started_by",
    "started_at",
    "expires_at",
)
INSERT: Rules = (
    (
        "version_taken: such a row is there",
        "EXISTS (SELECT 1 FROM shadow t WHERE t.id = NEW.id)",
    ),
    ("shadow_started: a shadow starts before it ends", "NEW.ended_at IS NOT NULL"),
)
UPDATE: Rules = (
    ("append_only: a shadow ends once", "OLD.ended_at IS NOT NULL"),
    ("append_only: a shadow is only ever ended", "NEW.ended_at IS NULL"),
    (
        "append_only: what was started does not change",
        " OR ".join(f"NEW.{column} IS DISTINCT FROM OLD.{column}" for column in FIXED),
    ),
)
DELETE: Rules = (("append_only: shadow is never deleted", "1 = 1"),)


def upgrade() -> None:
    op.create_table(
        "shadow",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("incumbent", sa.Text(), nullable=False),
        sa.Column("candidate", sa.Text(), nullable=False),
        sa.Column("data_class", sa.Text(), nullable=False),
        sa.Column("share_bps", sa.BigInteger(), nullable=False),
        sa.Column("at_once", sa.BigInteger(), nullable=False),
        sa.Column("requests_per_day", sa.BigInteger(), nullable=False),
        sa.Column("usd_per_day", sa.Double(), nullable=True),
        sa.Column("proposal", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("started_by", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_by", sa.Text(), nullable=True),
        sa.Column("ended_because", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "share_bps BETWEEN 1 AND 10000", name=op.f("ck_shadow_share_bps_range")
        ),
        sa.CheckConstraint("at_once BETWEEN 1 AND 64", name=op.f("ck_shadow_at_once_range")),
        sa.CheckConstraint(
            "requests_per_day >= 1", name=op.f("ck_shadow_requests_per_day_least")
        ),
        sa.CheckConstraint(
            "usd_per_day >= 0 AND usd_per_day < 1e15", name=op.f("ck_shadow_usd_per_day_amount")
        ),
        sa.CheckConstraint("trim(reason) <> ''", name=op.f("ck_shadow_reason_not_blank")),
        sa.CheckConstraint("incumbent <> candidate", name=op.f("ck_shadow_another_target")),
        sa.CheckConstraint("expires_at > started_at", name=op.f("ck_shadow_expires_later")),
        sa.CheckConstraint(
            "(ended_at IS NULL) = (ended_by IS NULL)", name=op.f("ck_shadow_ended_by_whom")
        ),
        sa.ForeignKeyConstraint(["incumbent"], ["target.id"], name=op.f("fk_shadow_incumbent")),
        sa.ForeignKeyConstraint(["candidate"], ["target.id"], name=op.f("fk_shadow_candidate")),
        sa.ForeignKeyConstraint(["proposal"], ["proposal.id"], name=op.f("fk_shadow_proposal")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shadow")),
    )
    live = sa.text("ended_at IS NULL")
    op.create_index(
        "uq_shadow_live",
        "shadow",
        ["route"],
        unique=True,
        sqlite_where=live,
        postgresql_where=live,
    )
    op.create_table(
        "shadow_tally",
        sa.Column("shadow", sa.Text(), nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("counts", sa.Text(), nullable=False),
        sa.Column("sums", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["shadow"], ["shadow.id"], name=op.f("fk_shadow_tally_shadow")),
        sa.PrimaryKeyConstraint("shadow", "day", "worker", name=op.f("pk_shadow_tally")),
    )
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    guard = sqlite_guard if on_sqlite else postgres_guard
    guard("shadow_guard", "BEFORE INSERT ON shadow", INSERT)
    guard("shadow_no_rewrite", "BEFORE UPDATE ON shadow", UPDATE)
    guard("shadow_no_delete", "BEFORE DELETE ON shadow", DELETE)
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
            f"CREATE TRIGGER shadow_changed_{event.lower()} AFTER {event} ON shadow"
            " FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END"
        )


def tell_on_postgres() -> None:
    op.execute(
        "CREATE TRIGGER shadow_no_truncate BEFORE TRUNCATE ON shadow"
        " FOR EACH STATEMENT EXECUTE FUNCTION no_truncate()"
    )
    op.execute(
        "CREATE TRIGGER shadow_changed AFTER INSERT OR UPDATE ON shadow"
        " FOR EACH STATEMENT EXECUTE FUNCTION serving_changed()"
    )


def downgrade() -> None:
    # With the tables go their triggers.
    op.drop_table("shadow_tally")
    op.drop_table("shadow")
    if op.get_bind().dialect.name != "sqlite":
        for name in ("shadow_guard", "shadow_no_rewrite", "shadow_no_delete"):
            op.execute(f"DROP FUNCTION {name}()")
