"""GateBench's parts: matrices read and made up, a known truth, goals."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.gate.score_matrix import generate_chances, load_matrix
from tests.support.gate.gate_answers import move_chances

pytestmark = pytest.mark.req("F2")


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "mine.csv"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("a,0110\nb,1010", [0, 1, 1, 0]),
        ("# made\n\na,0,50,100\nb,1,2,3", [0.0, 0.5, 1.0]),
        ("a,0.25,1\nb,0.5,0", [0.25, 1.0]),
        ("a,1,01\na,2,11\nb,1,00\nb,2,00", [0.5, 1.0]),
        ("Model,first,second,third\na,1,0,1\nb,0,-,1", [1.0, 0.0, 1.0]),
        ("model,1,2\na,100,0\nb,0,1", [1.0, 0.0]),
    ],
    ids=["digits", "hundredths", "decimals", "epochs", "digits apart", "a header of numbers"],
)
def test_a_matrix_is_read_in_each_of_its_forms(
    text: str, scores: list[float], tmp_path: Path
) -> None:
    matrix = load_matrix(written(tmp_path, text))

    assert matrix.name == "mine"
    assert list(matrix.rows["a"].as_candidate) == scores


def test_what_is_unscored_counts_against_a_promotion_on_both_sides(tmp_path: Path) -> None:
    matrix = load_matrix(written(tmp_path, "a,1,1-\na,2,10\nb,1,11\nb,2,11"))

    assert list(matrix.rows["a"].as_candidate) == [1.0, 0.0]
    assert list(matrix.rows["a"].as_incumbent) == [1.0, 0.5]


@pytest.mark.parametrize("mean", [0.02, 0.45, 0.6, 0.98])
def test_chances_are_moved_to_the_mean_that_is_wanted(mean: float) -> None:
    chances = generate_chances(3).rows["g00"].as_candidate
    moved = move_chances(chances, mean)

    assert moved.mean() == pytest.approx(mean, abs=1e-12)
    assert (np.argsort(moved, kind="stable") == np.argsort(chances, kind="stable")).all()
