"""Tables of providers' encrypted keys (`credential`) and of people's sign-ins at vendors, which
renew such keys (`sign_in`). Providers themselves are in `schema/routing.py`.
"""

import sqlalchemy as sa

from harness.store.schema.columns import (
    count,
    metadata,
    not_blank,
    signature,
    text,
    time,
    words,
)
from harness.store.schema.routing import provider

# The value is in no other place; none is ever deleted. Every change reaches the routers
# (triggers).
credential = sa.Table(
    "credential",
    metadata,
    sa.Column("provider", sa.ForeignKey(provider.c.name), nullable=False),
    text("name"),
    text("ciphertext"),
    count("position"),
    time("created_at"),
    time("updated_at"),
    words("created_by"),
    time("expires_at", nullable=True),
    signature(),
    sa.PrimaryKeyConstraint("provider", "name"),
    not_blank("name"),
)

# No router reads it.
sign_in = sa.Table(
    "sign_in",
    metadata,
    sa.Column("provider", sa.ForeignKey(provider.c.name), nullable=False),
    text("id"),
    words("ciphertext"),
    time("signed_in_at"),
    words("signed_in_by"),
    time("renewed_at"),
    time("account_due", nullable=True),
    time("access_due", nullable=True),
    time("access_ends", nullable=True),
    count("attempts"),
    time("retry_at", nullable=True),
    words("refused"),
    sa.PrimaryKeyConstraint("provider"),
    not_blank("ciphertext"),
)
