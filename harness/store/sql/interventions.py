"""Adds, lifts and reads kill switches (`Switches`), freezes (`Freezes`) and break-glass
(`BreakGlasses`).
"""

from collections.abc import Iterable, Sequence
from datetime import date, datetime

import sqlalchemy as sa

from harness.domain.errors import Conflict
from harness.domain.pagination import MOST_LISTED
from harness.domain.routing.evidence import BreakGlass
from harness.domain.routing.freeze import Freeze
from harness.domain.routing.kill_switch import KillSwitch, SwitchRecord
from harness.domain.shadow import Shadow, ShadowTally, add_tallies
from harness.store.schema.columns import Row
from harness.store.schema.evals import TARGET, target
from harness.store.schema.interventions import (
    BREAK_GLASS,
    FREEZE,
    SHADOW,
    SHADOW_TALLY,
    SWITCH,
    break_glass,
    freeze,
    shadow,
    shadow_from_row,
    shadow_tally,
    switch,
)
from harness.store.sql.pages import given
from harness.store.sql.records import Query, Records


class Switches(Records[SwitchRecord]):
    """Kill switches of CLI and REST; those of the environment and the file are not stored."""

    record = SWITCH
    order = (switch.c.created_at.desc(), switch.c.id.desc())
    missing = "there is no switch {}; `swapgate switch list` shows them"

    def lift(self, id_: str, *, actor: str, now: datetime) -> SwitchRecord:
        return self._close(id_, lifted_at=now, lifted_by=actor)

    def not_lifted(self) -> Sequence[KillSwitch]:
        held = self._all(self._select(switch.c.lifted_at.is_(None)))
        return [stored.switch for stored in held]


class Freezes(Records[Freeze]):
    """Freezes that people set; those of every week stand in the configuration file."""

    record = FREEZE
    order = (freeze.c.starts_at, freeze.c.id)
    missing = "there is no freeze {}; `swapgate route freezes` lists them"

    def lift(self, id_: str, *, actor: str, now: datetime) -> Freeze:
        return self._close(id_, lifted_at=now, lifted_by=actor)

    def overlapping(self, since: datetime) -> Sequence[Freeze]:
        """Lists the freezes that end after a moment, with the lifted ones."""
        return self._all(self._select(freeze.c.ends_at > since))


class BreakGlasses(Records[BreakGlass]):
    record = BREAK_GLASS
    order = (break_glass.c.created_at, break_glass.c.id)
    missing = "there is no break-glass {}; `swapgate route break-glass list` lists them"

    def save(self, changed: BreakGlass) -> None:
        """Stores its confirmation or its end, no other change."""
        self._tx.serialize()
        row = self.record.write(changed)
        names = [name for name in row if name.startswith(("confirmed", "confirmer", "ended"))]
        changes = {name: row[name] for name in (*names, "waiver")}
        self._tx.amend(break_glass, self._is(changed.id), changes)

    def open(self) -> Sequence[BreakGlass]:
        return self._all(self._select(break_glass.c.ended_at.is_(None)))

    def ended_on(self, route: str) -> Sequence[BreakGlass]:
        """Lists those of a route that have ended, without forged ones."""
        ended = self._select(break_glass.c.route == route, break_glass.c.ended_at.is_not(None))
        return self._believed(self._tx.read(ended))


Found = list[Shadow]
TALLIES = sa.select(shadow_tally).order_by(*shadow_tally.primary_key.columns)


class Shadows(Records[Shadow]):
    record = SHADOW
    order = (shadow.c.started_at.desc(), shadow.c.id.desc())
    missing = "there is no shadow {}; `swapgate shadow list` shows them"

    def add(self, new: Shadow) -> None:
        self._tx.serialize()
        live = self._tx.read(self._live().where(shadow.c.route == new.route)).first()
        if live is not None:
            raise Conflict(
                f"route {new.route!r} has the shadow {live.id} already: "
                f"`swapgate shadow stop {new.route}` ends it"
            )
        super().add(new)

    def end(self, id_: str, *, actor: str, because: str, now: datetime) -> Shadow:
        return self._close(id_, ended_at=now, ended_by=actor, ended_because=because)

    def list(
        self,
        *,
        route: str | None = None,
        proposal: str | None = None,
        limit: int = MOST_LISTED,
    ) -> Sequence[Shadow]:
        wanted = given(shadow.c.route, route), given(shadow.c.proposal, proposal)
        return self._all(self._select(*wanted).limit(limit))

    def live(self) -> Sequence[Shadow]:
        live = self._all(self._live())
        return sorted(live, key=lambda one: (one.started_at, one.id), reverse=True)

    def _live(self) -> Query:
        # In the order of the partial index of live shadows, so that no ended one is read.
        return sa.select(shadow).where(shadow.c.ended_at.is_(None)).order_by(shadow.c.route)

    def append(self, more: Iterable[ShadowTally]) -> None:
        for tally in sorted(more, key=lambda t: (t.shadow, t.day, t.worker)):
            values = SHADOW_TALLY.write(tally)
            if self._tx.write_new(shadow_tally, values):
                continue
            is_same = sa.and_(
                *(shadow_tally.c[name] == values[name] for name in ("shadow", "day", "worker"))
            )
            query = sa.select(shadow_tally).where(is_same).with_for_update()
            both = SHADOW_TALLY.write(
                add_tallies(SHADOW_TALLY.read(self._tx.read(query).one()), tally)
            )
            self._tx.write(sa.update(shadow_tally).where(is_same).values(both))

    def tallies(
        self, shadows: Sequence[str], *, since: date | None = None
    ) -> Sequence[ShadowTally]:
        """Lists tallies. since: the first day; None for all."""
        query = TALLIES.where(shadow_tally.c.shadow.in_(list(shadows)))
        if since is not None:
            query = query.where(shadow_tally.c.day >= since)
        return [SHADOW_TALLY.read(row) for row in self._tx.read(query)]

    def _verified(self, rows: Iterable[Row]) -> Found:
        found = self._tx.checked(shadow, rows)
        if not found:
            return []
        wanted = sorted({row.candidate for row in found})
        stored = self._tx.read(sa.select(target).where(target.c.id.in_(wanted)))
        known = {row.id: TARGET.read(row) for row in self._tx.checked(target, stored)}
        return [shadow_from_row(row, known) for row in found]
