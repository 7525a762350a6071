"""Estimates, suite by suite, what a proposal would cost, how long it would take and how small a
difference it could show (A3, F2), before it is made: from tokens, costs and score differences
of earlier runs. It names the cheapest design that shows enough, and warns of one that does not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Final

from harness.control.context import Context
from harness.control.evals.run_costs import sum_judging_cost
from harness.control.proposals import submission
from harness.control.proposals.submission import ProposalRequest
from harness.control.routing import monthly_bill, routes, targets
from harness.domain.evals.item_groups import MIN_SLICE_UNITS
from harness.domain.evals.run import Claim, EvalRun, Sample, SampleError, SuitePlan
from harness.domain.formatting import format_percent, format_score
from harness.domain.proposals.proposal import Proposal
from harness.domain.routing.target import Target
from harness.gate.offline.costs import items_to_show_saving
from harness.gate.offline.sequential import FEW_CLUSTERS
from harness.gate.offline.slices import look_levels, promotion_waits_for
from harness.gate.planning import budget
from harness.gate.planning.budget import (
    DISAGREEMENT,
    EFFECT,
    DesignOption,
    DifferenceSpread,
    MeanUsage,
    sd_pass_fail,
)
from harness.gate.text.sentences import judge_text
from harness.ports import Transaction

# Enough to know a mean; reading every stored answer would take longer than it tells.
MOST_SAMPLES: Final = 500
# How alike items of one cluster are taken to be before any were compared.
CLUSTER_ICC: Final = 0.5
MOST_EARLIER: Final = 200  # proposals that are looked through for a comparison on this suite
# items, epochs, sides → US dollars.
_CostOfAnswers = Callable[[int, int, Sequence[MeanUsage | None]], float | None]


@dataclass(frozen=True)
class SliceEstimate:
    """Estimates which loss of a slice would be seen. Losses are shares of 1."""

    name: str
    units: int  # that are planned
    sees: float  # with power .8 by its first look, which every promotion waits for
    sees_whole: float  # by its last look, if the gate goes so far

    @property
    def text(self) -> str:
        """Says in words what the guard of the slice can see."""
        last = (
            f", {format_score(self.sees_whole)} on all {self.units:,}"
            if self.units > MIN_SLICE_UNITS
            else ""
        )
        return (
            f"slice {self.name}: a loss of {format_score(self.sees)} points is seen on "
            f"{MIN_SLICE_UNITS}{last}"
        )


@dataclass(frozen=True)
class SuiteEstimate:
    """Estimates what one suite of a proposal can show."""

    plan: SuitePlan
    effect: float  # the true distance from the null that matters, a share of 1
    sd: float
    mde: float
    # Of the differences, recorded between the incumbent and an earlier candidate, or between
    # any two; None where too few were recorded, and `sd` is the default guess.
    spread: DifferenceSpread | None
    # incumbent, candidate: what one answer took; `estimated` when the candidate has none on
    # this suite and the incumbent's tokens are taken at its price. None where nobody knows.
    incumbent: MeanUsage | None
    candidate: MeanUsage | None
    estimated: bool
    # cost_usd, duration_s: at most, for the registered design, judge included; None where
    # unknown.
    cost_usd: float | None
    # Of that, the judge's; 0 for a suite without one. asked: sides whose answers are not there
    # yet.
    judge_usd: float | None
    duration_s: float | None
    cheapest: DesignOption | None  # None where the suite has too few items
    warning: str
    # Share of the incumbent's cost, by these answers, where the claim is about it.
    saving: float | None = None
    saving_items: int | None = None  # how many would show it, None for never
    slices: tuple[SliceEstimate, ...] = ()
    promotion_from: int = 0  # units; before these no slice is looked at, and nothing promoted

    @property
    def slice_texts(self) -> Sequence[str]:
        """Says in words what the slices can show, and how long a promotion waits for them."""
        if not self.slices:
            return ()
        wait = f"no promotion before {self.plan.unit} {self.promotion_from:,}, for the slices"
        return (*(guarded.text for guarded in self.slices), wait)


def estimate_proposal(
    ctx: Context, request: ProposalRequest, effect: float | None = None
) -> Sequence[SuiteEstimate]:
    """Suite by suite; stores nothing. effect: default 5 points.

    Raises as `submission.preview_proposal` does.
    """
    plans = submission.preview_proposal(ctx, request).plans
    with ctx.store.read() as tx:
        incumbent = tx.routing.targets()[routes.require_route(tx, request.route).incumbent]
        sides = (
            incumbent,
            targets.find_known_target(tx, request.candidate)
            or targets.plain_target(request.candidate),
        )
        arms = {side.id for side in sides if side is not None}
        recorded = _Recorded(tx.runs.of_targets(arms), tx.proposals.list(limit=MOST_EARLIER))
        return [_of_suite(ctx, tx, plan, sides, recorded, effect) for plan in plans]


@dataclass(frozen=True)
class _Recorded:
    """Newest first."""

    runs: Sequence[EvalRun]
    proposals: Sequence[Proposal]


def _of_suite(
    ctx: Context,
    tx: Transaction,
    plan: SuitePlan,
    arms: tuple[Target, Target | None],
    recorded: _Recorded,
    wished: float | None,
) -> SuiteEstimate:
    ours, theirs = (_usage(tx, plan, arm, recorded.runs) for arm in arms)
    estimated = theirs is None and ours is not None
    if ours is not None and theirs is None:
        theirs = _at_price(tx, arms[1], ours)
    spread = _spread(tx, plan, arms[0].id, recorded.proposals)
    effect = _effect(plan, wished)
    known = budget.spread_as_people_score(
        spread or DifferenceSpread(_guess(plan, effect), 0.0, 0), plan
    )
    smallest = budget.detectable_effect(known, plan.n_max, plan.epochs, plan.alpha)
    judged = ctx.suites.pin(plan.suite).judged
    units, items = ctx.suites.groups(plan.suite).units, plan.planned_items
    sides = (ours, theirs)
    best = _in_items(
        budget.cheapest_design(known, effect, plan.alpha, units, sides), items / plan.n_max
    )
    saving = _saving(ours, theirs) if plan.claim is Claim.CHEAPER else None
    return SuiteEstimate(
        plan=plan,
        effect=effect,
        sd=known.sd(plan.epochs),
        mde=smallest,
        spread=spread,
        incumbent=ours,
        candidate=theirs,
        estimated=estimated,
        cost_usd=_cost(plan, sides, budget.comparison_cost_usd),
        judge_usd=_cost(plan, sides, budget.judging_cost_usd) if judged else 0.0,
        duration_s=budget.comparison_duration_s(
            items, plan.epochs, sides, ctx.eval_connections, plan.pool
        ),
        cheapest=best,
        warning=" ".join(
            filter(
                None,
                [
                    _warning(plan, known.sd(plan.epochs), effect, best, units),
                    _likely_clusters(ctx, plan.suite),
                    judge_text(plan, judged=judged),
                ],
            )
        ),
        saving=saving,
        saving_items=None if saving is None else items_to_show_saving(saving, plan),
        slices=_slices(plan, known.sd(plan.epochs)),
        promotion_from=promotion_waits_for(plan),
    )


def _cost(
    plan: SuitePlan, sides: Sequence[MeanUsage | None], of_answers: _CostOfAnswers
) -> float | None:
    """Of both sides' planned answers, and the incumbent's to the rest of its pool."""
    planned = of_answers(plan.planned_items, plan.epochs, sides)
    rest = of_answers(plan.incumbent_items - plan.planned_items, plan.epochs, sides[:1])
    return None if planned is None or rest is None else planned + rest


def _saving(ours: MeanUsage | None, theirs: MeanUsage | None) -> float | None:
    """None where a side's cost is unknown, or the incumbent's is 0."""
    if ours is None or theirs is None or not ours.cost_usd or theirs.cost_usd is None:
        return None
    return 1.0 - theirs.cost_usd / ours.cost_usd


def _effect(plan: SuitePlan, wished: float | None) -> float:
    """For non_inferior the distance of equal models from the null: the margin."""
    if plan.claim.quality is Claim.NON_INFERIOR:
        return plan.margin
    return EFFECT if wished is None else wished


def _guess(plan: SuitePlan, effect: float) -> float:
    shift = effect if plan.claim is Claim.SUPERIOR else 0.0
    variance = sd_pass_fail(DISAGREEMENT, shift) ** 2
    if not plan.cluster:
        return variance
    shares = [CLUSTER_ICC + (1.0 - CLUSTER_ICC) / size for size in plan.cluster_sizes]
    return variance * fmean(shares)


def _in_items(design: DesignOption | None, size: float) -> DesignOption | None:
    """A design of units that have so many items in the mean, with their answers and costs."""
    if design is None or size == 1.0:
        return design
    cost = None if design.cost_usd is None else design.cost_usd * size
    return replace(design, answers=round(design.answers * size), cost_usd=cost)


def _warning(
    plan: SuitePlan, sd: float, effect: float, best: DesignOption | None, units: int
) -> str:
    if plan.cluster and plan.claim.quality is Claim.NON_INFERIOR and plan.n_max < FEW_CLUSTERS:
        return (
            f"{plan.n_max} clusters are too few to show that none is lost whole: below "
            f"{FEW_CLUSTERS} an equal candidate hardly ever passes."
        )
    smallest = budget.minimum_detectable_effect(sd, plan.n_max, plan.alpha)
    if smallest <= effect:
        return ""
    wanted = format_score(effect, None)
    power = budget.power_of(sd, effect, plan.n_max, plan.alpha)
    enough = budget.items_needed(sd, effect, plan.alpha)
    advice = (
        f"{best.items} {plan.unit}s with {best.epochs} epoch(s) would show {wanted}"
        if best
        else f"its {units} {plan.unit}s are too few to detect {wanted} points, with any "
        f"epochs: with those planned, about {enough:,} would"
    )
    return (
        f"With {plan.n_max} {plan.unit}s you can only see differences of "
        f"{format_score(smallest)} points or more, and one of {wanted} points is shown in "
        f"{format_percent(power)} of such comparisons, not in 80 %; {advice}."
    )


def _slices(plan: SuitePlan, sd: float) -> tuple[SliceEstimate, ...]:
    levels = look_levels(plan)
    return tuple(
        SliceEstimate(
            slice_.name,
            units,
            budget.slice_effect(sd, MIN_SLICE_UNITS, level),
            budget.slice_effect(sd, units, level),
        )
        for slice_, (units, level) in zip(plan.slices, levels, strict=True)
    )


def _likely_clusters(ctx: Context, suite: str) -> str:
    likely = ctx.suites.likely_clusters(suite)
    return f"{likely[:1].upper()}{likely[1:]}." if likely else ""


def _usage(
    tx: Transaction, plan: SuitePlan, target: Target | None, runs: Sequence[EvalRun]
) -> MeanUsage | None:
    """Of the newest run with answers."""
    for run in runs:
        if target is None or (run.suite_digest, run.target) != (plan.suite_digest, target.id):
            continue
        answered = [
            sample
            for sample in tx.runs.samples(run.id, below=MOST_SAMPLES)
            if sample.error is not SampleError.INFRA
        ]
        if answered:
            judged = tx.suites.get(plan.suite_digest).judged
            return _means(answered, judged=judged)
    return None


def _means(samples: Sequence[Sample], *, judged: bool) -> MeanUsage:
    costs = [sample.cost_usd for sample in samples if sample.cost_usd is not None]
    judging = sum_judging_cost(samples, judged=judged)
    return MeanUsage(
        answers=len(samples),
        input_tokens=fmean(sample.input_tokens for sample in samples),
        output_tokens=fmean(sample.output_tokens for sample in samples),
        cost_usd=fmean(costs) if len(costs) == len(samples) else None,
        duration_s=fmean(sample.duration_s for sample in samples),
        judge_usd=None if judging.usd is None else judging.usd / len(samples),
    )


def _at_price(tx: Transaction, target: Target | None, of: MeanUsage) -> MeanUsage:
    """As if the candidate took the same tokens and time, and the judge as much."""
    price = monthly_bill.find_price(tx, target)
    per_answer = price.cost_usd(of.input_tokens, of.output_tokens) if price else None
    return replace(of, answers=0, cost_usd=per_answer)


def _spread(
    tx: Transaction, plan: SuitePlan, incumbent: str, earlier: Sequence[Proposal]
) -> DifferenceSpread | None:
    """Of the newest comparison on this suite; one with the same incumbent goes first."""
    for proposal in sorted(earlier, key=lambda former: former.incumbent != incumbent):
        registered = {
            registered_plan.suite: registered_plan for registered_plan in proposal.plans
        }.get(plan.suite)
        runs = proposal.runs.get(plan.suite)
        if registered is None or runs is None or registered.suite_digest != plan.suite_digest:
            continue
        spread = budget.measure_spread(
            _differences(
                registered,
                tx.runs.samples(runs.incumbent, below=MOST_SAMPLES),
                tx.runs.samples(runs.candidate, below=MOST_SAMPLES),
            )
        )
        if spread is not None:
            return spread
    return None


def _differences(
    plan: SuitePlan, ours: Sequence[Sample], theirs: Sequence[Sample]
) -> list[list[float]]:
    """Per unit, per epoch; only answers that both sides have a score of."""
    scores = {(s.item, s.epoch): s.strict for s in ours if s.strict is not None}
    units: dict[int, dict[int, list[float]]] = {}
    for sample in theirs:
        score = scores.get((sample.item, sample.epoch))
        if score is not None and sample.strict is not None:
            epochs = units.setdefault(plan.units_in(sample.position), {})
            epochs.setdefault(sample.epoch, []).append(sample.strict - score)
    return [[fmean(epoch) for epoch in epochs.values()] for epochs in units.values()]
