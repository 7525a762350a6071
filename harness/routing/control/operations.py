"""The simple operations on switches and freezes.

The command that sets a switch is not here, because it previews the changed routes. Nor is the
list, because it also shows the switches of the file.
"""

from typing import Any, Final

from harness.frame.formatting import format_timestamp
from harness.frame.operation import DialogTexts, FinishedOperation, Operation, OperationGroup
from harness.frame.people.access import Role
from harness.providers.force import KillSwitch, SwitchRecord
from harness.routing.control import freezes


def describe_switch(switch: KillSwitch) -> str:
    """Describes a switch by its effect, and a freeze by the person who set it."""
    if switch.force.freezes:
        return f"freeze of {switch.actor}"
    return f"switch of {switch.force}"


def _describe_lift(_: Any, switch: KillSwitch) -> list[str]:
    if switch.force.freezes:
        effect = (
            "Canaries that wait for its end continue within seconds, unless another freeze "
            "holds them. A person whose proposal waits for this freeze cannot end it."
        )
    else:
        beginning = "All routes go" if switch.route is None else f"Route {switch.route} goes"
        effect = (
            f"{beginning} back to the plan within 2 s: **{switch.force}** is no longer "
            f"{switch.force.effect}."
        )
    return [effect]


def _describe_lifted(lifted: FinishedOperation[SwitchRecord]) -> str:
    record = lifted.result
    id_ = record.switch.id
    if record.lifted_at is None or record.lifted_at >= lifted.began_at:
        return f"lifted {id_}"
    at = format_timestamp(record.lifted_at)
    return f"{id_} was already lifted by {record.lifted_by}, at {at} UTC"


LIFT_SWITCH: Final = Operation(
    use_case=freezes.lift_switch,
    role=Role.APPROVER,
    words="Lift a switch: routers stop following it within two seconds.",
    command="lift ID",
    example='swapproof switch lift sw_4be0c7d1f2a89365 --reason "the provider is back"',
    endpoint="POST /switches/{switch}/lift",
    done=_describe_lifted,
    dialog=DialogTexts(
        title="Lift the switch",
        button="Lift it",
        opener=lambda switch: f"Lift the {describe_switch(switch)} …",
        icon="lock_open",
        effect=_describe_lift,
        note=lambda switch: f"{switch.actor} threw it: {switch.reason}",
    ),
)
SWITCHES: Final = OperationGroup(
    command="switch",
    words="Switches: force or avoid a provider or a target, or freeze routes.",
    operations=(LIFT_SWITCH,),
)
