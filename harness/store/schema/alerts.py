"""Tables of alerts (one open at a time per key), of the deliveries of their messages to each
sink, and of failovers.
"""

import sqlalchemy as sa

from harness.domain.operations.alerts import Notified
from harness.store.schema.columns import (
    amount,
    at_least,
    count,
    json_value,
    metadata,
    number,
    one_of,
    text,
    time,
    words,
)

alert = sa.Table(
    "alert",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    text("kind"),
    words("subject"),
    words("key"),
    words("title"),
    words("text"),
    time("first_seen"),
    time("last_seen"),
    count("count"),
    json_value("sources"),
    time("resolved_at", nullable=True),
    text("told", nullable=True),
    time("told_at", nullable=True),
    count("told_count"),
    count("messages"),
    one_of("told", Notified),
    at_least("count", 1),
    sa.CheckConstraint("last_seen >= first_seen", name="seen_in_order"),
    sa.CheckConstraint("told_count BETWEEN 0 AND count", name="told_count_range"),
    sa.CheckConstraint(
        "(told IS NULL) = (told_at IS NULL) AND (told IS NULL) = (messages = 0)"
        " AND messages >= 0",
        name="told_when",
    ),
    sa.Index("ix_alert_key", "key", "first_seen"),
    sa.Index("ix_alert_last_seen", "last_seen"),
    # One record of a key is open at a time, whoever writes.
    sa.Index(
        "uq_alert_open",
        "key",
        unique=True,
        sqlite_where=sa.text("resolved_at IS NULL"),
        postgresql_where=sa.text("resolved_at IS NULL"),
    ),
)

delivery = sa.Table(
    "delivery",
    metadata,
    sa.Column("alert", sa.Text, sa.ForeignKey("alert.id", ondelete="CASCADE"), nullable=False),
    count("number"),
    words("sink"),
    text("message"),
    words("title"),
    words("text"),
    time("created_at"),
    time("next_attempt_at", nullable=True),
    count("attempts"),
    time("delivered_at", nullable=True),
    time("gave_up_at", nullable=True),
    words("last_error"),
    sa.PrimaryKeyConstraint("alert", "number", "sink"),
    one_of("message", Notified),
    at_least("number", 1),
    at_least("attempts", 0),
    # Waiting, delivered or given up: one of the three.
    sa.CheckConstraint(
        "(next_attempt_at IS NOT NULL AND delivered_at IS NULL AND gave_up_at IS NULL)"
        " OR (next_attempt_at IS NULL AND delivered_at IS NOT NULL AND gave_up_at IS NULL)"
        " OR (next_attempt_at IS NULL AND delivered_at IS NULL AND gave_up_at IS NOT NULL)",
        name="one_state",
    ),
    sa.CheckConstraint("delivered_at IS NULL OR attempts > 0", name="delivered_by_attempt"),
    sa.Index("ix_delivery_next_attempt_at", "next_attempt_at"),
)

failover = sa.Table(
    "failover",
    metadata,
    text("worker"),
    count("number"),
    time("at"),
    text("request"),
    words("route"),
    text("arm"),
    words("target"),
    words("provider"),
    text("failure"),
    count("status", nullable=True),
    count("attempts"),
    number("latency_ms"),
    text("endpoint"),
    sa.Column("stream", sa.Boolean, nullable=False),
    count("body_bytes"),
    count("messages"),
    count("tools"),
    text("user_hash"),
    sa.Column("next_target", sa.Text, nullable=True),
    sa.PrimaryKeyConstraint("worker", "number"),
    *(at_least(column, 0) for column in ("attempts", "body_bytes", "messages", "tools")),
    amount("latency_ms"),
    sa.Index("ix_failover_at", "at"),
    sa.Index("ix_failover_user_hash", "user_hash", "at"),
)
