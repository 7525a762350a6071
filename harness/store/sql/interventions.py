"""Adds, lifts and reads kill switches (`Switches`), freezes (`Freezes`) and break-glass
(`BreakGlasses`).
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import sqlalchemy as sa

from harness.domain.errors import Conflict, NotFound
from harness.domain.routing.evidence import BreakGlass
from harness.domain.routing.freeze import Freeze, FreezeRecord
from harness.domain.routing.kill_switch import KillSwitch, SwitchRecord
from harness.store.refusals import no_such_switch
from harness.store.rules import check_switch
from harness.store.schema.interventions import (
    break_glass,
    break_glass_from_row,
    break_glass_to_row,
    freeze,
    freeze_from_row,
    freeze_to_row,
    switch,
    switch_from_row,
    switch_to_row,
)
from harness.store.unit_of_work import Unit

SWITCHES = sa.select(switch).order_by(switch.c.created_at.desc(), switch.c.id.desc())
FREEZES = sa.select(freeze).order_by(freeze.c.starts_at, freeze.c.id)
NOT_OVER = FREEZES.where(freeze.c.ends_at > sa.bindparam("since", type_=freeze.c.ends_at.type))
BREAK_GLASSES = sa.select(break_glass).order_by(break_glass.c.created_at, break_glass.c.id)
OPEN_BREAK_GLASSES = BREAK_GLASSES.where(break_glass.c.ended_at.is_(None))
NOT_LIFTED = SWITCHES.where(switch.c.lifted_at.is_(None))


class Switches:
    """Kill switches of CLI and REST; those of the environment and the file are not stored."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: KillSwitch) -> None:
        """Adds a kill switch. Raises InputError without a reason, Conflict when the id is
        stored already.
        """
        check_switch(new)
        self._unit.serialize()
        if self._unit.read(SWITCHES.where(switch.c.id == new.id)).first() is not None:
            raise Conflict(f"the switch {new.id} is stored already: throw another")
        self._unit.insert(switch, switch_to_row(new))

    def lift(self, id_: str, *, actor: str, now: datetime) -> SwitchRecord:
        """Lifts a kill switch; lifting it again changes nothing. Raises NotFound."""
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


class Freezes:
    """Freezes that people set; those of every week stand in the configuration file."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: Freeze) -> None:
        self._unit.serialize()
        self._unit.insert(freeze, freeze_to_row(new))

    def lift(self, id_: str, *, actor: str, now: datetime) -> FreezeRecord:
        """Lifts a freeze; lifting it again changes nothing. Raises NotFound."""
        self._unit.serialize()
        stored = self.get(id_)
        if stored.lifted_at is not None:
            return stored
        self._unit.amend(freeze, freeze.c.id == id_, {"lifted_at": now, "lifted_by": actor})
        return replace(stored, lifted_at=now, lifted_by=actor)

    def get(self, id_: str) -> FreezeRecord:
        row = self._unit.read(FREEZES.where(freeze.c.id == id_)).first()
        if row is None:
            raise NotFound(f"there is no freeze {id_}; `swapgate route freezes` lists them")
        self._unit.checked(freeze, [row])
        return freeze_from_row(row)

    def overlapping(self, since: datetime) -> Sequence[FreezeRecord]:
        rows = self._unit.checked(freeze, self._unit.read(NOT_OVER, {"since": since}))
        return [freeze_from_row(row) for row in rows]


class BreakGlasses:
    """Targets that serve without proof, by the word of two people."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: BreakGlass) -> None:
        self._unit.serialize()
        self._unit.insert(break_glass, break_glass_to_row(new))

    def save(self, changed: BreakGlass) -> None:
        """Stores its confirmation or its end; nothing else of it changes."""
        self._unit.serialize()
        row = break_glass_to_row(changed)
        names = [name for name in row if name.startswith(("confirmed", "confirmer", "ended"))]
        changes = {name: row[name] for name in (*names, "waiver")}
        self._unit.amend(break_glass, break_glass.c.id == changed.id, changes)

    def get(self, id_: str) -> BreakGlass:
        """Loads one by id. Raises NotFound."""
        row = self._unit.read(BREAK_GLASSES.where(break_glass.c.id == id_)).first()
        if row is None:
            raise NotFound(
                f"there is no break-glass {id_}; `swapgate route break-glass list` lists them"
            )
        self._unit.checked(break_glass, [row])
        return break_glass_from_row(row)

    def open(self) -> Sequence[BreakGlass]:
        rows = self._unit.checked(break_glass, self._unit.read(OPEN_BREAK_GLASSES).all())
        return [break_glass_from_row(row) for row in rows]
