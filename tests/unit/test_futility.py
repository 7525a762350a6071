"""A comparison of several candidates that can hardly be shown any more is given up."""

from dataclasses import replace

import numpy as np
import pytest

from harness.domain.evals.suite_plan import Claim, SuitePlan, SuiteRole, plan_from_json
from harness.gate.offline.design import Design, design_from_plan
from harness.gate.offline.futility import FIRST_LOOK, FUTILE, give_up, hopeless_at
from harness.gate.offline.sequential import judge_differences
from harness.gate.planning.multiplicity import FUTILITY, share_alpha

DESIGN = Design(Claim.SUPERIOR, margin=0.05, n_max=200, alpha=0.05 / 3)
PLAN = SuitePlan(
    suite="s",
    suite_digest="d",
    role=SuiteRole.PRIMARY,
    claim=Claim.SUPERIOR,
    margin=0.05,
    alpha=0.05,
    n_max=200,
    epochs=1,
    order_seed=1,
)


def differences(better: float, n: int = 200, seed: int = 1) -> list[float]:
    rng = np.random.default_rng(seed)
    chances = [0.1 - better / 2, 0.8, 0.1 + better / 2]
    return [float(d) for d in rng.choice([-1.0, 0.0, 1.0], size=n, p=chances)]


@pytest.mark.req("F4")
def test_a_candidate_that_is_no_better_is_given_up_early() -> None:
    d = differences(-0.02)

    ended = give_up(judge_differences(d, DESIGN), d, DESIGN, FUTILITY)

    assert (ended.outcome, ended.how) == ("inconclusive", FUTILE)
    assert FIRST_LOOK * 200 <= ended.n_used < 200


@pytest.mark.req("F4")
def test_the_same_item_ends_it_however_many_answers_are_in() -> None:
    """The runs bring answers one by one, and a replay has those that were used."""
    d = differences(-0.02)
    at = give_up(judge_differences(d, DESIGN), d, DESIGN, FUTILITY).n_used

    for n in range(1, 201):
        ended = give_up(judge_differences(d[:n], DESIGN), d[:n], DESIGN, FUTILITY)
        assert ended.n_used == min(n, at)
        assert (ended.outcome == "running") is (n < at)


@pytest.mark.req("F4")
@pytest.mark.parametrize("seed", range(20))
def test_giving_up_never_promotes_and_leaves_what_was_decided_before(seed: int) -> None:
    d = differences(0.15 if seed % 2 else 0.0, seed=seed)
    before = judge_differences(d, DESIGN)

    after = give_up(before, d, DESIGN, FUTILITY)

    assert after == before or (after.how == FUTILE and after.outcome == "inconclusive")
    assert after.n_used <= before.n_used


@pytest.mark.req("F4")
def test_many_comparisons_at_once_end_where_each_ends() -> None:
    rows = [differences(0.0, seed=seed) for seed in range(30)]

    together = hopeless_at(rows, DESIGN, FUTILITY)

    assert [int(hopeless_at(row, DESIGN, FUTILITY)) for row in rows] == list(together)


@pytest.mark.req("F4", "F5")
def test_the_part_of_alpha_and_what_is_given_up_are_registered() -> None:
    shared = share_alpha(PLAN, 4)

    assert plan_from_json(shared.as_json()) == shared
    assert shared.as_json()["candidates"] == 4
    assert design_from_plan(shared).alpha == pytest.approx(0.0125)


@pytest.mark.req("F4")
def test_a_guard_is_never_given_up() -> None:
    """It may still find that the candidate is worse."""
    assert share_alpha(replace(PLAN, role=SuiteRole.GUARD), 4).futility == 0.0
