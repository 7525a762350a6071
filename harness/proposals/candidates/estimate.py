"""Estimates cost, time and power of a proposal by suite, before it is submitted.

People read the estimate to choose claim, items and epochs; rounds read it to keep their budget.
It calls no model and stores nothing, and the gate does not depend on it. The formulas are in
`harness.gate.budget`, the choice of a claim in `harness.gate.claim_advice`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.frame.formatting import format_percent, format_score, format_usd
from harness.frame.records.transaction import Transaction
from harness.gate import budget
from harness.gate.budget import (
    EFFECT,
    DesignOption,
    DifferenceSpread,
    MeanUsage,
    PlannedTest,
    planned_test,
)
from harness.gate.claim_advice import ClaimAdvice, advise_claim
from harness.gate.offline.design import FUTILE_FROM_SHARE
from harness.gate.offline.slices import look_levels, promotion_waits_for
from harness.gate.offline.suite_claims import items_to_show_saving
from harness.gate.run import RunBudget
from harness.gate.suite_plan import MIN_SLICE_UNITS, Claim, SuitePlan
from harness.proposals import submission
from harness.proposals.candidates import cost_ratio
from harness.proposals.candidates.expected_spread import (
    CLUSTER_ICC,
    MOST_EARLIER,
    find_recorded_spread,
    guess_variance,
    planned_effect,
)
from harness.proposals.context import ProposalsContext
from harness.proposals.registration import suite_plans
from harness.proposals.submission import ProposalRequest
from harness.providers.records import Targets
from harness.providers.registry import named_models, targets
from harness.providers.target import Target
from harness.routing.control import routes
from harness.routing.proposal import Proposal
from harness.routing.records.proposals import Proposals


@dataclass(frozen=True)
class SliceEstimate:
    """Estimates the smallest loss of a slice that the gate would find.

    Losses are shares of 1, such as .05 for five points of a hundred.
    """

    name: str
    units: int  # planned units
    sees: float  # the loss that the first look finds with power .8
    sees_whole: float  # the same for the last look, if the gate reaches it

    @property
    def text(self) -> str:
        last = (
            f", {format_score(self.sees_whole)} after all {self.units:,}"
            if self.units > MIN_SLICE_UNITS
            else ""
        )
        return (
            f"slice {self.name}: the gate detects a loss of {format_score(self.sees)} points "
            f"after {MIN_SLICE_UNITS} units{last}"
        )


@dataclass(frozen=True)
class SuiteEstimate:
    """Estimate of one suite of a proposal. Effects and scores are shares of 1, times are
    seconds.

    mde: the smallest true distance from the null that the test shows with power .8, at all
    planned items (docs/explanation/statistics.md §1.9).
    sd: the standard deviation of one unit's difference, from `spread` or guessed.
    failing: the smallest true loss beyond the margin that the test shows with power .8; None
    for a claim without a margin, and if the items are too few for any loss.
    saving_items: only for a claim of a saving.
    """

    plan: SuitePlan
    effect: float  # the smallest true distance from the null that matters, from 0 to 1
    sd: float
    mde: float
    failing: float | None
    # Spread of the recorded differences between the incumbent and an earlier candidate, or
    # between any two models; None if too few are recorded: then `sd` is the default guess.
    spread: DifferenceSpread | None
    # Usage of one answer of each model; None if unknown. `estimated`: the candidate has no
    # answers on this suite, so its usage is the incumbent's tokens at its own price.
    incumbent: MeanUsage | None
    candidate: MeanUsage | None
    estimated: bool
    guessed: bool  # neither model has answers, so tokens are guessed from the items' texts
    # The maximum for the registered design, including the judge; None if unknown. So is
    # `duration_s`.
    cost_usd: float | None
    # The judge's part of the cost; 0 for a suite without a judge.
    judge_usd: float | None
    duration_s: float | None
    advice: ClaimAdvice  # the possible claims on the suite, and the recommended claim
    warning: str
    saving_items: int | None = None  # items that show a claimed saving; None for never
    slices: tuple[SliceEstimate, ...] = ()
    promotion_from: int = 0  # units; before them, the gate tests no slice and promotes nothing
    # The probability that the test shows `effect`, if it is true, within all planned items.
    power: float | None = None

    @property
    def saving(self) -> float | None:
        """The expected saving as a share of the incumbent's cost; None if a cost is unknown."""
        return self.advice.saving

    @property
    def basis(self) -> str:
        """A sentence for an estimate that does not rest on both models' answers; else empty."""
        if self.guessed:
            return (
                "neither model has answers yet; Swapproof guesses cost and time from the "
                "items' texts and list prices"
            )
        if self.estimated:
            return (
                "the candidate has no answers yet; its cost is estimated from the incumbent's "
                "tokens at the candidate's price"
            )
        return ""

    @property
    def texts(self) -> Sequence[str]:
        """Sentences for people: the number of independent items, the loss that fails, the
        guarded slices, and the delay of a promotion.
        """
        plan = self.plan
        first = [_size_text(plan, self.effect, self.power)]
        if plan.claim is not Claim.SUPERIOR:
            first.append(_fails_text(plan, self.failing))
        if not self.slices:
            return first
        delay = (
            f"no promotion before {self.plan.unit} {self.promotion_from:,}, due to the slices"
        )
        return (*first, *(slice_.text for slice_ in self.slices), delay)


