"""A promotion bakes: the incumbent before it keeps a share. A verdict is used once."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

Rules = Sequence[tuple[str, str]]

PREVIOUS = "FROM route_version p WHERE p.route = NEW.route AND p.version = NEW.version - 1"
ROUTE_VERSION: Rules = (
    (
        "holdback_whole: a holdback has a share and a rollout",
        "(NEW.holdback IS NULL) <> (NEW.holdback_plan IS NULL)",
    ),
    (
        "holdback_is_the_last: a promotion holds back the incumbent before it",
        (
            "NEW.kind = 'promotion' AND NEW.holdback IS NOT NULL"
            " AND NEW.holdback <> NEW.prev_incumbent"
        ),
    ),
    (
        "holdback_stays: only a promotion holds a target back",
        (
            "NEW.kind <> 'promotion' AND NEW.holdback IS NOT NULL"
            f" AND NOT (NEW.kind = 'settings' AND EXISTS (SELECT 1 {PREVIOUS}"
            " AND p.holdback = NEW.holdback AND p.holdback_plan = NEW.holdback_plan))"
        ),
    ),
    (
        "bake_first: the last promotion still bakes",
        f"NEW.kind = 'canary' AND EXISTS (SELECT 1 {PREVIOUS} AND p.holdback IS NOT NULL)",
    ),
    (
        "verdict_used: a rollout with this verdict was rolled back",
        (
            "NEW.kind IN ('canary', 'promotion') AND EXISTS (SELECT 1 FROM rollout r"
            " WHERE r.verdict = NEW.verdict_id AND r.state = 'rolled_back')"
        ),
    ),
)
ROLLOUT: Rules = (
    (
        "verdict_used: a verdict is proof of one rollout",
        "EXISTS (SELECT 1 FROM rollout r WHERE r.verdict = NEW.verdict)",
    ),
)
CHECK = "ck_traffic_arm_known"
BEFORE = "arm IN ('incumbent', 'canary', 'keep_warm')"
AFTER = "arm IN ('incumbent', 'canary', 'holdback', 'keep_warm')"
GUARDS = {"route_version": ROUTE_VERSION, "rollout": ROLLOUT}


def upgrade() -> None:
    op.add_column("route_version", sa.Column("holdback", sa.Text(), nullable=True))
    op.add_column("route_version", sa.Column("holdback_plan", sa.Text(), nullable=True))
    op.add_column("rollout", sa.Column("bake_ends_at", sa.BigInteger(), nullable=True))
    change_check(BEFORE, AFTER)
    guard = sqlite_guard if op.get_bind().dialect.name == "sqlite" else postgres_guard
    for table, rules in GUARDS.items():
        guard(f"{table}_bake_guard", f"BEFORE INSERT ON {table}", rules)


def sqlite_guard(name: str, when: str, rules: Rules) -> None:
    body = " ".join(
        f"SELECT RAISE(ABORT, '{message}') WHERE {condition};" for message, condition in rules
    )
    op.execute(f"CREATE TRIGGER {name} {when} FOR EACH ROW BEGIN {body} END")


def postgres_guard(name: str, when: str, rules: Rules) -> None:
    body = " ".join(
        f"IF {condition} THEN RAISE EXCEPTION '{message}'"
        " USING ERRCODE = 'integrity_constraint_violation'; END IF;"
        for message, condition in rules
    )
    op.execute(
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {body} RETURN NEW; END $$"
    )
    op.execute(f"CREATE TRIGGER {name} {when} FOR EACH ROW EXECUTE FUNCTION {name}()")


def downgrade() -> None:
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    for table in GUARDS:
        if on_sqlite:
            op.execute(f"DROP TRIGGER {table}_bake_guard")
        else:
            op.execute(f"DROP FUNCTION {table}_bake_guard() CASCADE")
    op.execute("DELETE FROM traffic WHERE arm = 'holdback'")
    change_check(AFTER, BEFORE)
    op.drop_column("rollout", "bake_ends_at")
    op.drop_column("route_version", "holdback_plan")
    op.drop_column("route_version", "holdback")


def change_check(before: str, after: str) -> None:
    db = op.get_bind()
    if db.dialect.name == "sqlite":
        rewrite(db, before, after)
        return
    op.execute(f"ALTER TABLE traffic DROP CONSTRAINT {CHECK}")
    op.execute(f"ALTER TABLE traffic ADD CONSTRAINT {CHECK} CHECK ({after})")


def rewrite(db: sa.Connection, before: str, after: str) -> None:
    """SQLite's own way for a CHECK (lang_altertable, section 7): the text of the schema."""
    version = db.exec_driver_sql("PRAGMA schema_version").scalar_one()
    db.exec_driver_sql("PRAGMA writable_schema = ON")
    done = db.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) "
        "WHERE type = 'table' AND name = 'traffic' AND instr(sql, ?) > 0",
        (f"({before})", f"({after})", f"({before})"),
    )
    if done.rowcount != 1:
        raise RuntimeError(f"the table traffic has no check {CHECK} as 0011 made it")
    db.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    db.exec_driver_sql("PRAGMA writable_schema = RESET")
