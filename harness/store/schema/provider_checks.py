"""Table of what the last check of each provider found (`/check` of the API), whichever process
ran it.
"""

import sqlalchemy as sa

from harness.store.schema.columns import Json, metadata, number, text, time
from harness.store.schema.routing import provider

# One row for each provider; no router reads it. findings: as `rows.provider_checks` has them.
provider_check = sa.Table(
    "provider_check",
    metadata,
    sa.Column("provider", sa.ForeignKey(provider.c.name), nullable=False),
    text("kind"),
    text("target", nullable=True),
    sa.Column("ok", sa.Boolean, nullable=False),
    sa.Column("findings", Json, nullable=False),
    number("first_token_ms", nullable=True),
    number("clock_skew_s", nullable=True),
    time("at"),
    sa.PrimaryKeyConstraint("provider"),
)
