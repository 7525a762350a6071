"""Judges one suite's paired scores, and reports the result. A loss counts only if the lenient
scores show it too (else `harness_mismatch`). Missing scores never decide: the gate counts them
once against and once for the candidate, and both outcomes must agree (else `infra_error`).

Costs and groups of suites are judged in `harness.gate.offline.suite_claims`; the test itself is
in `harness.gate.offline.sequential`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import fsum
from statistics import fmean

from harness.frame.formatting import format_points
from harness.gate.arrays import np
from harness.gate.offline.design import FUTILE, Design, LostMargin, design_from_plan
from harness.gate.offline.intervals import mcnemar
from harness.gate.offline.item_tests import AnswerNoise
from harness.gate.offline.pairs import (
    PairedItem,
    PairedSuite,
    score_difference,
)
from harness.gate.offline.sequential import (
    ComparisonEvidence,
    build_evidence,
    evidence_path,
    judge_differences,
)
from harness.gate.offline.slices import (
    SliceJudgement,
    join_reasons,
    judge_slices,
    measured_units,
    merge_clusters,
    promotion_waits_for,
)
from harness.gate.run import NO_LABEL
from harness.gate.sentences import (
    comparison_reason,
    describe_history,
    further_items,
    item_mean_text,
    missing_text,
    outcome_text,
    slices_reason,
    slices_wait_reason,
)
from harness.gate.suite_plan import ORDERS_DISAGREE, Claim, SuitePlan, SuiteRole
from harness.gate.verdict import LenientFigures, SuiteFigures, SuiteReport

SUITE_OUTCOMES = {
    "promote": "passed",
    "reject": "failed",
    "inconclusive": "inconclusive",
    "running": "running",
}
MAX_EXAMPLES = 5
# (outcome, reason) of a suite whose runs have stopped. The outcome is never "passed".
StoppedRun = tuple[str, str]
STOPPED_OUTCOMES = ("infra_error", "inconclusive")
# People see such close graded scores as a tie; the verdict's wins and losses use the sign.
TIE_BAND = 0.01
# Figures that people see, from complete items only.
SHOWN_FIGURES = ("delta", "ci_low", "ci_high", "ci_method", "wins", "ties", "losses")
MEASURED_FIGURES = (*SHOWN_FIGURES, "sd")
REPORTED_FIGURES = (*SHOWN_FIGURES, "how", "n_used", "log_e_bad", "p_final")


@dataclass(frozen=True, slots=True)
class SuiteJudgement:
    """A suite's report. `consumed`: the units behind its outcome; later units do not count."""

    report: SuiteReport
    consumed: int


@dataclass(frozen=True, slots=True)
class _Readings:
    strict: ComparisonEvidence
    lenient: ComparisonEvidence | None = None  # None if it cannot change the outcome

    @property
    def consumed(self) -> int:
        """Counts the units behind the outcome; a rejection may wait for the lenient scores."""
        used = self.strict.n_used
        if self.lenient and (self.strict.outcome == "reject" or self.strict.how == FUTILE):
            return max(used, self.lenient.n_used)
        return used


def judge_pairs(
    plan: SuitePlan,
    paired: PairedSuite,
    *,
    stopped: StoppedRun | None = None,
) -> SuiteJudgement:
    """Judges a suite as `_judge_pairs`. For a suite of traffic, the reason begins with the
    judge, and the estimate that is weighted by requests must agree (statistics.md §1.22).
    """
    if not plan.judged_by:
        return _judge_pairs(plan, paired, stopped)
    paired = _count_contrary_pairs(plan, paired)
    return judge_traffic(plan, paired, _judge_pairs(plan, paired, stopped))


def _count_contrary_pairs(plan: SuitePlan, paired: PairedSuite) -> PairedSuite:
    """Counts each pair whose orders disagree as the null hypothesis, which it cannot refute.

    As ties, such pairs would move a worse candidate's difference towards 0, and a judge that
    follows the position alone would show that any candidate is not inferior.
    """
    theta0 = design_from_plan(plan).theta0

    def count(item: PairedItem) -> PairedItem:
        share = item.rules.count(ORDERS_DISAGREE) / plan.epochs
        if not (share and theta0):
            return item
        candidate = max(0.0, item.pair.candidate + share * theta0)
        lenient = max(0.0, item.pair.lenient_candidate + share * theta0)
        pair = replace(item.pair, candidate=candidate, lenient_candidate=lenient)
        return replace(item, pair=pair)

    return replace(paired, items=tuple(map(count, paired.items)))


