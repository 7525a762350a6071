"""How often the gate errs, and finds a better model, when the incumbent's scores are the mean
of its scheduled runs.

Each model has a chance for each item, as estimated from five runs of a matrix of gatebench; the
logits are sharpened, so that two equal models differ on 18 % of the items. On each day all
chances of a model move together.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from harness.gate.arrays import Floats
from harness.gate.incumbent_days import (
    RECENT_DAYS,
    SPREAD_DAYS,
    DaySpread,
    estimate_spread,
)
from harness.gate.offline.design import Design
from harness.gate.offline.sequential import judge_batch
from harness.gate.suite_plan import Claim

pytestmark = pytest.mark.req("F2", "F7")

EPOCHS = Path(__file__).resolve().parents[2] / "datasets" / "gatebench" / "suite_epochs.csv"
INCUMBENT, CANDIDATE = "m16", "m20"
SHARPER = 1.7
ITEMS = 500
DAY_SD = 0.02


def to_logit(chance: Floats) -> Floats:
    bounded = np.clip(chance, 0.004, 0.996)
    return np.asarray(np.log(bounded / (1.0 - bounded)))


def to_chance(logit: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-logit)))


@cache
def skills(model: str) -> Floats:
    """Returns the logit of a model's chance on each item of the matrix."""
    runs = [
        [np.nan if score == "-" else float(score) for score in scores]
        for name, _, scores in (
            line.strip().split(",")
            for line in EPOCHS.read_text(encoding="utf-8").splitlines()
            if line.startswith("m") and not line.startswith("model")
        )
        if name == model
    ]
    right = np.nansum(runs, axis=0)
    asked = (~np.isnan(runs)).sum(axis=0)
    return SHARPER * to_logit((right + right.sum() / asked.sum() / 2.0) / (asked + 0.5))


def moved_to(logits: Floats, mean: float) -> Floats:
    """Moves all logits by one number, so that the mean chance is `mean`."""
    low, high = -5.0, 5.0
    for _ in range(50):
        middle = (low + high) / 2.0
        above = to_chance(logits + middle).mean() > mean
        low, high = (low, middle) if above else (middle, high)
    return logits + low


def answers_of_days(
    rng: np.random.Generator,
    logits: Floats,
    days: int,
    day_sd: float,
) -> Floats:
    """Draws scores (days, items).

    Args:
        day_sd: of a day's mean score, a share of 1.
    """
    chance = to_chance(logits)
    move = rng.normal(0.0, day_sd, (days, 1)) / (chance * (1.0 - chance)).mean()
    return np.asarray(rng.random((days, len(logits))) < to_chance(logits + move), dtype=float)


Evidence = tuple[Floats, DaySpread | None]


def mean_of_days(runs: Floats, end: int) -> Evidence:
    recent = min(end, RECENT_DAYS)
    spread = estimate_spread(runs[max(0, end - SPREAD_DAYS) : end].T.tolist(), recent)
    return runs[end - recent : end].mean(axis=0), spread


def worst_of_ten_days(runs: Floats) -> Evidence:
    """Chooses the day on which the candidate passes most easily, as a proposer may."""
    days = [mean_of_days(runs, end) for end in range(len(runs) - 9, len(runs) + 1)]

    def limit(day: Evidence) -> float:
        assert day[1] is not None
        return float(day[0].mean() + 1.68 * np.sqrt(0.2 / ITEMS + day[1].variance))

    return min(days, key=limit)


def worst_run(runs: Floats) -> Evidence:
    return runs[runs.mean(axis=1).argmin()], None


def all_days(runs: Floats) -> Evidence:
    return mean_of_days(runs, len(runs))


def share_passed(
    evidence: Callable[[Floats], Evidence],
    days: int,
    *,
    day_sd: float = 0.0,
    gain: float = 0.0,
    comparisons: int = 200,
) -> float:
    """Returns the share of comparisons in which a candidate that is better by `gain` passes."""
    rng = np.random.default_rng([73, days, round(1000 * day_sd), round(1000 * gain)])
    ours = skills(INCUMBENT)
    theirs = moved_to(skills(CANDIDATE), to_chance(ours).mean() + gain)
    passed = 0
    for _ in range(comparisons):
        items = rng.integers(0, len(ours), ITEMS)
        incumbent, spread = evidence(answers_of_days(rng, ours[items], days, day_sd))
        (candidate,) = answers_of_days(rng, theirs[items], 1, day_sd)
        design = Design(Claim.SUPERIOR, 0.05, ITEMS, days=spread)
        passed += int(judge_batch((candidate - incumbent)[None], design).promoted[0])
    return passed / comparisons


def test_one_run_lets_a_chosen_day_promote_an_equal_model() -> None:
    assert share_passed(worst_run, 10, comparisons=60) >= 0.1


@pytest.mark.parametrize("days", [7, 28])
def test_the_mean_of_scheduled_runs_keeps_the_level_if_days_vary(days: int) -> None:
    assert share_passed(all_days, days, day_sd=DAY_SD) <= 0.055


def test_the_worst_of_ten_proposal_days_keeps_the_level() -> None:
    assert share_passed(worst_of_ten_days, 17) <= 0.065


def test_the_runs_of_four_weeks_find_a_better_model_more_often_than_one_run() -> None:
    one = share_passed(worst_run, 1, gain=0.05, comparisons=100)
    mean = share_passed(all_days, 28, gain=0.05, comparisons=100)

    assert mean >= 0.85
    assert mean > one
