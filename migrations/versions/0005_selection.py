"""Selections: candidates that are proposed together; one of them alone goes past the gate."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OPEN = "phase IN ('proposed', 'evaluating', 'awaiting_approval', 'shadow', 'canary')"
PAST_GATE = "phase IN ('awaiting_approval', 'shadow', 'canary')"
# What refers to the columns; the version before installs its own.
TRIGGERS = ("proposal_guard", "proposal_no_rewrite", "proposal_proposer_fixed")
PROPOSAL = sa.table("proposal", sa.column("id"), sa.column("selection"))


def upgrade() -> None:
    op.add_column(
        "proposal", sa.Column("selection", sa.Text(), nullable=False, server_default="")
    )
    op.add_column(
        "proposal", sa.Column("place", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.drop_index("ux_proposal_open_route", "proposal")
    create_unique("ux_proposal_open_route", ["project", "route", "place"], OPEN)
    create_unique("ux_proposal_past_gate", ["project", "route"], PAST_GATE)
    op.create_index("ix_proposal_selection", "proposal", ["selection"], unique=False)


def downgrade() -> None:
    found = sa.select(PROPOSAL.c.id).where(PROPOSAL.c.selection != "", sa.text(OPEN))
    under_way = op.get_bind().execute(found).first()
    if under_way is not None:
        raise RuntimeError(
            f"proposal {under_way.id} stands in a selection that is under way: wait for its "
            "end, or cancel its proposals; the version before knows one per route"
        )
    drop_triggers(op.get_bind())
    op.drop_index("ix_proposal_selection", "proposal")
    op.drop_index("ux_proposal_past_gate", "proposal")
    op.drop_index("ux_proposal_open_route", "proposal")
    create_unique("ux_proposal_open_route", ["project", "route"], OPEN)
    op.drop_column("proposal", "place")
    op.drop_column("proposal", "selection")


def drop_triggers(db: sa.Connection) -> None:
    kind = "TRIGGER" if db.dialect.name == "sqlite" else "FUNCTION"
    for name in TRIGGERS:
        arguments = "" if kind == "TRIGGER" else "() CASCADE"
        db.exec_driver_sql(f"DROP {kind} IF EXISTS {name}{arguments}")


def create_unique(name: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(
        name,
        "proposal",
        columns,
        unique=True,
        sqlite_where=condition,
        postgresql_where=condition,
    )
