"""Slices are parts of a suite, such as a language or a product. A candidate fails if one slice
is shown worse by more than the margin, even with a good mean (statistics.md §1.13).

The gate tests each slice for a loss after its 60th unit and after its last unit. These numbers
are fixed before the first score, so an early stop can skip a look but cannot move it. The error
is split over a slice's looks, and by Holm's rule over the slices. A file's slices are tested
once, on all its rows.

Clusters are the units of a suite whose items belong together (statistics.md §1.12). The plan
contains their sizes in the registered order. All clusters have equal weight.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Final

from harness.gate.arrays import np
from harness.gate.budget import holm_test
from harness.gate.offline.design import design_from_plan
from harness.gate.offline.intervals import mean_interval
from harness.gate.offline.item_tests import final_p
from harness.gate.offline.pairs import PairedItem, score_difference
from harness.gate.suite_plan import MIN_SLICE_UNITS, Looks, Slice, SuitePlan
from harness.gate.verdict import ScorePair, SliceFigures


def merge_clusters(plan: SuitePlan, items: Sequence[PairedItem]) -> tuple[PairedItem, ...]:
    """Averages the items of each whole cluster into one item with the name of its first item.
    Returns the items themselves if the plan has no clusters.
    """
    if not plan.cluster:
        return tuple(items)
    return tuple(_mean_item(members) for members in _clusters(plan, items))


def measured_units(plan: SuitePlan, items: Sequence[PairedItem]) -> tuple[PairedItem, ...]:
    """Merges the measured items of each unit; leaves out units without measured items."""
    groups = _clusters(plan, items) if plan.cluster else ([item] for item in items)
    known = ([item for item in members if item.complete] for members in groups)
    return tuple(_mean_item(members) for members in known if members)


def _clusters(plan: SuitePlan, items: Sequence[PairedItem]) -> Iterator[Sequence[PairedItem]]:
    begin = 0
    for size in plan.cluster_sizes:
        if begin + size > len(items):
            return
        yield items[begin : begin + size]
        begin += size


def _mean_item(members: Sequence[PairedItem]) -> PairedItem:
    return merge_items(members, lambda values: math.fsum(values) / len(values))


def merge_items(
    parts: Sequence[PairedItem], mean: Callable[[Sequence[float]], float]
) -> PairedItem:
    """Merges items, both sides alike. The merged cost is known if each part's cost is known."""

    def score(name: str) -> float:
        # A sum of thirds of 1 may exceed 1 by rounding.
        return min(1.0, mean([getattr(part.pair, name) for part in parts]))

    def cost(arm: int) -> float | None:
        known = [price for part in parts if (price := part.costs[arm]) is not None]
        return mean(known) if len(known) == len(parts) else None

    return PairedItem(
        pair=ScorePair(
            item=parts[0].pair.item,
            incumbent=score("incumbent"),
            candidate=score("candidate"),
            lenient_incumbent=score("lenient_incumbent"),
            lenient_candidate=score("lenient_candidate"),
        ),
        unscored_incumbent=sum(part.unscored_incumbent for part in parts),
        unscored_candidate=sum(part.unscored_candidate for part in parts),
        unanswered=any(part.unanswered for part in parts),
        missing=(
            mean([p.missing[0] for p in parts]),
            mean([p.missing[1] for p in parts]),
        ),
        reasons=join_reasons(parts),
        rules=tuple(rule for part in parts for rule in part.rules),
        costs=(cost(0), cost(1)),
    )


