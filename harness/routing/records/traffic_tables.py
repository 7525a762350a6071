"""Tables of blocks, traffic, spend and asked names."""

from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa

from harness.frame.people.limits import KeySpend
from harness.frame.records.columns import (
    Row,
    added_count,
    amount,
    at_least,
    count,
    json_value,
    metadata,
    one_of,
    text,
    time,
)
from harness.frame.records.record import record
from harness.gate.online.key_ledger import PAGES
from harness.gate.online.observation import (
    AskedName,
    ObservationBlock,
    TrafficMinute,
    TrafficPoint,
    TrafficTotal,
)
from harness.routing.table import Arm

# Append-only (trigger): `replay` computes a canary's decisions from these.
BLOCK: Final = record(
    ObservationBlock,
    "block",
    sa.Column("period", sa.BigInteger, nullable=False, server_default="1"),
    json_value("counts", nullable=True),
    json_value("ranks", nullable=True),
    json_value("levels", nullable=True),
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
    key="rollout number",
)

block = BLOCK.table

# Fingerprints of the keys that a rollout has counted; deleted when the rollout has ended.
seen_keys = sa.Table(
    "seen_keys",
    metadata,
    text("rollout"),
    count("page"),
    sa.Column("entries", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("rollout", "page"),
    sa.CheckConstraint(f"page BETWEEN 0 AND {PAGES - 1}", name="page_range"),
)

# Ids of the stored batches, until the routers get the acknowledgement. The key refuses a batch
# that a router sends again after a lost acknowledgement.
observation_batch = sa.Table(
    "observation_batch",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    time("at"),
    sa.Index("ix_observation_batch_at", "at"),
)

TRAFFIC: Final = record(
    TrafficMinute,
    "traffic",
    added_count("cached_tokens"),
    added_count("unpriced"),
    one_of("arm", Arm),
    *(at_least(column, 0) for column in ("requests", "failed", "charged", "streams")),
    *(at_least(column, 0) for column in ("input_tokens", "output_tokens")),
    *(at_least(column, 0) for column in ("cached_tokens", "unpriced")),
    amount("cost_usd"),
    sa.Index("ix_traffic_minute", "minute"),
    key="route minute worker arm target revision",
)

traffic = TRAFFIC.table

# Spend by key, UTC day and process. `key` is not a foreign key: spend outlasts its key.
KEY_SPEND: Final = record(
    KeySpend,
    "key_spend",
    *(at_least(column, 0) for column in ("requests", "tokens", "unpriced")),
    amount("cost_usd"),
    sa.Index("ix_key_spend_day", "day"),
    key="key day worker",
)

key_spend = KEY_SPEND.table

# By UTC day. Without a route, the name is a client's text, and the number a day is limited.
ASKED_NAME: Final = record(
    AskedName,
    "asked_name",
    at_least("requests", 0),
    key="day route name",
    free="name",
)

asked_name = ASKED_NAME.table


def total_from_row(row: Row) -> TrafficTotal:
    # A sum of counts is a decimal on PostgreSQL.
    values: list[Any] = [int(v) if isinstance(v, Decimal) else v for v in row]
    return TrafficTotal(*values)


def traffic_point_from_row(row: Row) -> TrafficPoint:
    return TrafficPoint(row.minute, int(row.requests), int(row.failed), int(row.charged))
