"""Tables of what arises while Swapgate runs: a canary's observation blocks, traffic by minute,
keys' spend, the audit log; and of principals, API keys and the installation's counters
(`meta`).
"""

import sqlalchemy as sa

from harness.domain.operations.principals import PrincipalKind
from harness.domain.routing.table import Arm
from harness.store.schema.columns import (
    added_count,
    amount,
    at_least,
    count,
    day,
    json_value,
    metadata,
    not_blank,
    number,
    one_of,
    project,
    signature,
    text,
    time,
    words,
)

# Append-only (trigger): a canary's decisions are replayed from these.
block = sa.Table(
    "block",
    metadata,
    text("rollout"),
    count("number"),
    text("worker"),
    count("sequence"),
    count("weight_bps"),
    count("units"),
    count("canary_units"),
    count("failures"),
    count("canary_failures"),
    count("missing"),
    time("opened_at"),
    time("closed_at"),
    sa.Column("period", sa.BigInteger, nullable=False, server_default="1"),
    json_value("counts", nullable=True),
    json_value("ranks", nullable=True),
    json_value("levels", nullable=True),
    sa.PrimaryKeyConstraint("rollout", "number"),
    sa.UniqueConstraint("rollout", "worker", "sequence", name="uq_block_sent_once"),
    at_least("number", 1),
    at_least("period", 1),
    sa.CheckConstraint("weight_bps BETWEEN 0 AND 10000", name="weight_bps_range"),
    sa.CheckConstraint(
        "units >= 0 AND canary_units BETWEEN 0 AND units AND missing BETWEEN 0 AND units",
        name="units_range",
    ),
    sa.CheckConstraint(
        "failures >= 0 AND canary_failures BETWEEN 0 AND canary_units"
        " AND failures - canary_failures BETWEEN 0 AND units - canary_units",
        name="failures_range",
    ),
)

traffic = sa.Table(
    "traffic",
    metadata,
    text("route"),
    time("minute"),
    text("worker"),
    text("arm"),
    text("target"),
    count("revision"),
    count("requests"),
    count("failed"),
    count("charged"),
    count("streams"),
    count("input_tokens"),
    count("output_tokens"),
    number("cost_usd"),
    json_value("latency_ms"),
    added_count("cached_tokens"),
    added_count("unpriced"),
    added_count("internal_errors"),
    sa.PrimaryKeyConstraint("route", "minute", "worker", "arm", "target", "revision"),
    one_of("arm", Arm),
    *(at_least(column, 0) for column in ("requests", "failed", "charged", "streams")),
    *(at_least(column, 0) for column in ("input_tokens", "output_tokens")),
    *(at_least(column, 0) for column in ("cached_tokens", "unpriced", "internal_errors")),
    amount("cost_usd"),
    sa.Index("ix_traffic_minute", "minute"),
)

# What each key cost, by UTC day and process. The key is not a reference: spend is kept
# whatever happens.
key_spend = sa.Table(
    "key_spend",
    metadata,
    project(),
    text("key"),
    day("day"),
    text("worker"),
    count("requests"),
    count("tokens"),
    number("cost_usd"),
    count("unpriced"),
    sa.PrimaryKeyConstraint("key", "day", "worker"),
    *(at_least(column, 0) for column in ("requests", "tokens", "unpriced")),
    amount("cost_usd"),
    sa.Index("ix_key_spend_day", "day"),
)

# Append-only, without gaps (triggers), chained by HMAC (harness.domain.operations.audit).
audit_event = sa.Table(
    "audit_event",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    time("at"),
    words("actor"),
    words("action"),
    words("subject"),
    json_value("details"),
    text("previous"),
    text("mac"),
    # Digests of the rows that its unit of work wrote.
    json_value("rows", nullable=True),
    text("principal", nullable=True),
    text("key", nullable=True),
    at_least("number", 1),
    sa.Index("ix_audit_event_subject", "subject", "number"),
)

# folded: the name as `Principal.folded` gives it. issuer, subject: of OpenID Connect.
principal = sa.Table(
    "principal",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    text("kind"),
    words("name"),
    words("folded"),
    text("issuer", nullable=True),
    text("subject", nullable=True),
    time("created_at"),
    signature(),
    sa.UniqueConstraint("folded"),
    sa.UniqueConstraint("issuer", "subject", name="uq_principal_signed_in"),
    one_of("kind", PrincipalKind),
    not_blank("id"),
    not_blank("name"),
    not_blank("folded"),
    sa.CheckConstraint("(issuer IS NULL) = (subject IS NULL)", name="signed_in_whole"),
)

# created_by, created_with: the chain of creation is read for the four eyes.
api_key = sa.Table(
    "api_key",
    metadata,
    project(),
    sa.Column("id", sa.Text, primary_key=True),
    words("name"),
    text("hash"),
    text("hint"),
    count("role", nullable=True),
    json_value("routes"),
    time("created_at"),
    time("revoked_at", nullable=True),
    json_value("limits", nullable=True),
    sa.Column("principal", sa.ForeignKey(principal.c.id), nullable=True),
    text("created_by", nullable=True),
    text("created_with", nullable=True),
    signature(),
    sa.UniqueConstraint("hash"),
    sa.CheckConstraint("role BETWEEN 1 AND 4", name="role_known"),
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
