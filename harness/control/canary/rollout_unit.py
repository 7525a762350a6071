"""A `RolloutUnit` is one rollout within one unit of work: the context that the decision about a
canary, its holds and its moves share.

A later rollback is that of a promotion whose bake is over: a person brought a former model
back. Its rollout stays promoted; who looks at it wants to know that it does not serve any more.
"""

from dataclasses import dataclass

from harness.control.context import Context
from harness.domain.canary.rollout import Rollout, RolloutState, describe_abort
from harness.domain.proposals.proposal import Proposal
from harness.domain.routing.route_changes import CHANGE_KINDS, RestoreIncumbent
from harness.domain.routing.table import RouteRecord
from harness.store.sql.proposals import Proposals
from harness.store.sql.routing import Routing
from harness.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class RolloutUnit:
    ctx: Context
    tx: Transaction
    rollout: Rollout  # as it is in this unit, or as somebody saw it before

    @property
    def proposal(self) -> Proposal:
        return Proposals(self.tx).get(self.rollout.proposal)

    @property
    def is_in_place(self) -> bool:
        """Whether the route still has this canary and incumbent, or its bake."""
        route, rollout = Routing(self.tx).route(self.rollout.route), self.rollout
        if route is None:
            return False
        if rollout.baking:
            return route.holdback is not None and route.holdback.rollout == rollout.id
        canary = route.canary
        is_ours = canary is not None and canary.rollout == rollout.id
        return is_ours and route.incumbent == rollout.incumbent


def find_later_rollback(tx: Transaction, rollout: Rollout) -> RouteRecord | None:
    if not is_over(rollout):
        return None
    record = Routing(tx).first_after(rollout.id)
    restored = record is not None and record.kind == CHANGE_KINDS[RestoreIncumbent]
    return record if restored else None


def is_over(rollout: Rollout) -> bool:
    return rollout.state is RolloutState.PROMOTED and not rollout.baking


def describe_later_rollback(rollback: RouteRecord | None) -> str:
    """Says who took the promotion back, and why; empty for none."""
    return describe_abort(rollback.actor, rollback.reason, baking=True) if rollback else ""