def _judge_pairs(
    plan: SuitePlan,
    paired: PairedSuite,
    stopped: StoppedRun | None,
) -> SuiteJudgement:
    """Judges a suite and its slices from existing pairs, without costs (statistics.md §1.6,
    §1.13).

    Judges twice if scores are missing: with missing scores against the candidate and for it.
    The suite passes only by the first judgement, and fails only by the second (§1.1).
    """
    against = _judge_reading(plan, paired, stopped)
    if all(item.complete for item in paired.items[: plan.items_in(against.consumed)]):
        return against
    favourable = count_for_candidate(paired)
    favour = _judge_reading(plan, favourable, stopped)
    outcome, base = _combine_readings(against, favour)
    # The items of the reported difference; a slice or the lenient scores may use more items.
    used = plan.items_in(base.report.n_used)
    low = fmean(_differences(merge_clusters(plan, paired.items[:used])))
    high = fmean(_differences(merge_clusters(plan, favourable.items[:used])))
    figures = base.report.figures
    if low < high:
        figures = replace(figures, bound_low=low, bound_high=high)
    reason = base.report.reason
    if outcome not in (against.report.outcome, favour.report.outcome):
        words = [outcome_text(judged.report.outcome) for judged in (against, favour)]
        reason = (
            "Not measured: missing scores decide. If all of them count against the candidate, "
            f"the outcome is “{words[0]}”; if all count for it, “{words[1]}”."
        )
    units = f"{base.report.n_used} {plan.unit}s"
    missing = missing_text(
        join_reasons(paired.items[:used]),
        (low, high),
        units,
        _unlabelled_share(plan, paired.items[:used]),
    )
    reason = f"{reason} {missing}".rstrip()
    report = replace(
        base.report,
        outcome=outcome,
        log_e_bad=favour.report.log_e_bad,
        p_final=against.report.p_final,
        reason=reason,
        details=figures.as_json(),
    )
    return SuiteJudgement(report, base.consumed)


def count_for_candidate(paired: PairedSuite) -> PairedSuite:
    """Counts the missing scores for the candidate, as a rejection needs it."""
    return replace(paired, items=tuple(item.in_favour for item in paired.items))


def judge_traffic(
    plan: SuitePlan, paired: PairedSuite, judged: SuiteJudgement
) -> SuiteJudgement:
    """Adds the judge's name and the estimate that is weighted by requests to a report.

    If that estimate lies on the other side of θ0, the callers and the requests disagree, and
    the outcome is inconclusive.
    """
    report = judged.report
    by = f"By the judge {plan.judged_by}: "
    history = describe_history(plan)
    units = merge_clusters(plan, paired.items[: plan.items_in(report.n_used)])
    weights = plan.unit_requests[: len(units)]
    if not units or not sum(weights):
        reason = f"{by}{report.reason}{history}"
        return replace(judged, report=replace(report, reason=reason))
    differences = _differences(units)
    pairs = zip(weights, differences, strict=True)
    weighted = fsum(weight * d for weight, d in pairs) / sum(weights)
    shown = f"Weighted by requests, the difference is {format_points(weighted)} points."
    theta0 = design_from_plan(plan).theta0
    outcome = report.outcome
    reason = f"{by}{report.reason} {shown}"
    if outcome in ("passed", "failed") and (weighted > theta0) != (outcome == "passed"):
        outcome = "inconclusive"
        reason = (
            f"{by}{format_points(fmean(differences))} points in the mean over callers, but "
            f"{format_points(weighted)} points weighted by requests: callers with many "
            "requests and the others disagree, so neither is shown."
        )
    reason = f"{reason}{history}"
    return replace(judged, report=replace(report, outcome=outcome, reason=reason))


def _unlabelled_share(plan: SuitePlan, items: Sequence[PairedItem]) -> float:
    """Computes the mean share of a unit's score that is open because its records have no label.

    The mean difference then lies within ± this share (Manski 1990).
    """

    def is_open(item: PairedItem) -> float:
        return float(any(why.startswith(NO_LABEL) for why in item.reasons[1]))

    no_label = [replace(item, missing=(0.0, is_open(item))) for item in items]
    units = merge_clusters(plan, no_label)
    return fmean(unit.missing[1] for unit in units) if units else 0.0


