"""Adds, lifts and reads kill switches (`Switches`), freezes (`Freezes`) and break-glass
(`BreakGlasses`).
"""

from collections.abc import Sequence
from datetime import datetime

from harness.domain.errors import Conflict
from harness.domain.routing.evidence import BreakGlass
from harness.domain.routing.freeze import Freeze
from harness.domain.routing.kill_switch import KillSwitch, SwitchRecord
from harness.store.schema.interventions import (
    BREAK_GLASS,
    FREEZE,
    SWITCH,
    break_glass,
    freeze,
    switch,
)
from harness.store.sql.records import Records


class Switches(Records[SwitchRecord]):
    """Kill switches of CLI and REST; those of the environment and the file are not stored."""

    record = SWITCH
    order = (switch.c.created_at.desc(), switch.c.id.desc())
    missing = "there is no switch {}; `swapgate switch list` shows them"

    def add(self, new: KillSwitch) -> None:
        """Adds a kill switch. Raises Conflict when the id is stored already."""
        self._unit.serialize()
        if self._is_stored(new.id):
            raise Conflict(f"the switch {new.id} is stored already: throw another")
        super().add(new)

    def lift(self, id_: str, *, actor: str, now: datetime) -> SwitchRecord:
        """Lifts a kill switch; lifting it again changes nothing. Raises NotFound."""
        return self._close(id_, lifted_at=now, lifted_by=actor)

    def not_lifted(self) -> Sequence[KillSwitch]:
        """Lists the kill switches that are not lifted, expired ones too."""
        held = self._all(self._select(switch.c.lifted_at.is_(None)))
        return [stored.switch for stored in held]


class Freezes(Records[Freeze]):
    """Freezes that people set; those of every week stand in the configuration file."""

    record = FREEZE
    order = (freeze.c.starts_at, freeze.c.id)
    missing = "there is no freeze {}; `swapgate route freezes` lists them"

    def lift(self, id_: str, *, actor: str, now: datetime) -> Freeze:
        """Lifts a freeze; lifting it again changes nothing. Raises NotFound."""
        return self._close(id_, lifted_at=now, lifted_by=actor)

    def overlapping(self, since: datetime) -> Sequence[Freeze]:
        """Lists the freezes that end after a moment, with the lifted ones."""
        return self._all(self._select(freeze.c.ends_at > since))


class BreakGlasses(Records[BreakGlass]):
    """Targets that serve without proof, by the word of two people."""

    record = BREAK_GLASS
    order = (break_glass.c.created_at, break_glass.c.id)
    missing = "there is no break-glass {}; `swapgate route break-glass list` lists them"

    def save(self, changed: BreakGlass) -> None:
        """Stores its confirmation or its end, no other change."""
        self._unit.serialize()
        row = self.record.write(changed)
        names = [name for name in row if name.startswith(("confirmed", "confirmer", "ended"))]
        changes = {name: row[name] for name in (*names, "waiver")}
        self._unit.amend(break_glass, self._is(changed.id), changes)

    def open(self) -> Sequence[BreakGlass]:
        """Lists the break-glass records that have not ended."""
        return self._all(self._select(break_glass.c.ended_at.is_(None)))

    def ended_on(self, route: str) -> Sequence[BreakGlass]:
        """Lists those of a route that have ended, without forged ones."""
        ended = self._select(break_glass.c.route == route, break_glass.c.ended_at.is_not(None))
        return self._believed(self._unit.read(ended))
