"""What a provider's models can do, and its further keys."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# With the value for the rows that are there.
NEW = {"more_api_key_envs": "[]", "models": "{}"}


def upgrade() -> None:
    for name, empty in NEW.items():
        column = sa.Column(name, sa.Text(), nullable=False, server_default=empty)
        op.add_column("provider", column)


def downgrade() -> None:
    for name in NEW:
        op.drop_column("provider", name)
