"""Tables of blocks, traffic, spend and asked names, and checks of blocks beyond CHECKs."""

import math
from dataclasses import asdict
from decimal import Decimal
from functools import partial
from typing import Any, Final

import sqlalchemy as sa

from harness.frame.errors import InputError
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
from harness.gate.online.guardrails import FailureTally, Guardrail
from harness.gate.online.key_ledger import PAGES
from harness.gate.online.observation import (
    AskedName,
    NeverSeen,
    ObservationBlock,
    TrafficMinute,
    TrafficPoint,
    TrafficTotal,
)
from harness.gate.online.prompt_cache import CacheLevels
from harness.routing.records.traffic_sums import COUNTS
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


TRAFFIC_KEY: Final = ("route", "minute", "worker", "arm", "target", "revision")

TRAFFIC_SUMS: Final = (*COUNTS, "cost_usd")

TOTAL_KEY: Final = ("route", "arm", "target")

SPEND_SUMS: Final = ("requests", "tokens", "cost_usd", "unpriced")


def check_block(block: ObservationBlock) -> None:
    """Checks that a block's counts do not contradict one another. Raises InputError."""
    errors = FailureTally(
        block.units, block.canary_units, block.failures, block.canary_failures
    )
    fits = (
        0 <= block.weight_bps <= 10_000
        and errors.fits
        and 0 <= block.missing <= block.units
        and block.period >= 1
        and all(map(partial(_is_part, block), block.counts.values()))
        and _is_whole(errors, block.counts.get(Guardrail.ERRORS))
        and all(0.0 <= u <= 1.0 for ranks in block.ranks.values() for u in ranks)
        and all(
            0.0 < value < math.inf
            for level in block.levels.values()
            for value in (level.canary, level.control)
        )
        and all(_fits_cache(level.cache) for level in block.levels.values())
        and _is_part_of_block(block, block.never_seen)
    )
    if not fits:
        raise InputError(
            f"block {block.sequence} of worker {block.worker}, rollout {block.rollout}: "
            f"its counts contradict one another ({block})"
        )


def _fits_cache(cache: CacheLevels | None) -> bool:
    return cache is None or (
        all(
            0.0 <= share <= 1.0
            for share in (
                *(cache.canary_share, cache.control_share),
                *(cache.canary_opened, cache.control_opened),
            )
        )
        and 0.0 < cache.canary < math.inf
        and 0.0 < cache.control < math.inf
    )


def _is_part_of_block(block: ObservationBlock, new: NeverSeen | None) -> bool:
    if new is None:
        return True
    part = FailureTally(new.units, new.canary_units, new.failures, new.canary_failures)
    rest = FailureTally(
        block.units - new.units,
        block.canary_units - new.canary_units,
        block.failures - new.failures,
        block.canary_failures - new.canary_failures,
    )
    return (
        part.fits
        and rest.fits
        and all(
            tally.fits
            and tally.canary <= new.canary_units
            and tally.units - tally.canary <= new.units - new.canary_units
            for tally in (new.counts or {}).values()
        )
        and all(0.0 <= u <= 1.0 for ranks in (new.ranks or {}).values() for u in ranks)
    )


def _is_whole(errors: FailureTally, tally: FailureTally | None) -> bool:
    return tally is None or asdict(errors).items() <= asdict(tally).items()


def _is_part(block: ObservationBlock, tally: FailureTally) -> bool:
    control = block.units - block.canary_units
    return (
        tally.fits
        and tally.canary <= block.canary_units
        and tally.units - tally.canary <= control
    )
