"""A provider's body fields; and a provider that was removed keeps its row."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    body = sa.Column("extra_body", sa.Text(), nullable=False, server_default="{}")
    op.add_column("provider", body)
    op.add_column("provider", sa.Column("removed_at", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    # The older version cannot tell a removed provider: it would be there again.
    op.drop_column("provider", "removed_at")
    op.drop_column("provider", "extra_body")
