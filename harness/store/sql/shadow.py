"""Starts, ends and lists shadows, one live per route, and adds up the tallies
of their workers.
"""

from collections.abc import Iterable, Sequence
from datetime import date, datetime

import sqlalchemy as sa

from harness.domain.errors import Conflict
from harness.domain.pagination import MOST_LISTED
from harness.domain.shadow import Shadow, ShadowTally, add_tallies
from harness.store.observation_rules import check_shadow_tally
from harness.store.schema.columns import Row
from harness.store.schema.evals import TARGET, target
from harness.store.schema.shadow import (
    SHADOW,
    SHADOW_TALLY,
    shadow,
    shadow_from_row,
    shadow_tally,
)
from harness.store.sql.pages import given
from harness.store.sql.records import Query, Records

Found = list[Shadow]
TALLIES = sa.select(shadow_tally).order_by(*shadow_tally.primary_key.columns)


class Shadows(Records[Shadow]):
    """Shadows (F8), and what workers added up of their pairs."""

    record = SHADOW
    order = (shadow.c.started_at.desc(), shadow.c.id.desc())
    missing = "there is no shadow {}; `swapgate shadow list` shows them"

    def add(self, new: Shadow) -> None:
        """Adds a shadow. Raises Conflict while the route has one."""
        self._unit.serialize()
        live = self._unit.read(self._live().where(shadow.c.route == new.route)).first()
        if live is not None:
            raise Conflict(
                f"route {new.route!r} has the shadow {live.id} already: "
                f"`swapgate shadow stop {new.route}` ends it"
            )
        if self._is_stored(new.id):
            raise Conflict(f"the shadow {new.id} is stored already: start another")
        super().add(new)

    def end(self, id_: str, *, actor: str, because: str, now: datetime) -> Shadow:
        """Ends a shadow; ending it again changes nothing. Raises NotFound."""
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
        """Lists the shadows that have not ended, newest first."""
        live = self._all(self._live())
        return sorted(live, key=lambda one: (one.started_at, one.id), reverse=True)

    def _live(self) -> Query:
        # In the order of the partial index of live shadows, so that no ended one is read.
        return sa.select(shadow).where(shadow.c.ended_at.is_(None)).order_by(shadow.c.route)

    def append(self, more: Iterable[ShadowTally]) -> None:
        for tally in sorted(more, key=lambda t: (t.shadow, t.day, t.worker)):
            check_shadow_tally(tally)
            values = SHADOW_TALLY.write(tally)
            if self._unit.write_new(shadow_tally, values):
                continue
            is_same = sa.and_(
                *(shadow_tally.c[name] == values[name] for name in ("shadow", "day", "worker"))
            )
            query = sa.select(shadow_tally).where(is_same).with_for_update()
            both = SHADOW_TALLY.write(
                add_tallies(SHADOW_TALLY.read(self._unit.read(query).one()), tally)
            )
            self._unit.write(sa.update(shadow_tally).where(is_same).values(both))

    def tallies(
        self, shadows: Sequence[str], *, since: date | None = None
    ) -> Sequence[ShadowTally]:
        """Lists the tallies of these shadows by shadow, day and worker. since: the first day,
        None for all.
        """
        query = TALLIES.where(shadow_tally.c.shadow.in_(list(shadows)))
        if since is not None:
            query = query.where(shadow_tally.c.day >= since)
        return [SHADOW_TALLY.read(row) for row in self._unit.read(query)]

    def _verified(self, rows: Iterable[Row]) -> Found:
        found = self._unit.checked(shadow, rows)
        if not found:
            return []
        wanted = sorted({row.candidate for row in found})
        stored = self._unit.read(sa.select(target).where(target.c.id.in_(wanted)))
        known = {row.id: TARGET.read(row) for row in self._unit.checked(target, stored)}
        return [shadow_from_row(row, known) for row in found]
