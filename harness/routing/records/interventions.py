"""Records of switches, break-glass and shadows.

A person creates each row. Later it can only be confirmed or ended; triggers refuse other
changes. The rules are in `harness.routing.freeze`, `harness.routing.evidence` and
`harness.routing.shadow`.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Final

import sqlalchemy as sa

from harness.frame.errors import Conflict
from harness.frame.pagination import MOST_LISTED
from harness.frame.records.columns import (
    Row,
    amount,
    index_where,
    not_blank,
    one_of,
    text,
    unique_where,
)
from harness.frame.records.record import record, record_of
from harness.frame.records.repository import Query, Records, given
from harness.frame.records.signed_tables import sign_rows_of
from harness.providers.force import (
    ForceKind,
    KillSwitch,
    SwitchRecord,
    SwitchSource,
)
from harness.providers.records import TARGET, target
from harness.providers.target import Target
from harness.routing.evidence import BreakGlass
from harness.routing.freeze import Freeze, build_freeze
from harness.routing.shadow import Shadow, ShadowTally, add_tallies

NOT_LIFTED = sa.text("lifted_at IS NULL")

# Triggers allow one change: the lifting.
SWITCH: Final = record(
    SwitchRecord,
    "switch",
    one_of("kind", ForceKind),
    # Switches of the environment and the file are not stored.
    one_of("source", (SwitchSource.CLI, SwitchSource.REST)),
    not_blank("reason"),
    sa.CheckConstraint(
        "kind <> 'freeze' OR (expires_at IS NOT NULL"
        " AND COALESCE(starts_at, created_at) < expires_at)",
        name="freeze_ends",
    ),
    sa.CheckConstraint("kind = 'freeze' OR starts_at IS NULL", name="only_freezes_wait"),
    sa.CheckConstraint("(lifted_at IS NULL) = (lifted_by IS NULL)", name="lifted_by_whom"),
    sa.Index("ix_switch_created_at", "created_at", "id"),
    index_where("ix_switch_held", NOT_LIFTED, "created_at"),
    signed=True,
    flat="switch force",
)

# Routers ignore freezes, so a forged freeze must not stop a router or an abort.
_CHANGES_PLANS: Final = sa.and_(
    SWITCH.table.c.lifted_at.is_(None),
    SWITCH.table.c.kind != ForceKind.FREEZE.value,
)
switch = sign_rows_of(SWITCH.table, live=_CHANGES_PLANS)

IS_OPEN = sa.text("ended_at IS NULL")

# Triggers allow two changes: the confirmation and the end.
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
)

break_glass = BREAK_GLASS.table

# Triggers allow one change: the end.
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
    sa.CheckConstraint("expires_at > started_at", name="expires_later"),
    sa.CheckConstraint("(ended_at IS NULL) = (ended_by IS NULL)", name="ended_by_whom"),
    sa.Index("ix_shadow_started_at", "started_at", "id"),
    sa.Index("ix_shadow_route", "route", "started_at"),
    unique_where("uq_shadow_live", sa.text("ended_at IS NULL"), "route"),
    refers={
        "incumbent": "target",
        "candidate": "target",
        "proposal": "proposal",
    },
    signed=True,
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
    """Builds a shadow.

    Args:
        targets: by id, with the row's candidate.
    """
    return record_of(Shadow, row, shadow, candidate=targets[row.candidate])


class Switches(Records[SwitchRecord]):
    record = SWITCH
    order = (switch.c.created_at.desc(), switch.c.id.desc())
    missing = "there is no switch {}; `swapproof switch list` shows them"

    def lift(
        self,
        id_: str,
        *,
        actor: str,
        now: datetime,
    ) -> SwitchRecord:
        """Marks a switch as lifted. Raises NotFound."""
        return self._close(id_, lifted_at=now, lifted_by=actor)

    def not_lifted(self) -> Sequence[KillSwitch]:
        """Lists the switches that change plans, without freezes."""
        return [stored.switch for stored in self._all(self._select(_CHANGES_PLANS))]

    def liftable(self) -> Sequence[KillSwitch]:
        """Lists the switches that are not lifted, with freezes."""
        return [
            stored.switch for stored in self._all(self._select(switch.c.lifted_at.is_(None)))
        ]

    def freezes(self, since: datetime) -> Sequence[Freeze]:
        """Lists the freezes that end after a moment, including lifted freezes."""
        is_freeze = switch.c.kind == ForceKind.FREEZE.value
        stored_freezes = self._all(self._select(is_freeze, switch.c.expires_at > since))
        return [build_freeze(switch_record) for switch_record in stored_freezes]


class BreakGlasses(Records[BreakGlass]):
    record = BREAK_GLASS
    order = (break_glass.c.created_at, break_glass.c.id)
    missing = "there is no break-glass {}; `swapproof route break-glass list` lists them"

    def save(self, changed: BreakGlass) -> None:
        """Stores the confirmation or the end of a break-glass, and ignores other changes."""
        self._tx.serialize()
        row = self.record.write(changed)
        names = [name for name in row if name.startswith(("confirmed", "confirmer", "ended"))]
        changes = {name: row[name] for name in (*names, "waiver")}
        self._tx.amend(break_glass, self._is(changed.id), changes)

    def open(self) -> Sequence[BreakGlass]:
        """Lists break-glasses that have not ended, confirmed or not.

        Raises SignatureInvalid.
        """
        return self._all(self._select(break_glass.c.ended_at.is_(None)))

    def ended_on(self, route: str) -> Sequence[BreakGlass]:
        """Lists a route's ended break-glasses, without forged rows."""
        query = self._select(break_glass.c.route == route, break_glass.c.ended_at.is_not(None))
        return self._trusted(self._tx.read(query))


