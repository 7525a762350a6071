"""When each slice is looked at, with which p-value, and what excuses a loss: statistics.md
§1.13, with scipy's distributions.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from statistics import fmean

import numpy as np
import pytest
from scipy import stats

from harness.domain.evals.item_groups import Slice
from harness.domain.evals.suite_plan import Claim, SuitePlan
from harness.domain.evals.verdict import ScorePair
from harness.gate.offline.pairs import PairedItem, PairedSuite
from harness.gate.offline.slices import (
    SliceJudgement,
    judge_slices,
    look_levels,
    loss_p,
    promotion_waits_for,
)
from harness.gate.offline.suite_judgement import judge_pairs
from tests.unit.test_gate_verdicts import plan

pytestmark = pytest.mark.req("F2", "A7")


def reference_p(d: Sequence[float], cluster_size: float = 1.0) -> float:
    n, lost, won = len(d), sum(x < 0 for x in d), sum(x > 0 for x in d)

    def student(values: Sequence[float]) -> float:
        mean = fmean(values)
        spread = math.fsum((x - mean) ** 2 for x in values) + 0.25 / cluster_size
        t = -mean * len(values) / math.sqrt(spread)
        return float(stats.t.sf(t, len(values) - 1))

    if all(x in (-1.0, 0.0, 1.0) for x in d):
        z = (lost - won) / math.sqrt(lost + won) if lost + won else 0.0
        return max(student(d), float(stats.norm.sf(z)))
    assert n > 1
    return student([*d, max(0.0, *d)])


@pytest.mark.parametrize("cluster_size", [1.0, 3.0])
def test_the_p_value_of_a_look_is_the_one_of_the_formula(cluster_size: float) -> None:
    rng = Random(6)
    rows = [
        [max(-1.0, min(1.0, rng.gauss(-0.1, 0.3))) for _ in range(60)],
        [-abs(rng.gauss(0.0, 0.2)) / 2 for _ in range(60)],
        [0.5, -0.5, -0.25] * 20,
    ]
    for d in rows:
        assert float(loss_p(d, cluster_size)) == pytest.approx(reference_p(d, cluster_size))
    whole = [float(x) for x in rng.choices([-1, 0, 1], [2, 7, 1], k=60)]
    assert float(loss_p(whole, cluster_size)) == pytest.approx(
        reference_p(whole, cluster_size), rel=1e-9
    )
    assert float(loss_p(whole)) == float(loss_p(whole, 1.0))
    together = loss_p(np.array([*rows, whole]), cluster_size)
    assert together.tolist() == [float(loss_p(d, cluster_size)) for d in [*rows, whole]]


def items(d: Sequence[float], lenient: Sequence[float] | None = None) -> list[PairedItem]:
    """Differences from .5; lenient: those of the lenient scores."""
    return [
        PairedItem(ScorePair(f"q{n}", 0.5, 0.5 + x, 0.5, 0.5 + y))
        for n, (x, y) in enumerate(zip(d, lenient or d, strict=True))
    ]


def sliced(n_max: int, *slices: Slice) -> SuitePlan:
    return replace(plan(n_max=n_max), slices=slices)


EVEN, ODD = (
    Slice("kind", "even", tuple(range(0, 240, 2))),
    Slice("kind", "odd", tuple(range(1, 240, 2))),
)
TWO = sliced(240, EVEN, ODD)


def losing(name: Slice, n: int = 240, size: float = 0.3, seed: int = 5) -> list[float]:
    rng = Random(seed)
    hit = set(name.positions)
    return [round(rng.uniform(-0.2, 0.2) - size * (p in hit), 3) for p in range(n)]


def test_each_slice_is_looked_at_when_its_60th_and_its_last_unit_are_in() -> None:
    """The 60th even item is the 119th of the order, the 60th odd one the 120th."""
    d = losing(ODD, size=0.3)
    found = {n: judge_slices(TWO, items(d[:n])) for n in (118, 119, 120, 239, 240)}

    assert [s.p is None for s in found[118].figures] == [True, True]
    assert [s.p is None for s in found[119].figures] == [False, True]
    assert found[118].worse_at is found[119].worse_at is None
    for n in (120, 239, 240):
        assert found[n].worse_at == 120
        assert [s.worse for s in found[n].figures] == [False, True]
    odd = d[1:120:2]
    half = float(stats.t.ppf(0.975, 59)) * float(stats.sem(odd))
    figures = found[240].figures[1]
    assert (figures.name, figures.n_used, figures.n_max) == ("kind = odd", 60, 120)
    expected = (fmean(odd), fmean(odd) - half, fmean(odd) + half, 2 * reference_p(odd))
    measured = (figures.delta, figures.ci_low, figures.ci_high, figures.p)
    assert measured == pytest.approx(expected)
    assert found[240].worse == (found[240].figures[1],)


def test_the_p_value_is_the_smallest_of_the_looks_times_their_number() -> None:
    rng = Random(12)
    for _ in range(6):
        d = [round(rng.uniform(-0.3, 0.28), 3) for _ in range(240)]
        even = d[::2]
        found = judge_slices(TWO, items(d))
        if found.worse_at is not None:
            continue
        looks = [reference_p(even[:60]), reference_p(even)]
        assert found.figures[0].p == pytest.approx(min(1.0, 2 * min(looks)))
        assert found.figures[0].n_used == 120
        first = judge_slices(TWO, items(d[:200])).figures[0]
        assert first.p == pytest.approx(min(1.0, 2 * looks[0]))
        assert first.n_used == 100
        assert first.delta == pytest.approx(fmean(even[:100]))


def test_a_slice_of_sixty_units_is_looked_at_once() -> None:
    small = sliced(100, Slice("kind", "few", tuple(range(20, 80))))
    d = [0.0] * 20 + [0.1, -0.2, 0.05] * 20 + [0.0] * 20

    assert promotion_waits_for(small) == 80
    assert look_levels(small) == [(60, 0.05)]
    before, after = judge_slices(small, items(d[:79])), judge_slices(small, items(d))
    assert (before.figures[0].p, before.figures[0].n_used) == (None, 59)
    assert after.figures[0].p == pytest.approx(reference_p([0.1, -0.2, 0.05] * 20))
    none = judge_slices(small, items(d[:20])).figures[0]
    assert (none.n_used, none.delta, none.ci_low, none.ci_high) == (0, 0.0, None, None)
    assert promotion_waits_for(plan()) == 0
    assert judge_slices(plan(n_max=9), items([0.0] * 9)) == SliceJudgement(())


def test_a_loss_at_the_last_look_is_found_there() -> None:
    late = [0.2, -0.2, -0.2, 0.2] * 30 + [-0.5, 0.2, -0.5, -0.2] * 30
    found = judge_slices(TWO, items(late))

    assert found.worse_at == 239
    assert [s.worse for s in found.figures] == [True, False]
    assert judge_slices(TWO, items(late[:238])).worse_at is None


def test_a_slice_alone_has_the_whole_error_of_the_slices() -> None:
    lone = sliced(60, Slice("kind", "all", tuple(range(60))))

    for lost, worse in ((2, False), (3, True)):
        d = [-1.0] * lost + [0.0] * (60 - lost)
        assert (reference_p(d) <= 0.05) is worse
        found = judge_slices(lone, whole_items(d))
        assert found.worse_at == (60 if worse else None)
        assert found.figures[0].p == pytest.approx(reference_p(d))


def whole_items(d: Sequence[float]) -> list[PairedItem]:
    return [
        PairedItem(ScorePair(f"q{n}", max(0.0, -x), max(0.0, x), 0.0, 0.0))
        for n, x in enumerate(d)
    ]


def test_a_loss_by_form_alone_keeps_within_the_margin_leniently() -> None:
    """The allowed loss is 5 points."""
    d = losing(EVEN)
    for lost, form in ((0.0, True), (0.04, True), (0.06, False)):
        rng = Random(3)
        lenient = [rng.choice((-0.4, 0.4)) - lost * (p % 2 == 0) for p in range(240)]
        mean = fmean(lenient[:119:2]) + lost
        lenient = [x - mean * (p % 2 == 0) for p, x in enumerate(lenient)]
        found = judge_slices(TWO, items(d, lenient))
        assert (found.worse_at, found.form, found.unanswered) == (119, form, False)
    also = judge_slices(TWO, items(d, d))
    assert (also.form, also.worse_at) == (False, 119)


def test_a_lenient_loss_of_exactly_the_margin_is_within_it() -> None:
    d = losing(EVEN)
    even = [-0.03125 - 0.375, -0.03125 + 0.375] * 60
    lenient = [even[p // 2] if p % 2 == 0 else 0.0 for p in range(240)]

    for margin, form in ((0.03125, True), (math.nextafter(0.03125, 0.0), False)):
        asked = replace(TWO, claim=Claim.NON_INFERIOR, margin=margin)
        assert judge_slices(asked, items(d, lenient)).form is form


@pytest.mark.parametrize(("unanswered", "excused"), [(1, False), (2, True)])
def test_a_loss_rests_on_unanswered_items_where_they_are_more_than_two_percent(
    unanswered: int, *, excused: bool
) -> None:
    """Either tips the look at 60 items, and one of them is less than 2 %."""
    even = [-0.03 - 0.08, -0.03 + 0.08] * 60
    gone = {4 * n for n in range(unanswered)}
    d = [-0.5 if p in gone else even[p // 2] if p % 2 == 0 else 0.0 for p in range(240)]
    rows = [replace(row, unanswered=p in gone) for p, row in enumerate(items(d))]
    answered = [0.0 if p in gone else x for p, x in enumerate(d)]

    assert judge_slices(TWO, items(answered[:120])).worse_at is None
    found = judge_slices(TWO, rows)
    assert (found.worse_at, found.unanswered) == (119, excused)


def test_a_loss_that_stays_without_the_unanswered_items_is_one() -> None:
    rows = items(losing(EVEN))
    gone = [replace(row, unanswered=p % 20 == 0) for p, row in enumerate(rows)]

    found = judge_slices(TWO, gone)
    assert (found.worse_at, found.unanswered, found.form) == (119, False, False)
    # Unanswered items outside the slice excuse nothing.
    others = [replace(row, unanswered=p % 2 == 1) for p, row in enumerate(rows)]
    assert not judge_slices(TWO, others).unanswered


def judged(rows: Sequence[PairedItem], asked: SuitePlan = TWO) -> tuple[str, int, str]:
    found = judge_pairs(asked, PairedSuite(tuple(rows), "a", "b"))
    return found.report.outcome, found.consumed, found.report.reason


def test_a_suite_is_cut_at_the_look_that_shows_a_loss() -> None:
    d = [x + 0.2 * (p % 2) for p, x in enumerate(losing(EVEN, size=0.2))]
    outcome, consumed, reason = judged(items(d))

    assert (outcome, consumed) == ("failed", 119)
    assert reason.startswith(
        "The candidate is worse in a slice, whatever its mean says: kind ="
    )
    assert "even: " in reason
    assert "points on 60 items" in reason


def test_a_mean_that_was_lost_before_any_look_stands() -> None:
    outcome, consumed, reason = judged(items([-0.5] * 240))

    assert (outcome, consumed) == ("failed", 14)
    assert "slice" not in reason


def test_a_shown_mean_waits_for_the_look_and_says_so() -> None:
    better = [0.5] * 240
    assert judged(items(better))[:2] == judged(items(better[:120]))[:2] == ("passed", 120)
    outcome, consumed, reason = judged(items(better[:119]))
    assert (outcome, consumed) == ("running", 119)
    assert reason.endswith("That counts once 60 of each slice are in.")
    cut = PairedSuite(tuple(items(better[:119])), "a", "b")
    for blocked, stopped, word in (
        ("away", None, "infra_error"),
        ("", ("inconclusive", "budget"), "inconclusive"),
        ("away", ("inconclusive", "budget"), "infra_error"),
    ):
        ended = judge_pairs(TWO, replace(cut, blocked=blocked), stopped=stopped)
        assert (ended.report.outcome, ended.consumed) == (word, 119)


def test_a_mean_lost_by_form_at_the_same_item_as_a_slice_speaks_for_both() -> None:
    odd = Slice("kind", "odd", tuple(range(1, 120, 2)))
    rows = items(losing(odd, n=120), [0.0] * 120)

    assert judge_slices(sliced(120, odd), rows).worse_at == 120
    outcome, consumed, reason = judged(rows, sliced(120, odd))
    assert (outcome, consumed) == ("harness_mismatch", 120)
    assert reason.startswith("The candidate loses by form")
    # One look before it, the slice speaks.
    even = Slice("kind", "even", tuple(range(0, 120, 2)))
    rows = items(losing(even, n=120), [0.0] * 120)
    outcome, consumed, reason = judged(rows, sliced(120, even))
    assert (outcome, consumed) == ("harness_mismatch", 119)
    assert reason.startswith("The candidate loses a slice by form")
