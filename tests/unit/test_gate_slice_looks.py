"""When each slice is looked at, with which p-value, and what excuses a loss: statistics.md
§1.13, with scipy's distributions.
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from statistics import fmean

import pytest
from scipy import stats

from harness.domain.evals.item_groups import Slice
from harness.domain.evals.suite_plan import SuitePlan
from harness.domain.evals.verdict import ScorePair
from harness.gate.offline.item_tests import final_p
from harness.gate.offline.pairs import PairedItem
from harness.gate.offline.slices import judge_slices
from tests.unit.test_gate_verdicts import plan

pytestmark = pytest.mark.req("F2", "A7")


def loss_p(d: Sequence[float]) -> float:
    """The last item's test with the sides exchanged."""
    return float(final_p([-x for x in d], 0.0))


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
    expected = (fmean(odd), fmean(odd) - half, fmean(odd) + half, 2 * loss_p(odd))
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
        looks = [loss_p(even[:60]), loss_p(even)]
        assert found.figures[0].p == pytest.approx(min(1.0, 2 * min(looks)))
        assert found.figures[0].n_used == 120
        first = judge_slices(TWO, items(d[:200])).figures[0]
        assert first.p == pytest.approx(min(1.0, 2 * looks[0]))
        assert first.n_used == 100
        assert first.delta == pytest.approx(fmean(even[:100]))