def _combine_readings(
    against: SuiteJudgement, favour: SuiteJudgement
) -> tuple[str, SuiteJudgement]:
    """Returns the outcome that missing scores allow, and the judgement with its figures."""
    low = against.report.outcome
    high = favour.report.outcome
    longer = max(against, favour, key=lambda judged: judged.consumed)
    if low == "passed":
        return low, against
    if high == "failed":
        return high, favour
    if low == high:
        return low, longer
    return "running" if "running" in (low, high) else "infra_error", longer


def _judge_reading(
    plan: SuitePlan,
    paired: PairedSuite,
    stopped: StoppedRun | None,
) -> SuiteJudgement:
    """Judges the pairs with one reading of the missing scores.

    A slice that is shown worse decides, unless the mean was rejected earlier. A promotion waits
    for the first look at every slice.
    """
    whole = _judge_scores(plan, paired, stopped)
    if not plan.slices:
        return whole
    units = plan.units_in(len(paired.items))
    passed = whole.report.outcome == "passed"
    end = max(whole.consumed, promotion_waits_for(plan)) if passed else whole.consumed
    allowance = paired.spread.allowance if paired.spread else 0.0
    slices = judge_slices(plan, paired.items[: plan.items_in(end)], allowance)
    mismatch = whole.report.outcome == "harness_mismatch"
    if slices.worse_at is not None and not (mismatch and slices.worse_at >= whole.consumed):
        return _judge_worse_slice(plan, paired, slices)
    report = _add_slices(whole.report, slices)
    if not passed or end <= units:
        return SuiteJudgement(report, end if passed else whole.consumed)
    return SuiteJudgement(waiting_report(paired, report, stopped), units)


def _judge_worse_slice(
    plan: SuitePlan,
    paired: PairedSuite,
    slices: SliceJudgement,
) -> SuiteJudgement:
    """Returns the report as of the look that showed a loss in a slice."""
    units = slices.worse_at or 0
    at = replace(paired, items=paired.items[: plan.items_in(units)], blocked="")
    report = _add_slices(_judge_scores(plan, at, None).report, slices)
    outcome = "harness_mismatch" if slices.form else "failed"
    reason = slices_reason(slices.worse, plan, outcome, report.figures.rule)
    return SuiteJudgement(replace(report, outcome=outcome, reason=reason), units)


def _add_slices(report: SuiteReport, slices: SliceJudgement) -> SuiteReport:
    return replace(
        report,
        details=replace(report.figures, slices=slices.figures).as_json(),
    )


def waiting_report(
    paired: PairedSuite,
    report: SuiteReport,
    stopped: StoppedRun | None,
) -> SuiteReport:
    """Reports a suite whose mean is shown before every slice has had its first look."""
    outcome = "running"
    if paired.blocked:
        outcome = "infra_error"
    elif stopped is not None:
        outcome = _stopped_outcome(stopped)
    return replace(report, outcome=outcome, reason=slices_wait_reason(report.reason))


def _judge_scores(
    plan: SuitePlan,
    paired: PairedSuite,
    stopped: StoppedRun | None,
) -> SuiteJudgement:
    """Judges strict and lenient scores of the whole suite, without slices and costs."""
    readings = _compare_readings(plan, paired)
    outcome = _outcome(paired, readings, stopped)
    strict = readings.strict
    consumed = readings.consumed
    used = paired.items[: plan.items_in(strict.n_used)]
    lenient = readings.lenient
    design = design_from_plan(plan, paired.spread)
    if lenient is not None:
        lenient = _use_complete_items(paired.items, lenient, design, plan, _lenient_differences)
    shown = _use_complete_items(used, strict, design, plan, _differences)
    report = _report(plan, shown, outcome)
    figures = replace(
        _add_format_rules(
            _figures(plan, used, shown),
            paired.items[: plan.items_in(consumed)],
        ),
        lenient=_lenient_figures(lenient),
    )
    why = stopped[1] if stopped else ""
    reason = _reason(
        plan,
        _Readings(shown, lenient),
        report,
        figures.rule,
        paired.blocked or why,
    )
    if figures.item_delta is not None:
        reason = f"{reason} {item_mean_text(figures.item_delta, plan)}"
    if paired.days is not None:
        reason = f"{reason} {paired.days.text}"
    report = replace(report, reason=reason, details=figures.as_json())
    return SuiteJudgement(report, consumed)


