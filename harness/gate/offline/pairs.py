"""Pairs two runs' samples item by item. A pair counts a missing score against the candidate,
and records how much of the score is open (statistics.md §1.1). Pairing stops before the first
item that a side has not finished. It also stops before an item that another model served; then
`blocked` gives the reason.

Pairing never drops an item because of its outcome and never reorders items. Only the items
before the first incomplete item count, and only whole clusters.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.frame.errors import InputError, StaleEvidence
from harness.gate.incumbent_days import DaySpread, IncumbentDays
from harness.gate.offline.item_tests import MOST_NOISE
from harness.gate.pins import (
    ServedModel,
    ServedModels,
    ServedPin,
    named_models,
)
from harness.gate.run import Sample, SampleError
from harness.gate.suite_plan import Claim, SuitePlan
from harness.gate.verdict import ScorePair

# Smaller differences come from rounding: (.1 + .2) / 2 and (.15 + .15) / 2 are different
# doubles.
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class PairedItem:
    """One pair, with facts for the report.

    pair: missing scores count against the candidate. unscored_*: epochs without a score.
    """

    pair: ScorePair
    unscored_incumbent: int = 0
    unscored_candidate: int = 0
    unanswered: bool = False  # one model or both gave no answer
    # missing: the open part of the incumbent's and of the candidate's score. reasons: why, with
    # an entry for each epoch.
    missing: tuple[float, float] = (0.0, 0.0)
    reasons: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    # Answers of (incumbent, candidate) that a gateway marks as its fallback's.
    fallbacks: tuple[int, int] = (0, 0)
    # Form rules that the candidate's answers broke, with an entry for each epoch.
    rules: tuple[str, ...] = ()
    # The models that providers named; equality ignores them.
    served: ServedModels = field(default=ServedModels(), compare=False)
    # US dollars of (incumbent, candidate), means over epochs; set for a cost claim.
    costs: tuple[float | None, float | None] = (None, None)
    # Variances of the mean scores of (incumbent, candidate); set for a claim about these items.
    variances: tuple[float, float] | None = None

    @property
    def complete(self) -> bool:
        """Tells whether every epoch of both sides has a score."""
        return self.missing == (0.0, 0.0)

    @property
    def in_favour(self) -> "PairedItem":
        """Returns the pair with missing scores counted for the candidate."""
        ours, theirs = self.missing
        if self.complete:
            return self
        pair = self.pair
        return replace(
            self,
            pair=replace(
                pair,
                incumbent=max(0.0, pair.incumbent - ours),
                candidate=min(1.0, pair.candidate + theirs),
                lenient_incumbent=max(0.0, pair.lenient_incumbent - ours),
                lenient_candidate=min(1.0, pair.lenient_candidate + theirs),
            ),
        )


@dataclass(frozen=True, slots=True)
class PairedSuite:
    """The paired items of one suite, up to the first incomplete item."""

    items: tuple[PairedItem, ...]
    incumbent_run: str
    candidate_run: str
    blocked: str = ""  # why pairing stopped; empty if it did not
    # The scheduled runs whose mean is the incumbent's run; None for one run.
    days: IncumbentDays | None = None
    # The served models that a stored verdict recorded, if the items come from a verdict.
    stored_served: ServedModels | None = None

    @property
    def spread(self) -> DaySpread | None:
        return self.days.spread if self.days else None

    @property
    def served(self) -> ServedModels:
        """Returns the models that answered and scored these items."""
        if self.stored_served is not None:
            return self.stored_served
        return ServedModels(
            incumbent=named_models(one for item in self.items for one in item.served.incumbent),
            candidate=named_models(one for item in self.items for one in item.served.candidate),
            judge=named_models(one for item in self.items for one in item.served.judge),
        )


def mean_score(scores: Iterable[float | None], if_missing: float) -> float:
    """Computes the mean over epochs; a missing score counts as `if_missing`."""
    known = [if_missing if score is None else score for score in scores]
    return math.fsum(known) / len(known) + 0.0


def score_difference(candidate: float, incumbent: float) -> float:
    """Subtracts incumbent from candidate; 0 if the means differ only by rounding."""
    d = candidate - incumbent
    return d if abs(d) > ROUNDING else 0.0


def pair_samples(
    plan: SuitePlan,
    incumbent: Sequence[Sample],
    candidate: Sequence[Sample],
) -> PairedSuite:
    """Pairs the items that both sides have finished, in the registered order.

    Raises StaleEvidence if the sides differ in items, order or epochs, or a side has a sample
    twice. Raises InputError for a score outside [0, 1].
    """
    ours = _by_position(plan, incumbent)
    theirs = _by_position(plan, candidate)
    items: list[PairedItem] = []
    blocked = ""
    pinned = _PinCheck(plan.served_pin)
    for position in range(plan.planned_items):
        a = ours.get(position, [])
        b = theirs.get(position, [])
        _require_same_item(plan, position, a, b)
        if len(a) < plan.epochs or len(b) < plan.epochs:
            break
        _require_same_epochs(plan, a, b)
        item = _build_pair(a, b)
        if plan.claim is Claim.CHEAPER:
            item = replace(item, costs=(_mean_cost(a), _mean_cost(b)))
        if plan.about_these:
            item = replace(item, variances=(_score_variance(a), _score_variance(b)))
        blocked = pinned.broken(item)
        if blocked:
            break
        items.append(item)
    whole = tuple(items[: plan.items_in(plan.units_in(len(items)))])
    return PairedSuite(whole, _run_of(incumbent), _run_of(candidate), blocked)


def _score_variance(samples: Sequence[Sample]) -> float:
    """Estimates the variance of the samples' mean score if a run asked the item again.

    Answers of equal length may be one cached answer, so they do not measure the noise.
    """
    scores = [score for score in map(_strict, samples) if score is not None]
    lengths = {sample.output_tokens for sample in samples}
    if min(len(lengths), len(scores)) < len(samples):
        return MOST_NOISE
    mean = math.fsum(scores) / len(scores)
    squares = math.fsum((score - mean) ** 2 for score in scores)
    return squares / (len(scores) - 1) / len(scores)


def _by_position(plan: SuitePlan, samples: Sequence[Sample]) -> Mapping[int, list[Sample]]:
    by_position: dict[int, list[Sample]] = {}
    seen: dict[tuple[str, int], Sample] = {}
    places: dict[str, int] = {}
    for sample in samples:
        key = (sample.item, sample.epoch)
        if key in seen:
            raise _stale_evidence(
                plan,
                f"item {sample.item} epoch {sample.epoch} appears twice in one run",
            )
        if sample.run != samples[0].run:
            raise _stale_evidence(
                plan,
                f"samples of two runs, {samples[0].run} and {sample.run}",
            )
        if places.setdefault(sample.item, sample.position) != sample.position:
            raise _stale_evidence(plan, f"item {sample.item} has two positions in the order")
        seen[key] = sample
        by_position.setdefault(sample.position, []).append(_check_scores(sample))
    for group in by_position.values():
        group.sort(key=lambda sample: sample.epoch)
    return by_position


def _check_scores(sample: Sample) -> Sample:
    for name, score in (
        ("strict", sample.strict),
        ("lenient", sample.lenient),
    ):
        if score is not None and not 0.0 <= score <= 1.0:
            raise InputError(
                f"run {sample.run}, item {sample.item}: the {name} score is {score}; "
                "scores are numbers from 0 to 1, fix the scorer"
            )
    return sample


def _require_same_item(
    plan: SuitePlan,
    position: int,
    a: list[Sample],
    b: list[Sample],
) -> None:
    names = sorted({sample.item for sample in (*a, *b)})
    if len(names) > 1:
        raise _stale_evidence(plan, f"position {position} has two items, {' and '.join(names)}")
    if max(len(a), len(b)) > plan.epochs:
        raise _stale_evidence(
            plan,
            f"item {names[0]} has more than the planned {plan.epochs} epoch(s)",
        )


def _require_same_epochs(
    plan: SuitePlan,
    a: list[Sample],
    b: list[Sample],
) -> None:
    if [sample.epoch for sample in a] != [sample.epoch for sample in b]:
        raise _stale_evidence(plan, f"item {a[0].item}: the epochs of the two sides differ")


def _stale_evidence(plan: SuitePlan, what: str) -> StaleEvidence:
    return StaleEvidence(f"suite {plan.suite}: {what}; run the comparison again")


def _run_of(samples: Sequence[Sample]) -> str:
    return samples[0].run if samples else ""


def _strict(sample: Sample) -> float | None:
    """Returns the strict score; None for a failed sample, even if it has a score."""
    return None if sample.error else sample.strict


def _lenient(sample: Sample) -> float | None:
    """Returns the lenient score; the strict one if the scorer has no lenient reading."""
    return _strict(sample) if sample.error or sample.lenient is None else sample.lenient


def _reasons(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Returns the reasons of epochs without a score, written for use within a sentence."""
    lost = (sample for sample in samples if _strict(sample) is None)
    return tuple(sample.error_text.rstrip(". ") or "no reply" for sample in lost)


