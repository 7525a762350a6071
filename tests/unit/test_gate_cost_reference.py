import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from statistics import fmean

import pytest
from scipy import stats

from harness.gate.offline.suite_claims import (
    CostPair,
    items_to_show_saving,
    judge_costs,
)
from harness.gate.suite_plan import Claim, SuitePlan
from harness.gate.verdict import CostFigures, CostOutcome
from tests.unit.test_gate_verdicts import plan

pytestmark = pytest.mark.req("A3", "A7", "F2")


def claim(
    n_max: int,
    saving: float = 0.2,
    ceiling: float = 3.0,
    alpha: float = 0.05,
) -> SuitePlan:
    made = plan(claim=Claim.CHEAPER, n_max=n_max)
    return replace(
        made,
        min_saving=saving,
        cost_ceiling=ceiling,
        alpha=alpha,
    )


def factor(
    values: Sequence[float],
    level: float,
    n_max: int,
) -> float:
    """The log of what the newest value multiplies the evidence by."""
    seen = values[:-1]
    i = len(values) - 1
    spread = math.fsum((y - fmean(seen)) ** 2 for y in seen) if seen else 0.0
    stake = min(math.sqrt(2 * level * (i + 1) / ((0.25 + spread) * n_max)), 0.75)
    return math.log1p(stake * values[-1])


def reference(
    pairs: Sequence[CostPair], asked: SuitePlan
) -> tuple[CostOutcome, int, float, float]:
    """(outcome, items used, evidence for, evidence against)"""
    low: list[float] = []
    high: list[float] = []
    level = math.log(1 / asked.alpha)
    against = math.log(20)
    shown = refuted = 0.0
    for used in range(1, len(pairs) + 1):
        ours, theirs = pairs[used - 1]
        before = [a for a, _ in pairs[: used - 1] if a is not None]
        above = False
        if math.fsum(before) > 0:
            dearest = max(b or 0.0 for _, b in pairs[: used - 1])
            ceiling = max(asked.cost_ceiling * fmean(before), 5.0 * dearest)
            above = theirs is not None and theirs > ceiling
            kept = 0.0 if ours is None else (1 - asked.min_saving) * ours
            least = (kept - (ceiling if theirs is None else theirs)) / ceiling
            known = ours is not None and theirs is not None
            low.append(max(-1.0, min(1.0, least)))
            high.append(-max(-1.0, min(1.0, least)) if known else -1.0)
            shown += factor(low, level, asked.n_max)
            refuted += factor(high, against, asked.n_max)
        sides = [[pair[side] for pair in pairs[:used]] for side in (0, 1)]
        unknown = used == 20 and (not any(sides[0]) or all(cost is None for cost in sides[1]))
        if refuted >= against:
            return CostOutcome.REFUTED, used, shown, refuted
        if above or unknown:
            return CostOutcome.UNSHOWABLE, used, shown, refuted
        if shown >= level:
            return CostOutcome.SHOWN, used, shown, refuted
    return CostOutcome.OPEN, len(pairs), shown, refuted


def drawn(seed: int) -> tuple[list[CostPair], SuitePlan]:
    rng = Random(seed)
    n = rng.choice((15, 20, 21, 80))
    price = rng.choice((0.1, 0.4, 0.8, 2.0))
    missing = rng.choice((0.0, 0.0, 0.2, 1.0))
    gone = rng.choice((0.0, 0.2))
    free = rng.random() < 0.1
    tail = rng.choice((0.2, 0.7))
    pairs: list[CostPair] = []
    for _ in range(n):
        ours = 0.0 if free else rng.lognormvariate(0.0, 0.4)
        theirs = rng.lognormvariate(0.0, tail) * price
        pairs.append(
            (
                None if rng.random() < gone else ours,
                None if rng.random() < missing else theirs,
            )
        )
    asked = claim(
        n + rng.choice((0, 40)),
        rng.choice((0.0, 0.3)),
        alpha=rng.choice((0.05, 0.01)),
    )
    return pairs, asked


