"""Does the check of the split err as seldom as it says, with callers who come back daily?"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from harness.gate.online.fisher import ALARM_LOG_E, worst_log_srm
from harness.gate.online.observation import ObservationBlock
from tests.support.store.records import PLAIN_BLOCK

pytestmark = pytest.mark.req("F3")

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SIZE = 100


def rollout(
    index: int,
    weights_bps: tuple[int, ...],
    keys: int = 2000,
) -> Iterator[ObservationBlock]:
    """Every key comes once a day, on the side of its one toss; a weight for each day."""
    rng = np.random.default_rng([43, index])
    buckets = rng.integers(0, 10_000, keys)
    for day, weight_bps in enumerate(weights_bps):
        in_canary = rng.permutation(buckets) < weight_bps
        for first in range(0, keys, SIZE):
            arms = in_canary[first : first + SIZE]
            yield block(
                START + day * DAY,
                day + 1,
                weight_bps,
                len(arms),
                int(arms.sum()),
            )


def block(
    at: datetime,
    period: int,
    weight_bps: int,
    units: int,
    canary_units: int,
) -> ObservationBlock:
    made = replace(
        PLAIN_BLOCK,
        opened_at=at,
        closed_at=at,
        period=period,
    )
    return replace(
        made,
        weight_bps=weight_bps,
        units=units,
        canary_units=canary_units,
    )


def alarms(weights_bps: tuple[int, ...], rollouts: int = 150) -> int:
    found = (worst_log_srm(rollout(n, weights_bps)) for n in range(rollouts))
    return sum(log_e >= ALARM_LOG_E for log_e in found)


def test_a_right_split_of_callers_who_come_back_daily_raises_no_alarm() -> None:
    """At 1 of 1,000, more than two of 150 come once in 1,900 runs of this test."""
    assert alarms((2500,) * 14) <= 2


def test_a_rising_share_of_callers_who_come_back_raises_no_alarm() -> None:
    assert alarms((100, 100, 500, 500, 500, 2500, 2500, 2500)) <= 2


def test_a_wrong_split_is_found_in_a_late_period_too() -> None:
    right = list(rollout(1, (500,) * 10))
    wrong = [block(START + 10 * DAY, 11, 500, SIZE, 8) for _ in range(40)]
    assert worst_log_srm(right) < ALARM_LOG_E
    assert worst_log_srm([*right, *wrong]) >= ALARM_LOG_E


def test_an_alarm_outlasts_its_period_and_ends_with_what_a_person_resumes() -> None:
    wrong = [block(START, 1, 500, SIZE, 12) for _ in range(20)]
    mended = [block(START + DAY, 2, 500, SIZE, 5) for _ in range(50)]
    again = [block(START + DAY, 2, 500, SIZE, 12) for _ in range(20)]
    assert worst_log_srm([*wrong, *mended], START) >= ALARM_LOG_E
    assert worst_log_srm([*wrong, *mended], START + DAY) < ALARM_LOG_E
    assert worst_log_srm([*wrong, *again], START + DAY) >= ALARM_LOG_E