def _find_noise(items: Sequence[PairedItem]) -> AnswerNoise | None:
    """Returns the noise of both arms' scores, if the claim is about these items."""
    found = [item.variances for item in items if item.variances is not None]
    if not found or len(found) != len(items):
        return None
    ours, theirs = np.array(found).T
    return AnswerNoise(ours, theirs)


def prepare_test(
    plan: SuitePlan, paired: PairedSuite
) -> tuple[Design, list[float], AnswerNoise | None]:
    """Returns the test of a suite's strict scores: its design, and the units' differences with
    their noise.
    """
    units = merge_clusters(plan, paired.items)
    return design_from_plan(plan, paired.spread), _differences(units), _find_noise(units)


def _compare_readings(plan: SuitePlan, paired: PairedSuite) -> _Readings:
    """Compares the strict scores, and the lenient scores if they can explain a loss."""
    units = merge_clusters(plan, paired.items)
    # The noise was measured on strict scores, so it does not apply to lenient scores.
    design, differences, noise = prepare_test(plan, paired)
    strict = judge_differences(differences, design, noise)
    explained_outcomes = (
        ("reject",) if plan.role is SuiteRole.GUARD else ("reject", "inconclusive")
    )
    if strict.outcome not in explained_outcomes:
        return _Readings(strict)
    # After a strict loss, the lenient scores must only be within the margin; after a strict
    # draw, they must show the registered claim.
    if strict.outcome != "reject":
        return _Readings(strict, judge_differences(_lenient_differences(units), design))
    margin_design = replace(
        design,
        claim=Claim.NON_INFERIOR,
        futility=0.0,
        lost_margin=LostMargin.STOPS,
    )
    if judge_differences(differences, margin_design, noise).outcome == "promote":
        # The strict loss is within the margin too, so the format explains nothing.
        return _Readings(strict)
    return _Readings(strict, judge_differences(_lenient_differences(units), margin_design))


def _outcome(
    paired: PairedSuite,
    readings: _Readings,
    stopped: StoppedRun | None,
) -> str:
    strict = readings.strict
    lenient = readings.lenient
    over = stopped is not None or bool(paired.blocked)
    if lenient is not None and lenient.outcome == "promote":
        return "harness_mismatch"
    if strict.how == FUTILE and lenient is not None and lenient.outcome == "running":
        # Lenient scores may still pass, so the format may explain the loss.
        return "inconclusive" if over else "running"
    if strict.outcome == "reject":
        # Strict scores lost. Further answers show whether the format or the content loses.
        waiting = lenient is not None and lenient.outcome == "running" and not over
        return "running" if waiting else "failed"
    if strict.outcome == "running" and paired.blocked:
        return "infra_error"
    if strict.outcome == "running" and stopped is not None:
        return _stopped_outcome(stopped)
    return SUITE_OUTCOMES[strict.outcome]


def _stopped_outcome(stopped: StoppedRun) -> str:
    if stopped[0] not in STOPPED_OUTCOMES:
        raise ValueError(f"a stopped suite cannot have the outcome {stopped[0]}")
    return stopped[0]


def _use_complete_items(
    items: Sequence[PairedItem],
    evidence: ComparisonEvidence,
    design: Design,
    plan: SuitePlan,
    read: Callable[[Sequence[PairedItem]], list[float]],
) -> ComparisonEvidence:
    """Returns the evidence, with the figures for people computed from complete items only."""
    used = items[: plan.items_in(evidence.n_used)]
    if all(item.complete for item in used):
        return evidence
    d = np.array(read(measured_units(plan, used)))
    complete_evidence = build_evidence(d, evidence_path(d, design), design)
    return replace(
        evidence, **{name: getattr(complete_evidence, name) for name in MEASURED_FIGURES}
    )


def _report(
    plan: SuitePlan,
    evidence: ComparisonEvidence,
    outcome: str,
) -> SuiteReport:
    return SuiteReport(
        suite=plan.suite,
        role=plan.role,
        claim=plan.claim,
        margin=plan.margin,
        outcome=outcome,
        n_max=plan.n_max,
        reason="",
        **{name: getattr(evidence, name) for name in REPORTED_FIGURES},
    )