def test_every_cost_claim_ends_where_the_rule_says_with_its_evidence() -> None:
    outcomes = set()
    for seed in range(120):
        pairs, asked = drawn(seed)
        found = judge_costs(pairs, asked)
        outcome, used, shown, refuted = reference(pairs, asked)

        assert (found.outcome, found.n_used) == (outcome, used)
        assert found.log_e == pytest.approx(shown, abs=1e-9)
        assert found.log_e_bad == pytest.approx(refuted, abs=1e-9)
        counted = pairs[:used]
        assert found.missing_incumbent == sum(a is None for a, _ in counted)
        assert found.missing_candidate == sum(b is None for _, b in counted)
        check_means(
            found,
            [(a, b) for a, b in counted if a is not None and b is not None],
        )
        outcomes.add((found.outcome, found.above_ceiling))
    assert outcomes == {
        (CostOutcome.OPEN, 0),
        (CostOutcome.SHOWN, 0),
        (CostOutcome.REFUTED, 0),
        (CostOutcome.UNSHOWABLE, 0),
        (CostOutcome.UNSHOWABLE, 1),
    }


def check_means(found: CostFigures, both: Sequence[tuple[float, float]]) -> None:
    if not both:
        assert (found.incumbent_usd, found.candidate_usd, found.saving) == (None,) * 3
        return
    ours = fmean(a for a, _ in both)
    theirs = fmean(b for _, b in both)
    assert found.incumbent_usd == pytest.approx(ours)
    assert found.candidate_usd == pytest.approx(theirs)
    if ours == 0.0:
        assert (found.saving, found.saving_low, found.saving_high) == (None,) * 3
        return
    assert found.saving == pytest.approx(1 - theirs / ours)
    if len(both) < 2:
        assert (found.saving_low, found.saving_high) == (None, None)
        return
    # The ratio's error by the delta method, with Student's t.
    left = [b - theirs / ours * a for a, b in both]
    half = float(stats.t.ppf(0.975, len(both) - 1) * stats.sem(left)) / ours
    assert found.saving_low == pytest.approx(1 - theirs / ours - half)
    assert found.saving_high == pytest.approx(1 - theirs / ours + half)


@pytest.mark.parametrize(
    ("pairs", "above"),
    [
        ([(1.0, 0.1), (1.0, 3.0)], 0),  # three times the incumbent's mean
        ([(1.0, 0.1), (1.0, 3.001)], 1),
        ([(1.0, 2.0), (1.0, 10.0)], 0),  # five times the dearest before it
        ([(1.0, 2.0), (1.0, 10.001)], 1),
        (
            [
                (1.0, 0.1),
                (3.0, 0.1),
                (1.0, 6.0),
            ],
            0,
        ),
        (
            [
                (1.0, 0.1),
                (3.0, 0.1),
                (1.0, 6.001),
            ],
            1,
        ),
        (
            [
                (1.0, 0.1),
                (None, 0.1),
                (1.0, 3.001),
            ],
            1,
        ),
    ],
)
def test_the_ceiling_is_what_both_sides_cost_before(
    pairs: Sequence[CostPair], above: int
) -> None:
    found = judge_costs(pairs, claim(500))

    assert found.above_ceiling == above
    assert found.outcome is (CostOutcome.UNSHOWABLE if above else CostOutcome.OPEN)


@pytest.mark.parametrize(
    ("pair", "used"),
    [
        ((None, 0.1), 20),
        ((0.0, 0.1), 20),
        ((0.001, None), 20),
        ((0.001, 0.0), 25),
    ],
)
def test_after_twenty_items_a_side_has_shown_its_price(pair: CostPair, used: int) -> None:
    """A candidate may be for nothing; an incumbent that is cannot be undercut."""
    nineteen = judge_costs([pair] * 19, claim(5000))
    more = judge_costs([pair] * 25, claim(5000))

    assert (nineteen.outcome, nineteen.n_used) == (CostOutcome.OPEN, 19)
    assert more.n_used == used
    assert more.against == (used == 20)


def test_the_items_that_show_a_saving_follow_its_formula() -> None:
    for saving, terms in (
        (0.5, claim(99, 0.1, 10.0)),
        (0.9, claim(99, 0.2, 2.0, 0.01)),
    ):
        gap = 0.75 * (saving - terms.min_saving) / terms.cost_ceiling
        expected = math.ceil(math.log(1 / terms.alpha) / math.log(1 + gap))
        assert items_to_show_saving(saving, terms) == expected
    assert items_to_show_saving(0.2, claim(99)) is None
    assert items_to_show_saving(0.1, claim(99)) is None


def test_costs_that_no_float_holds_leave_no_saving() -> None:
    huge = judge_costs([(5e-324, 1e308)], claim(50))
    assert (huge.saving, huge.saving_low, huge.saving_high) == (None, None, None)
