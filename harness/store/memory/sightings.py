"""Sightings of served models in memory."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.domain.evals.pins import Sighting, newest_sightings
from harness.store.memory.state import Unit
from harness.store.rules import checked_sightings


class MemorySightings:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def note(self, seen: Iterable[Sighting]) -> None:
        sightings = self._unit.writing.sightings
        for each in checked_sightings(seen):
            known = {one.served: one for one in sightings.get(each.target, ())}
            before = known.get(each.served, each)
            last = max(before.last_at, each.last_at)
            known[each.served] = replace(before, last_at=last)
            sightings[each.target] = tuple(newest_sightings(known.values()))

    def of(self, target: str) -> Sequence[Sighting]:
        return self._unit.state.sightings.get(target, ())
