"""Starts, ends and lists shadows, one live per route, and adds up the tallies
of their workers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date, datetime

import sqlalchemy as sa

from harness.domain.errors import Conflict, NotFound
from harness.domain.pagination import MOST_LISTED
from harness.domain.routing.target import Target
from harness.domain.shadow import Shadow, ShadowTally, add_tallies
from harness.store.observation_rules import check_shadow_tally
from harness.store.rules import check_shadow
from harness.store.schema.evals import TARGET, target
from harness.store.schema.shadow import (
    SHADOW_TALLY,
    shadow,
    shadow_from_row,
    shadow_tally,
    shadow_to_row,
)
from harness.store.sql.pages import given, select_where
from harness.store.unit_of_work import Unit

NEWEST_FIRST = (shadow.c.started_at.desc(), shadow.c.id.desc())
NEWEST = sa.select(shadow).order_by(*NEWEST_FIRST)
# In the order of the partial index of live shadows, so that no ended one is read.
LIVE = sa.select(shadow).where(shadow.c.ended_at.is_(None)).order_by(shadow.c.route)
TALLIES = sa.select(shadow_tally).order_by(*shadow_tally.primary_key.columns)


class Shadows:
    """Shadows (F8), and what workers added up of their pairs."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: Shadow) -> None:
        """Adds a shadow. Raises InputError for limits that make no sense, Conflict while the
        route has one.
        """
        check_shadow(new)
        self._unit.serialize()
        live = self._unit.read(LIVE.where(shadow.c.route == new.route)).first()
        if live is not None:
            raise Conflict(
                f"route {new.route!r} has the shadow {live.id} already: "
                f"`swapgate shadow stop {new.route}` ends it"
            )
        if self._unit.read(NEWEST.where(shadow.c.id == new.id)).first() is not None:
            raise Conflict(f"the shadow {new.id} is stored already: start another")
        self._unit.insert(shadow, shadow_to_row(new))

    def end(self, id_: str, *, actor: str, because: str, now: datetime) -> Shadow:
        """Ends a shadow; ending it again changes nothing. Raises NotFound."""
        self._unit.serialize()
        found = self._records(NEWEST.where(shadow.c.id == id_))
        if not found:
            raise NotFound(f"there is no shadow {id_}; `swapgate shadow list` shows them")
        stored = found[0]
        if stored.ended_at is not None:
            return stored
        end = {"ended_at": now, "ended_by": actor, "ended_because": because}
        self._unit.amend(shadow, shadow.c.id == id_, end)
        return replace(stored, ended_at=now, ended_by=actor, ended_because=because)

    def list(
        self,
        *,
        route: str | None = None,
        proposal: str | None = None,
        limit: int = MOST_LISTED,
    ) -> Sequence[Shadow]:
        query = select_where(
            shadow, given(shadow.c.route, route), given(shadow.c.proposal, proposal)
        )
        return self._records(query.order_by(*NEWEST_FIRST).limit(limit))

    def live(self) -> Sequence[Shadow]:
        return sorted(
            self._records(LIVE), key=lambda one: (one.started_at, one.id), reverse=True
        )

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

    def _records(self, query: sa.Select[tuple[object, ...]]) -> "Sequence[Shadow]":
        found = self._unit.checked(shadow, self._unit.read(query))
        if not found:
            return []
        wanted = sorted({row.candidate for row in found})
        known: dict[str, Target] = {
            row.id: TARGET.read(row)
            for row in self._unit.checked(
                target, self._unit.read(sa.select(target).where(target.c.id.in_(wanted)))
            )
        }
        return [shadow_from_row(row, known) for row in found]