def _fails_text(plan: SuitePlan, failing: float | None) -> str:
    allowed = format_score(plan.margin, None)
    power_text = (
        f"{plan.n_max_text} show no loss as FAILED"
        if failing is None
        else f"a loss of {format_score(failing)} points fails in 80 % of comparisons"
    )
    return f"{power_text}; a loss within the allowed {allowed} points does not count as FAILED"


def _size_text(plan: SuitePlan, effect: float, power: float | None) -> str:
    """Writes items, clusters, the effective number of items, and the power."""
    text = f"{plan.planned_items:,} items"
    if plan.cluster:
        worth = plan.effective_items(CLUSTER_ICC)
        text += (
            f" in {plan.n_max:,} clusters, worth about {worth:,} independent items if the "
            f"items of a cluster correlate by {CLUSTER_ICC:g}"
        )
    if power is None:
        return text
    wanted = format_score(effect, None)
    return (
        f"{text}: a true difference of {wanted} points from the claim's limit is shown in "
        f"{format_percent(power, significant=2)} of such comparisons"
    )


def describe_before_answers(ctx: ProposalsContext, plan: SuitePlan) -> Sequence[str]:
    """Describes what a plan can show, and what its suite omits, before any model is asked."""
    effect = planned_effect(plan, None)
    assumed_spread = DifferenceSpread(guess_variance(plan, effect), 0.0, 0, bool(plan.cluster))
    sd = assumed_spread.sd(plan.epochs)
    test = planned_test(plan, ctx.suites.groups(plan.suite).units, assumed_spread)
    texts = [_size_text(plan, effect, test.power(sd, effect, plan.n_max))]
    if plan.claim is not Claim.SUPERIOR:
        texts.append(_fails_text(plan, _smallest_failing_loss(plan, sd)))
    notes = _describe_dependence(ctx, plan.suite), ctx.suites.describe_sample(plan.suite)
    return [*texts, *filter(None, notes)]


def estimate_proposal(
    ctx: ProposalsContext,
    request: ProposalRequest,
    effect: float | None = None,
) -> Sequence[SuiteEstimate]:
    """Estimates suite by suite; stores nothing.

    Args:
        effect: the smallest difference that matters to the person, as a share of 1; None for
            `budget.EFFECT`. The claim `non_inferior` always plans for its allowed loss.

    Raises the errors of `submission.preview_proposal`.
    """
    preview = submission.preview_proposal(ctx, request)
    limit = RunBudget(preview.gate.max_tokens, preview.gate.max_cost_usd)
    with ctx.store.read() as tx:
        route = routes.require_route(tx, request.route)
        arms = (
            Targets(tx).all()[route.incumbent],
            named_models.find_model(ctx, tx, request.candidate),
        )
        earlier = Proposals(tx).list(limit=MOST_EARLIER)
        claims = suite_plans.plan_claims(ctx, route.settings, preview.gate, preview.plans)
        return [
            _estimate_suite(ctx, tx, plans, request.claim, arms, earlier, limit, effect)
            for plans in claims
        ]


