"""Kill switches in memory."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from harness.domain.errors import Conflict
from harness.domain.routing.kill_switch import KillSwitch
from harness.ports import SwitchRecord
from harness.store.memory.state import Unit
from harness.store.rules import check_switch, no_such_switch


class MemorySwitches:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, switch: KillSwitch) -> None:
        state = self._unit.writing
        check_switch(switch)
        if switch.id in state.switches:
            raise Conflict(f"the switch {switch.id} is stored already: throw another")
        state.switches[switch.id] = SwitchRecord(switch)
        state.serving_changes += 1

    def lift(self, id_: str, *, actor: str, now: datetime) -> SwitchRecord:
        state = self._unit.writing
        stored = state.switches.get(id_)
        if stored is None:
            raise no_such_switch(id_)
        if stored.lifted_at is None:
            stored = replace(stored, lifted_at=now, lifted_by=actor)
            state.switches[id_] = stored
            state.serving_changes += 1
        return stored

    def get(self, id_: str) -> SwitchRecord:
        stored = self._unit.state.switches
        if id_ not in stored:
            raise no_such_switch(id_)
        return stored[id_]

    def not_lifted(self) -> Sequence[KillSwitch]:
        records = self._unit.state.switches.values()
        found = [each.switch for each in records if each.lifted_at is None]
        return sorted(found, key=lambda each: (each.created_at, each.id), reverse=True)
