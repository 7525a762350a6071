"""Tables of what people set over the routing table by hand: the kill switches that they threw
by CLI or REST, freezes and break-glass. Rows become domain objects and back.
"""

from typing import Final

import sqlalchemy as sa

from harness.domain.routing.evidence import BreakGlass
from harness.domain.routing.freeze import Freeze
from harness.domain.routing.kill_switch import ForceKind, SwitchRecord, SwitchSource
from harness.store.schema.columns import (
    columns_of,
    index_where,
    metadata,
    not_blank,
    one_of,
    signature,
    unique_where,
)
from harness.store.schema.evals import target
from harness.store.schema.stored_row import Record

IS_HELD = sa.text("lifted_at IS NULL")

# Lifted once, else never changed or deleted (triggers).
switch = sa.Table(
    "switch",
    metadata,
    *columns_of(
        SwitchRecord,
        sa.Column("id", sa.Text, primary_key=True),
        signature(),
        free=("reason", "actor"),
        flat=("switch", "force"),
    ),
    one_of("kind", ForceKind),
    # The other two stand in the environment and in the file.
    one_of("source", (SwitchSource.CLI, SwitchSource.REST)),
    not_blank("reason"),
    sa.CheckConstraint("(lifted_at IS NULL) = (lifted_by IS NULL)", name="lifted_by_whom"),
    sa.Index("ix_switch_created_at", "created_at", "id"),
    index_where("ix_switch_held", IS_HELD, "created_at"),
)

# Lifted once, else never changed or deleted (triggers).
freeze = sa.Table(
    "route_freeze",
    metadata,
    *columns_of(
        Freeze,
        sa.Column("id", sa.Text, primary_key=True),
        signature(),
        free=("reason", "actor"),
    ),
    not_blank("reason"),
    sa.CheckConstraint("starts_at < ends_at", name="starts_first"),
    sa.CheckConstraint("(lifted_at IS NULL) = (lifted_by IS NULL)", name="lifted_by_whom"),
    sa.Index("ix_route_freeze_ends_at", "ends_at"),
)

IS_OPEN = sa.text("ended_at IS NULL")

# Confirmed once, ended once, else never changed or deleted (triggers).
break_glass = sa.Table(
    "break_glass",
    metadata,
    *columns_of(
        BreakGlass,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("incumbent", sa.ForeignKey(target.c.id), nullable=False),
        sa.Column("target", sa.ForeignKey(target.c.id), nullable=False),
        signature(),
        free=("reason", "proposer", "ended_because"),
    ),
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
)


BREAK_GLASS: Final = Record.by_fields(break_glass, BreakGlass)
FREEZE: Final = Record.by_fields(freeze, Freeze)
SWITCH: Final = Record.by_fields(switch, SwitchRecord)
