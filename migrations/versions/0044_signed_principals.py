"""Signatures of principals; control's word on revoked keys and the audit log's end.

Who was there before has none: `swapgate db sign`. The local operator is the same everywhere.
"""

import sqlalchemy as sa
from alembic import op

revision = "0044"
down_revision = "0042"
branch_labels = None
depends_on = None

SAID = ("revoked", "log_end")


def upgrade() -> None:
    op.add_column("principal", sa.Column("signature", sa.Text(), nullable=True))
    for column in SAID:
        op.add_column(
            "manifest", sa.Column(column, sa.Text(), nullable=False, server_default="")
        )


def downgrade() -> None:
    for column in SAID:
        op.drop_column("manifest", column)
    op.drop_column("principal", "signature")
