"""How large a loss a small graded suite is tested for that nobody met."""

import json
from dataclasses import replace

import numpy as np
import pytest

from harness.domain.evals.suite_plan import (
    Claim,
    SuitePlan,
    SuiteRole,
    UnseenLoss,
    plan_from_json,
)
from harness.gate.offline.adjusted import judge_adjusted
from harness.gate.offline.design import Design, design_from_plan, mirrored_spread, unseen_loss
from harness.gate.offline.sequential import (
    build_evidence,
    evidence_path,
    judge_batch,
    judge_differences,
    progress_at,
    start_progress,
)

pytestmark = pytest.mark.req("F2")

PLAN = SuitePlan("s", "sha", SuiteRole.PRIMARY, Claim.SUPERIOR, 0.05, 0.05, 60, 1, 7)


def judged_scores(rows: int, n: int, mean: float) -> np.ndarray:
    rng = np.random.default_rng(12)
    return np.clip(mean + rng.normal(0.0, 0.3, (rows, n)), -1.0, 1.0)


def test_a_plan_is_tested_for_a_whole_loss_unless_it_says_otherwise() -> None:
    assert "unseen" not in PLAN.as_json()
    assert plan_from_json(PLAN.as_json()).unseen is UnseenLoss.WHOLE
    assert design_from_plan(PLAN).unseen is UnseenLoss.WHOLE
    new = replace(PLAN, unseen=UnseenLoss.MIRRORED)
    assert plan_from_json(json.loads(json.dumps(new.as_json()))) == new


def test_only_spread_that_both_sides_share_makes_the_unseen_loss_smaller() -> None:
    # 0.5 above the mean and 0.5 below it, ten of each.
    assert float(mirrored_spread([0.6, -0.4] * 10)) == pytest.approx(10 * 0.25)
    alike = [0.02] * 59
    assert float(mirrored_spread([*alike, -1.0])) < 0.02
    assert float(mirrored_spread([*alike, 1.0])) < 0.02
    assert float(mirrored_spread([])) == 0.0
    assert unseen_loss(UnseenLoss.MIRRORED, [0.0, 2.0]).tolist() == [-1.0, -0.5]
    assert unseen_loss(UnseenLoss.WHOLE, [0.0, 2.0]).tolist() == [-1.0, -1.0]


@pytest.mark.parametrize("claim", [Claim.SUPERIOR, Claim.NON_INFERIOR])
def test_noisy_scores_need_less_and_alike_wins_as_much_as_ever(claim: Claim) -> None:
    old = Design(claim, 0.05, 50)
    new = replace(old, unseen=UnseenLoss.MIRRORED)
    noisy, alike = judged_scores(400, 50, old.theta0 + 0.07), np.full((1, 50), 0.04)

    before, after = (int(judge_batch(noisy, design).promoted.sum()) for design in (old, new))
    assert after > 1.2 * before
    wholly, mirrored = (judge_differences(alike[0].tolist(), design) for design in (old, new))
    assert wholly.p_final is not None
    assert mirrored.p_final == pytest.approx(wholly.p_final)
    # What is foreseen hides no loss: the adjusted rule keeps the whole one.
    assert judge_adjusted(noisy[0].tolist(), new) == judge_adjusted(noisy[0].tolist(), old)


def test_one_path_many_paths_and_the_running_state_agree() -> None:
    design = Design(Claim.NON_INFERIOR, 0.05, 60, unseen=UnseenLoss.MIRRORED)
    d = judged_scores(40, 60, 0.03)

    for row, promoted in zip(d, judge_batch(d, design).promoted, strict=True):
        assert (judge_differences(row.tolist(), design).outcome == "promote") == promoted
    # Who does not hold the differences any more tests for a whole loss.
    progress = start_progress()
    path = evidence_path(d[0], design)
    progress = progress_at(path, len(d[0]) - 1, progress)
    stricter, known = build_evidence(progress, design), judge_differences(d[0].tolist(), design)
    assert stricter.p_final is not None
    assert known.p_final is not None
    assert stricter.p_final >= known.p_final
