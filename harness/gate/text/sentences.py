"""These functions describe a comparison in one or two plain sentences: why it stands where it
stands, what it costs, which look it is, and how many further items would decide.

The exact figures stand beside them.
"""

import re
from collections.abc import Mapping
from typing import Final

from harness.domain.evals.run import VERDICTS, Claim, SuitePlan
from harness.domain.formatting import format_percent, format_points
from harness.domain.proposals.policy import AlphaSpending
from harness.gate.offline.costs import CostEvidence, CostOutcome
from harness.gate.offline.design import Design
from harness.gate.offline.sequential import ComparisonEvidence
from harness.gate.planning.budget import items_needed
from harness.gate.planning.multiplicity import SPENDING_PROMISES

ONE_POINT: Final = re.compile(r"(?<![\d.,+−])1 points\b")
# Not the dots of an ellipsis.
TWO_STOPS: Final = re.compile(r"(?<!\.)\.\.(?!\.)")


def outcome_text(outcome: str) -> str:
    """A suite's outcome as the verdict of that name says it, in small letters."""
    return VERDICTS[outcome].words.lower() if outcome in VERDICTS else outcome


def polish_reason(reason: str) -> str:
    """A stored reason for people, beside the verdict's words.

    What is stored stays as it is: a verdict is recomputed to the same bytes.
    """
    once = reason.replace("Not measured: ", "", 1)
    return ONE_POINT.sub("1 point", TWO_STOPS.sub(".", once))


def spending_text(look: int, alpha: float, spend: str) -> str:
    """Which look it is and what it may cost; empty for registrations without a rule."""
    if not spend:
        return ""
    rule = AlphaSpending(spend)
    which = (
        "first look of this model at these items"
        if look == 1
        else f"look number {look} of this model, or one it descends from, at these items"
    )
    return f"{which}: alpha {alpha:.4g} ({rule.value}: {SPENDING_PROMISES[rule]})"


def comparison_reason(found: ComparisonEvidence, design: Design) -> str:
    """Why the comparison stands where it stands."""
    match found.outcome:
        case "promote":
            return _promoted(found, design)
        case "reject":
            return (
                f"The candidate is worse: {_difference(found)} after {found.n_used} of "
                f"{design.n_max} items."
            )
        case "inconclusive":
            return _undecided(found, design)
        case _:
            return (
                f"{found.n_used} of {design.n_max} items are in and none of the limits is "
                f"reached; so far {_difference(found)}."
            )


def cost_reason(found: CostEvidence, plan: SuitePlan) -> str:
    """What the costs say of the claim that the candidate is cheaper."""
    claimed = f"{format_percent(plan.min_saving)} less was claimed"
    if found.saving is None:
        return f"Not shown to be cheaper: {_unknown(found)}"
    saved = _saved(found)
    match found.outcome:
        case CostOutcome.SHOWN:
            return f"It is cheaper: {saved}; at least {claimed}."
        case CostOutcome.REFUTED:
            return f"The candidate does not save enough: {saved}; at least {claimed}."
        case CostOutcome.UNSHOWABLE:
            return (
                f"Not shown to be cheaper: item {found.n_used} cost the candidate more than "
                f"the ceiling of {plan.cost_ceiling:g} times the incumbent's mean, so that "
                f"rare dear answers may hide behind the others. So far {saved}. Raise "
                "cost_ceiling and propose again."
            )
        case _ if found.n_used < plan.n_max:
            return f"Whether it is cheaper is open: so far {saved}; at least {claimed}."
        case _:
            return (
                f"Not shown to be cheaper after {found.n_used} items: {saved}; at least "
                f"{claimed}. The incumbent stays."
            )


def _unknown(found: CostEvidence) -> str:
    if found.incumbent_usd == 0.0:
        return "the incumbent costs nothing."
    side = "incumbent" if found.missing_incumbent == found.n_used else "candidate"
    return f"nobody knows what the {side} costs; give it a price and propose again."


def _saved(found: CostEvidence) -> str:
    saving = found.saving or 0.0
    than = "less" if saving >= 0.0 else "more"
    words = f"{format_percent(abs(saving))} {than} per item"
    if found.saving_low is not None and found.saving_high is not None:
        low, high = format_percent(found.saving_low), format_percent(found.saving_high)
        words += f" (95 % interval of the saving {low} to {high})"
    missing = found.missing_candidate
    return words + (f", {missing} of the candidate's costs are missing" if missing else "")


def further_items(found: ComparisonEvidence, design: Design) -> int | None:
    """How many further items would decide with 80 % power, if the truth is what was seen.

    None when the data do not lean away from the null at all.
    """
    if found.sd is None:
        return None
    distance = found.delta - design.theta0
    if distance <= 0.0:
        distance = -found.delta
    if distance <= 1e-9:
        return None
    # 0.25 is the gate's own prior sum of squares: a suite without a single difference has
    # not shown that there are none.
    sd = max(found.sd, (0.25 / (found.n_used + 1)) ** 0.5)
    return max(1, items_needed(sd, distance, design.alpha) - found.n_used)


def _promoted(found: ComparisonEvidence, design: Design) -> str:
    where = f"{found.n_used} of {design.n_max} items"
    if design.claim is Claim.SUPERIOR:
        return f"The candidate is better: {_difference(found)} after {where}."
    return (
        f"The candidate is at most {design.margin * 100:g} points worse (the allowed loss): "
        f"{_difference(found)} after {where}."
    )


def _undecided(found: ComparisonEvidence, design: Design) -> str:
    claim = (
        "that the candidate is better"
        if design.claim is Claim.SUPERIOR
        else f"that it stays within the allowed loss of {design.margin * 100:g} points"
    )
    more = further_items(found, design)
    if found.sd is None:
        outlook = "One item shows nothing about others: plan more."
    elif more is None:
        outlook = "No lean was seen, so no number of further items can be named."
    elif found.delta > design.theta0:
        outlook = f"If this difference is real, about {more:,} more items would show it"
        outlook += " with 80 % power."
    else:
        outlook = f"The data lean against it: about {more:,} more items would show a loss"
        outlook += " of this size with 80 % power."
    return (
        f"{found.n_used} of {design.n_max} items did not show {claim}: "
        f"{_difference(found)}. {outlook} The incumbent stays."
    )


def _difference(found: ComparisonEvidence) -> str:
    if found.n_used == 0:
        return "nothing is measured"
    if found.ci_low is None or found.ci_high is None:
        return f"{format_points(found.delta)} points"
    label = ", not adjusted for early stopping" if found.how == "early" else ""
    return (
        f"{format_points(found.delta)} points "
        f"(95 % interval {format_points(found.ci_low)} to "
        f"{format_points(found.ci_high)}{label})"
    )


def unscored_text(details: Mapping[str, object], answers: int) -> str:
    """What came without a valid score, on either side. answers: of one side."""
    return (
        f" Without a score: {details['unscored_candidate']} of the candidate's {answers} "
        f"answers (each counts 0) and {details['unscored_incumbent']} of the incumbent's "
        "(each counts 1)."
    )
