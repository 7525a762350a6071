"""Signatures of rows, the manifest of those that make a snapshot, and the epoch.

What was written before has none: `swapgate db sign` shows those rows and signs them, once.
"""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0040"
branch_labels = None
depends_on = None

SIGNED = (
    "target",
    "suite",
    "eval_run",
    "sample",
    "proposal",
    "verdict",
    "approval",
    "rollout",
    "waiver",
    "evidence",
    "route_version",
    "provider",
    "api_key",
    "switch",
    "shadow",
    "credential",
)
MORE = {"route_version": ("prev_signature",)}


def upgrade() -> None:
    for table in SIGNED:
        for column in (*MORE.get(table, ()), "signature"):
            op.add_column(table, sa.Column(column, sa.Text(), nullable=True))
    op.add_column(
        "meta", sa.Column("epoch", sa.BigInteger(), nullable=False, server_default="1")
    )
    op.create_table(
        "manifest",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("changes", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("signed_at", sa.BigInteger(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_manifest_one_row")),
        sa.CheckConstraint("epoch >= 1", name=op.f("ck_manifest_epoch_least")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_manifest")),
    )


def downgrade() -> None:
    op.drop_table("manifest")
    op.drop_column("meta", "epoch")
    for table in SIGNED:
        for column in (*MORE.get(table, ()), "signature"):
            op.drop_column(table, column)
