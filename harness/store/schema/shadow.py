"""Tables of shadows (a share of a route's requests mirrored to a candidate, within limits) and
of the daily tallies of their pairs of answers; their rows as domain objects and back.
"""

from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa

from harness.domain.routing.target import Target
from harness.domain.shadow import Shadow, ShadowTally
from harness.store.schema.columns import (
    Row,
    amount,
    columns_of,
    metadata,
    not_blank,
    signature,
    unique_where,
)
from harness.store.schema.stored_row import Record, record_of

# Ended once, else never changed or deleted (triggers).
shadow = sa.Table(
    "shadow",
    metadata,
    *columns_of(
        Shadow,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("incumbent", sa.Text, sa.ForeignKey("target.id"), nullable=False),
        sa.Column("candidate", sa.Text, sa.ForeignKey("target.id"), nullable=False),
        sa.Column("proposal", sa.Text, sa.ForeignKey("proposal.id"), nullable=True),
        signature(),
        free=("route", "data_class", "reason", "started_by"),
        flat=("limits",),
    ),
    sa.CheckConstraint("share_bps BETWEEN 1 AND 10000", name="share_bps_range"),
    sa.CheckConstraint("at_once BETWEEN 1 AND 64", name="at_once_range"),
    sa.CheckConstraint("requests_per_day >= 1", name="requests_per_day_least"),
    amount("usd_per_day"),
    not_blank("reason"),
    sa.CheckConstraint("incumbent <> candidate", name="another_target"),
    # No shadow is for ever.
    sa.CheckConstraint("expires_at > started_at", name="expires_later"),
    sa.CheckConstraint("(ended_at IS NULL) = (ended_by IS NULL)", name="ended_by_whom"),
    sa.Index("ix_shadow_started_at", "started_at", "id"),
    sa.Index("ix_shadow_route", "route", "started_at"),
    unique_where("uq_shadow_live", sa.text("ended_at IS NULL"), "route"),
)

shadow_tally = sa.Table(
    "shadow_tally",
    metadata,
    *columns_of(
        ShadowTally,
        sa.Column("shadow", sa.Text, sa.ForeignKey("shadow.id"), nullable=False),
    ),
    sa.PrimaryKeyConstraint("shadow", "day", "worker"),
)


def shadow_from_row(row: Row, targets: Mapping[str, Target]) -> Shadow:
    return record_of(Shadow, row, shadow, candidate=targets[row.candidate])


SHADOW: Final = Record.by_fields(
    shadow, Shadow, also=lambda started: {"candidate": started.candidate.id}
)
SHADOW_TALLY: Final = Record.by_fields(shadow_tally, ShadowTally)
