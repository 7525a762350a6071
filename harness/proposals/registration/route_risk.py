"""Adds up the risk that a proposal of a route is a false pass, over 90 days
(docs/explanation/statistics.md §1.8, §1.16).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from harness.frame.formatting import format_percent
from harness.frame.records.transaction import Transaction
from harness.gate.budget import (
    false_pass_risk,
    total_risk,
)
from harness.gate.policy import GatePolicy
from harness.gate.suite_plan import (
    SuitePlan,
)
from harness.proposals.registration.look_counts import has_looked
from harness.routing.proposal import Proposal
from harness.routing.records.proposals import Proposals

WINDOW: Final = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class FalsePassRisk:
    """The upper limit of the risk that any proposal of a route in 90 days is a false pass."""

    number: int  # the candidate's number on this route
    spent: float  # risk of the earlier candidates, a share of 1
    risk: float  # risk of all candidates
    budget: float | None = None  # the policy's; None without a budget

    @property
    def text(self) -> str:
        """Writes the risk for people, such as `2nd candidate on this route in 90 days: up to
        7.5 % …`.
        """
        which = "one of them" if self.number > 1 else "it"
        text = (
            f"{_ordinal(self.number)} candidate on this route in {WINDOW.days} days: up to "
            f"{format_percent(self.risk, significant=2)} that {which} passed by luck"
        )
        if self.budget is None:
            return text
        allowed = format_percent(self.budget, significant=2)
        return f"{text}; the policy allows {allowed} (alpha_budget)"


def _ordinal(number: int) -> str:
    ending = {
        1: "st",
        2: "nd",
        3: "rd",
    }.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ending}"


def risk_of_plans(
    tx: Transaction,
    route: str,
    plans: Sequence[SuitePlan],
    gate: GatePolicy,
    now: datetime,
) -> FalsePassRisk:
    """Computes the upper limit of a route's risk with these plans, before their proposal
    exists.

    Counts one further candidate for each member of the planned selection.
    """
    earlier = [proposal.plans for proposal in proposals_before(tx, route, now)]
    n_candidates = max((plan.candidates for plan in plans), default=1)
    return _sum_risk([*earlier, *[plans] * n_candidates], gate, n_candidates)


def risk_of_proposal(tx: Transaction, proposal: Proposal) -> FalsePassRisk:
    """Computes the upper limit of the risk of a stored proposal and of the proposals in the 90
    days before it.
    """
    earlier = [
        other.plans
        for other in proposals_before(tx, proposal.route, proposal.created_at)
        if other.id != proposal.id and other.created_at <= proposal.created_at
    ]
    return _sum_risk([*earlier, proposal.plans], proposal.policy.gate)


def _sum_risk(
    registered: Sequence[Sequence[SuitePlan]],
    gate: GatePolicy,
    n_newest: int = 1,
) -> FalsePassRisk:
    """Sums the risks of candidates (`budget.total_risk`).

    Args:
        registered: the plans of each candidate, the newest last.
        n_newest: number of the newest candidates, whose risk is not `spent` yet.
    """
    risks = [false_pass_risk(plans) for plans in registered]
    return FalsePassRisk(
        number=len(risks),
        spent=total_risk(risks[:-n_newest]),
        risk=total_risk(risks),
        budget=gate.alpha_budget,
    )


def proposals_before(
    tx: Transaction,
    route: str,
    now: datetime,
) -> list[Proposal]:
    """Lists the route's proposals of the 90 days before `now` that made a look, with the
    proposals of its slices.
    """
    own = Proposals(tx).since(route, now - WINDOW)
    candidates = {proposal.candidate for proposal in own}
    slices = Proposals(tx).of_slices(candidates, {proposal.id for proposal in own})
    return [proposal for proposal in (*own, *slices) if has_looked(tx, proposal)]
