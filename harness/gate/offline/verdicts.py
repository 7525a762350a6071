"""Decides a verdict on all suites from samples (`decide_verdict`), or again from a stored
verdict's inputs (`replay_verdict`): same inputs, same id, same bytes.

Suites of different roles are combined into one outcome (statistics.md §1.7).

| role | condition for a pass | shown worse | too little evidence |
|---|---|---|---|
| required | shown within the allowed loss, at the whole alpha | rejects | blocks |
| primary | the proposal's claim is shown | rejects | blocks |
| guard | no condition | rejects | does not block |

All conditions together are an intersection-union test (Berger 1982): no correction.
Several primary suites are one claim, which `harness.gate.offline.primary_suites` judges.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from harness.frame.formatting import add_seconds
from harness.frame.plain_data import digest
from harness.gate.offline.pairs import pair_samples
from harness.gate.offline.primary_suites import ClaimGroup, at_least_one, weighted_mean
from harness.gate.offline.replay import (
    claims_from_json,
    inputs_to_json,
    report_json,
    verdict_times,
)
from harness.gate.offline.suite_claims import SuiteClaim, judge_claim
from harness.gate.run import Sample
from harness.gate.suite_plan import PrimaryCombination, SuitePlan, SuiteRole
from harness.gate.text.sentences import NOT_SHOWN_WORSE
from harness.gate.verdict import VERDICTS, SuiteReport, Verdict

# The first outcome that a suite has wins; `passed` needs every suite that counts.
OUTCOME_PRECEDENCE: Final = (
    "failed", "running", "infra_error", "harness_mismatch", "inconclusive", "passed",
)  # fmt: skip
GUARD_NOT_WORSE: Final = "A guard suite passes because the candidate is not shown to be worse."


@dataclass(frozen=True, slots=True)
class JointJudgement:
    outcome: str
    reason: str
    reports: tuple[SuiteReport, ...]  # in the order of the cases, then the weighted mean's
    consumed: tuple[int, ...]  # by case


def judge_suites(cases: Sequence[SuiteClaim]) -> JointJudgement:
    """Returns the outcome on all suites; `running` while it is open."""
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
    """Groups the suites: each suite alone, then the primary suites that share a claim."""
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
    """Tells whether a guard used all its items and decided nothing. A run that ended early
    proves nothing.
    """
    return report.outcome == "inconclusive" and report.n_used >= report.n_max


def _reason(
    outcome: str, deciding: Sequence[SuiteReport], reports: Sequence[SuiteReport]
) -> str:
    """Returns the deciding suite's sentence; after a pass, the last (primary) suite's."""
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


Samples = Sequence[Sample]


@dataclass(frozen=True, slots=True)
class _Question:
    route: str
    incumbent: str
    candidate: str


def decide_verdict(  # noqa: PLR0913 - all inputs of one decision
    route: str,
    incumbent: str,
    candidate: str,
    plans: Sequence[SuitePlan],
    samples_by_suite: Mapping[str, tuple[Samples, Samples]],
    now: datetime,
    ttl_s: float,
    *,
    stopped: Mapping[str, tuple[str, str]] | None = None,
) -> Verdict | None:
    """Decides on all suites together; returns None while it is open (statistics.md §1.7).

    samples_by_suite: samples of incumbent and candidate; a missing suite has no samples yet.
    ttl_s: how long the verdict is valid. stopped: for suites whose runs have ended, the outcome
    of a suite that is still open (`infra_error` or `inconclusive`), and why.
    Raises StaleEvidence if the two sides of a suite do not match.
    """
    cases = []
    for plan in sorted(plans, key=lambda plan: plan.role is SuiteRole.PRIMARY):
        ours, theirs = samples_by_suite.get(plan.suite, ((), ()))
        halted = (stopped or {}).get(plan.suite)
        cases.append(SuiteClaim(plan, pair_samples(plan, ours, theirs), halted))
    decided_at = now.astimezone(UTC)
    expires_at = add_seconds(decided_at, ttl_s)
    return _decide(_Question(route, incumbent, candidate), cases, decided_at, expires_at)


def replay_verdict(stored: Verdict) -> Verdict:
    """Decides again from the stored inputs alone: same id, same bytes unless tampered with.

    Raises ValueError if the inputs do not decide.
    """
    again = decide_from_claims(stored, claims_from_json(stored.inputs))
    if again is None:
        raise ValueError(f"the inputs of verdict {stored.id} do not decide")
    return again


def decide_from_claims(stored: Verdict, cases: Sequence[SuiteClaim]) -> Verdict | None:
    """Decides the stored verdict's question from `cases`; None while it is open."""
    question = _Question(stored.route, stored.incumbent, stored.candidate)
    return _decide(question, cases, *verdict_times(stored.inputs))


def _decide(
    question: _Question,
    cases: Sequence[SuiteClaim],
    decided_at: datetime,
    expires_at: datetime,
) -> Verdict | None:
    judgement = judge_suites(cases)
    outcome, reports = judgement.outcome, judgement.reports
    if outcome == "running":
        return None
    used = [case.first(units) for case, units in zip(cases, judgement.consumed, strict=True)]
    inputs = inputs_to_json(used, decided_at, expires_at)
    reason = judgement.reason
    body = [
        question.route,
        question.incumbent,
        question.candidate,
        outcome,
        reason,
        [report_json(report) for report in reports],
        inputs,
    ]
    return VERDICTS[outcome](
        id=f"v_{digest(body)[:24]}",
        route=question.route,
        incumbent=question.incumbent,
        candidate=question.candidate,
        reason=reason,
        suites=reports,
        inputs=inputs,
        decided_at=decided_at,
        expires_at=expires_at,
    )
