"""Chains change by a person's hand alone, and never with a waiver that has expired."""

from collections.abc import Sequence

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

NAME = "route_version_links"
CHAIN = "FROM route_fallback {0} WHERE {0}.route = NEW.route AND {0}.version = NEW.version"
NEW, OLD = CHAIN.format("n"), f"{CHAIN.format('o')} - 1"
RULES: Sequence[tuple[str, str]] = (
    (
        "chain_stays: only a change of settings changes the chain",
        (
            "NEW.kind NOT IN ('baseline', 'settings') AND ("
            f"(SELECT count(*) {NEW}) <> (SELECT count(*) {OLD})"
            f" OR EXISTS (SELECT 1 {NEW} AND NOT EXISTS (SELECT 1 {OLD}"
            " AND o.position = n.position AND o.target = n.target"
            " AND o.evidence = n.evidence)))"
        ),
    ),
    (
        "waiver_expired: a waiver of the chain has expired",
        (
            "NEW.kind IN ('baseline', 'settings') AND EXISTS (SELECT 1"
            " FROM route_fallback n JOIN evidence e ON e.id = n.evidence"
            " JOIN waiver w ON w.id = e.waiver_id"
            " WHERE n.route = NEW.route AND n.version = NEW.version"
            " AND w.expires_at <= NEW.at)"
        ),
    ),
)


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        body = " ".join(
            f"SELECT RAISE(ABORT, '{message}') WHERE {condition};"
            for message, condition in RULES
        )
        op.execute(
            f"CREATE TRIGGER {NAME} BEFORE INSERT ON route_version"
            f" FOR EACH ROW BEGIN {body} END"
        )
        return
    body = " ".join(
        f"IF {condition} THEN RAISE EXCEPTION '{message}'"
        " USING ERRCODE = 'integrity_constraint_violation'; END IF;"
        for message, condition in RULES
    )
    op.execute(
        f"CREATE FUNCTION {NAME}() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {body} RETURN NEW; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {NAME} BEFORE INSERT ON route_version"
        f" FOR EACH ROW EXECUTE FUNCTION {NAME}()"
    )


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute(f"DROP TRIGGER {NAME}")
    else:
        op.execute(f"DROP FUNCTION {NAME}() CASCADE")
