"""A shadow before the canary: a phase of proposals, money in all, and a kind of alert."""

# ruff: noqa: S608 - statements of constants; nothing comes from outside

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

Rules = Sequence[tuple[str, str]]

EARLY = ("proposed", "evaluating", "awaiting_approval")
ENDED = ("promoted", "rejected", "rolled_back", "cancelled")
BEFORE = (*EARLY, "canary", *ENDED)
AFTER = (*EARLY, "shadow", "canary", *ENDED)
OPEN_BEFORE = (*EARLY, "canary")
OPEN_AFTER = (*EARLY, "shadow", "canary")

KINDS = (
    "breaker_open",
    "our_key",
    "quota",
    "model_unknown",
    "revision_refused",
    "observations_dropped",
    "spool_full",
    "rolled_back",
    "promoted",
    "canary_paused",
    "awaiting_approval",
    "sample_ratio",
    "key_budget",
    "waiver_expired",
    "job_failed",
    "audit_broken",
    "drift",
    "served_model",
    "local_abort",
    "canary_held",
)
TEST = ("test",)

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
WHY_LATE = "a downgrade took its shadow away: propose again"


def upgrade() -> None:
    change_check("proposal", "ck_proposal_phase_known", among("phase", BEFORE, AFTER))
    change_open(OPEN_AFTER)
    change_check(
        "alert",
        "ck_alert_kind_known",
        among("kind", (*KINDS, *TEST), (*KINDS, "shadow_held", *TEST)),
    )
    kind = sa.Double().compile(dialect=op.get_bind().dialect)
    # By hand: alembic would copy SQLite's table for the check, and lose its triggers.
    op.execute(
        f"ALTER TABLE shadow ADD COLUMN usd_in_all {kind} CONSTRAINT"
        " ck_shadow_usd_in_all_amount CHECK (usd_in_all >= 0 AND usd_in_all < 1e15)"
    )
    guard("shadow_no_rewrite", "BEFORE UPDATE ON shadow", ends_only((*FIXED, "usd_in_all")))


def downgrade() -> None:
    op.execute(
        f"UPDATE proposal SET phase = 'rejected', closed_because = '{WHY_LATE}',"
        " version = version + 1 WHERE phase = 'shadow'"
    )
    ours = "SELECT id FROM alert WHERE kind = 'shadow_held'"
    op.execute(f"DELETE FROM delivery WHERE alert IN ({ours})")
    op.execute("DELETE FROM alert WHERE kind = 'shadow_held'")
    guard("shadow_no_rewrite", "BEFORE UPDATE ON shadow", ends_only(FIXED))
    op.drop_column("shadow", "usd_in_all")
    change_check(
        "alert",
        "ck_alert_kind_known",
        among("kind", (*KINDS, "shadow_held", *TEST), (*KINDS, *TEST)),
    )
    change_open(OPEN_BEFORE)
    change_check("proposal", "ck_proposal_phase_known", among("phase", AFTER, BEFORE))


def among(column: str, before: Sequence[str], after: Sequence[str]) -> tuple[str, str]:
    return f"{column} IN ({listed(before)})", f"{column} IN ({listed(after)})"


def listed(values: Sequence[str]) -> str:
    return ", ".join(f"'{each}'" for each in values)


def change_check(table: str, name: str, change: tuple[str, str]) -> None:
    before, after = change
    db = op.get_bind()
    if db.dialect.name == "sqlite":
        rewrite(db, table, before, after)
        return
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({after})")


def rewrite(db: sa.Connection, table: str, before: str, after: str) -> None:
    """SQLite's own way for a CHECK (lang_altertable, section 7): the text of the schema."""
    version = db.exec_driver_sql("PRAGMA schema_version").scalar_one()
    db.exec_driver_sql("PRAGMA writable_schema = ON")
    done = db.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) "
        "WHERE type = 'table' AND name = ? AND instr(sql, ?) > 0",
        (f"({before})", f"({after})", table, f"({before})"),
    )
    if done.rowcount != 1:
        raise RuntimeError(f"the table {table} has no check {before}")
    db.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    db.exec_driver_sql("PRAGMA writable_schema = RESET")


def change_open(phases: Sequence[str]) -> None:
    """One open proposal a route: by the index, and for INSERT OR REPLACE by the guard."""
    among_open = f"IN ({listed(phases)})"
    op.drop_index("ux_proposal_open_route", "proposal")
    op.create_index(
        "ux_proposal_open_route",
        "proposal",
        ["route"],
        unique=True,
        sqlite_where=sa.text(f"phase {among_open}"),
        postgresql_where=sa.text(f"phase {among_open}"),
    )
    rules: Rules = (
        (
            "version_taken: such a row is there",
            "EXISTS (SELECT 1 FROM proposal t WHERE t.id = NEW.id)",
        ),
        (
            "route_busy: the route has a proposal under way",
            (
                f"NEW.phase {among_open} AND EXISTS (SELECT 1 FROM proposal t"
                f" WHERE t.route = NEW.route AND t.phase {among_open})"
            ),
        ),
    )
    guard("proposal_guard", "BEFORE INSERT ON proposal", rules)


def ends_only(fixed: Sequence[str]) -> Rules:
    return (
        ("append_only: a shadow ends once", "OLD.ended_at IS NOT NULL"),
        ("append_only: a shadow is only ever ended", "NEW.ended_at IS NULL"),
        (
            "append_only: what was started does not change",
            " OR ".join(f"NEW.{column} IS DISTINCT FROM OLD.{column}" for column in fixed),
        ),
    )


def guard(name: str, when: str, rules: Rules) -> None:
    """In the place of the trigger, or of its function, that has the name."""
    if op.get_bind().dialect.name == "sqlite":
        body = " ".join(
            f"SELECT RAISE(ABORT, '{message}') WHERE {condition};"
            for message, condition in rules
        )
        # SQLite knows IS DISTINCT FROM only since 3.39, and IS NOT has always meant it.
        body = body.replace("IS DISTINCT FROM", "IS NOT")
        op.execute(f"DROP TRIGGER {name}")
        op.execute(f"CREATE TRIGGER {name} {when} FOR EACH ROW BEGIN {body} END")
        return
    body = " ".join(
        f"IF {condition} THEN RAISE EXCEPTION '{message}'"
        " USING ERRCODE = 'integrity_constraint_violation'; END IF;"
        for message, condition in rules
    )
    op.execute(
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {body} RETURN NEW; END $$"
    )
