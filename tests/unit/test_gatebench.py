import numpy as np
import pytest

from benchmarks.gate.score_matrix import generate_chances
from tests.support.gate.gate_answers import move_chances

pytestmark = pytest.mark.req("F2")


@pytest.mark.parametrize("mean", [0.02, 0.45, 0.6, 0.98])
def test_chances_are_moved_to_the_mean_that_is_wanted(mean: float) -> None:
    chances = generate_chances(3).rows["g00"].as_candidate
    moved = move_chances(chances, mean)

    assert moved.mean() == pytest.approx(mean, abs=1e-12)
    assert (np.argsort(moved, kind="stable") == np.argsort(chances, kind="stable")).all()
