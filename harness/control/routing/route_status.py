"""A route's status shows people one route at a glance: its models, the open proposal, the last
verdict, the canary and the last hour's traffic. It decides nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from harness.control.context import Context
from harness.control.evals import proof_validity
from harness.control.evals.proof_validity import ProofValidity
from harness.domain.canary.observation import TrafficMinute
from harness.domain.canary.rollout import Rollout
from harness.domain.errors import SignatureInvalid
from harness.domain.evals.run import Verdict
from harness.domain.proposals.proposal import Proposal
from harness.domain.routing.table import Route
from harness.domain.routing.target import Target


@dataclass(frozen=True)
class RouteStatus:
    """Shows one route at a glance: models, open proposal, last verdict, canary and traffic."""

    route: Route
    incumbent: Target
    candidate: Target | None
    open_proposal: Proposal | None
    last_verdict: Verdict | None
    rollout: Rollout | None
    traffic: Sequence[TrafficMinute]  # of the last hour
    standing: ProofValidity | None = None

    @property
    def needs_decision(self) -> bool:
        """Whether a person is waited for: an approval, or a paused canary."""
        waiting = self.open_proposal is not None and self.open_proposal.phase.value
        paused = self.rollout is not None and self.rollout.state.value == "paused"
        return waiting == "awaiting_approval" or paused


@dataclass(frozen=True)
class CurrentActivity:
    """What goes on on all routes, by route."""

    proposals: Mapping[str, Proposal]
    rollouts: Mapping[str, Rollout]
    traffic: Sequence[TrafficMinute]  # of the last hour


def load_current_activity(ctx: Context) -> CurrentActivity:
    since = ctx.clock.now() - timedelta(hours=1)
    with ctx.store.read() as tx:
        return CurrentActivity(
            {p.route: p for p in tx.proposals.open()},
            {r.route: r for r in (*tx.rollouts.baking(), *tx.rollouts.live())},
            tx.observations.traffic(since=since),
        )


def build_route_status(
    ctx: Context, route: Route, targets: Mapping[str, Target], now: CurrentActivity
) -> RouteStatus:
    """Describes a route at a glance. targets: by id, those of the route. Raises
    SignatureInvalid.
    """
    for id_ in route.targets - targets.keys():
        raise SignatureInvalid(f"its target {id_} is not as it was signed")
    with ctx.store.read() as tx:
        verdict = next(iter(tx.verdicts.list(route=route.name, limit=1)), None)
        return RouteStatus(
            route=route,
            incumbent=targets[route.incumbent],
            candidate=targets[route.canary.target] if route.canary else None,
            open_proposal=now.proposals.get(route.name),
            last_verdict=verdict,
            rollout=now.rollouts.get(route.name),
            traffic=[minute for minute in now.traffic if minute.route == route.name],
            standing=proof_validity.assess_proof(ctx, tx, verdict) if verdict else None,
        )
