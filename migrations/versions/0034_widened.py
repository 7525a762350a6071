"""What a proposal asks for beyond its route's rules; and what a suite's items ask."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0032"
branch_labels = None
depends_on = None

NAME = "proposal_widened_guard"
RULES: Sequence[tuple[str, str]] = (
    ("registered: what was registered does not change", "NEW.widened <> OLD.widened"),
    (
        "four_eyes: rules that were widened wait for an approval",
        (
            "NEW.widened <> '{}' AND NEW.phase IN ('shadow', 'canary', 'promoted')"
            " AND NOT EXISTS (SELECT 1 FROM approval a WHERE a.proposal = NEW.id"
            " AND a.verdict = NEW.verdict AND a.name <> NEW.proposer"
            " AND a.widened = NEW.widened)"
        ),
    ),
)


def upgrade() -> None:
    widened = sa.Column("widened", sa.Text(), nullable=False, server_default="{}")
    op.add_column("proposal", widened)
    op.add_column("suite", sa.Column("texts", sa.Text(), nullable=False, server_default=""))
    op.create_index("ix_proposal_candidate", "proposal", ["candidate"], unique=False)
    if op.get_bind().dialect.name == "sqlite":
        body = " ".join(
            f"SELECT RAISE(ABORT, '{message}') WHERE {condition};"
            for message, condition in RULES
        )
        op.execute(
            f"CREATE TRIGGER {NAME} BEFORE UPDATE ON proposal FOR EACH ROW BEGIN {body} END"
        )
        return
    body = " ".join(
        f"IF {condition} THEN RAISE EXCEPTION '{message}'"
        " USING ERRCODE = 'integrity_constraint_violation'; END IF;"
        for message, condition in RULES
    )
    op.execute(
        f"CREATE FUNCTION {NAME}() RETURNS trigger LANGUAGE plpgsql"
        f" AS $$ BEGIN {body} RETURN NEW; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {NAME} BEFORE UPDATE ON proposal"
        f" FOR EACH ROW EXECUTE FUNCTION {NAME}()"
    )


def downgrade() -> None:
    # A proposal that was widened would need nobody's approval any more.
    op.execute(
        f"DROP TRIGGER {NAME}"
        + ("" if op.get_bind().dialect.name == "sqlite" else " ON proposal")
    )
    if op.get_bind().dialect.name != "sqlite":
        op.execute(f"DROP FUNCTION {NAME}()")
    op.drop_index("ix_proposal_candidate", "proposal")
    op.drop_column("suite", "texts")
    op.drop_column("proposal", "widened")
