"""`auto` (C7): never below the floor, never dearer than need be, never without evidence."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import gammaln

from harness.agents.auto import AutoCandidate, choose_target
from harness.gate.offline.intervals import lower_bound

pytestmark = pytest.mark.req("C7")

SUITE = "tickets"
floats = st.floats(allow_nan=True, allow_infinity=True) | st.none()
bounds = floats | st.floats(0, 1)
prices = floats | st.floats(0, 100)
floors = st.floats(0, 1)


@st.composite
def candidates(draw: st.DrawFn, name: str = "") -> AutoCandidate:
    called = name or draw(st.text("abc", min_size=1, max_size=3))
    return AutoCandidate(f"t_{called}", f"sim/{called}", draw(bounds), draw(prices))


everybody = st.tuples(candidates("incumbent"), st.lists(candidates(), max_size=6))


def is_sound(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def reaches(candidate: AutoCandidate, floor: float) -> bool:
    return is_sound(candidate.low) and candidate.low is not None and candidate.low >= floor


@given(everybody, floors, st.randoms())
def test_who_answers_reaches_the_floor_at_the_lowest_known_price_or_is_the_incumbent(
    everyone: tuple[AutoCandidate, list[AutoCandidate]],
    floor: float,
    random: object,
) -> None:
    incumbent = everyone[0]
    others = list({one.name: one for one in everyone[1]}.values())
    choice = choose_target(incumbent, others, floor, SUITE)

    chosen = choice.chosen
    assert choice.reason
    known = [e for e in (incumbent, *others) if reaches(e, floor) and e.has_price]
    assert chosen is incumbent or chosen in known
    if chosen in known:
        assert chosen.usd == min(e.usd for e in known if e.usd is not None)
        assert is_sound(chosen.usd)
        assert chosen.usd >= 0
    elif known:  # it reaches the floor: no cheaper target is known
        assert reaches(incumbent, floor)
    # The order of the fallbacks changes nothing.
    random.shuffle(others)  # type: ignore[attr-defined]  # Random's
    assert choose_target(incumbent, others, floor, SUITE) == choice


scores = st.lists(st.floats(0, 1), min_size=1, max_size=200)
STREAMS = 1_000
ITEMS = 300


@given(scores)
def test_the_bound_is_at_or_below_the_mean(values: list[float]) -> None:
    low = lower_bound(values)
    assert low is not None
    assert 0.0 <= low <= math.fsum(values) / len(values) + 1e-12


@given(scores, st.integers(2, 5))
def test_more_of_the_same_never_lowers_it(values: list[float], times: int) -> None:
    once = lower_bound(values)
    more = lower_bound(values * times)
    assert once is not None
    assert more is not None
    assert more >= once - 1e-9


@given(scores)
def test_the_order_does_not_matter(values: list[float]) -> None:
    assert lower_bound(values) == lower_bound(values[::-1])


@pytest.mark.parametrize(
    "values",
    [
        [],
        [math.nan],
        [1.0, -0.1],
        [0.5, 1.1],
        [math.inf],
    ],
)
def test_what_is_no_score_has_no_bound(values: list[float]) -> None:
    assert lower_bound(values) is None


@pytest.mark.parametrize(
    ("right", "items", "low"),
    [
        (50, 50, 0.895),
        (95, 100, 0.844),
        (190, 200, 0.879),
        (950, 1000, 0.921),
        (0, 9, 0.0),
    ],
)
def test_the_figures_of_the_documentation(
    right: int,
    items: int,
    low: float,
) -> None:
    assert lower_bound([1.0] * right + [0.0] * (items - right)) == pytest.approx(low, abs=5e-4)


@pytest.mark.parametrize("kind", ["pass_fail", "graded", "rare_disaster"])
@pytest.mark.parametrize("mean", [0.5, 0.85, 0.97])
def test_at_most_five_streams_in_a_hundred_ever_have_a_bound_above_the_truth(
    kind: str, mean: float
) -> None:
    random = np.random.default_rng(7)
    if kind == "graded":
        # Beta with the mean: every score is between 0 and 1.
        values = random.beta(4 * mean, 4 * (1 - mean), (STREAMS, ITEMS))
    elif kind == "rare_disaster":
        # Almost always a little better than the mean, and now and then nothing.
        loss = 0.02
        best = min(1.0, mean / (1 - loss))
        values = np.where(random.random((STREAMS, ITEMS)) < 1 - mean / best, 0.0, best)
    else:
        values = (random.random((STREAMS, ITEMS)) < mean).astype(float)
    sums = np.cumsum(values, axis=1)
    wrong = sum(ever_above(row, mean) for row in sums)

    # With a margin of three standard errors of the simulation.
    assert wrong / STREAMS <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / STREAMS)


def ever_above(sums: "np.ndarray[tuple[int], np.dtype[np.float64]]", mean: float) -> bool:
    """Whether the bound is above the mean at any length, without its bisection."""
    n = np.arange(1, len(sums) + 1)
    gain = gammaln(sums + 0.5) + gammaln(n - sums + 0.5) - gammaln(n + 1.0) - math.log(math.pi)
    likelihood = sums * math.log(mean) + (n - sums) * math.log1p(-mean)
    out = (gain - likelihood >= math.log(20.0)) & (sums / n > mean)
    if out.any():
        at = int(np.argmax(out)) + 1
        low = lower_bound(np.diff(sums[:at], prepend=0.0).clip(0.0, 1.0).tolist())
        assert low is not None
        assert low >= mean - 1e-9
    return bool(out.any())
