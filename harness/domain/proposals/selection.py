"""A selection is the candidates that were proposed together for one swap: `find_fault` says
where it is not as it was registered, `rank_finalists` which of those that passed is the best.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.domain.evals.suite_plan import Claim, SuiteRole
from harness.domain.evals.verdict import SuiteReport, Verdict
from harness.domain.formatting import format_points, format_usd
from harness.domain.proposals.proposal import Proposal, ProposalPhase

UNDECIDED = (ProposalPhase.PROPOSED, ProposalPhase.EVALUATING)
ENDED_AT_GATE = (ProposalPhase.REJECTED, ProposalPhase.CANCELLED)


@dataclass(frozen=True, slots=True)
class Finalist:
    """A candidate that passed, by what it is ranked."""

    proposal: str
    claim: Claim
    delta: float  # candidate minus incumbent, a share of 1
    cost_usd: float | None  # of one answer, None where a price is unknown

    @property
    def text(self) -> str:
        """Says by which figure it is ranked first."""
        if self.claim is Claim.CHEAPER and self.cost_usd is not None:
            return f"{format_usd(self.cost_usd * 1000)} for 1,000 answers"
        return f"{format_points(self.delta)} points"


def rank_finalists(finalists: Sequence[Finalist]) -> list[Finalist]:
    """Sorts those that passed, the best first: by the larger difference, then the lower cost,
    then the id. Of the claim `cheaper_and_not_worse` the cost comes first.
    """

    def rank(finalist: Finalist) -> tuple[float, float, str]:
        cost = math.inf if finalist.cost_usd is None else finalist.cost_usd
        first, second = -finalist.delta, cost
        if finalist.claim is Claim.CHEAPER:
            first, second = second, first
        return first, second, finalist.proposal

    return sorted(finalists, key=rank)


def primary_difference(verdict: Verdict, weights: Mapping[str, float]) -> float:
    """Computes the mean difference on the primary suites, by their weights on the route."""
    primary = [report for report in verdict.suites if report.role is SuiteRole.PRIMARY]
    whole = [report for report in primary if report.suite not in weights]
    if whole:  # the gate's own weighted mean, over items that all suites have
        return whole[0].delta
    total = math.fsum(weights[report.suite] for report in primary)
    return math.fsum(_weighted(report, weights) for report in primary) / total


def _weighted(report: SuiteReport, weights: Mapping[str, float]) -> float:
    return weights[report.suite] * report.delta


def is_decided(members: Sequence[Proposal]) -> bool:
    """Tells whether the gate has decided on every one of them."""
    return all(member.phase not in UNDECIDED or member.waits_for_rivals for member in members)


def find_fault(members: Sequence[Proposal]) -> str:
    """Says why none of a selection may go on; empty where it is as it was registered.

    Their alphas add up to one candidate's only while there are as many as each was told.
    """
    told = {plan.candidates for member in members for plan in member.plans}
    if told != {len(members)}:
        numbers = ", ".join(map(str, sorted(told)))
        return f"the selection has {len(members)} candidates, and was registered for {numbers}"
    if [member.place for member in members] != list(range(len(members))):
        return "the selection's candidates are not those that were registered together"
    if len({(member.route, member.incumbent) for member in members}) > 1:
        return "the selection's candidates are not for the same swap"
    gone_on = [m.id for m in members if m.phase not in (*UNDECIDED, *ENDED_AT_GATE)]
    if gone_on:
        return f"{gone_on[0]} of the same selection has gone on already"
    return ""
