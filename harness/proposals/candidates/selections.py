"""A selection is a set of candidates proposed together; the best that passes continues."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import fmean

from harness.frame.errors import ProofRefused
from harness.frame.formatting import format_points, format_usd
from harness.frame.records.transaction import Transaction
from harness.gate.suite_plan import Claim, SuiteRole
from harness.gate.verdict import Passed, Verdict
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts

UNDECIDED = (ProposalPhase.PROPOSED, ProposalPhase.EVALUATING)
ENDED_AT_GATE = (ProposalPhase.REJECTED, ProposalPhase.CANCELLED)


@dataclass(frozen=True, slots=True)
class Finalist:
    proposal: Proposal
    delta: float  # candidate minus incumbent, a share of 1
    cost_usd: float | None  # of one answer; None if a price is unknown

    @property
    def text(self) -> str:
        if self.proposal.claim is Claim.CHEAPER and self.cost_usd is not None:
            return f"{format_usd(self.cost_usd * 1000)} for 1,000 answers"
        return f"{format_points(self.delta)} points"

    @property
    def rank(self) -> tuple[float, float, str]:
        """Orders passed candidates by difference, then cost, then id. For the claim
        `cheaper_and_not_worse` cost comes first.
        """
        cost = math.inf if self.cost_usd is None else self.cost_usd
        first, second = -self.delta, cost
        if self.proposal.claim is Claim.CHEAPER:
            first, second = second, first
        return first, second, self.proposal.id


def primary_difference(verdict: Verdict, weights: Mapping[str, float]) -> float:
    primary = [report for report in verdict.suites if report.role is SuiteRole.PRIMARY]
    whole = [report for report in primary if report.suite not in weights]
    if whole:  # the gate's own weighted mean, over items that all suites have
        return whole[0].delta
    deltas = [report.delta for report in primary]
    return fmean(deltas, [weights[report.suite] for report in primary])


def find_fault(members: Sequence[Proposal]) -> str:
    """Explains why no member of a selection may continue; empty if all is as registered.

    The members' alphas add up to one candidate's alpha only if the number of members is the
    registered number.
    """
    registered = {plan.candidates for member in members for plan in member.plans}
    if registered != {len(members)}:
        numbers = ", ".join(map(str, sorted(registered)))
        return f"the selection has {len(members)} candidates, but {numbers} were registered"
    if [member.place for member in members] != list(range(len(members))):
        return "the selection's candidates differ from the registered candidates"
    if len({(member.route, member.incumbent) for member in members}) > 1:
        return "the selection's candidates are not for the same swap"
    continued = [m.id for m in members if m.phase not in (*UNDECIDED, *ENDED_AT_GATE)]
    if continued:
        return f"{continued[0]} of the same selection has continued already"
    return ""


def rank_passed(tx: Transaction, members: Sequence[Proposal]) -> list[Finalist]:
    """Ranks passed members, best first; empty while the gate has not decided on all members."""
    if any(member.phase in UNDECIDED and not member.waits_for_rivals for member in members):
        return []
    waiting = [member for member in members if member.waits_for_rivals]
    return sorted((_finalist(tx, member) for member in waiting), key=attrgetter("rank"))


def _finalist(tx: Transaction, proposal: Proposal) -> Finalist:
    verdict = Verdicts(tx).get(proposal.verdict or "")
    if not isinstance(verdict, Passed):
        raise ProofRefused(f"{proposal.id}: verdict {verdict.id} is {verdict.outcome}")
    weights = {plan.suite: plan.weight for plan in proposal.plans}
    costs = [
        sample.cost_usd
        for plan in proposal.plans
        for sample in EvalRuns(tx).outcomes(
            proposal.runs[plan.suite].candidate, below=plan.planned_items
        )
    ]
    known = [cost for cost in costs if cost is not None]
    return Finalist(
        proposal=proposal,
        delta=primary_difference(verdict, weights),
        cost_usd=fmean(known) if known and len(known) == len(costs) else None,
    )
