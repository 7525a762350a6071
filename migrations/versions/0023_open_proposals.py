"""An index of open proposals: those in a phase that is not known for an end."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None
# A version of before reads and writes the same tables.
compatible_from = "0016"

NAME = "ix_proposal_open"


def upgrade() -> None:
    ends = "'promoted', 'rejected', 'rolled_back', 'cancelled'"
    has_not_ended = sa.text(f"(phase NOT IN ({ends}))")
    op.create_index(
        NAME,
        "proposal",
        ["project", "created_at", "id"],
        sqlite_where=has_not_ended,
        postgresql_where=has_not_ended,
    )


def downgrade() -> None:
    op.drop_index(NAME, "proposal")