def _estimate_suite(  # noqa: PLR0913, PLR0917 - all facts about a suite
    ctx: ProposalsContext,
    tx: Transaction,
    plans: Sequence[SuitePlan],
    chosen: Claim | None,
    arms: tuple[Target, Target | None],
    earlier: Sequence[Proposal],
    limit: RunBudget,
    wanted_effect: float | None,
) -> SuiteEstimate:
    """Estimates one suite.

    Args:
        plans: the suite with each possible claim, the registered claim first.
        chosen: the person's own claim; None for the policy's.
        arms: incumbent, candidate.
        earlier: proposals that may have measured the suite, newest first.
        limit: the policy's limit for a run.
    """
    plan = plans[0]
    effect = planned_effect(plans[0], wanted_effect)
    incumbent_usage, candidate_usage = usages = cost_ratio.estimate_usages(
        ctx,
        tx,
        plan,
        arms,
    )
    spread = find_recorded_spread(tx, plan, arms[0].id, earlier)
    assumed_spread = spread or DifferenceSpread(
        guess_variance(plan, effect), 0.0, 0, bool(plan.cluster)
    )
    sd = assumed_spread.sd(plan.epochs)
    units = ctx.suites.groups(plan.suite).units
    test = planned_test(plan, units, assumed_spread)
    saving = _expected_saving(ctx, tx, arms, usages)
    advice = advise_claim(
        plans, chosen, units, assumed_spread, usages, saving, wanted_effect or EFFECT
    )
    has_judge = ctx.suites.pin(plan.suite).judged
    warnings = (
        _describe_weakness(plan, test, sd, effect, advice.own.enough),
        _budget_warning(plan, usages, limit),
        _describe_dependence(ctx, plan.suite),
        ctx.suites.describe_sample(plan.suite),
    )
    return SuiteEstimate(
        plan=plan,
        effect=effect,
        sd=sd,
        mde=test.smallest_effect(sd, plan.n_max),
        failing=_smallest_failing_loss(plan, sd),
        spread=spread,
        incumbent=incumbent_usage,
        candidate=candidate_usage,
        estimated=bool(incumbent_usage and candidate_usage and not candidate_usage.answers),
        guessed=bool(
            incumbent_usage
            and candidate_usage
            and not incumbent_usage.answers
            and not candidate_usage.answers
        ),
        cost_usd=advice.own.cost_usd,
        judge_usd=(
            budget.judging_cost_usd(plan.planned_items, plan.epochs, usages)
            if has_judge
            else 0.0
        ),
        duration_s=budget.comparison_duration_s(
            plan.planned_items, plan.epochs, usages, ctx.eval_connections
        ),
        advice=advice,
        warning=" ".join(filter(None, warnings)),
        saving_items=(
            items_to_show_saving(saving, plan)
            if plan.claim is Claim.CHEAPER and saving is not None
            else None
        ),
        slices=_estimate_slices(plan, sd),
        promotion_from=promotion_waits_for(plan),
        power=test.power(sd, effect, plan.n_max),
    )


def _expected_saving(
    ctx: ProposalsContext,
    tx: Transaction,
    arms: tuple[Target, Target | None],
    usages: tuple[MeanUsage | None, MeanUsage | None],
) -> float | None:
    """Returns the expected saving, a share of 1; None if a price is unknown.

    From the usage of both models if it is known, otherwise from list prices.
    """
    incumbent_usage, candidate_usage = usages
    if incumbent_usage is None or candidate_usage is None:
        incumbent_price, candidate_price = (
            targets.find_list_price(ctx, tx, arm) for arm in arms
        )
        return (
            candidate_price.saves_on(incumbent_price)
            if incumbent_price and candidate_price
            else None
        )
    if not incumbent_usage.cost_usd or candidate_usage.cost_usd is None:
        return None
    return 1.0 - candidate_usage.cost_usd / incumbent_usage.cost_usd


