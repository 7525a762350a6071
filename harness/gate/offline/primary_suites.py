"""Judges several primary suites as one claim: their weighted mean, or Holm's rule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum
from operator import mul
from typing import Final

from harness.frame.plain_data import digest
from harness.gate.offline.design import REJECT_LOG_E, spent_alpha
from harness.gate.offline.pairs import PairedItem, PairedSuite
from harness.gate.offline.slices import merge_clusters, merge_items, promotion_waits_for
from harness.gate.offline.suite_claims import SuiteClaim, judge_claim
from harness.gate.offline.suite_judgement import (
    StoppedRun,
    SuiteJudgement,
    judge_pairs,
    waiting_report,
)
from harness.gate.planning.budget import holm_test
from harness.gate.suite_plan import SuitePlan
from harness.gate.verdict import HolmFigures, SuiteReport

# The blank keeps this name apart from the names of real suites.
WEIGHTED_MEAN: Final = "weighted mean"


@dataclass(frozen=True, slots=True)
class ClaimGroup:
    votes: tuple[tuple[str, SuiteReport], ...]  # (outcome that counts, its report)
    members: Mapping[str, SuiteJudgement]  # by suite
    whole: SuiteReport | None = None  # the report on the joint claim


def weighted_mean(cases: Sequence[SuiteClaim]) -> ClaimGroup:
    """Judges the claim on composite items, each made of one item of each suite.

    Score and cost of a composite item are weighted means of its parts, so the gate judges it
    like any other item, with the same error. Each suite is still a guard: a suite that is
    itself shown worse before the mean is decided decides the claim.
    """
    whole = _composite(cases)
    judged = judge_claim(whole)
    decided = judged.report.outcome != "running"
    upto = judged.consumed if decided else len(whole.paired.items)
    ready = max(promotion_waits_for(case.plan) for case in cases)
    if judged.report.outcome == "passed" and upto < ready:
        # A slice without its first look blocks a promotion, also in a part of the mean.
        upto = min(ready, len(whole.paired.items))
        if upto < ready:
            report = waiting_report(whole.paired, judged.report, whole.stopped)
            judged, decided = replace(judged, report=report), report.outcome != "running"
    votes, members = [(judged.report.outcome, judged.report)], {}
    for case in cases:
        judgement, counts = _member(case, upto, decided=decided)
        members[case.plan.suite] = judgement
        if counts:
            votes.insert(0, (judgement.report.outcome, judgement.report))
    return ClaimGroup(tuple(votes), members, judged.report)


def at_least_one(cases: Sequence[SuiteClaim]) -> ClaimGroup:
    """Judges whether one or more of the suites show superiority, each at its own n_max. Source:
    Holm 1979.

    A suite that is not measured to its end has p = 1. A worse suite still rejects.
    """
    judgements = [judge_pairs(case.plan, case.paired, stopped=case.stopped) for case in cases]
    alpha = spent_alpha(min(case.plan.alpha for case in cases))
    p_values = [_p(judgement.report) for judgement in judgements]
    shown = holm_test(p_values, alpha)
    ranks = _ranks(p_values)
    members = {
        case.plan.suite: replace(
            judgement,
            report=_adjusted(judgement.report, p, rank, alpha / (len(cases) - rank), ok=ok),
        )
        for case, judgement, p, rank, ok in zip(
            cases, judgements, p_values, ranks, shown, strict=True
        )
    }
    reports = [member.report for member in members.values()]
    settled = [
        r
        for r in reports
        if _rejected(r) or r.outcome in BLOCKING_OUTCOMES or r.figures.worse_slices
    ]
    passed = [r for r in reports if r.outcome == "passed"]
    # The strongest comes last, because the verdict names the last report.
    passed.sort(key=lambda report: -_p(report))
    counted = settled or passed or reports
    return ClaimGroup(tuple((r.outcome, r) for r in counted), members)


def _rejected(report: SuiteReport) -> bool:
    """Tells whether the scores were rejected, even if the report still waits for leniency."""
    over = report.how is not None and report.outcome != "passed"
    return over and report.log_e_bad >= REJECT_LOG_E


BLOCKING_OUTCOMES: Final = ("failed", "running", "infra_error")


def _composite(cases: Sequence[SuiteClaim]) -> SuiteClaim:
    plans = [case.plan for case in cases]
    weights = weight_shares(plans)
    units = [merge_clusters(case.plan, case.paired.items) for case in cases]
    length = min(map(len, units))
    rows = zip(*(measured[:length] for measured in units), strict=True)
    items = tuple(_item(n, row, weights) for n, row in enumerate(rows, start=1))
    # The suite with the fewest items explains why the verdict ended.
    ended = [
        case for case, measured in zip(cases, units, strict=True) if len(measured) == length
    ]
    blocked = next((case.paired.blocked for case in ended if case.paired.blocked), "")
    plan = replace(
        plans[0],
        suite=WEIGHTED_MEAN,
        suite_digest=digest([plan.suite_digest for plan in plans]),
        alpha=min(plan.alpha for plan in plans),
        n_max=min(plan.n_max for plan in plans),
        look=max(plan.look for plan in plans),
        combine=None,
        weight=1.0,
        cluster="",
        cluster_sizes=(),
        slices=(),
    )
    return SuiteClaim(plan, PairedSuite(items, "", "", blocked), _stopped(ended))


def weight_shares(plans: Sequence[SuitePlan]) -> tuple[float, ...]:
    total = fsum(plan.weight for plan in plans)
    return tuple(plan.weight / total for plan in plans)


def _stopped(ended: Sequence[SuiteClaim]) -> StoppedRun | None:
    found = [case.stopped for case in ended if case.stopped]
    # "Not measured" before "not enough".
    return min(found, key=lambda result: result[0] != "infra_error") if found else None


def _item(number: int, parts: Sequence[PairedItem], weights: Sequence[float]) -> PairedItem:
    whole = merge_items(parts, lambda values: fsum(map(mul, weights, values)))
    return replace(whole, pair=replace(whole.pair, item=f"{number}"))


def _member(case: SuiteClaim, upto: int, *, decided: bool) -> tuple[SuiteJudgement, bool]:
    """Judges one suite, and tells whether it counts: only if it is shown worse."""
    first = case.first(upto)
    early = judge_pairs(case.plan, first.paired, stopped=first.stopped)
    if early.report.figures.worse_slices:
        return replace(early, consumed=max(early.consumed, upto)), True
    if _rejected(early.report):
        # Later items may show whether the candidate lost by form or by substance.
        judgement = judge_pairs(case.plan, case.paired, stopped=case.stopped)
        return replace(judgement, consumed=max(judgement.consumed, upto)), True
    report = early.report
    if decided and report.outcome in ("running", "infra_error"):
        report = replace(
            report, outcome="inconclusive", reason="This suite alone decides nothing."
        )
    reason = (
        f"{report.reason} It counts in the weighted mean, with weight {case.plan.weight:g}."
    )
    return SuiteJudgement(replace(report, reason=reason), upto), False


def _p(report: SuiteReport) -> float:
    p = report.p_final
    return p if p is not None and report.n_used >= report.n_max else 1.0


def _ranks(p_values: Sequence[float]) -> list[int]:
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    return [order.index(index) for index in range(len(p_values))]


def _adjusted(
    report: SuiteReport, p: float, rank: int, limit: float, *, ok: bool
) -> SuiteReport:
    holm = HolmFigures(p, rank + 1, limit)
    details = replace(report.figures, holm=holm).as_json()
    rule_text = f"By Holm's rule p = {p:.2g}; the limit is {limit:.2g}."
    if report.outcome not in ("passed", "inconclusive"):
        return replace(report, details=details)
    outcome = "passed" if ok else "inconclusive"
    reason = report.reason
    if report.outcome == "passed" and not ok:
        reason = "Better by itself, but not after the correction for the other suites."
    return replace(report, outcome=outcome, reason=f"{reason} {rule_text}", details=details)
