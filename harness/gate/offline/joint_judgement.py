"""Suites of different roles are combined into one outcome (statistics.md §1.7).

| role | has to be | shown worse | too little evidence |
|---|---|---|---|
| required | shown within the allowed loss, at the whole alpha | rejects | blocks |
| primary | shown what the proposal claims | rejects | blocks |
| guard | nothing | rejects | does not block |

All that has to be shown is an intersection-union (Berger 1982): no correction. Several primary
suites are one claim, which `harness.gate.offline.primary_suites` judges.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.domain.evals.suite_plan import PrimaryCombination, SuiteRole
from harness.domain.evals.verdict import SuiteReport
from harness.gate.offline.primary_suites import ClaimGroup, at_least_one, weighted_mean
from harness.gate.offline.suite_claims import SuiteClaim, judge_claim
from harness.gate.text.sentences import NOT_SHOWN_WORSE

# The worst word wins; `passed` needs every suite that counts.
OUTCOME_PRECEDENCE: Final = (
    "failed", "running", "infra_error", "harness_mismatch", "inconclusive", "passed",
)  # fmt: skip
GUARD_NOT_WORSE: Final = "A guard: it is not shown to be worse, and that is all it asks."


@dataclass(frozen=True, slots=True)
class JointJudgement:
    """Holds the outcome on all suites of a proposal together."""

    outcome: str
    reason: str
    reports: tuple[SuiteReport, ...]  # in the order of the cases, then the weighted mean's
    consumed: tuple[int, ...]  # by case


def judge_suites(cases: Sequence[SuiteClaim]) -> JointJudgement:
    """The outcome on all suites; `running` while it is open."""
    groups = _groups(cases)
    votes = [vote for group in groups for vote in group.votes]
    outcome = next((word for word in OUTCOME_PRECEDENCE if word in dict(votes)), "running")
    deciding = [report for vote, report in votes if vote == outcome]
    by_suite = {suite: member for group in groups for suite, member in group.members.items()}
    ordered = [by_suite[case.plan.suite] for case in cases]
    reports = (*(claim.report for claim in ordered), *(g.whole for g in groups if g.whole))
    return JointJudgement(
        outcome=outcome,
        reason=_reason(outcome, deciding, reports),
        reports=reports,
        consumed=tuple(judgement.consumed for judgement in ordered),
    )


def _groups(cases: Sequence[SuiteClaim]) -> Sequence[ClaimGroup]:
    """Groups the suites: each alone, and the primary ones that share a claim together, last."""
    alone = [_alone(case) for case in cases if case.plan.combine is None]
    weighted = [case for case in cases if case.plan.combine is PrimaryCombination.WEIGHTED]
    any_of = [case for case in cases if case.plan.combine is PrimaryCombination.ANY]
    if weighted:
        alone.append(weighted_mean(weighted))
    if any_of:
        alone.append(at_least_one(any_of))
    return alone


def _alone(case: SuiteClaim) -> ClaimGroup:
    judgement = judge_claim(case)
    report = judgement.report
    if case.plan.role is SuiteRole.GUARD and _silent(report):
        report = replace(report, reason=f"{report.reason} {GUARD_NOT_WORSE}")
        judgement = replace(judgement, report=report)
        return ClaimGroup(votes=(("passed", report),), members={case.plan.suite: judgement})
    return ClaimGroup(votes=((report.outcome, report),), members={case.plan.suite: judgement})


def _silent(report: SuiteReport) -> bool:
    """A guard that used all its items; a guard whose run ended early proves nothing."""
    return report.outcome == "inconclusive" and report.n_used >= report.n_max


def _reason(
    outcome: str, deciding: Sequence[SuiteReport], reports: Sequence[SuiteReport]
) -> str:
    """The deciding suite's sentence. With all passed that is the primary one, judged last."""
    if not deciding:
        return ""
    report = deciding[-1] if outcome == "passed" else deciding[0]
    if len(reports) == 1:
        return report.reason
    if outcome == "passed" and all(report.outcome == "passed" for report in reports):
        return f"All {len(reports)} suites passed. {report.suite}: {report.reason}"
    guards = [report.suite for report in reports if report.reason.endswith(GUARD_NOT_WORSE)]
    more = f"{NOT_SHOWN_WORSE}{', '.join(guards)}." if guards else ""
    return f"{report.suite}: {report.reason}" + (more if outcome == "passed" else "")
