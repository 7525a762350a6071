"""Simulates users who dislike answers some time after them, and reads their feedback through
the product's evidence (statistics.md §2.19).

A user who dislikes an answer says so after a log-normal delay, 60 s in the median for answers
of the incumbent's length. Longer answers take longer to read: their delays are longer.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from harness.gate.online.evidence_paths import combined_path, counts_path
from harness.gate.online.guardrails import Guardrail
from harness.gate.online.rollout import build_exposure_rule
from harness.gate.policy import CanaryPolicy
from tests.support.canary.conversations import LIMIT, SIZE, tallies
from tests.support.canary.shared_ledgers import START

POLICY: Final = CanaryPolicy()
RULE: Final = build_exposure_rule(POLICY, START)
DISLIKED: Final = 0.05
SPREAD: Final = 1.0
SHARE: Final = 0.25
EXPOSURES: Final = 12_000


def exposures(
    words: float,
    times: float,
    *,
    seed: Sequence[int],
    heard_s: float = RULE.missing_s,
) -> float:
    """Returns the canary's callers until feedback rolls it back; inf for never.

    Args:
        words: ratio of the candidate's lengths to the incumbent's.
        times: ratio of the candidate's dislikes to the incumbent's.
    """
    rng = np.random.default_rng(seed)
    callers = round(EXPOSURES / SHARE / SIZE) * SIZE
    canary = rng.random(callers) < SHARE
    disliked = rng.random(callers) < np.where(canary, times, 1.0) * DISLIKED
    delays_s = 60.0 * np.where(canary, words, 1.0) * rng.lognormal(0.0, SPREAD, callers)
    heard = tallies(canary, disliked & (delays_s < heard_s))
    path = counts_path(heard, POLICY.tolerated[Guardrail.FEEDBACK], shares=[SHARE] * len(heard))
    paths = dict.fromkeys(POLICY.tolerated, np.zeros(len(path)))
    over = np.flatnonzero(combined_path(paths | {Guardrail.FEEDBACK: path}) >= LIMIT)
    if not len(over):
        return math.inf
    return float(canary[: (int(over[0]) + 1) * SIZE].sum())
