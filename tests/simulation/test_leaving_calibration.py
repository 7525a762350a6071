"""How soon is a candidate rolled back whose callers leave without output, and how seldom is a
healthy one (statistics.md §2.15)? Seeded.
"""

import math
from collections.abc import Iterable

import numpy as np
import pytest

from harness.gate.online.guardrails import Guardrail
from harness.gate.online.rollout_evidence import collect_evidence
from tests.simulation.test_canary_calibration import upto
from tests.support.canary.leaving import DEFAULT, Leavers, exposures, record
from tests.support.sampling import later

pytestmark = pytest.mark.req("F3")
# In each of these, both arms keep their callers waiting alike, or the candidate less.
HEALTHY = {
    "equal, patience 3 s": Leavers(3.0),
    "equal, patience 8 s": Leavers(8.0),
    "equal, patience 30 s": Leavers(30.0),
    "equal, nothing known before": Leavers(3.0, history=False),
    "a third of the time": Leavers(3.0, times=1.0 / 3.0),
    "equal streams": Leavers(3.0, streamed=True, total_patience=True),
    "streams of a third": Leavers(
        8.0,
        words=1.0 / 3.0,
        streamed=True,
        total_patience=True,
    ),
    "streams three times as long": Leavers(
        8.0,
        words=3.0,
        streamed=True,
        total_patience=True,
    ),
    "streams twice as fast": Leavers(
        8.0,
        times=0.5,
        streamed=True,
        total_patience=True,
    ),
    "readers stop at 200 words": Leavers(
        8.0,
        words=3.0,
        streamed=True,
        stops_at=200.0,
        total_patience=True,
    ),
    "hedging clients": Leavers(8.0, hedged_s=2.0),
}
SAMPLE = ("equal, patience 3 s", "readers stop at 200 words")
# Patience in seconds, and the share of requests.
HANGS = [
    (patience_s, streamed, rate)
    for patience_s in (5.0, 8.0, 30.0)
    for streamed in (False, True)
    for rate in (1.0, 0.2, 0.05)
]
CAPS = {
    1.0: 40,
    0.2: 200,
    0.05: 900,
}


@pytest.mark.parametrize(
    ("case", "most", "rollouts"),
    [(case, 60, 6) for case in SAMPLE] + [later(case, 500, 100) for case in HEALTHY],
)
def test_a_healthy_candidate_is_not_rolled_back_because_callers_leave(
    case: str,
    most: int,
    rollouts: int,
) -> None:
    found = [
        exposures(
            HEALTHY[case],
            most=most,
            seed=[97, n],
            share_bps=500,
        )
        for n in range(rollouts)
    ]
    assert sum(map(math.isfinite, found)) <= upto(0.04, rollouts)


def test_a_hang_without_a_first_byte_limit_is_rolled_back_by_leaves_alone() -> None:
    """No limit ends the router's wait, so each caller waits until its patience ends."""
    blocks = list(record(Leavers(8.0, hanging=1.0), 20, [107], 500))

    evidence = collect_evidence(blocks, DEFAULT)

    assert evidence.tripped is Guardrail.LEAVING
    ends = {key for key, split in evidence.outcomes.items() if split.canary}
    assert ends == {"left: waited", "left: early"}


@pytest.mark.parametrize(
    ("patience_s", "streamed", "rate", "rollouts"),
    [
        (8.0, False, 1.0, 7),
        (8.0, True, 0.2, 7),
        *(later(*cell, 25) for cell in HANGS),
    ],
)
def test_a_hang_is_rolled_back_within_three_times_the_exposures_of_plain_failures(
    *,
    patience_s: float,
    streamed: bool,
    rate: float,
    rollouts: int,
) -> None:
    """At least half of these callers would wait until the limit."""
    hangs = Leavers(patience_s, hanging=rate, streamed=streamed)
    fails = Leavers(patience_s, failing=rate, streamed=streamed)
    hanging, failing = (
        _median(
            exposures(
                one,
                most=CAPS[rate],
                seed=[103, n],
            )
            for n in range(rollouts)
        )
        for one in (hangs, fails)
    )
    assert hanging <= 3.0 * failing


def _median(found: Iterable[float]) -> float:
    return float(np.quantile(list(found), 0.5, method="higher"))
