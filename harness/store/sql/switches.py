"""Adds, lifts and reads kill switches."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import sqlalchemy as sa

from harness.domain.errors import Conflict
from harness.domain.routing.kill_switch import KillSwitch
from harness.ports import SwitchRecord
from harness.store.rules import check_switch, no_such_switch
from harness.store.schema.routing import switch, switch_from_row, switch_to_row
from harness.store.unit_of_work import Unit

SWITCHES = sa.select(switch).order_by(switch.c.created_at.desc(), switch.c.id.desc())
NOT_LIFTED = SWITCHES.where(switch.c.lifted_at.is_(None))


class SqlSwitches:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: KillSwitch) -> None:
        check_switch(new)
        self._unit.serialize()
        if self._unit.read(SWITCHES.where(switch.c.id == new.id)).first() is not None:
            raise Conflict(f"the switch {new.id} is stored already: throw another")
        self._unit.insert(switch, switch_to_row(new))

    def lift(self, id_: str, *, actor: str, now: datetime) -> SwitchRecord:
        self._unit.serialize()
        stored = self.get(id_)
        if stored.lifted_at is not None:
            return stored
        self._unit.amend(switch, switch.c.id == id_, {"lifted_at": now, "lifted_by": actor})
        return replace(stored, lifted_at=now, lifted_by=actor)

    def get(self, id_: str) -> SwitchRecord:
        row = self._unit.read(SWITCHES.where(switch.c.id == id_)).first()
        if row is None:
            raise no_such_switch(id_)
        self._unit.checked(switch, [row])
        return switch_from_row(row)

    def not_lifted(self) -> Sequence[KillSwitch]:
        found = self._unit.checked(switch, self._unit.read(NOT_LIFTED))
        return [switch_from_row(row).switch for row in found]
