"""How likely one of a route's candidates passed by luck, up to now (statistics.md §1.8)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from harness.control.proposals import alpha_spending
from harness.domain.errors import NotAllowed
from harness.domain.evals.run import SuitePlan
from harness.domain.proposals.policy import GatePolicy
from harness.domain.proposals.proposal import Proposal
from harness.gate.planning.multiplicity import MIN_ALPHA, false_pass_risk, total_risk
from harness.gate.planning.multiplicity import ration_alpha as rationed
from harness.ports import Transaction

WINDOW: Final = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class FalsePassRisk:
    """Of the proposal at hand and those of the 90 days before it.

    number: which candidate it is on this route. spent: of those before it, a share of 1; risk:
    with its own. budget: of the policy, None for none.
    """

    number: int
    spent: float
    risk: float
    budget: float | None = None

    @property
    def words(self) -> str:
        whom = "one of them" if self.number > 1 else "it"
        said = (
            f"{_ordinal(self.number)} candidate on this route in {WINDOW.days} days: up to "
            f"{self.risk * 100:.2g} % that {whom} passed by luck"
        )
        if self.budget is None:
            return said
        return f"{said}; the policy allows {self.budget * 100:.2g} % (alpha_budget)"


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ending}"


def ration_alpha(
    tx: Transaction, route: str, plans: Sequence[SuitePlan], gate: GatePolicy, now: datetime
) -> tuple[SuitePlan, ...]:
    """The plans with no more alpha than the policy's `alpha_budget` has left.

    Raises NotAllowed when nothing is left that a suite could show.
    """
    if gate.alpha_budget is None:
        return tuple(plans)
    spent = total_risk(
        false_pass_risk(each.plans) for each in _proposals_before(tx, route, now)
    )
    most = rationed(false_pass_risk(plans), spent, gate.alpha_budget)
    if most < MIN_ALPHA:
        raise NotAllowed(
            f"route {route!r} has spent {spent * 100:.2g} % of the "
            f"{gate.alpha_budget * 100:.2g} % that its policy allows in {WINDOW.days} days "
            "(alpha_budget): wait until its oldest proposals are older, or let an admin raise "
            "the budget"
        )
    return tuple(replace(plan, alpha=min(plan.alpha, most)) for plan in plans)


def risk_of_plans(
    tx: Transaction, route: str, plans: Sequence[SuitePlan], gate: GatePolicy, now: datetime
) -> FalsePassRisk:
    """Of a proposal with these plans, before it is made."""
    earlier = _proposals_before(tx, route, now)
    return _risk([*earlier_risks(earlier), false_pass_risk(plans)], gate)


def risk_of_proposal(tx: Transaction, proposal: Proposal) -> FalsePassRisk:
    """As it was when the proposal was made, by what is known now."""
    earlier = [
        each
        for each in _proposals_before(tx, proposal.route, proposal.created_at)
        if each.id != proposal.id and each.created_at <= proposal.created_at
    ]
    return _risk(
        [*earlier_risks(earlier), false_pass_risk(proposal.plans)], proposal.policy.gate
    )


def earlier_risks(proposals: Sequence[Proposal]) -> list[float]:
    return [false_pass_risk(each.plans) for each in proposals]


def _risk(risks: Sequence[float], gate: GatePolicy) -> FalsePassRisk:
    return FalsePassRisk(
        number=len(risks),
        spent=total_risk(risks[:-1]),
        risk=total_risk(risks),
        budget=gate.alpha_budget,
    )


def _proposals_before(tx: Transaction, route: str, now: datetime) -> list[Proposal]:
    """Of the 90 days before, those that looked at their candidate, or will."""
    return [
        each
        for each in tx.proposals.since(route, now - WINDOW)
        if alpha_spending.has_looked(tx, each)
    ]
