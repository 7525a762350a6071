"""How often healthy canaries are stopped by a router's own guards: at most alpha."""

import math

import numpy as np
import pytest

from harness.gate.online.worker_guard import (
    FIRST_WEIGHT,
    HARM_GRID,
    WorkerGuard,
    abort_log_e,
)
from tests.support.sampling import later

ALPHA = 0.01
REQUESTS = 100_000


def ever_stopped(
    arms: np.ndarray,
    share: float,
    limit: float,
) -> np.ndarray:
    """Whether each row's failures, in order, reach the limit: LocalGuard for many at once."""
    grid = np.array(HARM_GRID)
    among = grid * share + 1.0 - share
    sums = np.zeros((len(arms), len(grid)))
    stopped = np.zeros(len(arms), dtype=bool)
    for t in range(1, arms.shape[1] + 1):
        weight = FIRST_WEIGHT if t == 1 else (1.0 - FIRST_WEIGHT) / (t * (t - 1))
        factor = np.where(arms[:, t - 1, None], grid, 1.0) / among
        sums = (sums + weight) * factor
        stopped |= sums.mean(axis=1) + (1.0 - FIRST_WEIGHT) / t >= math.exp(limit)
    return stopped


def test_many_at_once_are_what_one_is() -> None:
    random = np.random.default_rng(5)
    rows = random.random((40, 60)) < 0.2
    limit = 1.5

    for row, stops in zip(rows, ever_stopped(rows, 0.05, limit), strict=True):
        guard = WorkerGuard()
        stopped = False
        for canary in row:
            guard = guard.after(canary=bool(canary), share=0.05)
            stopped = stopped or guard.log_e >= limit
        assert stopped == stops


@pytest.mark.req("F3")
@pytest.mark.parametrize(
    ("share", "error_rate"),
    [
        (0.01, 0.01),
        later(0.05, 0.02),
        later(0.25, 0.002),
    ],
)
def test_in_100_000_requests_healthy_canaries_are_stopped_at_most_as_often_as_alpha(
    share: float, error_rate: float
) -> None:
    random = np.random.default_rng(20)
    rollouts = 4000
    workers = 4
    seen = round(REQUESTS * error_rate / workers)
    limit = abort_log_e(ALPHA, workers=workers, turn=0)

    each = ever_stopped(random.random((rollouts * workers, seen)) < share, share, limit)
    found = each.reshape(rollouts, workers).any(axis=1).mean()

    # Three standard deviations above alpha would be 0.0147.
    assert found <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / rollouts)
