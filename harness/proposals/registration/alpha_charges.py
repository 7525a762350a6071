"""Gives each look of a candidate its alpha, within the route's budget
(docs/explanation/statistics.md §1.8, §1.16). `harness.gate.budget` has the formulas.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from harness.frame.errors import NotAllowed
from harness.frame.formatting import format_percent
from harness.frame.records.transaction import Transaction
from harness.gate import budget
from harness.gate.budget import (
    FIRST_FULL,
    MIN_ALPHA,
    false_pass_risk,
    spend_alpha,
    total_risk,
)
from harness.gate.policy import GatePolicy
from harness.gate.suite_plan import (
    SuitePin,
    SuitePlan,
)
from harness.proposals.registration.look_counts import count_looks
from harness.proposals.registration.route_risk import WINDOW, proposals_before
from harness.proposals.registration.suite_plans import RegisteredSuites
from harness.routing.table import Route


@dataclass(frozen=True, slots=True)
class SelectionPlace:
    """A candidate's place among candidates that are proposed together.

    selection: the selection's id; empty for a candidate alone.
    place: from 0. candidates: number of candidates, among which alpha is divided.
    """

    selection: str = ""
    place: int = 0
    candidates: int = 1
    most_alpha: float = 1.0  # maximum for each candidate


def charge_alpha(
    tx: Transaction,
    route: Route,
    gate: GatePolicy,
    registered: RegisteredSuites,
    candidate: str,
    lineage: Collection[str],
    place: SelectionPlace,
) -> tuple[SuitePlan, ...]:
    """Gives each plan the alpha of its look, divided among the selection and within the budget.

    Args:
        registered: pins and plans from `plan_suites`.
        candidate: its id.
        lineage: result of `find_lineage`.

    Raises NotAllowed if the policy's `alpha_budget` is spent.
    """
    charged = [
        budget.share_alpha(
            spend_look_alpha(tx, pin, plan, gate, candidate, lineage, route.name),
            place.candidates,
        )
        for pin, plan in registered
    ]
    charged = [replace(plan, alpha=min(plan.alpha, place.most_alpha)) for plan in charged]
    now = tx.now()
    return ration_alpha(tx, route.name, charged, gate, now, place.selection)


def spend_look_alpha(
    tx: Transaction,
    pin: SuitePin,
    plan: SuitePlan,
    gate: GatePolicy,
    candidate: str,
    lineage: Collection[str],
    route: str,
) -> SuitePlan:
    """Returns the plan with its look's number and the alpha that this look spends.

    A proposal on any route is a look once an answer of the candidate has a score, because a
    person may choose by seen scores. An open proposal is a look too, because it will have
    scores. So is a manual run of another target of the lineage. Only new items restart the
    number; a new name, version, prompt, scorer or spelling of the same items does not. Each
    draw from a route's traffic is a look at the same items, whatever it has drawn.

    Args:
        pin: the plan's suite.
        candidate: its id.
        lineage: result of `find_lineage`.

    Source: `budget.spend_alpha` (docs/explanation/statistics.md §1.8).
    """
    look = 1 + count_looks(tx, pin, candidate, lineage, route)[0]
    return replace(
        plan,
        alpha=spend_alpha(gate.alpha, look),
        look=look,
        spend=FIRST_FULL,
    )


def ration_alpha(
    tx: Transaction,
    route: str,
    plans: Sequence[SuitePlan],
    gate: GatePolicy,
    now: datetime,
    selection: str = "",
) -> tuple[SuitePlan, ...]:
    """Limits the plans' alpha to the rest of the policy's `alpha_budget`, which candidates that
    are proposed together share equally.

    Each selection gets at most half of the remaining budget, so that the budget lasts
    (`budget.ration_alpha`). Returns the plans unchanged for a policy without a budget.

    Args:
        selection: id of a selection whose own members do not count as spent; empty for none.

    Raises NotAllowed if too little is left.
    """
    if gate.alpha_budget is None:
        return tuple(plans)
    spent = total_risk(
        false_pass_risk(proposal.plans)
        for proposal in proposals_before(tx, route, now)
        if not selection or proposal.selection != selection
    )
    candidates = max((plan.candidates for plan in plans), default=1)
    candidates_risk = false_pass_risk(plans) * candidates
    max_alpha = budget.ration_alpha(candidates_risk, spent, gate.alpha_budget) / candidates
    if max_alpha < MIN_ALPHA:
        raise NotAllowed(
            f"route {route!r} has spent {format_percent(spent, significant=2)} of the "
            f"{format_percent(gate.alpha_budget, significant=2)} that its policy allows in "
            f"{WINDOW.days} days (alpha_budget): wait until its oldest proposals are older, or "
            "let an admin raise the budget"
        )
    return tuple(replace(plan, alpha=min(plan.alpha, max_alpha)) for plan in plans)
