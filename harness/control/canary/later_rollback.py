"""A later rollback is that of a promotion whose bake is over: a person brought a former model
back. Its rollout stays promoted; who looks at it wants to know that it does not serve any more.
"""

from itertools import takewhile

from harness.domain.canary.canary_end import describe_abort
from harness.domain.canary.rollout import Rollout, RolloutState
from harness.domain.routing.route_changes import CHANGE_KINDS, RestoreIncumbent
from harness.ports import Transaction
from harness.ports.routing import RouteRecord


def find_later_rollback(tx: Transaction, rollout: Rollout) -> RouteRecord | None:
    """Finds the version of the route by which a promoted candidate ceased to serve; None where
    it serves, or went for another reason than a rollback.
    """
    if rollout.state is not RolloutState.PROMOTED or rollout.baking:
        return None
    since = takewhile(
        lambda record: record.route.incumbent != rollout.candidate,
        tx.routing.history(rollout.route),
    )
    first = next(reversed([*since]), None)
    # A break-glass is stored as the same kind, and takes nothing back: its end brings it again.
    is_rollback = (
        first is not None
        and first.kind == CHANGE_KINDS[RestoreIncumbent]
        and first.route.break_glass is None
    )
    return first if is_rollback else None


def describe_later_rollback(rollback: RouteRecord | None) -> str:
    """Says who took the promotion back, and why; empty for none."""
    return describe_abort(rollback.actor, rollback.reason, baking=True) if rollback else ""
