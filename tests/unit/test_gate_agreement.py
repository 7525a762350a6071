import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.runner.judge_calibration import RaterAgreement, cohens_kappa
from harness.domain.errors import InputError

Table = list[list[int]]


def pairs_of(table: Table) -> list[tuple[int, int]]:
    return [
        (i, j)
        for i, row in enumerate(table)
        for j, count in enumerate(row)
        for _ in range(count)
    ]


def kappa_of(cells: list[list[float]]) -> float:
    """From shares, by the definition; the cells need not sum to 1."""
    total = math.fsum(map(math.fsum, cells))
    rows = [math.fsum(row) / total for row in cells]
    columns = [math.fsum(column) / total for column in zip(*cells, strict=True)]
    observed = math.fsum(cells[i][i] for i in range(len(cells))) / total
    chance = math.fsum(a * b for a, b in zip(rows, columns, strict=True))
    return (observed - chance) / (1 - chance)


def error_of(table: Table) -> float:
    """The delta method with a numeric gradient: multinomial variance of kappa(shares)."""
    n = sum(map(sum, table))
    shares = [[count / n for count in row] for row in table]
    step, gradient = 1e-6, []
    for i, row in enumerate(shares):
        for j, _ in enumerate(row):
            up = [[share + step * ((a, b) == (i, j)) for b, share in enumerate(line)]
                  for a, line in enumerate(shares)]  # fmt: skip
            down = [[share - step * ((a, b) == (i, j)) for b, share in enumerate(line)]
                    for a, line in enumerate(shares)]  # fmt: skip
            gradient.append((kappa_of(up) - kappa_of(down)) / (2 * step))
    flat = [share for row in shares for share in row]
    mean = math.fsum(p * g for p, g in zip(flat, gradient, strict=True))
    square = math.fsum(p * g * g for p, g in zip(flat, gradient, strict=True))
    return math.sqrt(max(square - mean**2, 0.0) / n)


@pytest.mark.req("F7")
@pytest.mark.parametrize(
    ("table", "kappa", "observed"),
    [
        # p_o = 35/50, p_e = (25*30 + 25*20)/2500 = .5
        ([[20, 5], [10, 15]], 0.4, 0.7),
        # p_o = 60/100, p_e = (60*70 + 40*30)/10000 = .54
        ([[45, 15], [25, 15]], 0.06 / 0.46, 0.6),
        # p_o = 77/100, p_e = .36 + .09 + .01: both raters 60, 30 and 10 %
        ([[50, 8, 2], [7, 21, 2], [3, 1, 6]], (0.77 - 0.46) / 0.54, 0.77),
        ([[10, 0], [0, 10]], 1.0, 1.0),
        ([[0, 10], [10, 0]], -1.0, 0.0),
    ],
)
def test_kappa_of_tables_worked_by_hand(table: Table, kappa: float, observed: float) -> None:
    agreement = cohens_kappa(pairs_of(table))

    assert agreement.kappa == pytest.approx(kappa)
    assert agreement.observed == pytest.approx(observed)
    assert agreement.n == sum(map(sum, table))


@pytest.mark.req("F7")
@given(st.lists(st.lists(st.integers(1, 40), min_size=3, max_size=3), min_size=3, max_size=3))
def test_the_interval_is_the_delta_methods(table: Table) -> None:
    agreement = cohens_kappa(pairs_of(table))
    assert (agreement.kappa, agreement.low, agreement.high) != (None, None, None)
    assert agreement.kappa is not None
    assert agreement.low is not None
    assert agreement.high is not None

    reach = 1.959964 * error_of(table)
    assert agreement.low == pytest.approx(max(agreement.kappa - reach, -1.0), abs=1e-4)
    assert agreement.high == pytest.approx(min(agreement.kappa + reach, 1.0), abs=1e-4)


def test_raters_of_one_category_tell_nothing() -> None:
    assert cohens_kappa([("good", "good")] * 9) == RaterAgreement(None, None, None, 1.0, 9)
    assert cohens_kappa([("good", "bad")] * 9).kappa == 0.0


def test_no_pair_is_told() -> None:
    with pytest.raises(InputError, match="at least one pair"):
        cohens_kappa([])
