"""Forecasts what a swap on a route takes under the route's policy: items, answers, money and
time of the comparison, and the time of the canary, for a candidate that answers like the
route's current model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.control.canary import duration_estimate
from harness.control.canary.duration_estimate import RampPlan
from harness.control.context import Context
from harness.control.proposals import estimate
from harness.control.proposals.estimate import SuiteEstimate
from harness.control.proposals.submission import ProposalRequest
from harness.control.routing import routes
from harness.domain.errors import SwapgateError
from harness.domain.routing.table import Route


@dataclass(frozen=True)
class PolicyForecast:
    """Forecasts a swap on a route under the route's policy."""

    route: Route
    suites: Sequence[SuiteEstimate]
    unknown: str  # why nothing is known of the comparison; else empty
    ramp: RampPlan

    @property
    def items(self) -> int:
        """Counts the items of all suites."""
        return sum(suite.plan.planned_items for suite in self.suites)

    @property
    def answers(self) -> int:
        """Counts the answers of both models, at most."""
        return sum(suite.plan.most_answers for suite in self.suites)

    @property
    def cost_usd(self) -> float | None:
        """Sums the cost at most; None where one suite's is unknown."""
        costs = [suite.cost_usd for suite in self.suites]
        known = [cost for cost in costs if cost is not None]
        return math.fsum(known) if known and len(known) == len(costs) else None

    @property
    def duration_s(self) -> float | None:
        """Sums the suites' times, one after the other; None where one is unknown."""
        times = [suite.duration_s for suite in self.suites]
        known = [time for time in times if time is not None]
        return math.fsum(known) if known and len(known) == len(times) else None


def forecast_policy(ctx: Context, name: str) -> PolicyForecast:
    """Forecasts a swap on a route under its policy. Raises NotFound."""
    with ctx.store.read() as tx:
        route = routes.require_route(tx, name)
        incumbent = tx.routing.targets()[route.incumbent]
    suites: Sequence[SuiteEstimate] = ()
    unknown = ""
    try:
        suites = estimate.estimate_proposal(ctx, ProposalRequest(name, incumbent.name))
    except SwapgateError as error:
        unknown = str(error)
    return PolicyForecast(
        route, suites, unknown, duration_estimate.estimate_for_route(ctx, name)
    )
