"""Tables of one row: the installation's id and counters, and the signed manifest."""

import sqlalchemy as sa

from harness.frame.records.columns import (
    SIGNATURE,
    added_count,
    at_least,
    count,
    metadata,
    text,
    time,
)

# One row. changes: counts changes of keys, providers and switches (trigger), for the etag.
meta = sa.Table(
    "meta",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    text("installation"),
    count("changes"),
    sa.Column("epoch", sa.BigInteger, nullable=False, server_default="1"),
    # Revisions go on above it: routers served as much before the database was restored.
    added_count("revision_floor"),
    sa.CheckConstraint("id = 1", name="one_row"),
)

# One row: control's word on which rows a snapshot is made of, in which order of time, which
# data keys were revoked, and where the audit log ended then.
manifest = sa.Table(
    "manifest",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    count("epoch"),
    count("revision"),
    count("changes"),
    text("digest"),
    time("signed_at"),
    text(SIGNATURE),
    text("revoked"),
    text("log_end"),
    sa.CheckConstraint("id = 1", name="one_row"),
    at_least("epoch", 1),
)