def _count_fallbacks(samples: Sequence[Sample]) -> int:
    return sum(sample.error is SampleError.FALLBACK for sample in samples)


def _build_pair(a: Sequence[Sample], b: Sequence[Sample]) -> PairedItem:
    """Builds the pair of one item.

    A missing score counts 1 for the incumbent and 0 for the candidate.
    """
    reasons = _reasons(a), _reasons(b)
    return PairedItem(
        pair=ScorePair(
            item=a[0].item,
            incumbent=mean_score(map(_strict, a), 1.0),
            candidate=mean_score(map(_strict, b), 0.0),
            lenient_incumbent=mean_score(map(_lenient, a), 1.0),
            lenient_candidate=mean_score(map(_lenient, b), 0.0),
        ),
        unscored_incumbent=len(reasons[0]),
        unscored_candidate=len(reasons[1]),
        unanswered=any(sample.error and not sample.answer for sample in (*a, *b)),
        missing=(len(reasons[0]) / len(a), len(reasons[1]) / len(b)),
        reasons=reasons,
        fallbacks=(_count_fallbacks(a), _count_fallbacks(b)),
        rules=tuple(
            sample.rule or "unnamed"
            for sample in b
            if not sample.error and (sample.rule or _strict(sample) != _lenient(sample))
        ),
        served=ServedModels(
            incumbent=named_models(sample.served for sample in a),
            candidate=named_models(sample.served for sample in b),
            judge=named_models(sample.judge for sample in (*a, *b)),
        ),
    )


class _PinCheck:
    """Checks that the models of the first item served each later item."""

    def __init__(self, pin: ServedPin) -> None:
        self._pin = pin
        self._first: dict[str, tuple[ServedModel, str]] = {}

    def broken(self, item: PairedItem) -> str:
        """Returns why the run ends before this item; empty if it continues."""
        served = item.served
        for whose, models in (
            ("the incumbent", served.incumbent),
            ("the candidate", served.candidate),
            ("the judge", served.judge),
        ):
            for model in models:
                first, since = self._first.setdefault(whose, (model, item.pair.item))
                if model.unlike(first, self._pin):
                    return (
                        f"two models answered as {whose}: {first.label} from item {since} on, "
                        f"{model.label} at item {item.pair.item}; one measurement needs one "
                        "model"
                    )
        return ""


def _mean_cost(samples: Sequence[Sample]) -> float | None:
    """Returns the mean over epochs; None if an epoch's cost is unknown or it has no answer."""
    costs = [sample.cost_usd if sample.is_own else None for sample in samples]
    known = [cost for cost in costs if cost is not None and math.isfinite(cost) and cost >= 0]
    return math.fsum(known) / len(known) if len(known) == len(costs) else None
