"""A later rollback is that of a promotion whose bake is over: a person brought a former model
back. Its rollout stays promoted; who looks at it wants to know that it does not serve any more.
"""

from harness.domain.canary.canary_end import describe_abort
from harness.domain.canary.rollout import Rollout, RolloutState
from harness.domain.routing.route_changes import CHANGE_KINDS, RestoreIncumbent
from harness.ports import Transaction
from harness.ports.routing import RouteRecord


def find_later_rollback(tx: Transaction, rollout: Rollout) -> RouteRecord | None:
    """Finds the version of the route by which a promoted candidate ceased to serve; None where
    it serves, or went for another reason than a rollback.
    """
    if not is_over(rollout):
        return None
    since = tx.routing.later_versions(rollout)
    # A break-glass is stored as a rollback is, and takes nothing back: the candidate returns at
    # its end, unless a person brings another model back meanwhile.
    lasting = [record for record in since if record.route.break_glass is None]
    restored = lasting and lasting[-1].kind == CHANGE_KINDS[RestoreIncumbent]
    return lasting[-1] if restored else None


def is_over(rollout: Rollout) -> bool:
    """Whether a rollout ended in a promotion whose bake is over."""
    return rollout.state is RolloutState.PROMOTED and not rollout.baking


def describe_later_rollback(rollback: RouteRecord | None) -> str:
    """Says who took the promotion back, and why; empty for none."""
    return describe_abort(rollback.actor, rollback.reason, baking=True) if rollback else ""
