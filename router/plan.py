"""Which targets, in which order, and what a failure leads to. Pure."""

from collections.abc import Sequence
from enum import Enum

from harness.domain.failures import CLIENTS_OWN, SAME_TARGET_AGAIN, FailureClass
from harness.domain.routing import Arm, Route


class Next(Enum):
    AGAIN = "the same target once more"
    NEXT = "the next target of the plan"
    PASS = "the client gets this answer"  # noqa: S105 - no password
    EXHAUSTED = "no target is left"


def targets_in_order(route: Route, arm: Arm) -> tuple[str, ...]:
    """Target ids: the arm's, then (canary) the incumbent, then fallbacks; no doubles."""
    first = (route.canary.target,) if arm is Arm.CANARY and route.canary else ()
    return tuple(dict.fromkeys((*first, route.incumbent, *route.fallbacks)))


def next_step(failure: FailureClass, *, on_canary: bool, tries: int, left: int) -> Next:
    """What to do after a failure of the current target.

    on_canary: the current target is the canary arm's own. tries: of this target so far.
    left: targets after it.
    """
    if tries <= SAME_TARGET_AGAIN.get(failure, 0):
        return Next.AGAIN
    if failure in CLIENTS_OWN and not (on_canary and left):
        return Next.PASS
    return Next.NEXT if left else Next.EXHAUSTED


def charged(arm: Arm, failures: Sequence[FailureClass | None]) -> bool:
    """Whether the assigned arm failed, whatever answered in the end.

    failures: the last one of each target in the plan's order, None for the one that answered.
    A canary that alone rejects a request is charged; a request that nobody takes charges
    nobody (router.md 5).
    """
    own = failures[0] if failures else None
    if own is None or own is FailureClass.CANCELLED:
        return False
    if own in CLIENTS_OWN:
        return arm is Arm.CANARY and failures[-1] is None
    return True
