"""Does luck let one of several candidates through more often than one alone? Seeded, on score
matrices with a known truth; the limits are the promised rate plus three standard errors.
"""

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gate.gate_benchmark import measure_selection
from benchmarks.gate.gate_rules import decide_selections
from benchmarks.gate.score_matrix import close_pairs, load_matrix
from harness.domain.evals.suite_plan import QUALITY_CLAIMS, Claim
from tests.support.sampling import later

pytestmark = pytest.mark.req("F2", "F4")

SHIPPED = Path(__file__).resolve().parents[2] / "datasets" / "gatebench"
PAIRS = 6


def upto(rate: float, trials: int) -> float:
    return rate + 3.0 * math.sqrt(rate * (1.0 - rate) / trials)


def check_level(claim: Claim, n: int, candidates: int, suite: str, replications: int) -> None:
    pairs = close_pairs(load_matrix(SHIPPED / f"suite_{suite}.csv"), PAIRS)
    cell = measure_selection(
        pairs, claim, n=n, lift=0.0, replications=replications, candidates=candidates
    )
    assert cell.mean <= upto(0.05, PAIRS * replications)
    assert cell.worst <= upto(0.055, replications)


@pytest.mark.parametrize("candidates", [2, later(5)])
def test_of_several_that_are_no_better_one_passes_in_at_most_one_of_twenty(
    candidates: int,
) -> None:
    check_level(Claim.SUPERIOR, 200, candidates, "binary", 300)


@pytest.mark.verify
@pytest.mark.parametrize("claim", list(QUALITY_CLAIMS))
@pytest.mark.parametrize("n", [200, 500])
@pytest.mark.parametrize("candidates", [2, 3, 5])
@pytest.mark.parametrize("suite", ["binary", "graded"])
def test_the_level_holds_for_every_claim_size_and_number(
    suite: str, candidates: int, n: int, claim: Claim
) -> None:
    check_level(claim, n, candidates, suite, 1000)


def test_candidates_that_answer_alike_pass_no_more_often_than_one() -> None:
    """The same model under k names: k times the same luck, at the k-th part of alpha."""
    rng = np.random.default_rng(14)
    d = rng.choice([-1.0, 0.0, 1.0], size=(2000, 200), p=[0.1, 0.8, 0.1])

    one, three = (
        decide_selections([d], Claim.SUPERIOR)[0],
        decide_selections([d] * 3, Claim.SUPERIOR)[0],
    )

    assert (three >= 0).mean() < (one >= 0).mean() <= upto(0.05, 2000)


def test_the_better_one_goes_on_and_not_its_rivals() -> None:
    rng = np.random.default_rng(14)

    def drawn(better: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        chances = [0.1 - better / 2, 0.8, 0.1 + better / 2]
        return rng.choice([-1.0, 0.0, 1.0], size=(500, 500), p=chances)

    chosen, items = decide_selections([drawn(0.1), drawn(0.0), drawn(-0.05)], Claim.SUPERIOR)

    assert (chosen == 0).mean() >= 0.9
    assert (chosen > 0).mean() <= 0.02
    # Two of the three are given up about half way, or before.
    assert items <= 330