Found = list[Shadow]

TALLIES = sa.select(shadow_tally).order_by(*shadow_tally.primary_key.columns)


class Shadows(Records[Shadow]):
    record = SHADOW
    order = (shadow.c.started_at.desc(), shadow.c.id.desc())
    missing = "there is no shadow {}; `swapproof shadow status` shows them"

    def add(self, new: Shadow) -> None:
        """Stores a shadow. Raises Conflict if the route has a live one."""
        self._tx.serialize()
        existing = self._tx.read(self._live().where(shadow.c.route == new.route)).first()
        if existing is not None:
            raise Conflict(
                f"route {new.route!r} has the shadow {existing.id} already: "
                f"`swapproof shadow stop {new.route}` ends it"
            )
        super().add(new)

    def end(
        self,
        id_: str,
        *,
        actor: str,
        because: str,
        now: datetime,
    ) -> Shadow:
        """Marks a shadow as ended. Raises NotFound."""
        return self._close(
            id_,
            ended_at=now,
            ended_by=actor,
            ended_because=because,
        )

    def list(
        self,
        *,
        route: str | None = None,
        proposal: str | None = None,
        limit: int = MOST_LISTED,
    ) -> Sequence[Shadow]:
        conditions = (
            given(shadow.c.route, route),
            given(shadow.c.proposal, proposal),
        )
        return self._all(self._select(*conditions).limit(limit))

    def judged(self, route: str) -> Sequence[Shadow]:
        """Lists a route's shadows with a judge, newest first."""
        return self._all(self._select(shadow.c.route == route, shadow.c.terms.is_not(None)))

    def of_series(self, route: str, series: str) -> frozenset[str]:
        """Returns the ids of the shadows of a series, which is one look."""
        judged = self.judged(route)
        return frozenset(one.id for one in judged if one.terms and one.terms.series == series)

    def live(self) -> Sequence[Shadow]:
        """Lists shadows that no person ended, newest first. They may have expired."""
        shadows = self._all(self._live())
        return sorted(shadows, key=lambda row: (row.started_at, row.id), reverse=True)

    def _live(self) -> Query:
        # In the order of the index of live shadows, so that the database reads only these.
        return sa.select(shadow).where(shadow.c.ended_at.is_(None)).order_by(shadow.c.route)

    def append(self, tallies: Iterable[ShadowTally]) -> None:
        """Adds workers' counts to the stored ones, by shadow, day and worker.

        All writers use one order, so that no two writers wait for each other.
        """
        for tally in sorted(tallies, key=lambda t: (t.shadow, t.day, t.worker)):
            values = SHADOW_TALLY.write(tally)
            if self._tx.write_new(shadow_tally, values):
                continue
            same_row = sa.and_(
                *(shadow_tally.c[name] == values[name] for name in ("shadow", "day", "worker"))
            )
            query = sa.select(shadow_tally).where(same_row).with_for_update()
            total = SHADOW_TALLY.write(
                add_tallies(SHADOW_TALLY.read(self._tx.read(query).one()), tally)
            )
            self._tx.write(sa.update(shadow_tally).where(same_row).values(total))

    def tallies(
        self, shadows: Sequence[str], *, since: date | None = None
    ) -> Sequence[ShadowTally]:
        """Lists tallies.

        Args:
            since: the first day; None for all days.
        """
        query = TALLIES.where(shadow_tally.c.shadow.in_(list(shadows)))
        if since is not None:
            query = query.where(shadow_tally.c.day >= since)
        return [SHADOW_TALLY.read(row) for row in self._tx.read(query)]

    def _verified(self, rows: Iterable[Row]) -> Found:
        """Verifies the shadows and their candidates, and builds them."""
        valid_rows = self._tx.checked(shadow, rows)
        if not valid_rows:
            return []
        candidates = sorted({row.candidate for row in valid_rows})
        target_rows = self._tx.read(sa.select(target).where(target.c.id.in_(candidates)))
        targets = {row.id: TARGET.read(row) for row in self._tx.checked(target, target_rows)}
        return [shadow_from_row(row, targets) for row in valid_rows]
