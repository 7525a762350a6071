"""The simple operations on the callers of canaries."""

from collections.abc import Iterable
from typing import Any, Final

from harness.canary import callers
from harness.canary.callers import CallerArm
from harness.frame.operation import (
    FinishedOperation,
    Listing,
    Operation,
    OperationGroup,
    Parameter,
    by_row,
)
from harness.frame.people.access import Role

_COUNTED: Final = {True: "yes", False: "not yet", None: "not recorded"}


def list_arm_cells(arm: CallerArm) -> dict[str, object]:
    """Returns the cells of a caller's arm."""
    return {
        "ROUTE": arm.route,
        "SENT AS": arm.sent_as,
        "ARM": arm.arm.value if arm.arm is not None else "drawn",
        "MODEL": arm.model,
        "SINCE": arm.since,
        "UNTIL": arm.until,
        "COUNTED": _COUNTED[arm.is_counted],
        "WHY": arm.because,
    }


def _note_dependencies(listed: FinishedOperation[Any]) -> str:
    found: Iterable[CallerArm] = listed.result
    texts = {arm.depends_on for arm in found if arm.depends_on}
    return f"the request also decides, by: {'; '.join(sorted(texts))}" if texts else ""


CANARY_CALLERS: Final = OperationGroup(
    command="canary",
    words="Canaries: a candidate on a small share of the traffic.",
    operations=(
        Operation(
            use_case=callers.find_arm,
            role=Role.VIEWER,
            words="Tell which model USER gets from live canaries, since when, and why.\n\n"
            "USER is the id that the client sends, or the name of a client key. With --route, "
            "the command answers for that route's newest canary, live or ended.",
            command="who USER",
            example="swapproof canary who user-7",
            # The user's id is in the body, because logs contain paths.
            endpoint="POST /caller-arms",
            name="find_caller_arm",
            body="CallerArmBody",
            body_text="A caller whose arm is to be told.",
            parameters={
                "user": Parameter(meaning="The id that the client sends, or a key's name."),
                "route": Parameter(meaning="Only this route's newest canary.", metavar="ROUTE"),
            },
            listing=Listing(
                by_row(list_arm_cells),
                empty="no route has a live canary or bake; --route names an ended one's route",
                note=_note_dependencies,
            ),
        ),
        Operation(
            use_case=callers.list_callers,
            role=Role.APPROVER,
            words="List the hashed callers of a canary's candidate.\n\n"
            "The audit log records the reading. Callers at shares above 50 % and in the bake "
            "are left out.",
            command="callers ROUTE",
            example="swapproof canary callers support",
            endpoint="GET /canaries/{route}/callers",
            name="list_canary_callers",
            listing=Listing(
                by_row(
                    lambda caller: {
                        "CALLER": caller.caller,
                        "BY": caller.assigned_by,
                        "DAYS": caller.days,
                        "LAST (UTC)": caller.newest_at,
                    }
                ),
                empty="the canary has counted no caller of its candidate yet",
            ),
        ),
    ),
)
