import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.errors import InputError
from harness.gate import drift
from harness.gate.drift import ETAS, compare_runs, log_e_values

START = -math.inf
pytestmark = pytest.mark.req("F7")


def runs(*rows: list[float | None]) -> list[tuple[tuple[str, float | None], ...]]:
    return [tuple((f"i{n}", score) for n, score in enumerate(row)) for row in rows]


def test_one_item_that_fell_is_worth_the_odds_of_a_coin() -> None:
    scores = np.asarray([[1.0], [0.0]])

    logs = log_e_values(scores, [1])[0]

    for eta, log_e in zip(ETAS, logs, strict=True):
        # Given one 1 and one 0, the newest is either: 1 against the mean of exp(eta) and 1.
        assert log_e == pytest.approx(-math.log((math.exp(eta) + 1) / 2), abs=1e-12)


@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=3, max_size=5),
    st.integers(1, 2),
)
def test_over_all_orders_of_the_runs_the_mean_is_one(scores: list[float], size: int) -> None:
    orders = list(itertools.permutations(scores))
    e = [np.exp(log_e_values(np.asarray(order)[:, None], [size])[0]) for order in orders]

    assert np.mean(e, axis=0) == pytest.approx(np.ones(len(ETAS)), rel=1e-9)


def test_a_run_that_did_not_measure_an_item_is_left_out_of_it() -> None:
    whole = np.asarray(
        [
            [1.0, 1.0],
            [0.0, 1.0],
            [1.0, 0.0],
        ]
    )
    with_gap = np.asarray(
        [
            [1.0, 1.0],
            [math.nan, 1.0],
            [1.0, 0.0],
        ]
    )
    pair = np.asarray([[1.0], [1.0]])

    both = log_e_values(with_gap, [1])[0]
    second = log_e_values(whole[:, 1:], [1])[0]
    first = log_e_values(pair, [1])[0]

    assert both == pytest.approx(first + second, abs=1e-12)


@given(
    st.lists(
        st.lists(st.sampled_from([0.0, 1.0]), min_size=4, max_size=4),
        min_size=2,
        max_size=20,
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_of_items_does_not_matter(
    rows: list[list[float | None]], random: object
) -> None:
    columns = list(range(4))
    random.shuffle(columns)  # type: ignore[attr-defined]
    shuffled = [[row[c] for c in columns] for row in rows]

    one = compare_runs(runs(*rows), 0.05, START)
    other = compare_runs(runs(*shuffled), 0.05, START)

    assert one.log_e == pytest.approx(other.log_e, abs=1e-12)
    assert (one.delta, one.worse, one.better) == (
        other.delta,
        other.worse,
        other.better,
    )


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=8),
    st.integers(2, 20),
)
def test_a_model_that_always_answers_alike_gives_no_evidence(
    scores: list[float], times: int
) -> None:
    evidence = compare_runs(runs(*[list[float | None](scores)] * times), 0.05, START)

    assert evidence.log_e <= 1e-9
    assert (
        evidence.delta,
        evidence.worse,
        evidence.better,
        evidence.drifted,
    ) == (0.0, 0, 0, False)


def test_pass_and_fail_are_fishers_noncentral_hypergeometric() -> None:
    # Seven runs, five passes, of which one among the newest two.
    scores = np.asarray([1, 1, 1, 1, 0, 0, 1], dtype=float)[:, None]
    logs = log_e_values(scores, [2])[0]
    for eta, log_e in zip(ETAS, logs, strict=True):
        theta = math.exp(eta)
        ways = [math.comb(2, y) * math.comb(5, 5 - y) for y in range(3)]
        null = sum(ways)
        tilted = sum(way * theta**y for y, way in enumerate(ways))
        assert log_e == pytest.approx(math.log(theta * null / tilted), abs=1e-12)


def test_the_evidence_never_falls_and_comes_from_what_was_stored() -> None:
    rng = np.random.default_rng(7)
    rows: list[list[float | None]] = [
        [float(x) for x in rng.random(30) < 0.7] for _ in range(12)
    ]
    before = START
    for count in range(2, 13):
        evidence = compare_runs(runs(*rows[:count]), 0.05, before)
        assert evidence.log_e >= before
        before = evidence.log_e


def test_every_item_lost_is_drift_at_the_first_comparison() -> None:
    evidence = compare_runs(runs([1.0] * 40, [0.0] * 40), 0.05, START)

    assert evidence.drifted
    assert (evidence.check, evidence.window, evidence.direction) == (
        1,
        1,
        "worse",
    )
    assert (
        evidence.delta,
        evidence.worse,
        evidence.same,
        evidence.better,
    ) == (-1.0, 40, 0, 0)
    assert evidence.ci_high is not None
    assert evidence.ci_high < 0


def test_a_change_for_the_better_is_drift_too() -> None:
    evidence = compare_runs(runs([0.0] * 40, [1.0] * 40), 0.05, START)

    assert evidence.drifted
    assert evidence.direction == "better"
    quarter = replace(evidence, log_e=evidence.log_e_limit / 4)
    assert quarter.share_text == "25 % of the alarm level"


def test_a_single_item_that_broke_for_good_is_found_in_time() -> None:
    stable: list[list[float | None]] = [[1.0] * 20 for _ in range(40)]
    broken: list[list[float | None]] = [[0.0, *[1.0] * 19] for _ in range(40)]
    before = START
    found_after = None
    for count in range(2, 81):
        evidence = compare_runs(runs(*[*stable, *broken][:count]), 0.05, before)
        before = evidence.log_e
        if evidence.drifted:
            found_after = count - 40
            break

    assert found_after is not None
    assert found_after <= 8


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -0.1, 1.5])
def test_a_score_that_is_none_is_refused(wrong: float) -> None:
    with pytest.raises(InputError, match="i1"):
        compare_runs(runs([1.0, 1.0], [1.0, wrong]), 0.05, START)


def test_one_run_is_no_comparison() -> None:
    with pytest.raises(InputError, match="baseline"):
        compare_runs(runs([1.0]), 0.05, START)


def test_no_common_item_is_no_evidence() -> None:
    evidence = compare_runs(runs([1.0, None], [None, 0.0]), 0.05, START)

    assert (evidence.items, evidence.drifted) == (0, False)
    assert evidence.log_e <= 0.0
    assert drift.WINDOWS[0] == evidence.window
