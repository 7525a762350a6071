"""The twin of the database's place in its history: an epoch, and a floor of revisions."""

from harness.domain.routing.snapshot_lineage import Lineage
from harness.ports import RouteRecord
from harness.store.memory.state import Unit


class MemoryInstallation:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def lineage(self) -> Lineage:
        state = self._unit.state
        return Lineage(
            state.installation,
            state.epoch,
            state.revision,
            state.serving_changes,
            heads={name: _head(records[-1]) for name, records in state.routes.items()},
        )

    def epoch(self) -> int:
        return self._unit.state.epoch

    def highest_served(self) -> int:
        return max((each.revision for each in self._unit.state.traffic.values()), default=0)

    def open_epoch(self, *, above: int) -> Lineage:
        state = self._unit.writing
        state.epoch += 1
        state.serving_changes += 1
        state.revision_floor = max(state.revision_floor, above)
        return self.lineage()


def _head(record: RouteRecord) -> str:
    return f"{record.route.version}:{record.at.isoformat()}"
