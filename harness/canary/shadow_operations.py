"""The simple operations on shadows. Starting one is by hand, because it bundles its limits."""

from typing import Any, Final

from harness.canary import shadows
from harness.frame.operation import DialogTexts, Operation, OperationGroup
from harness.frame.people.access import Role
from harness.routing.shadow import Shadow


def _describe_stop(_: Any, shadow: Shadow) -> list[str]:
    effect = (
        f"Within 2 s, the router stops mirroring route **{shadow.route}** to "
        f"**{shadow.candidate.name}**. The counts so far are kept."
    )
    return [effect]


SHADOWS: Final = OperationGroup(
    command="shadow",
    words="Shadows: requests mirrored to a candidate, whose answers callers never get.",
    operations=(
        Operation(
            use_case=shadows.load_status,
            role=Role.VIEWER,
            words="Show a route's newest shadow.",
            endpoint="GET /shadows/{route}",
            name="get_shadow",
        ),
        Operation(
            use_case=shadows.stop_shadow,
            role=Role.PROPOSER,
            words="End a route's shadow: routers stop within two seconds.",
            command="stop ROUTE",
            example="swapproof shadow stop support",
            endpoint="POST /shadows/{route}/stop",
            done=lambda stopped: f"stopped {stopped.result.id}",
            dialog=DialogTexts(
                title="Stop the shadow",
                button="Stop it",
                opener=lambda shadow: f"Stop the shadow of {shadow.route} …",
                icon="stop",
                effect=_describe_stop,
                argument=lambda shadow: shadow.route,
            ),
        ),
    ),
)
