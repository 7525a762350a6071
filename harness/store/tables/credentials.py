"""Keys of providers, encrypted. The value is in no other place; none is ever deleted."""

import sqlalchemy as sa

from harness.store.tables.base import count, metadata, not_blank, text, time, words
from harness.store.tables.routing import provider

# Every change reaches the routers (triggers).
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
    sa.PrimaryKeyConstraint("provider", "name"),
    not_blank("name"),
)
