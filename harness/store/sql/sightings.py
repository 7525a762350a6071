"""Notes which models and builds providers said they served for a target, and keeps the newest
few.
"""

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from harness.domain.evals.pins import ServedModel, Sighting, newest_sightings
from harness.store.rules import checked_sightings
from harness.store.schema.providers import served_model
from harness.store.unit_of_work import Unit

IS_SAME_SIGHTING = sa.and_(
    served_model.c.target == sa.bindparam("whose"),
    served_model.c.model == sa.bindparam("which"),
    served_model.c.build == sa.bindparam("built"),
)
SIGHTING_BEFORE = sa.update(served_model).where(
    IS_SAME_SIGHTING, served_model.c.last_at < sa.bindparam("at")
)
SIGHT_AGAIN = SIGHTING_BEFORE.values(last_at=sa.bindparam("at"))
FORGET_SIGHTING = sa.delete(served_model).where(IS_SAME_SIGHTING)
SIGHTINGS = sa.select(served_model).where(served_model.c.target == sa.bindparam("whose"))


class SqlSightings:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def note(self, sightings: Iterable[Sighting]) -> None:
        # In one order everywhere: two that write the same rows do not wait for each other.
        for sighting in checked_sightings(sightings):
            if self._unit.write(
                SIGHT_AGAIN, {**_sighting_key(sighting), "at": sighting.last_at}
            ):
                continue
            model, build = sighting.served.pair
            row: dict[str, object] = {"target": sighting.target, "model": model, "build": build}
            times = {"first_at": sighting.first_at, "last_at": sighting.last_at}
            if self._unit.write_new(served_model, row | times):
                self._prune(sighting.target)

    def of(self, target: str) -> Sequence[Sighting]:
        return newest_sightings(self._stored(target))

    def _stored(self, target: str) -> Sequence[Sighting]:
        return [
            Sighting(row.target, ServedModel(row.model, row.build), row.first_at, row.last_at)
            for row in self._unit.read(SIGHTINGS, {"whose": target})
        ]

    def _prune(self, target: str) -> None:
        stored = self._stored(target)
        for sighting in set(stored) - set(newest_sightings(stored)):
            self._unit.write(FORGET_SIGHTING, _sighting_key(sighting))


def _sighting_key(sighting: Sighting) -> dict[str, str]:
    return {
        "whose": sighting.target,
        "which": sighting.served.model,
        "built": sighting.served.build,
    }
