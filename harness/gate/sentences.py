"""Describes a comparison in one or two plain sentences.

A verdict stores its reason, and is recomputed to the same bytes. A new wording of a stored
sentence would change the ids of old verdicts. You may change the functions that reword a stored
reason for people. Sentences about a whole verdict are in `harness.gate.verdict_sentences`.
"""

import re
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from harness.frame.formatting import (
    DASH,
    format_percent,
    format_points,
    format_points_interval,
    format_quantity,
    format_score,
)
from harness.gate import budget
from harness.gate.budget import ALL_LOOKS, PlannedTest, next_alpha
from harness.gate.offline.design import EARLY_ENDS, FUTILE, Design
from harness.gate.offline.sequential import ComparisonEvidence
from harness.gate.suite_plan import MIN_SLICE_UNITS, Claim, Looks, SuitePlan
from harness.gate.verdict import (
    VERDICTS,
    CostFigures,
    CostOutcome,
    SliceFigures,
    SuiteReport,
    VerdictBasis,
)

# Starts the list of guard suites at the end of a reason.
NOT_SHOWN_WORSE: Final = " Not shown to be worse: "
COUNTS_IN_MEAN: Final = "counts in the mean"
MOST_REASONS: Final = 3
# Ends each verdict about the turns of agents' runs.
RECORDED_HISTORY: Final = (
    "Each turn is judged on the incumbent's recorded history, which favours the incumbent, and "
    "says nothing about whole runs of the candidate."
)
ONE_POINT: Final = re.compile(r"(?<![\d.,+−])1 points\b")
# Does not match the dots of an ellipsis.
TWO_STOPS: Final = re.compile(r"(?<!\.)\.\.(?!\.)")


def describe_history(plan: SuitePlan) -> str:
    """Returns the sentence about recorded history, after a space; empty for other suites."""
    return f" {RECORDED_HISTORY}" if plan.has_recorded_runs else ""


def outcome_text(outcome: str) -> str:
    """Returns an outcome's words in lower case; an unknown outcome stays as it is."""
    return VERDICTS[outcome].words.lower() if outcome in VERDICTS else outcome


def standing_text(basis: VerdictBasis, report: SuiteReport) -> str:
    """Describes a suite's outcome in a verdict. For a suite that decides nothing, says that it
    counts in the mean.
    """
    return outcome_text(report.outcome) if basis.decides(report) else COUNTS_IN_MEAN


def polish_reason(reason: str) -> str:
    """Shortens a stored reason for a place that shows the verdict's outcome beside it.

    The stored reason does not change, because a verdict is recomputed to the same bytes.
    """
    once = reason.replace("Not measured: ", "", 1)
    return ONE_POINT.sub("1 point", TWO_STOPS.sub(".", once))


def missing_text(
    reasons: Sequence[Sequence[str]],
    bounds: tuple[float, float],
    units: str,
    unlabelled: float = 0.0,
) -> str:
    """Describes how many scores of each model are missing, why, and the possible differences.

    Args:
        reasons: of the incumbent's and the candidate's, one for each score.
        units: the units of the bounds, such as `60 items`.
        unlabelled: the share of items without a label.
    """
    arms = [
        f"{len(lost)} of the {arm}'s ({format_reasons(lost)})"
        for arm, lost in zip(("incumbent", "candidate"), reasons, strict=True)
        if lost
    ]
    if not arms:
        return ""
    return (
        f"Missing scores: {' and '.join(arms)}. For any values of these scores, the difference "
        f"of all {units} is between {format_points(bounds[0])} and {format_points(bounds[1])} "
        "points."
    ) + (
        f" Up to {format_score(unlabelled)} points in either direction come from unlabelled "
        "records."
        if unlabelled
        else ""
    )


def item_mean_text(delta: float, plan: SuitePlan) -> str:
    """Writes the mean difference per item, beside the mean per cluster that decides."""
    return (
        f"The figures are means per cluster ({plan.cluster}); the mean per item is "
        f"{format_points(delta)} points."
    )


