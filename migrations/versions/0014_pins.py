"""What providers served: with every sample, and last seen by anybody."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

NEW = ("served_build", "judge_model", "judge_build")


def upgrade() -> None:
    for name in NEW:
        op.add_column("sample", sa.Column(name, sa.Text(), nullable=False, server_default=""))
    op.create_table(
        "served_model",
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("build", sa.Text(), nullable=False),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("first_at <= last_at", name=op.f("ck_served_model_in_order")),
        sa.PrimaryKeyConstraint("target", "model", "build", name=op.f("pk_served_model")),
    )


def downgrade() -> None:
    op.drop_table("served_model")
    for name in NEW:
        op.drop_column("sample", name)
