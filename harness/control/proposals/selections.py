"""Selections are candidates that were proposed together: `rank_passed` finds the best of those
that passed once the gate has decided on all, and `load_selection` shows them side by side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import MappingProxyType

from harness.control.context import Context
from harness.control.proposals.comparison import ArmFigures, compute_arm_figures, is_large
from harness.domain.errors import ProofRefused
from harness.domain.evals.run import AnswerColumns, Sample
from harness.domain.evals.suite_plan import SuiteRole
from harness.domain.evals.verdict import Passed, SuiteReport, Verdict
from harness.domain.formatting import format_points, format_points_interval
from harness.domain.proposals.proposal import Proposal, ProposalView
from harness.domain.proposals.selection import (
    Finalist,
    is_decided,
    primary_difference,
    rank_finalists,
)
from harness.domain.routing.target import Target
from harness.gate.text.sentences import is_unscored
from harness.ports import Transaction


@dataclass(frozen=True)
class SelectionCandidate:
    """One candidate of a selection, with what was measured of it so far."""

    proposal: ProposalView
    target: Target
    verdict: Verdict | None  # None while the gate is open
    figures: ArmFigures
    answered: int  # samples so far, of `planned`
    planned: int

    @property
    def standing(self) -> str:
        """Says in words what the gate has decided."""
        return self.verdict.words if self.verdict else "none yet"

    def describe_differences(self, titles: Mapping[str, str] = MappingProxyType({})) -> str:
        """Writes the difference in points on each suite with its interval, the primary first:
        `tickets +2.0 (+0.4 to +3.6); extraction −0.1 (−1.0 to +0.8)`. A suite alone goes
        unnamed.

        titles: of the suites, by name.
        """
        suites = self.verdict.suites if self.verdict else ()
        reports = sorted(suites, key=lambda report: report.role is not SuiteRole.PRIMARY)
        differences = [
            (report.suite, f"{format_points(report.delta)} ({_interval(report)})")
            for report in reports
            if report.n_used and not is_unscored(report)
        ]
        if len(suites) == 1:
            return "".join(text for _, text in differences)
        return "; ".join(f"{titles.get(suite, suite)} {text}" for suite, text in differences)


def _interval(report: SuiteReport) -> str:
    return format_points_interval(report.ci_low, report.ci_high)


@dataclass(frozen=True)
class SelectionComparison:
    """The candidates that were proposed together, beside the one incumbent."""

    selection: str
    route: str
    incumbent: Target
    incumbent_figures: ArmFigures
    candidates: Sequence[SelectionCandidate]  # in the order in which they were named


def rank_passed(
    tx: Transaction, members: Sequence[Proposal]
) -> list[tuple[Proposal, Finalist]]:
    """Ranks those of a selection that passed, the best first; empty while the gate has not
    decided on all.
    """
    if not is_decided(members):
        return []
    waiting = {member.id: member for member in members if member.waits_for_rivals}
    ranked = rank_finalists([_finalist(tx, member) for member in waiting.values()])
    return [(waiting[finalist.proposal], finalist) for finalist in ranked]


def _finalist(tx: Transaction, proposal: Proposal) -> Finalist:
    verdict = tx.verdicts.get(proposal.verdict or "")
    if not isinstance(verdict, Passed):
        raise ProofRefused(f"{proposal.id}: verdict {verdict.id} is {verdict.outcome}")
    weights = {plan.suite: plan.weight for plan in proposal.plans}
    costs = [sample.cost_usd for sample in _samples(tx, proposal, "candidate")]
    known = [cost for cost in costs if cost is not None]
    return Finalist(
        proposal=proposal.id,
        claim=proposal.claim,
        delta=primary_difference(verdict, weights),
        cost_usd=fmean(known) if known and len(known) == len(costs) else None,
    )


def _samples(tx: Transaction, proposal: Proposal, arm: str) -> list[Sample]:
    return [
        sample
        for plan in proposal.plans
        if plan.suite in proposal.runs
        for sample in tx.runs.outcomes(
            getattr(proposal.runs[plan.suite], arm), below=plan.planned_items
        )
    ]


def _answers(tx: Transaction, proposal: Proposal, arm: str) -> AnswerColumns:
    """The figures of one arm's answers, checked where there are not too many of them."""
    if not is_large(proposal):
        return AnswerColumns.from_samples(_samples(tx, proposal, arm))
    return AnswerColumns.join(
        tx.runs.figures(getattr(proposal.runs[plan.suite], arm), below=plan.planned_items)
        for plan in proposal.plans
        if plan.suite in proposal.runs
    )


def load_selection(ctx: Context, proposal: str) -> SelectionComparison:
    """Loads the candidates that were proposed together with a proposal, and itself. Raises
    NotFound.
    """
    with ctx.store.read() as tx:
        asked = tx.proposals.get(proposal)
        members = tx.proposals.of_selection(asked.selection) if asked.selection else [asked]
        targets = tx.routing.targets()
        first = members[0]
        longest = max((_answers(tx, member, "incumbent") for member in members), key=len)
        return SelectionComparison(
            selection=first.selection,
            route=first.route,
            incumbent=targets[first.incumbent],
            incumbent_figures=compute_arm_figures(longest),
            candidates=[
                _candidate(tx, member, targets[member.candidate]) for member in members
            ],
        )


def _candidate(tx: Transaction, proposal: Proposal, target: Target) -> SelectionCandidate:
    answers = _answers(tx, proposal, "candidate")
    return SelectionCandidate(
        proposal=ProposalView.from_proposal(proposal, tx.routing.route),
        target=target,
        verdict=tx.verdicts.get(proposal.verdict) if proposal.verdict else None,
        figures=compute_arm_figures(answers),
        answered=len(answers),
        planned=sum(plan.planned_items * plan.epochs for plan in proposal.plans),
    )
