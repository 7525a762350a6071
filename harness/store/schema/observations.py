"""Tables of what requests leave behind: a canary's observation blocks, traffic by minute, keys'
spend, failovers, and captured requests (redacted content that people asked to keep, always with
an end); their rows as domain objects and back.
"""

from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa

from harness.domain.canary.key_ledger import PAGES
from harness.domain.canary.observation import (
    AskedName,
    ObservationBlock,
    TrafficMinute,
    TrafficPoint,
    TrafficTotal,
)
from harness.domain.privacy.capture import CapturedRequest
from harness.domain.reliability.failover import Failover, FailoverCount
from harness.domain.reliability.spend import KeySpend
from harness.domain.routing.table import Arm
from harness.store.schema.columns import (
    Row,
    added_count,
    amount,
    at_least,
    columns_of,
    count,
    day,
    free_text,
    json_value,
    metadata,
    one_of,
    text,
    time,
)
from harness.store.schema.stored_row import Record

captured = sa.Table(
    "captured",
    metadata,
    *columns_of(
        CapturedRequest,
        sa.Column("id", sa.Text, primary_key=True),
        free=("route", "target", "data_class"),
    ),
    at_least("seen", 1),
    sa.CheckConstraint("share_bps BETWEEN 1 AND 10000", name="share_bps_range"),
    sa.CheckConstraint("expires_at > at", name="expires_later"),
    # The redactor's digest, so that only redacted texts are stored.
    sa.CheckConstraint("length(rules) = 64", name="rules_known"),
    sa.Index("ix_captured_at", "at", "id"),
    sa.Index("ix_captured_route", "route", "at"),
    sa.Index("ix_captured_expires_at", "expires_at"),
    sa.Index("ix_captured_user_hash", "user_hash"),
)

# Append-only (trigger): a canary's decisions are replayed from these.
block = sa.Table(
    "block",
    metadata,
    *columns_of(
        ObservationBlock,
        sa.Column("period", sa.BigInteger, nullable=False, server_default="1"),
        json_value("counts", nullable=True),
        json_value("ranks", nullable=True),
        json_value("levels", nullable=True),
    ),
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

# Which keys a rollout has counted, by their fingerprints (`domain.canary.key_ledger`). It goes
# when the rollout has ended.
seen_keys = sa.Table(
    "seen_keys",
    metadata,
    text("rollout"),
    count("page"),
    sa.Column("entries", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("rollout", "page"),
    sa.CheckConstraint(f"page BETWEEN 0 AND {PAGES - 1}", name="page_range"),
)

# The stored batches of routers, until their senders have the acknowledgement. The key refuses a
# batch that a router sends again after a lost acknowledgement.
observation_batch = sa.Table(
    "observation_batch",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    time("at"),
    sa.Index("ix_observation_batch_at", "at"),
)

traffic = sa.Table(
    "traffic",
    metadata,
    *columns_of(
        TrafficMinute,
        added_count("cached_tokens"),
        added_count("unpriced"),
    ),
    sa.PrimaryKeyConstraint("route", "minute", "worker", "arm", "target", "revision"),
    one_of("arm", Arm),
    *(at_least(column, 0) for column in ("requests", "failed", "charged", "streams")),
    *(at_least(column, 0) for column in ("input_tokens", "output_tokens")),
    *(at_least(column, 0) for column in ("cached_tokens", "unpriced")),
    amount("cost_usd"),
    sa.Index("ix_traffic_minute", "minute"),
)

# The spend of each key, by UTC day and process. The key is no foreign key: spend stays when
# the key goes.
key_spend = sa.Table(
    "key_spend",
    metadata,
    *columns_of(
        KeySpend,
    ),
    sa.PrimaryKeyConstraint("key", "day", "worker"),
    *(at_least(column, 0) for column in ("requests", "tokens", "unpriced")),
    amount("cost_usd"),
    sa.Index("ix_key_spend_day", "day"),
)

# By UTC day. Without a route, the name is the client's own text; a day has a bounded number.
asked_name = sa.Table(
    "asked_name",
    metadata,
    text("route"),
    free_text("name"),
    day("day"),
    count("requests"),
    sa.PrimaryKeyConstraint("day", "route", "name"),
    at_least("requests", 0),
)

failover = sa.Table(
    "failover",
    metadata,
    *columns_of(
        Failover,
        free=("route", "target", "provider", "code", "place", "sentence"),
    ),
    sa.PrimaryKeyConstraint("worker", "number"),
    *(at_least(column, 0) for column in ("attempts", "body_bytes", "messages", "tools")),
    amount("latency_ms"),
    sa.Index("ix_failover_at", "at"),
    sa.Index("ix_failover_user_hash", "user_hash", "at"),
)


def total_from_row(row: Row) -> TrafficTotal:
    """The total of a row with its fields in their order."""
    # A sum of counts is a decimal on PostgreSQL.
    values: list[Any] = [int(v) if isinstance(v, Decimal) else v for v in row]
    return TrafficTotal(*values)


def failover_count_from_row(row: Row) -> FailoverCount:
    # A sum of counts is a decimal on PostgreSQL.
    return FailoverCount(**(row._asdict() | {"unanswered": int(row.unanswered)}))


def traffic_point_from_row(row: Row) -> TrafficPoint:
    return TrafficPoint(row.minute, int(row.requests), int(row.failed), int(row.charged))


CAPTURED: Final = Record.by_fields(captured, CapturedRequest)
ASKED_NAME: Final = Record.by_fields(asked_name, AskedName)
BLOCK: Final = Record.by_fields(block, ObservationBlock)
FAILOVER: Final = Record.by_fields(failover, Failover)
KEY_SPEND: Final = Record.by_fields(key_spend, KeySpend)
TRAFFIC: Final = Record.by_fields(traffic, TrafficMinute)