def format_reasons(reasons: Sequence[str]) -> str:
    """Lists the most frequent reasons: `9 × timeout; 3 × the scorer failed with KeyError`."""
    counts = Counter(reasons).most_common()
    shown = "; ".join(f"{times} × {why}" for why, times in counts[:MOST_REASONS])
    others = len(counts) - MOST_REASONS
    return f"{shown}; {others} other reasons" if others > 0 else shown


def difference_cells(report: SuiteReport) -> tuple[str, str]:
    """Returns a table's cells of a suite's difference and its interval; dashes if unknown."""
    if report.is_unscored:
        return DASH, DASH
    interval = format_points_interval(report.ci_low, report.ci_high)
    bounds = bounds_text(report)
    return format_points(report.delta), f"{interval}; {bounds}" if bounds else interval


def bounds_text(report: SuiteReport) -> str:
    """Writes the possible differences: `−8.0 to +1.4 with the missing scores`; empty if no
    score is missing.
    """
    figures = report.figures
    if figures.bound_low is None:
        return ""
    bounds = format_points_interval(figures.bound_low, figures.bound_high)
    return f"{bounds} with the missing scores"


def spending_text(
    look: int,
    alpha: float,
    spend: str,
    candidates: int = 1,
) -> str:
    """Describes the look and its alpha, which `candidates` candidates share."""
    if not spend:
        return ""
    which = (
        "first look of this model at these items"
        if look == 1
        else f"look number {look} of this model, or one it descends from, at these items"
    )
    shared = f", with {candidates} candidates at once" if candidates > 1 else ""
    promise = f"{spend}: {ALL_LOOKS:g} alpha over all looks together"
    return f"{which}{shared}: alpha {alpha:.4g} ({promise})"


def share_text(candidates: int) -> str:
    """Describes how several candidates share one alpha."""
    return (
        f"{candidates} candidates at once: each is tested at 1/{candidates} of alpha, so that "
        "together they pass by luck no more often than a single candidate; the best that "
        "passes continues"
    )


def clusters_text(plan: SuitePlan) -> str:
    """Describes the units of a plan with clusters."""
    sizes = plan.cluster_sizes
    return (
        f"Items that share `{plan.cluster}` count as one unit, and all units have the same "
        f"weight: {plan.n_max:,} clusters of {min(sizes)} to {max(sizes)} items, "
        f"{plan.planned_items:,} items in all."
    )


def slices_reason(
    worse: Sequence[SliceFigures],
    plan: SuitePlan,
    outcome: str,
    rule: str | None,
) -> str:
    """Writes the reason of a suite that lost in slices.

    Args:
        worse: the slices, with strict scores.
        outcome: `harness_mismatch` if only the format loses.
        rule: the format rule that broke most often.
    """
    named = ", ".join(
        f"{slice_.name}: {format_points(slice_.delta)} points on {slice_.n_used} {plan.unit}s"
        for slice_ in worse
    )
    if outcome == "harness_mismatch":
        return (
            f"The candidate loses a slice by form, not by substance: {named} with strict "
            f"scores. The rule that broke most often is {rule or 'unnamed'}."
        )
    return f"The candidate is worse in a slice, at any mean: {named}."


def slices_wait_reason(reason: str) -> str:
    """Explains that the mean is shown, but a slice still waits for its first look."""
    return f"{reason} The gate decides once each slice has {MIN_SLICE_UNITS} units."


def comparison_reason(evidence: ComparisonEvidence, design: Design) -> str:
    """Writes the reason of a comparison's outcome, from the figures that decided it."""
    match evidence.outcome:
        case "promote":
            return _explain_promotion(evidence, design)
        case "reject":
            return (
                f"The candidate is {_write_worse(design)}: {_write_difference(evidence)} after "
                f"{evidence.n_used} of {design.n_max} {design.unit}s."
            )
        case "inconclusive":
            return _explain_undecided(evidence, design)
        case _:
            return (
                f"{evidence.n_used} of {design.n_max} {design.unit}s are measured, and no "
                f"limit is reached; so far {_write_difference(evidence)}."
            )


