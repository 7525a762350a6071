"""Shadows in memory."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date, datetime

from harness.domain.errors import Conflict
from harness.domain.shadow.shadow import Shadow, ShadowTally, add_tallies
from harness.ports import MOST_LISTED, ShadowRecord
from harness.store.memory.state import Unit, need
from harness.store.rules import check_shadow, check_shadow_tally, no_such_shadow, shadow_is_live


class MemoryShadows:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: Shadow) -> None:
        state = self._unit.writing
        check_shadow(new)
        for live in self.live():
            if live.route == new.route:
                raise shadow_is_live(new.route, live.id)
        if new.id in state.shadows:
            raise Conflict(f"the shadow {new.id} is stored already: start another")
        need(state.targets, "target", new.incumbent, new.candidate.id)
        if new.proposal is not None:
            need(state.proposals, "proposal", new.proposal)
        state.shadows[new.id] = ShadowRecord(new)
        state.serving_changes += 1

    def end(self, id_: str, *, actor: str, because: str, now: datetime) -> ShadowRecord:
        state = self._unit.writing
        stored = state.shadows.get(id_)
        if stored is None:
            raise no_such_shadow(id_)
        if stored.ended_at is None:
            stored = replace(stored, ended_at=now, ended_by=actor, ended_because=because)
            state.shadows[id_] = stored
            state.serving_changes += 1
        return stored

    def list(
        self,
        *,
        route: str | None = None,
        proposal: str | None = None,
        limit: int = MOST_LISTED,
    ) -> Sequence[ShadowRecord]:
        found = [
            each
            for each in self._newest()
            if route in (None, each.shadow.route) and proposal in (None, each.shadow.proposal)
        ]
        return found[:limit]

    def live(self) -> Sequence[Shadow]:
        return [each.shadow for each in self._newest() if each.ended_at is None]

    def _newest(self) -> "Sequence[ShadowRecord]":
        records = self._unit.state.shadows.values()
        return sorted(
            records,
            key=lambda each: (each.shadow.started_at, each.shadow.id),
            reverse=True,
        )

    def append(self, more: Iterable[ShadowTally]) -> None:
        state = self._unit.writing
        for each in more:
            check_shadow_tally(each)
            need(state.shadows, "shadow", each.shadow)
            where = each.shadow, each.day, each.worker
            old = state.shadow_tallies.get(where)
            state.shadow_tallies[where] = add_tallies(old, each) if old else each

    def tallies(
        self, shadows: Sequence[str], *, since: date | None = None
    ) -> Sequence[ShadowTally]:
        found = self._unit.state.shadow_tallies
        return [
            each
            for (shadow, day, _), each in sorted(found.items())
            if shadow in shadows and (since is None or day >= since)
        ]
