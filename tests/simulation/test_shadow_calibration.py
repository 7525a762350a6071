"""Does a shadow call a candidate worse that is not as seldom as it says, and does its judge
pass useless candidates as seldom? Seeded.
"""

import math
from functools import cache
from typing import Final

import numpy as np
import pytest

from benchmarks.gate.shadow_cells import measure_shadow_cells
from harness.canary.shadows import (
    SHADOW_ALPHA,
    check_log_e,
    combined_log_e,
    is_harm,
)
from harness.routing.shadow import ShadowCheck
from router.recording.shared_files import SharedMarks

pytestmark = pytest.mark.req("F8")

RUNS: Final = 1000
CHECKS: Final = list(ShadowCheck)


@cache
def e(lost: int, won: int) -> float:
    return math.exp(check_log_e(lost, won))


def accused() -> int:
    """Of RUNS shadows whose candidate is no worse: 240 tosses of a coin, looked at after each.

    Once a check has next to nothing left, requests come that ask for another one.
    """
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(RUNS):
        counts = {CHECKS[0].value: (0, 0)}
        for lost in rng.random(240) < 0.5:
            newest = CHECKS[len(counts) - 1].value
            if e(*counts[newest]) < 0.2 and len(counts) < len(CHECKS):
                newest = CHECKS[len(counts)].value
            before = counts.get(newest, (0, 0))
            counts[newest] = (
                before[0] + int(lost),
                before[1] + int(not lost),
            )
            # Cheap, and never less than any mean of them: else the product's own is asked.
            most = max(1.0, *(e(*count) for count in counts.values()))
            if most >= 1 / SHADOW_ALPHA and is_harm(combined_log_e(counts)):
                found += 1
                break
    return found


def test_checks_that_come_one_by_one_accuse_no_more_often_than_the_level_says() -> None:
    assert accused() <= SHADOW_ALPHA * RUNS


def test_a_check_that_was_not_asked_for_weighs_as_one_without_evidence() -> None:
    counts = {"answered": (9, 1), "json": (2, 3)}
    every = {check.value: counts.get(check.value, (0, 0)) for check in ShadowCheck}
    assert combined_log_e(counts) == pytest.approx(combined_log_e(every), abs=1e-12)
    assert combined_log_e({}) == 0.0


def test_callers_who_repeat_a_prompt_accuse_no_more_often_than_the_level_says() -> None:
    """A candidate that is no worse: each of 80 callers always loses, or always wins."""
    by_caller = 0
    by_request = 0
    for run in range(150):
        rng = np.random.default_rng([59, run])
        loses = rng.random(80) < 0.5
        often = rng.permutation(1.0 / np.arange(1, 81))
        callers = rng.choice(80, 300, p=often / often.sum())
        marks = SharedMarks(b"secret")
        first = [0, 0]
        every = [0, 0]
        wrongly = [False, False]
        for caller in callers:
            side = 0 if loses[caller] else 1
            every[side] += 1
            first[side] += marks.first(f"p:{caller}")
            for place, (lost, won) in enumerate((first, every)):
                wrongly[place] = wrongly[place] or accuses(lost, won)
        by_caller += wrongly[0]
        by_request += wrongly[1]
    spread = math.sqrt(SHADOW_ALPHA * (1 - SHADOW_ALPHA) * 150)
    assert by_caller <= SHADOW_ALPHA * 150 + 3 * spread
    # Were each request evidence, busy callers would decide.
    assert by_request >= 0.2 * 150


@cache
def accuses(lost: int, won: int) -> bool:
    return is_harm(combined_log_e({"answered": (lost, won)}))


def test_a_judge_passes_and_fails_candidates_at_the_null_as_seldom_as_promised() -> None:
    """Each limit is the promised rate plus three standard errors of the simulation."""
    runs = 200
    most = 0.05 + 3.0 * math.sqrt(0.05 * 0.95 / runs)
    cells = [*measure_shadow_cells(runs)]

    assert len(cells) == 16
    for cell in cells:
        assert max(cell.passed, cell.failed or 0.0) <= most, cell.cell
    # Without their rules, these cells break the level under a margin.
    broken = [cell for cell in cells if cell.without is not None and cell.without > most]
    assert len({cell.cell for cell in broken}) >= 6
