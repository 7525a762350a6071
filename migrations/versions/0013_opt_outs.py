"""What a data key's requests are kept out of: canaries, shadows, captures."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_key", sa.Column("opt_outs", sa.Text(), nullable=True))


def downgrade() -> None:
    opted_out = sa.text("SELECT COUNT(*) FROM api_key WHERE opt_outs IS NOT NULL")
    count = op.get_bind().execute(opted_out).scalar_one()
    if count:
        raise RuntimeError(
            f"{count} keys opt out of canaries, shadows or captures, and the version before "
            "would not keep to it: lift that with `swapgate key opt-outs ID none` first"
        )
    op.drop_column("api_key", "opt_outs")