def _figures(
    plan: SuitePlan,
    items: Sequence[PairedItem],
    evidence: ComparisonEvidence,
) -> SuiteFigures:
    units = measured_units(plan, items)
    whole = all(d == round(d) for d in _differences(units))
    exact = mcnemar(evidence.wins, evidence.losses) if whole else None
    return SuiteFigures(
        alpha=plan.alpha,
        look=plan.look if plan.spend else None,
        spend=plan.spend or None,
        t=evidence.t,
        p_t=evidence.p_t,
        sd=evidence.sd,
        incumbent_mean=_mean([unit.pair.incumbent for unit in units]),
        candidate_mean=_mean([unit.pair.candidate for unit in units]),
        lenient_incumbent_mean=_mean([unit.pair.lenient_incumbent for unit in units]),
        lenient_candidate_mean=_mean([unit.pair.lenient_candidate for unit in units]),
        near_ties=sum(abs(d) <= TIE_BAND for d in _differences(units)),
        mcnemar_exact=exact.exact if exact else None,
        mcnemar_mid_p=exact.mid_p if exact else None,
        unscored_incumbent=sum(item.unscored_incumbent for item in items),
        unscored_candidate=sum(item.unscored_candidate for item in items),
        unanswered=sum(item.unanswered for item in items),
        measured=None if len(units) == evidence.n_used else len(units),
        more_items=further_items(evidence, design_from_plan(plan)),
        cluster=plan.cluster or None,
        items=len(items) if plan.cluster else None,
        item_delta=_mean(_differences([item for item in items if item.complete]))
        if plan.cluster
        else None,
        noise_incumbent=evidence.noise[0] if evidence.noise else None,
        noise_candidate=evidence.noise[1] if evidence.noise else None,
    )


def _add_format_rules(figures: SuiteFigures, items: Sequence[PairedItem]) -> SuiteFigures:
    """Adds the format rules that the candidate's answers broke, their counts and examples."""
    counts = Counter(rule for item in items for rule in item.rules)
    if not counts:
        return figures
    worst = min(counts, key=lambda rule: (-counts[rule], rule))
    examples = [item.pair.item for item in items if worst in item.rules][:MAX_EXAMPLES]
    rules = dict(sorted(counts.items()))
    return replace(
        figures,
        rule=worst,
        rules=rules,
        examples=tuple(examples),
    )


def _lenient_figures(evidence: ComparisonEvidence | None) -> LenientFigures | None:
    if evidence is None:
        return None
    return LenientFigures(
        outcome=SUITE_OUTCOMES[evidence.outcome],
        n_used=evidence.n_used,
        delta=evidence.delta,
        ci_low=evidence.ci_low,
        ci_high=evidence.ci_high,
        p_final=evidence.p_final,
    )


def _reason(
    plan: SuitePlan,
    readings: _Readings,
    report: SuiteReport,
    rule: str | None,
    stopped: str,
) -> str:
    strict = readings.strict
    lenient = readings.lenient
    if report.outcome == "harness_mismatch" and lenient is not None:
        return (
            f"The candidate loses by form, not by substance: {format_points(strict.delta)} "
            f"points with strict scores, {format_points(lenient.delta)} points with lenient "
            f"scores. The rule that broke most often is {rule or 'unnamed'}."
        )
    if report.outcome == "infra_error":
        return f"Not measured: {stopped}."
    if report.outcome == "running" and lenient is not None:
        return (
            f"With strict scores the candidate is worse ({format_points(strict.delta)} "
            f"points). After {lenient.n_used} of {plan.n_max} {plan.unit}s it is open whether "
            "by form or by substance."
        )
    if report.outcome == "inconclusive" and strict.outcome == "running":
        return (
            f"The run ended ({stopped}) after {strict.n_used} of {plan.n_max} {plan.unit}s, "
            f"before it reached any limit; {plan.n_max - strict.n_used} more are planned. "
            "The incumbent stays."
        )
    return comparison_reason(strict, design_from_plan(plan))


def _differences(items: Sequence[PairedItem]) -> list[float]:
    return [score_difference(item.pair.candidate, item.pair.incumbent) for item in items]


def _lenient_differences(items: Sequence[PairedItem]) -> list[float]:
    return [
        score_difference(item.pair.lenient_candidate, item.pair.lenient_incumbent)
        for item in items
    ]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
