"""Holds the rollback rules that CanaryBench compares: ours (e-Fisher) and thresholds as
Flagger's and Argo's. Each takes one simulated rollout and gives the exposures until it rolls
back, None for never. The thresholds look after each window of canary exposures.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from harness.gate.online.evidence_paths import counts_path
from tests.support.canary.guarded_traffic import SimulatedTraffic

Rule = Callable[[SimulatedTraffic], int | None]
ALPHA = 0.05


def e_fisher(traffic: SimulatedTraffic) -> int | None:
    """Applies the product's own rule for a canary, after each block."""
    over = np.flatnonzero(counts_path(traffic.counts()) >= math.log(1.0 / ALPHA))
    return _exposures(over, traffic.truth.canaries)


def threshold(
    traffic: SimulatedTraffic, *, window: int, success: float, failed: int
) -> int | None:
    """Roll back at the `failed`-th window whose success rate is below `success`."""
    canary, per_window = _windows(traffic, window)
    bad = np.flatnonzero(np.cumsum(1.0 - canary / per_window < success) >= failed)
    return _exposures(bad, per_window)


def flagger(traffic: SimulatedTraffic, *, window: int) -> int | None:
    return threshold(traffic, window=window, success=0.99, failed=5)


def argo(traffic: SimulatedTraffic, *, window: int) -> int | None:
    """More than three failed windows."""
    return threshold(traffic, window=window, success=0.95, failed=4)


def _windows(traffic: SimulatedTraffic, window: int) -> tuple[np.ndarray, int]:
    """The canary's failures by window, and canary exposures in each."""
    blocks = max(1, window // traffic.truth.canaries)
    count = len(traffic.canary_failures) // blocks
    canary = traffic.canary_failures[: count * blocks].reshape(count, blocks).sum(axis=1)
    return canary, blocks * traffic.truth.canaries


def _exposures(bad: np.ndarray, per_window: int) -> int | None:
    return int((bad[0] + 1) * per_window) if len(bad) else None


OURS = "e-fisher"
RULES: Mapping[str, Rule] = {
    OURS: e_fisher,
    "Flagger-like, w10": partial(flagger, window=10),
    "Flagger-like, w100": partial(flagger, window=100),
    "Argo-like, w10": partial(argo, window=10),
    "Argo-like, w100": partial(argo, window=100),
}
