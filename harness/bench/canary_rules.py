"""Holds the rollback rules that CanaryBench compares: ours (e-Fisher), thresholds as Flagger's
and Argo's, a z test, and Mann-Whitney as Kayenta's. Each takes one simulated rollout and gives
the exposures until it rolls back, None for never. The others look after each window of canary
exposures.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from scipy import special, stats

from harness.bench.guarded_traffic import SimulatedTraffic
from harness.gate.online.evidence_paths import counts_path

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
    canary, _, per_window = _windows(traffic, window)
    bad = np.flatnonzero(np.cumsum(1.0 - canary / per_window < success) >= failed)
    return _exposures(bad, per_window)


def flagger(traffic: SimulatedTraffic, *, window: int) -> int | None:
    return threshold(traffic, window=window, success=0.99, failed=5)


def argo(traffic: SimulatedTraffic, *, window: int) -> int | None:
    """More than three failed windows."""
    return threshold(traffic, window=window, success=0.95, failed=4)


def z_peeking(traffic: SimulatedTraffic, *, window: int) -> int | None:
    """Applies a one-sided z test of two proportions to all data so far, after each window."""
    canary, control, per_window = _windows(traffic, window)
    ratio = traffic.controls / traffic.truth.canaries
    n1 = per_window * np.arange(1, len(canary) + 1)
    n2 = n1 * ratio
    x1, x2 = np.cumsum(canary), np.cumsum(control)
    pooled = (x1 + x2) / (n1 + n2)
    error = np.sqrt(np.maximum(pooled * (1.0 - pooled) * (1.0 / n1 + 1.0 / n2), 1e-18))
    p = special.ndtr(-(x1 / n1 - x2 / n2) / error)
    return _exposures(np.flatnonzero(p <= ALPHA), per_window)


def mann_whitney(traffic: SimulatedTraffic, *, window: int) -> int | None:
    """Applies Kayenta's rule: ranks of the windows' error rates, 98 % confidence, after each
    window.
    """
    canary, control, per_window = _windows(traffic, window)
    theirs = canary / per_window
    ours = control / (per_window * traffic.controls / traffic.truth.canaries)
    for length in range(4, len(theirs) + 1):
        if not theirs[:length].any():
            continue
        found = stats.mannwhitneyu(
            theirs[:length], ours[:length], alternative="greater", method="asymptotic"
        )
        if found.pvalue <= 0.01:
            return int(length * per_window)
    return None


def _windows(traffic: SimulatedTraffic, window: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Failures of both arms by window, and canary exposures in each."""
    blocks = max(1, window // traffic.truth.canaries)
    count = len(traffic.canary_failures) // blocks
    cut = count * blocks
    canary = traffic.canary_failures[:cut].reshape(count, blocks).sum(axis=1)
    control = traffic.control_failures[:cut].reshape(count, blocks).sum(axis=1)
    return canary, control, blocks * traffic.truth.canaries


def _exposures(bad: np.ndarray, per_window: int) -> int | None:
    return int((bad[0] + 1) * per_window) if len(bad) else None


OURS = "e-fisher"
RULES: Mapping[str, Rule] = {
    OURS: e_fisher,
    "Flagger-like, w10": partial(flagger, window=10),
    "Flagger-like, w100": partial(flagger, window=100),
    "Argo-like, w10": partial(argo, window=10),
    "Argo-like, w100": partial(argo, window=100),
    "z peeking, w10": partial(z_peeking, window=10),
    "z peeking, w100": partial(z_peeking, window=100),
    "Mann-Whitney, w10": partial(mann_whitney, window=10),
    "Mann-Whitney, w100": partial(mann_whitney, window=100),
}
SLOW = frozenset({"Mann-Whitney, w10", "Mann-Whitney, w100"})
