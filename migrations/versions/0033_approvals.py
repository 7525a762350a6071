"""Approvals: who let a verdict's candidate on, one row each, never changed.

What was approved before there were rows gets its row from the proposal, which names the person
and the verdict.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0030"
branch_labels = None
depends_on = None

Rules = Sequence[tuple[str, str]]

INSERT: Rules = (
    (
        "version_taken: such a row is there",
        "EXISTS (SELECT 1 FROM approval t WHERE t.id = NEW.id)",
    ),
    (
        "approval_of_verdict: the approval names a verdict of another proposal",
        (
            "NEW.verdict IS NOT NULL AND NOT EXISTS (SELECT 1 FROM verdict v"
            " WHERE v.id = NEW.verdict AND v.proposal = NEW.proposal)"
        ),
    ),
    (
        "four_eyes: who proposed it cannot approve it",
        (
            "EXISTS (SELECT 1 FROM proposal p WHERE p.id = NEW.proposal"
            " AND p.proposer = NEW.name AND NOT p.self_approval)"
        ),
    ),
)
ALWAYS: Rules = (("append_only: approval is never changed or deleted", "1 = 1"),)
GUARDS = {
    "approval_guard": ("BEFORE INSERT ON approval", INSERT),
    "approval_no_update": ("BEFORE UPDATE ON approval", ALWAYS),
    "approval_no_delete": ("BEFORE DELETE ON approval", ALWAYS),
}


def upgrade() -> None:
    op.create_table(
        "approval",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("proposal", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("widened", sa.Text(), nullable=False, server_default="{}"),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('canary', 'promotion')", name=op.f("ck_approval_kind_known")
        ),
        sa.CheckConstraint(
            "trim(principal) <> ''", name=op.f("ck_approval_principal_not_blank")
        ),
        sa.CheckConstraint("trim(name) <> ''", name=op.f("ck_approval_name_not_blank")),
        sa.ForeignKeyConstraint(
            ["proposal"], ["proposal.id"], name=op.f("fk_approval_proposal")
        ),
        sa.ForeignKeyConstraint(["verdict"], ["verdict.id"], name=op.f("fk_approval_verdict")),
        sa.ForeignKeyConstraint(["key"], ["api_key.id"], name=op.f("fk_approval_key")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approval")),
    )
    op.create_index("ix_approval_proposal", "approval", ["proposal", "at"], unique=False)
    op.create_index("ix_approval_verdict", "approval", ["verdict"], unique=False)
    op.execute(
        "INSERT INTO approval"
        " (id, proposal, verdict, kind, principal, name, key, reason, widened, at)"
        " SELECT 'a_' || p.id, p.id, p.approved_verdict, 'canary', p.approver, p.approver,"
        " NULL, 'from before approvals had rows', '{}', p.updated_at"
        " FROM proposal p JOIN verdict v ON v.id = p.approved_verdict AND v.proposal = p.id"
        " WHERE p.approver IS NOT NULL AND trim(p.approver) <> ''"
    )
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    guard = sqlite_guard if on_sqlite else postgres_guard
    for name, (when, rules) in GUARDS.items():
        guard(name, when, rules)
    if not on_sqlite:
        op.execute(
            "CREATE TRIGGER approval_no_truncate BEFORE TRUNCATE ON approval"
            " FOR EACH STATEMENT EXECUTE FUNCTION no_truncate()"
        )


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
    give = "OLD" if "DELETE" in when else "NEW"
    op.execute(
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {body} RETURN {give}; END $$"
    )
    op.execute(f"CREATE TRIGGER {name} {when} FOR EACH ROW EXECUTE FUNCTION {name}()")


def downgrade() -> None:
    # With the table go its triggers.
    op.drop_table("approval")
    if op.get_bind().dialect.name != "sqlite":
        for name in GUARDS:
            op.execute(f"DROP FUNCTION {name}()")
