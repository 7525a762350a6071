"""Tables of what people set over the routing table by hand: the kill switches that they threw
by CLI or REST, freezes and break-glass. Rows become domain objects and back.
"""

from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa

from harness.domain.routing.evidence import BreakGlass
from harness.domain.routing.freeze import Freeze
from harness.domain.routing.kill_switch import ForceKind, SwitchRecord, SwitchSource
from harness.domain.routing.target import Target
from harness.domain.shadow import Shadow, ShadowTally
from harness.store.schema.columns import (
    Row,
    amount,
    index_where,
    not_blank,
    one_of,
    text,
    unique_where,
)
from harness.store.schema.evals import target
from harness.store.schema.signed_tables import sign_rows_of
from harness.store.schema.stored_row import record, record_of

IS_HELD = sa.text("lifted_at IS NULL")

# Lifted once, else never changed or deleted (triggers).
SWITCH: Final = record(
    SwitchRecord,
    "switch",
    one_of("kind", ForceKind),
    # The other two stand in the environment and in the file.
    one_of("source", (SwitchSource.CLI, SwitchSource.REST)),
    not_blank("reason"),
    sa.CheckConstraint("(lifted_at IS NULL) = (lifted_by IS NULL)", name="lifted_by_whom"),
    sa.Index("ix_switch_created_at", "created_at", "id"),
    index_where("ix_switch_held", IS_HELD, "created_at"),
    signed=True,
    free="reason actor",
    flat="switch force",
)
switch = sign_rows_of(SWITCH.table, live=SWITCH.table.c.lifted_at.is_(None))

# Lifted once, else never changed or deleted (triggers).
FREEZE: Final = record(
    Freeze,
    "route_freeze",
    not_blank("reason"),
    sa.CheckConstraint("starts_at < ends_at", name="starts_first"),
    sa.CheckConstraint("(lifted_at IS NULL) = (lifted_by IS NULL)", name="lifted_by_whom"),
    sa.Index("ix_route_freeze_ends_at", "ends_at"),
    signed=True,
    free="reason actor",
)
freeze = FREEZE.table

IS_OPEN = sa.text("ended_at IS NULL")

# Confirmed once, ended once, else never changed or deleted (triggers).
BREAK_GLASS: Final = record(
    BreakGlass,
    "break_glass",
    not_blank("reason"),
    not_blank("proposer"),
    sa.CheckConstraint("incumbent <> target", name="another_target"),
    sa.CheckConstraint(
        "(confirmed_at IS NULL) = (confirmer IS NULL)"
        " AND (confirmed_at IS NULL) = (confirmer_principal IS NULL)"
        " AND (confirmed_at IS NULL) = (waiver IS NULL)",
        name="confirmed_whole",
    ),
    unique_where("ux_break_glass_open", IS_OPEN, "route"),
    sa.Index("ix_break_glass_created_at", "created_at", "id"),
    refers={"incumbent": target, "target": target},
    signed=True,
    free="reason proposer ended_because",
)
break_glass = BREAK_GLASS.table


# Ended once, else never changed or deleted (triggers).
SHADOW: Final = record(
    Shadow,
    "shadow",
    text("candidate"),
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
    refers={"incumbent": "target", "candidate": "target", "proposal": "proposal"},
    signed=True,
    free="route data_class reason started_by",
    flat="limits",
    also=lambda started: {"candidate": started.candidate.id},
)
shadow = sign_rows_of(SHADOW.table, live=SHADOW.table.c.ended_at.is_(None))

SHADOW_TALLY: Final = record(
    ShadowTally,
    "shadow_tally",
    key="shadow day worker",
    refers={"shadow": "shadow"},
)
shadow_tally = SHADOW_TALLY.table


def shadow_from_row(row: Row, targets: Mapping[str, Target]) -> Shadow:
    return record_of(Shadow, row, shadow, candidate=targets[row.candidate])
