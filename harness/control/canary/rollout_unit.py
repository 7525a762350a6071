"""A `RolloutUnit` is one rollout within one unit of work: the context that the decision about a
canary, its holds and its moves share.
"""

from dataclasses import dataclass

from harness.control.context import Context
from harness.domain.canary.rollout import Rollout
from harness.domain.proposals.proposal import Proposal
from harness.domain.routing.table import Route
from harness.ports import Transaction


@dataclass(frozen=True, slots=True)
class RolloutUnit:
    """Bundles a rollout with the unit of work and the context in which it is decided on."""

    ctx: Context
    tx: Transaction
    rollout: Rollout  # as it is in this unit, or as somebody saw it before

    @property
    def proposal(self) -> Proposal:
        return self.tx.proposals.get(self.rollout.proposal)

    @property
    def is_canary_in_place(self) -> bool:
        """Whether the route still has this canary beside the incumbent that it began with."""
        route = self._route
        return (
            route is not None
            and route.canary is not None
            and route.canary.rollout == self.rollout.id
            and route.incumbent == self.rollout.incumbent
        )

    @property
    def is_holdback_in_place(self) -> bool:
        """Whether the incumbent before it still keeps a share of the route, for the bake."""
        route = self._route
        return (
            route is not None
            and route.holdback is not None
            and route.holdback.rollout == self.rollout.id
        )

    @property
    def _route(self) -> Route | None:
        return self.tx.routing.route(self.rollout.route)
