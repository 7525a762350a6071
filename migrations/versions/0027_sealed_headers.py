"""The values of providers' extra headers, encrypted.

What older versions stored in clear is encrypted when the control plane starts, or by
`swapgate init`: a migration has no encryption keys.
"""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sealed = sa.Column("sealed_headers", sa.Text(), nullable=False, server_default="{}")
    op.add_column("provider", sealed)


def downgrade() -> None:
    # The older version sends none of these headers until they are set again.
    op.drop_column("provider", "sealed_headers")