def join_reasons(items: Sequence[PairedItem]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Joins the reasons of missing scores, for the incumbent and for the candidate."""
    ours, theirs = ([why for item in items for why in item.reasons[arm]] for arm in (0, 1))
    return tuple(ours), tuple(theirs)


# The slice test has an error of its own, because it cannot cause a promotion.
SLICE_ALPHA: Final = 0.05


@dataclass(frozen=True, slots=True)
class SliceJudgement:
    """The slices' figures at the last look, and whether one is shown worse."""

    figures: tuple[SliceFigures, ...]
    # The number of units after which a slice was first shown worse; None for never.
    worse_at: int | None = None
    # Whether only the format loses: with lenient scores the loss is within the margin.
    form: bool = False

    @property
    def worse(self) -> tuple[SliceFigures, ...]:
        return tuple(slice_ for slice_ in self.figures if slice_.worse)


@dataclass(frozen=True, slots=True)
class _SliceUnits:
    """The units of one slice, and the items of each unit that are in the slice."""

    units: tuple[int, ...]  # positions in the order, from 0
    members: tuple[tuple[int, ...], ...]  # by unit, positions of items

    def look_counts(self, plan: SuitePlan) -> tuple[int, ...]:
        """The gate tests the slice after each of these numbers of its units."""
        whole = len(self.units)
        if plan.looks is not Looks.PLANNED:
            return (whole,)
        return tuple(dict.fromkeys((MIN_SLICE_UNITS, whole)))


def promotion_waits_for(plan: SuitePlan) -> int:
    """Counts the units up to the last slice's first look; no promotion comes earlier."""
    firsts = [_slice_units(plan, slice_).units[MIN_SLICE_UNITS - 1] for slice_ in plan.slices]
    return max(firsts, default=-1) + 1


def look_levels(plan: SuitePlan) -> Sequence[tuple[int, float]]:
    """Lists, for each slice, its number of units and the error of one look."""
    layouts = [_slice_units(plan, slice_) for slice_ in plan.slices]
    return [
        (len(layout.units), SLICE_ALPHA / len(layouts) / len(layout.look_counts(plan)))
        for layout in layouts
    ]


def judge_slices(
    plan: SuitePlan,
    items: Sequence[PairedItem],
    allowance: float = 0.0,
) -> SliceJudgement:
    """Tests the slices on these items, up to the first look that shows a slice worse.

    Args:
        allowance: a loss that the difference of two days may explain, a share of 1.
    """
    judgement = _test_slices(plan, items, allowance)
    if judgement.worse_at is None:
        return judgement
    cut = items[: plan.items_in(judgement.worse_at)]
    worse_names = {slice_.name for slice_ in judgement.worse}
    # A loss by form alone is no rejection, as for the whole suite.
    lenient = _test_slices(plan, tuple(map(_read_leniently, cut)), allowance)
    allowed = plan.margin
    kept = all(s.delta >= -allowed for s in lenient.figures if s.name in worse_names)
    return replace(judgement, form=lenient.worse_at is None and kept)


def _read_leniently(item: PairedItem) -> PairedItem:
    pair = item.pair
    read = replace(
        pair,
        incumbent=pair.lenient_incumbent,
        candidate=pair.lenient_candidate,
    )
    return replace(item, pair=read)


def _test_slices(
    plan: SuitePlan,
    items: Sequence[PairedItem],
    allowance: float,
) -> SliceJudgement:
    available = plan.units_in(len(items))
    d = [score_difference(item.pair.candidate, item.pair.incumbent) for item in items]
    p_values: dict[int, float] = {}
    worse_at = None
    are_worse = (False,) * len(plan.slices)
    for end, looks in groupby(
        sorted(_list_looks(plan, d, available, allowance)), key=itemgetter(0)
    ):
        for _, index, p in looks:
            p_values[index] = min(p, p_values.get(index, 1.0))
        ordered = [p_values.get(at, 1.0) for at in range(len(plan.slices))]
        are_worse = holm_test(ordered, SLICE_ALPHA)
        if any(are_worse):
            worse_at = end
            break
    known = [x if item.complete else math.nan for x, item in zip(d, items, strict=True)]
    figures = tuple(
        _build_figures(
            plan,
            slice_,
            known,
            (
                worse_at or available,
                p_values.get(index),
                are_worse[index],
            ),
        )
        for index, slice_ in enumerate(plan.slices)
    )
    return SliceJudgement(figures, worse_at)


def _list_looks(
    plan: SuitePlan,
    d: Sequence[float],
    available: int,
    allowance: float,
) -> Iterator[tuple[int, int, float]]:
    """Yields (units of the order, slice, p-value) of every look whose units are measured."""
    for index, slice_ in enumerate(plan.slices):
        layout = _slice_units(plan, slice_)
        counts = layout.look_counts(plan)
        for count in counts:
            planned = plan.looks is Looks.PLANNED
            end = layout.units[count - 1] + 1 if planned else plan.n_max
            if end <= available:
                values = _differences(layout, d, count)
                # A difference within the margin is not a loss, even if it is certain.
                theta0 = design_from_plan(plan).theta0 - allowance
                within = math.fsum(values) >= theta0 * count
                p = 1.0 if within else float(final_p(theta0 - np.asarray(values), 0.0))
                yield end, index, min(1.0, len(counts) * p)


def _build_figures(
    plan: SuitePlan,
    slice_: Slice,
    d: Sequence[float],
    found: tuple[int, float | None, bool],
) -> SliceFigures:
    upto, p, worse = found
    layout = _slice_units(plan, slice_)
    used = sum(unit < upto for unit in layout.units)
    values = [x for x in _differences(layout, d, used) if not math.isnan(x)]
    low, high = mean_interval(values) or (None, None)
    return SliceFigures(
        field=slice_.field,
        value=slice_.value,
        n_used=used,
        n_max=len(layout.units),
        delta=math.fsum(values) / len(values) if values else 0.0,
        ci_low=low,
        ci_high=high,
        p=p,
        worse=worse,
    )


def _differences(
    layout: _SliceUnits,
    d: Sequence[float],
    count: int,
) -> list[float]:
    """Returns the mean differences of the first units, over their items in the slice."""
    return [
        math.fsum(d[position] for position in members) / len(members)
        for members in layout.members[:count]
    ]


def _slice_units(plan: SuitePlan, slice_: Slice) -> _SliceUnits:
    return _lay_out(plan.cluster_sizes, slice_)


@lru_cache(maxsize=64)
def _lay_out(cluster_sizes: tuple[int, ...], slice_: Slice) -> _SliceUnits:
    unit_of: Mapping[int, int] = dict(
        enumerate(unit for unit, size in enumerate(cluster_sizes) for _ in range(size))
    )
    members: dict[int, list[int]] = {}
    for position in slice_.positions:
        members.setdefault(unit_of.get(position, position), []).append(position)
    return _SliceUnits(tuple(members), tuple(map(tuple, members.values())))
