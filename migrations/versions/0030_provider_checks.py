"""What `/check` found of each provider last, for all processes and pages."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "provider_check",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=True),
        sa.Column("ok", sa.Boolean(), nullable=False),
        sa.Column("findings", sa.Text(), nullable=False),
        sa.Column("first_token_ms", sa.Double(), nullable=True),
        sa.Column("clock_skew_s", sa.Double(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["provider"], ["provider.name"], name=op.f("fk_provider_check_provider")
        ),
        sa.PrimaryKeyConstraint("provider", name=op.f("pk_provider_check")),
    )


def downgrade() -> None:
    op.drop_table("provider_check")
