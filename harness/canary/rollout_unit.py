"""A `RolloutUnit` is one rollout within one transaction, shared by the decision about a canary,
its holds and its moves.
"""

from dataclasses import dataclass

from harness.frame.records.transaction import Transaction
from harness.gate.online.rollout import Rollout
from harness.routing.context import Context
from harness.routing.proposal import Proposal
from harness.routing.records.proposals import Proposals
from harness.routing.records.routes import Routing


@dataclass(frozen=True, slots=True)
class RolloutUnit:
    ctx: Context
    tx: Transaction
    rollout: Rollout  # as in this transaction, or as read earlier

    @property
    def proposal(self) -> Proposal:
        return Proposals(self.tx).get(self.rollout.proposal)

    @property
    def is_in_place(self) -> bool:
        """Tells whether the route still has this canary and incumbent, or its bake."""
        route, rollout = Routing(self.tx).route(self.rollout.route), self.rollout
        if route is None:
            return False
        if rollout.baking:
            return route.holdback is not None and route.holdback.rollout == rollout.id
        canary = route.canary
        is_ours = canary is not None and canary.rollout == rollout.id
        return is_ours and route.incumbent == rollout.incumbent
