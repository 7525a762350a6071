import numpy as np
import pytest

from harness.domain.evals.suite_plan import Claim
from harness.gate.offline.design import Design, with_unseen_loss
from harness.gate.offline.item_tests import final_p
from harness.gate.offline.sequential import judge_batch, judge_differences

pytestmark = pytest.mark.req("F2")


def unseen(d: list[float]) -> float:
    return float(with_unseen_loss(d)[-1])


def test_only_spread_that_both_sides_share_makes_the_unseen_loss_smaller() -> None:
    # 0.5 above the mean and 0.5 below it, ten of each.
    assert unseen([0.6, -0.4] * 10) == pytest.approx(-1.0 / (1.0 + 2.5 / 2.0))
    alike = [0.02] * 59
    assert unseen([*alike, -1.0]) < -0.98
    assert unseen([*alike, 1.0]) < -0.98
    assert with_unseen_loss([0.5, 0.5]).tolist() == [0.5, 0.5, -1.0]


@pytest.mark.parametrize("n", [20, 199, 200, 1000])
@pytest.mark.parametrize("claim", [Claim.SUPERIOR, Claim.NON_INFERIOR])
def test_wins_that_are_all_alike_show_little_at_any_size(claim: Claim, n: int) -> None:
    # A little more everywhere, and one whole item lost in n, which this run did not meet.
    design = Design(claim, 0.05, n)
    gain = design.theta0 + (1.0 + design.theta0) / n
    assert float(final_p([gain] * n, design.theta0)) > 0.3
    # With one loss met, the skew says how little is known.
    assert float(final_p([*([gain] * (n - 1)), -1.0], design.theta0)) > 0.3


@pytest.mark.parametrize(("n", "gain"), [(20, 0.17), (50, 0.07), (100, 0.05)])
@pytest.mark.parametrize("claim", [Claim.SUPERIOR, Claim.NON_INFERIOR])
def test_alike_wins_pass_once_so_many_would_have_met_a_loss(
    claim: Claim, n: int, gain: float
) -> None:
    design = Design(claim, 0.05, n)
    won, less = ((1.0 + g) * (1.0 + design.theta0) - 1.0 for g in (gain, gain / 2.0))
    found = judge_differences([won] * n, design)
    assert found.outcome == "promote"
    assert found.p_final == pytest.approx((1.0 + gain) ** -found.n_used)
    assert judge_differences([less] * n, design).outcome == "inconclusive"


@pytest.mark.parametrize("claim", [Claim.SUPERIOR, Claim.NON_INFERIOR])
def test_one_path_and_many_paths_agree(claim: Claim) -> None:
    design = Design(claim, 0.05, 60)
    rng = np.random.default_rng(12)
    d = np.clip(0.06 + design.theta0 + rng.normal(0.0, 0.3, (40, 60)), -1.0, 1.0)

    promoted = judge_batch(d, design).promoted
    assert 0 < promoted.sum() < 40
    for row, passed in zip(d, promoted, strict=True):
        assert (judge_differences(row.tolist(), design).outcome == "promote") == passed
