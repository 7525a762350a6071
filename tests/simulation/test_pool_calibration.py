"""Does a pool keep the level of the gate's test, for any predictions within its limits?

Each limit is the promised rate plus three standard errors of the simulation.
"""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.gate.pool_benchmark import PoolPlan, draw_pools, plan_pool, pool_pairs
from benchmarks.gate.pool_nulls import PoolNull, Scores, promoted_share, search_pool_null
from benchmarks.gate.pool_regression import ASKED, POOL, found_null, regression_share
from benchmarks.gate.pool_rule import (
    MOST_PREDICTED,
    PoolDesign,
    Pools,
    pool_p,
    predict_differences,
)
from benchmarks.gate.score_matrix import load_matrix
from harness.frame import package_data
from harness.gate.offline.design import Design
from harness.gate.offline.item_tests import final_p
from harness.gate.suite_plan import QUALITY_CLAIMS, Claim

pytestmark = pytest.mark.req("F2", "F4")


def matrix_path(name: str) -> Path:
    return package_data.path(f"datasets/gatebench/{name}.csv")


def most_of(level: float, draws: int) -> float:
    return level + 3.0 * float(np.sqrt(level * (1.0 - level) / draws))


def test_without_predictions_a_pool_has_the_test_of_graded_scores() -> None:
    d = np.random.default_rng(1).choice([-0.7, -0.1, 0.2, 0.5], size=(6, 200))

    p = pool_p(d, Pools.of(np.zeros((6, 1_000)), 200), -0.05)

    assert p == pytest.approx(final_p(d, -0.05))


def test_equal_items_may_be_counted_together() -> None:
    d = np.repeat([[-1.0, 0.0, 1.0, 0.4]], [5, 60, 20, 15], axis=1)
    h = np.repeat([[-0.3, 0.1, 0.2, 0.0]], [5, 60, 20, 15], axis=1)
    one = Pools(400, h, np.array([0.05]), np.array([0.001]))
    kinds = Pools(400, np.array([[-0.3, 0.1, 0.2, 0.0]]), one.mean, one.third)

    together = pool_p(
        np.array([[-1.0, 0.0, 1.0, 0.4]]), kinds, 0.0, np.array([[5.0, 60.0, 20.0, 15.0]])
    )

    assert together == pytest.approx(pool_p(d, one, 0.0))


def test_predictions_are_limited() -> None:
    rng = np.random.default_rng(2)
    ours, past = rng.random((3, 50)), rng.random((3, 5, 50)) ** 4

    predictions, explained = predict_differences(ours, past)

    assert np.abs(predictions).max() == MOST_PREDICTED
    assert ((explained >= 0.0) & (explained <= 1.0)).all()


def test_a_regression_on_the_candidate_promotes_the_null_that_a_search_found() -> None:
    shares, differences, covariates = found_null()
    ours = covariates[:, 0]
    line = 3.9 * ours - 1.0
    limited = np.clip(line, -MOST_PREDICTED, MOST_PREDICTED)
    design = PoolDesign(Design(Claim.SUPERIOR, 0.05, ASKED), POOL)
    rng = np.random.default_rng(3)

    def share(h: np.ndarray) -> float:
        null = PoolNull(np.stack([differences, h], axis=1), shares)
        return promoted_share(null, design, draws=4_000, rng=rng)

    assert regression_share(300) > 0.15
    assert share(line) > 0.15  # so fixed slopes alone are not enough
    assert share(limited) <= most_of(0.055, 4_000)


@pytest.mark.parametrize("scores", Scores)
@pytest.mark.parametrize("claim", QUALITY_CLAIMS)
def test_a_short_search_finds_no_null_above_the_limit(scores: Scores, claim: Claim) -> None:
    design = PoolDesign(Design(claim, 0.05, 150), 1_000, explained=0.4)

    worst = search_pool_null(
        design, scores=scores, rng=np.random.default_rng(4), generations=1, draws=100
    )

    assert worst.promoted <= most_of(0.065, 2_000), worst


@pytest.mark.parametrize("name", ["suite_binary", "suite_graded"])
def test_useless_candidates_on_a_pool_keep_the_level(name: str) -> None:
    pair = pool_pairs(load_matrix(matrix_path(name)), 1)[0]
    plan = plan_pool(pair, Claim.SUPERIOR, 1_000)

    drawn = draw_pools(pair, plan, 0.0, 300, np.random.default_rng(5))

    assert plan.n_max < 420
    assert drawn.promoted.mean() <= most_of(0.055, 300)


def test_a_pool_needs_fewer_answers_for_the_same_power() -> None:
    pair = pool_pairs(load_matrix(matrix_path("suite_binary")), 1)[0]
    plan = plan_pool(pair, Claim.SUPERIOR, 2_000)
    alone = PoolPlan(Claim.SUPERIOR, 2_000, plan.n_max, 0.0)
    rng = np.random.default_rng(6)

    by_information, by_items = (draw_pools(pair, one, 0.05, 300, rng) for one in (plan, alone))

    assert by_information.promoted.mean() >= 0.65
    assert by_information.used.mean() <= by_items.used.mean() + 5.0
    assert by_information.used.mean() <= 280
