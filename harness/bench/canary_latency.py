"""Latencies of canary and incumbent, log-normal, and how soon a slow canary is seen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.domain.canary.ranking import MAX_CONTROLS
from harness.gate.logspace import Floats
from harness.gate.online.evidence_paths import ranks_path


@dataclass(frozen=True)
class Slowdown:
    """factor: the canary's latency to the incumbent's. sigma: of their logs."""

    factor: float
    sigma: float


def ranks_of_rows(
    canary: Floats,
    controls: Floats,
    tie_breakers: Floats,
    among: NDArray[np.bool_] | None = None,
) -> Floats:
    """As `domain.ranking.place`, of each row: one canary value among its controls.

    among: which controls count, all when not given.
    """
    if among is None:
        among = np.ones(controls.shape, dtype=bool)
    below = ((controls < canary[:, None]) & among).sum(axis=1)
    equal = ((controls == canary[:, None]) & among).sum(axis=1)
    return np.asarray((below + tie_breakers * (equal + 1)) / (among.sum(axis=1) + 1))


def exposures(slow: Slowdown, *, cap: int, alpha: float, seed: Sequence[int]) -> float:
    """Canary values until the rollback; inf for never within the cap."""
    rng = np.random.default_rng(seed)
    values = rng.lognormal(0.0, slow.sigma, (cap, MAX_CONTROLS + 1))
    u = ranks_of_rows(values[:, 0] * slow.factor, values[:, 1:], rng.random(cap))
    over = np.flatnonzero(ranks_path([(float(each),) for each in u]) >= math.log(1.0 / alpha))
    return float(over[0] + 1) if len(over) else math.inf
