"""Table of captured requests: redacted content that people asked to keep,
always with an end.
"""

import sqlalchemy as sa

from harness.store.schema.columns import (
    at_least,
    count,
    json_value,
    metadata,
    text,
    time,
    words,
)

captured = sa.Table(
    "captured",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    time("at"),
    time("expires_at"),
    words("route"),
    text("request"),
    text("endpoint"),
    sa.Column("stream", sa.Boolean, nullable=False),
    text("arm"),
    words("target"),
    count("revision"),
    words("data_class"),
    text("user_hash"),
    count("share_bps"),
    text("rules"),
    json_value("redactions"),
    json_value("content"),
    count("seen"),
    at_least("seen", 1),
    sa.CheckConstraint("share_bps BETWEEN 1 AND 10000", name="share_bps_range"),
    # Nothing is kept for ever.
    sa.CheckConstraint("expires_at > at", name="expires_later"),
    # The redactor's digest: what was never redacted cannot say by which rules it was.
    sa.CheckConstraint("length(rules) = 64", name="rules_known"),
    sa.Index("ix_captured_at", "at", "id"),
    sa.Index("ix_captured_route", "route", "at"),
    sa.Index("ix_captured_expires_at", "expires_at"),
    sa.Index("ix_captured_user_hash", "user_hash"),
)
