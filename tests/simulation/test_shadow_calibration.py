"""Does a shadow call a candidate worse that is not as seldom as it says? Seeded."""

import math
from functools import cache
from typing import Final

import numpy as np
import pytest

from harness.domain.shadow_pairs import Check
from harness.gate.shadow import ALL_CHECKS, ALPHA, SEEN_CHECKS, is_harm, log_e, log_e_of_all

pytestmark = pytest.mark.req("F8")

RUNS: Final = 1000
CHECKS: Final = list(Check)


@cache
def e(lost: int, won: int) -> float:
    return math.exp(log_e(lost, won))


def accused(rule: int) -> int:
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
            counts[newest] = (before[0] + int(lost), before[1] + int(not lost))
            # Cheap, and never less than any mean of them: else the product's own is asked.
            most = max(1.0, *(e(*each) for each in counts.values()))
            if most >= 1 / ALPHA and is_harm(log_e_of_all(counts, rule=rule)):
                found += 1
                break
    return found


def test_checks_that_come_one_by_one_accuse_no_more_often_than_the_level_says() -> None:
    rightly = accused(ALL_CHECKS)
    assert rightly <= ALPHA * RUNS
    # The mean of those seen so far gives a new check the weight that old ones had lost.
    assert accused(SEEN_CHECKS) >= 2 * rightly


def test_a_check_that_was_not_asked_for_weighs_as_one_without_evidence() -> None:
    counts = {"answered": (9, 1), "json": (2, 3)}
    every = {check.value: counts.get(check.value, (0, 0)) for check in Check}
    assert log_e_of_all(counts) == pytest.approx(log_e_of_all(every), abs=1e-12)
    assert log_e_of_all({}) == 0.0
    assert log_e_of_all(counts) < log_e_of_all(counts, rule=SEEN_CHECKS)
