"""A verdict on all suites is decided from samples (`decide_verdict`), or decided again from a
stored verdict's inputs (`replay_verdict`): same inputs, same id, same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from harness.domain.content_hash import digest
from harness.domain.evals.run import Sample
from harness.domain.evals.suite_plan import SuitePlan, SuiteRole
from harness.domain.evals.verdict import VERDICTS, Verdict
from harness.domain.safe_time import add_seconds
from harness.gate.offline.joint_judgement import judge_suites
from harness.gate.offline.pairs import pair_samples
from harness.gate.offline.replay import (
    claims_from_json,
    inputs_to_json,
    report_json,
    verdict_times,
)
from harness.gate.offline.suite_claims import SuiteClaim
from harness.gate.offline.suite_judgement import end_pool, judge_suite

__all__ = ["decide_from_claims", "decide_verdict", "judge_suite", "replay_verdict"]

Samples = Sequence[Sample]


@dataclass(frozen=True, slots=True)
class _Question:
    route: str
    incumbent: str
    candidate: str


def decide_verdict(  # noqa: PLR0913 - one question, asked whole
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
    """The verdict on all suites together, None while it is open (statistics.md §1.7).

    samples_by_suite: incumbent's and candidate's, by suite; a suite not in it has none yet.
    ttl_s: how long it is proof. stopped: by suite whose runs bring no more samples, the
    outcome that it has if it is still open (`infra_error` or `inconclusive`), and why.
    Raises StaleEvidence when the two sides of a suite do not fit each other.
    """
    cases = []
    for plan in sorted(plans, key=lambda plan: plan.role is SuiteRole.PRIMARY):
        ours, theirs = samples_by_suite.get(plan.suite, ((), ()))
        halted = (stopped or {}).get(plan.suite)
        cases.append(
            SuiteClaim(plan, end_pool(pair_samples(plan, ours, theirs), halted), halted)
        )
    decided_at = now.astimezone(UTC)
    expires_at = add_seconds(decided_at, ttl_s)
    return _decide(_Question(route, incumbent, candidate), cases, decided_at, expires_at)


def replay_verdict(stored: Verdict) -> Verdict:
    """Decide again from the stored inputs alone: same id, same bytes, or it was tampered with.

    Raises ValueError when the inputs do not decide anything.
    """
    again = decide_from_claims(stored, claims_from_json(stored.inputs))
    if again is None:
        raise ValueError(f"the inputs of verdict {stored.id} do not decide")
    return again


def decide_from_claims(stored: Verdict, cases: Sequence[SuiteClaim]) -> Verdict | None:
    """What `cases` say about the stored verdict's question; None while open."""
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