def cost_reason(evidence: CostFigures, plan: SuitePlan) -> str:
    """Writes the result of a cost claim: the saving, or why the costs cannot show one."""
    claimed = f"{format_percent(plan.min_saving)} less was claimed"
    if evidence.saving is None:
        why = "the incumbent costs nothing."
        if evidence.incumbent_usd != 0.0:
            side = "incumbent" if evidence.missing_incumbent == evidence.n_used else "candidate"
            why = f"the cost of the {side} is unknown; set its price and propose again."
        return f"Not shown to be cheaper: {why}"
    saved = _describe_saving(evidence)
    match evidence.outcome:
        case CostOutcome.SHOWN:
            return f"It is cheaper: {saved}; at least {claimed}."
        case CostOutcome.REFUTED:
            return f"The candidate does not save enough: {saved}; at least {claimed}."
        case CostOutcome.UNSHOWABLE:
            return (
                f"Not shown to be cheaper: {plan.unit} {evidence.n_used} cost the candidate "
                f"more than the ceiling of {plan.cost_ceiling:g} times the incumbent's mean, "
                f"so rare expensive answers may be hidden by cheap answers. So far {saved}. "
                "Raise "
                "cost_ceiling and propose again."
            )
        case _ if evidence.n_used < plan.n_max:
            return f"Whether it is cheaper is open: so far {saved}; at least {claimed}."
        case _:
            return (
                f"Not shown to be cheaper after {evidence.n_used} {plan.unit}s: {saved}; at "
                f"least {claimed}. The incumbent stays."
            )


def _describe_saving(evidence: CostFigures) -> str:
    saving = evidence.saving or 0.0
    than = "less" if saving >= 0.0 else "more"
    words = f"{format_percent(abs(saving))} {than} per item"
    if evidence.saving_low is not None and evidence.saving_high is not None:
        low = format_percent(evidence.saving_low)
        high = format_percent(evidence.saving_high)
        words += f" (95 % interval of the saving {low} to {high})"
    missing = evidence.missing_candidate
    return words + (f", {missing} of the candidate's costs are missing" if missing else "")


class PointsTo(StrEnum):
    """The result to which an undecided comparison points."""

    BETTER = "better"
    WITHIN_MARGIN = "within_margin"  # worse by no more than the allowed loss
    WORSE = "worse"  # by more than the allowed loss, if the claim has one


def find_direction(
    interval: tuple[float | None, float | None],
    claim: Claim,
    margin: float,
) -> PointsTo | None:
    """Returns the result to which the data point; None if the interval includes the limit.

    Args:
        interval: shares of 1.
        margin: a share of 1.

    The limit is 0, or the allowed loss for a claim that has one.
    """
    low, high = interval
    if low is None or high is None:
        return None
    superior = claim is Claim.SUPERIOR
    theta0 = 0.0 if superior else -margin
    if low > theta0:
        return PointsTo.BETTER if superior else PointsTo.WITHIN_MARGIN
    return PointsTo.WORSE if high < theta0 else None


def further_items(evidence: ComparisonEvidence, design: Design) -> int | None:
    """Estimates the items that decide with 80 % power, if the measured difference is real.

    None if the data favour neither outcome.
    """
    if evidence.sd is None:
        return None
    # 0.25 is the gate's prior sum of squares: a suite without any difference does not prove
    # that there are no differences.
    sd = max(evidence.sd, (0.25 / (evidence.n_used + 1)) ** 0.5)
    distance = evidence.delta - design.theta0
    if distance <= 0.0:
        if distance >= -_NO_DISTANCE:
            return None
        return budget.items_to_reject(-distance, sd, design.theta0, evidence.log_e_bad)
    if distance <= _NO_DISTANCE:
        return None
    whole = design.looks is Looks.WHOLE
    test = PlannedTest(
        next_alpha(design.alpha, design.look) if whole else design.alpha,
        design.suite_items or design.n_max,
        design.n_max,
        looks=design.looks,
    )
    return max(1, test.items_needed(sd, distance) - evidence.n_used)


