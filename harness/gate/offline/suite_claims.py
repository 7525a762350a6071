"""Judges a suite's whole claim: its scores and, where the claim says so, its costs."""

from dataclasses import dataclass, replace
from typing import Final

from harness.gate.offline.costs import judge_costs
from harness.gate.offline.pairs import PairedSuite
from harness.gate.offline.slices import merge_clusters
from harness.gate.offline.suite_judgement import StoppedRun, SuiteJudgement, judge_pairs
from harness.gate.suite_plan import Claim, SuitePlan
from harness.gate.text.sentences import cost_reason
from harness.gate.verdict import CostFigures, CostOutcome, SuiteReport

# Costs can only add a condition to a pass; a decision of the scores against stays.
COST_RELEVANT_OUTCOMES: Final = ("passed", "running")


@dataclass(frozen=True, slots=True)
class SuiteClaim:
    """One suite's registration and its measurements."""

    plan: SuitePlan
    paired: PairedSuite
    stopped: StoppedRun | None = None

    def first(self, units: int) -> "SuiteClaim":
        """Returns the claim on its first units, without any later item or stop."""
        items = self.plan.items_in(units)
        if items >= len(self.paired.items):
            return self
        cut = replace(self.paired, items=self.paired.items[:items], blocked="")
        return SuiteClaim(self.plan, cut)


def judge_claim(case: SuiteClaim) -> SuiteJudgement:
    """Judges everything that the plan claims about this suite.

    CHEAPER is an intersection-union test (Berger 1982): the candidate must show quality and
    cost, each at the whole alpha. The first refutation, in the items' order, decides.
    """
    scores = judge_pairs(case.plan, case.paired, stopped=case.stopped)
    if case.plan.claim is not Claim.CHEAPER:
        return scores
    costs = _costs(case, case.plan.n_max)
    if costs.against and costs.n_used <= scores.consumed:
        # Take the scores as of that item; later items do not count.
        upto = case.plan.items_in(costs.n_used)
        at = replace(case.paired, items=case.paired.items[:upto], blocked="")
        scores = judge_pairs(case.plan, at)
    if scores.report.outcome not in COST_RELEVANT_OUTCOMES:
        costs = _costs(case, scores.consumed)
        return SuiteJudgement(_with_costs(scores.report, costs), scores.consumed)
    report = _with_costs(scores.report, costs)
    outcome = _outcome(case, report.outcome, costs)
    cost_text = cost_reason(costs, case.plan)
    reason = cost_text if costs.against else f"{report.reason} {cost_text}"
    used = max(scores.consumed, costs.n_used)
    return SuiteJudgement(replace(report, outcome=outcome, reason=reason), used)


def _costs(case: SuiteClaim, units: int) -> CostFigures:
    measured = merge_clusters(case.plan, case.paired.items)[:units]
    return judge_costs([unit.costs for unit in measured], case.plan)


def _with_costs(report: SuiteReport, costs: CostFigures) -> SuiteReport:
    return replace(report, details=replace(report.figures, cost=costs).as_json())


def _outcome(case: SuiteClaim, scores: str, costs: CostFigures) -> str:
    if costs.outcome is CostOutcome.REFUTED:
        return "failed"
    if costs.outcome is CostOutcome.UNSHOWABLE:
        return "inconclusive"
    if costs.outcome is CostOutcome.SHOWN or scores == "running":
        return scores
    if costs.n_used >= case.plan.n_max:
        return "inconclusive"
    if case.stopped is not None:
        return case.stopped[0]
    return "infra_error" if case.paired.blocked else "running"