def _describe_weakness(
    plan: SuitePlan,
    test: PlannedTest,
    sd: float,
    effect: float,
    design: DesignOption | None,
) -> str:
    """Warns if the planned items cannot show the effect with power .8; else empty.

    Args:
        design: the cheapest design that could; None if the suite has too few items.
    """
    smallest = test.smallest_effect(sd, plan.n_max)
    if smallest <= effect:
        return ""
    wanted = format_score(effect, None)
    power = test.power(sd, effect, plan.n_max)
    sufficient_items = test.items_needed(sd, effect)
    advice = (
        f"{design.items} {plan.unit}s with {design.epochs} "
        f"epoch{'s' if design.epochs > 1 else ''} would show {wanted} points"
        if design
        else f"the suite's {test.suite_items:,} {plan.unit}s are too few to detect {wanted} "
        f"points, for any number of epochs: about {sufficient_items:,} {plan.unit}s would be "
        "enough"
    )
    return (
        f"With {plan.n_max} {plan.unit}s the gate can only show differences of "
        f"{format_score(smallest)} points or more; it shows a difference of {wanted} points in "
        f"{format_percent(power)} of such comparisons, not in 80 %; {advice}."
    )


def _budget_warning(
    plan: SuitePlan,
    usages: Sequence[MeanUsage | None],
    limit: RunBudget,
) -> str:
    """Warns of a run that its policy's limit would end; else empty.

    Args:
        usages: of the incumbent and of the candidate.
    """
    warnings = []
    for arm, usage in zip(("incumbent", "candidate"), usages, strict=True):
        if usage is None:
            continue
        answers = plan.planned_items * plan.epochs
        tokens = answers * (usage.input_tokens + usage.output_tokens)
        if limit.max_cost_usd is not None and (usage.cost_usd or 0.0) > 0.0:
            usd = answers * (usage.cost_usd or 0.0)
            if usd > limit.max_cost_usd:
                warnings.append(
                    f"The {arm}'s run of {answers:,} answers costs about {format_usd(usd)}, "
                    f"and `max_cost_usd` ends it at {format_usd(limit.max_cost_usd)}."
                )
        if limit.max_tokens is not None and tokens > limit.max_tokens:
            warnings.append(
                f"The {arm}'s run of {answers:,} answers takes about {tokens:,.0f} tokens, "
                f"and `max_tokens` ends it at {limit.max_tokens:,}."
            )
    return " ".join(warnings)


def _smallest_failing_loss(plan: SuitePlan, sd: float) -> float | None:
    """Returns `SuiteEstimate.failing`. With several candidates, most stop for futility before
    they lose by more than the margin, so only the items up to that point count.
    """
    if plan.claim is Claim.SUPERIOR:
        return None
    items = math.ceil(FUTILE_FROM_SHARE * plan.n_max) if plan.futility else plan.n_max
    return budget.smallest_rejected(sd, -plan.margin, items)


def _estimate_slices(plan: SuitePlan, sd: float) -> tuple[SliceEstimate, ...]:
    """Estimates each guarded slice, from the deviation of the whole suite."""
    levels = look_levels(plan)
    allowed = 0.0 if plan.claim is Claim.SUPERIOR else plan.margin
    return tuple(
        SliceEstimate(
            slice_.name,
            units,
            allowed + budget.slice_effect(sd, MIN_SLICE_UNITS, level),
            allowed + budget.slice_effect(sd, units, level),
        )
        for slice_, (units, level) in zip(plan.slices, levels, strict=True)
    )


def _describe_dependence(ctx: ProposalsContext, suite: str) -> str:
    """Describes equal items and clusters, as a sentence; else empty."""
    dependence = ctx.suites.describe_dependence(suite)
    return f"{dependence[:1].upper()}{dependence[1:]}." if dependence else ""