_NO_DISTANCE: Final = 1e-9


def _write_worse(design: Design) -> str:
    return (
        "worse"
        if design.claim is Claim.SUPERIOR
        else f"worse by more than {_write_loss(design)}"
    )


def _write_loss(design: Design) -> str:
    return f"the allowed loss of {format_score(design.margin, None)} points"


def _explain_promotion(evidence: ComparisonEvidence, design: Design) -> str:
    where = f"{evidence.n_used} of {design.n_max} {design.unit}s"
    if evidence.noise is not None:
        where += ", for these items, asked again"
    if design.claim is Claim.SUPERIOR:
        return f"The candidate is better: {_write_difference(evidence)} after {where}."
    return (
        f"The candidate is at most {format_score(design.margin, None)} points worse (the "
        f"allowed loss): {_write_difference(evidence)} after {where}."
    )


def _explain_undecided(evidence: ComparisonEvidence, design: Design) -> str:
    """Explains why the claim was not shown, and how many more items would show it."""
    claim = (
        "that the candidate is better"
        if design.claim is Claim.SUPERIOR
        else f"that it stays within {_write_loss(design)}"
    )
    outlook = _describe_outlook(evidence, design)
    if evidence.how == FUTILE:
        return (
            # "item" also for clusters, because stored bytes stay: `verdict_sentences` says
            # "cluster" to people.
            f"{given_up_text(evidence.n_used, design.n_max, 'item')} "
            f"would hardly show {claim}; so far {_write_difference(evidence)}. The "
            "incumbent stays."
        )
    return (
        f"{evidence.n_used} of {design.n_max} {design.unit}s did not show {claim}: "
        f"{_write_difference(evidence)}. {outlook} The incumbent stays."
    )


def _describe_outlook(evidence: ComparisonEvidence, design: Design) -> str:
    """Names the result to which the data point, and the items that would show it."""
    if evidence.sd is None:
        return f"One {design.unit} is not enough to estimate the spread: plan more."
    more = further_items(evidence, design)
    if more is None:
        return f"The data favour neither side, so the {design.unit}s needed are unknown."
    interval = evidence.ci_low, evidence.ci_high
    points_to = find_direction(interval, design.claim, design.margin)
    items = format_quantity(more, f"more {design.unit}")
    if points_to is not None:
        likely = {
            PointsTo.BETTER: "better",
            PointsTo.WITHIN_MARGIN: f"within {_write_loss(design)}",
            PointsTo.WORSE: _write_worse(design),
        }[points_to]
        return f"It is probably {likely}: about {items} would show it with 80 % power."
    lost = evidence.delta <= design.theta0
    shown = f"that the candidate is {_write_worse(design)}," if lost else "it"
    return f"If this difference is real, about {items} would show {shown} with 80 % power."


def given_up_text(
    used: int,
    planned: int,
    unit: str,
) -> str:
    """Begins the reason of a comparison that stopped because it would hardly show its claim."""
    return f"Stopped after {used} of {planned} {unit}s, because the remaining {unit}s"


def _write_difference(evidence: ComparisonEvidence) -> str:
    """Writes the mean difference with its interval, in points."""
    if evidence.n_used == 0:
        return "no score is measured"
    if evidence.ci_low is None or evidence.ci_high is None:
        return f"{format_points(evidence.delta)} points"
    early = evidence.how in EARLY_ENDS
    label = ", not adjusted for early stopping" if early else ""
    return (
        f"{format_points(evidence.delta)} points "
        f"(95 % interval {format_points_interval(evidence.ci_low, evidence.ci_high)}{label})"
    )
