"""Estimates how often a suite would show each claim, and recommends a claim (statistics.md
§1.9).

Advice changes nothing: a proposal registers the policy's claim unless a person chooses another.
The estimates come from `harness.gate.budget`; `harness.proposals.candidates.estimate` measures
the spread and the usage that they start from.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.frame.formatting import (
    format_number,
    format_percent,
    format_score,
)
from harness.gate import budget
from harness.gate.budget import (
    POWER,
    DesignOption,
    DifferenceSpread,
    MeanUsage,
    cheapest_design,
    planned_test,
)
from harness.gate.offline.suite_claims import items_to_show_saving
from harness.gate.suite_plan import Claim, ClaimPopulation, SuitePlan

# Smaller shares of a cost are rounding noise.
SAME_COST: Final = 1e-6
# Below this power, Swapproof recommends no claim: most comparisons of a candidate that deserves
# the swap would end without it.
LEAST_POWER: Final = 0.5


@dataclass(frozen=True, slots=True)
class ClaimOption:
    """Estimates how often the planned items show a claim, if it is the registered claim."""

    claim: Claim
    margin: float  # allowed loss
    population: ClaimPopulation
    items: int  # the candidate's items, or clusters
    epochs: int
    answers: int  # of both models, at most
    cost_usd: float | None  # of these answers; None if a price is unknown
    if_equal: float  # share of comparisons that show it, if both models are equally good
    if_better: float  # the same, if the candidate is better by the difference that matters
    # The smallest design that shows the claim in 80 % of comparisons: of a better candidate for
    # `superior`, of an equal candidate for other claims. None if the suite is too small.
    enough: DesignOption | None
    # Items that would show the claim with 80 % power, even beyond the suite; None if no number
    # of items shows it, because the saving is unknown or too small.
    sufficient_items: int | None
    # The allowed loss that the planned items show with 80 % power; None for `superior`.
    sufficient_margin: float | None

    @property
    def sufficiency_text(self) -> str:
        """Says how many items, or which allowed loss, would show the claim with 80 % power."""
        if self.sufficient_items is None:
            return "no number of items shows it, because the saving is unknown or too small"
        text = f"to show it in 80 % takes about {self.sufficient_items:,} items"
        if self.sufficient_margin is not None:
            text += f", or an allowed loss of {format_score(self.sufficient_margin)} points"
        return text

    @property
    def power(self) -> float:
        """Returns how often the claim is shown, if it is true."""
        return self.if_better if self.claim is Claim.SUPERIOR else self.if_equal


@dataclass(frozen=True, slots=True)
class ClaimAdvice:
    """Compares the possible claims on a suite; the preferred claim comes first."""

    options: tuple[ClaimOption, ...]
    own: ClaimOption  # the option that Swapproof registers unless a person changes it
    suite_items: int  # items, or clusters
    effect: float  # the difference that matters, a share of 1
    saving: float | None  # share of the incumbent's cost; None if a price is unknown or 0
    price: str  # a sentence on the known prices, and on the requirements of a cost claim
    noise_known: bool  # whether a run asked items twice

    @property
    def preferred(self) -> ClaimOption:
        """The claim that answers the question of this swap, whatever its power."""
        return self.options[0]

    @property
    def recommended(self) -> ClaimOption | None:
        """The preferred claim; None if its power is below LEAST_POWER."""
        return self.preferred if self.preferred.power >= LEAST_POWER else None

    @property
    def why(self) -> str:
        """Explains the recommendation by its power and by the known prices. Without a
        recommendation, says what would suffice.
        """
        best = self.preferred
        shown = f"is shown in {format_percent(best.power, 0)} of comparisons"
        if best.claim is Claim.SUPERIOR:
            text = (
                f"a candidate that is {format_score(self.effect, None)} points better {shown}"
            )
        else:
            superior = [one.if_equal for one in self.options if one.claim is Claim.SUPERIOR]
            other = f", and as better in {format_percent(superior[0], 0)}" if superior else ""
            text = f"an equal candidate {shown}{other}"
        if best.power < LEAST_POWER:
            text += f"; {best.sufficiency_text}"
        elif best.power < POWER:
            enough = f"{best.enough.items:,}" if best.enough else f"over {self.suite_items:,}"
            text += f"; to show it in 80 % takes {enough} items"
        has_suite_claim = any(one.population is ClaimPopulation.THESE for one in self.options)
        if has_suite_claim and not self.noise_known:
            text += (
                "; asking each item twice does not help until a run has measured how much "
                "repeated answers vary"
            )
        return f"{self.price}; {text}"


def advise_claim(
    plans: Sequence[SuitePlan],
    chosen: Claim | None,
    suite_items: int,
    known: DifferenceSpread,
    sides: Sequence[MeanUsage | None],
    saving: float | None,
    effect: float,
) -> ClaimAdvice:
    """Compares claims on one suite.

    Args:
        plans: one for each possible claim; Swapproof registers the first unless a person
            changes it.
        chosen: the claim that a person chose, if any.

    Prefers the chosen claim. For a cheaper candidate it prefers the cost claim, even if a
    person chose superior. Only a person changes margin and items.
    """
    own, *others = (
        _estimate_option(plan, suite_items, known, sides, saving, effect) for plan in plans
    )
    options = [own, *(one for one in others if one.if_better > 0.0)]
    question = _find_question(options)
    if chosen is Claim.SUPERIOR and question is Claim.CHEAPER:
        chosen = None  # a cheaper candidate need not be better
    preferred = (chosen or question, own.margin)
    options.sort(
        key=lambda one: (one.claim, one.margin, one.population) != (*preferred, own.population)
    )
    # Of the options for another population than the registered one, only the preferred option
    # is shown.
    shown_options = [
        one
        for one in options
        if one.population is own.population or (one.claim, one.margin) == preferred
    ]
    price = _price_text(plans, shown_options[0], saving)
    noise_known = known.within > 0.0
    return ClaimAdvice(
        tuple(shown_options), own, suite_items, effect, saving, price, noise_known
    )


def _find_question(options: Sequence[ClaimOption]) -> Claim:
    """Returns `cheaper` if the candidate can show it, otherwise the registered claim."""
    own = options[0].claim
    if any(one.claim is Claim.CHEAPER and one.if_better > 0.0 for one in options):
        return Claim.CHEAPER
    possible = [one.claim for one in options if one.claim is not Claim.CHEAPER]
    return own if own is not Claim.CHEAPER or not possible else possible[0]


def _price_text(
    plans: Sequence[SuitePlan],
    best: ClaimOption,
    saving: float | None,
) -> str:
    """Describes the saving by known prices, and the further needs of a cost claim."""
    if saving is None:
        known = "no saving is known, because a price is missing or 0"
    elif abs(saving) < SAME_COST:
        known = "both models cost the same"
    elif saving > 0.0:
        known = f"the candidate costs {format_percent(saving, significant=2)} less"
    else:
        known = f"the candidate costs {format_number(1.0 - saving)} times as much"
    if best.claim is Claim.CHEAPER:
        return known
    plan = next((plan for plan in plans if plan.claim is Claim.CHEAPER), None)
    if plan is None:
        return f"{known}, and the policy allows no claim about the price"
    least = format_percent(plan.min_saving)
    items = _cost_items(plan, saving)
    if saving is None:
        needs = "needs the prices of both models"
    elif items == math.inf:
        needs = f"needs a candidate that costs over {least} less"
    elif items > plan.n_max:
        needs = (
            f"needs about {items:,.0f} {plan.unit}s to show {least} less, not {plan.n_max:,}"
        )
    else:
        needs = f"was not chosen; the choice is {best.claim.value}"
    return f"{known}, and the claim that it is cheaper {needs}"


def _estimate_option(
    plan: SuitePlan,
    suite_items: int,
    known: DifferenceSpread,
    sides: Sequence[MeanUsage | None],
    saving: float | None,
    effect: float,
) -> ClaimOption:
    """Estimates one claim. A cost claim that needs more items than planned is never shown."""
    test = planned_test(plan, suite_items, known)
    sd = known.sd(plan.epochs)
    superior = plan.claim is Claim.SUPERIOR
    theta0 = 0.0 if superior else -plan.margin
    cost_items = _cost_items(plan, saving)
    enough = cheapest_design(known, effect if superior else plan.margin, test, sides)
    equal, better = (
        test.power(sd, truth - theta0, plan.n_max) if cost_items <= plan.n_max else 0.0
        for truth in (0.0, effect)
    )
    sufficient_items: int | None = None
    if cost_items < math.inf:
        needed_items = test.items_needed(sd, effect if superior else plan.margin)
        sufficient_items = max(needed_items, int(cost_items))
    return ClaimOption(
        claim=plan.claim,
        margin=plan.margin,
        population=plan.population,
        items=plan.n_max,
        epochs=plan.epochs,
        answers=plan.most_answers,
        cost_usd=budget.comparison_cost_usd(plan.planned_items, plan.epochs, sides),
        if_equal=equal,
        if_better=better,
        enough=_raise_items(plan, enough, cost_items) if cost_items <= suite_items else None,
        sufficient_items=sufficient_items,
        sufficient_margin=None if superior else _round_up(test.smallest_effect(sd, plan.n_max)),
    )


def _round_up(margin: float) -> float:
    """Rounds up to a tenth of a point, because the shown allowed loss must suffice."""
    return math.ceil(margin * 1000.0) / 1000.0


def _cost_items(plan: SuitePlan, saving: float | None) -> float:
    """Estimates how many items show the plan's cost claim; infinity if no number does."""
    if plan.claim is not Claim.CHEAPER:
        return 0
    items = None if saving is None else items_to_show_saving(saving, plan)
    return math.inf if items is None else items


def _raise_items(
    plan: SuitePlan,
    design: DesignOption | None,
    least: float,
) -> DesignOption | None:
    """Raises a design to at least `least` units. Converts its answers and cost from units to
    items.
    """
    if design is None:
        return None
    items = max(design.items, int(least))
    size = items / max(design.items, 1) * plan.planned_items / plan.n_max
    cost = None if design.cost_usd is None else design.cost_usd * size
    return replace(
        design,
        items=items,
        answers=round(design.answers * size),
        cost_usd=cost,
    )
