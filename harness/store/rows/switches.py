"""Converts kill switches to column values, and rows to records that also say
who lifted them.
"""

from harness.domain.routing.kill_switch import Force, ForceKind, KillSwitch, SwitchSource
from harness.ports import SwitchRecord
from harness.store.rows import Row, Values


def switch_to_row(switch: KillSwitch) -> Values:
    return {
        "id": switch.id,
        "route": switch.route,
        "kind": switch.force.kind.value,
        "name": switch.force.name,
        "reason": switch.reason,
        "actor": switch.actor,
        "created_at": switch.created_at,
        "expires_at": switch.expires_at,
        "source": switch.source.value,
    }


def switch_from_row(row: Row) -> SwitchRecord:
    thrown = KillSwitch(
        id=row.id,
        route=row.route,
        force=Force(ForceKind(row.kind), row.name),
        reason=row.reason,
        actor=row.actor,
        created_at=row.created_at,
        expires_at=row.expires_at,
        source=SwitchSource(row.source),
    )
    return SwitchRecord(thrown, row.lifted_at, row.lifted_by)
