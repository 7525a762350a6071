"""Counts the exposures until the product's own evidence rolls a simulated canary back."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from harness.domain.canary.guardrails import Guardrails
from harness.domain.proposals.policy import CanaryPolicy
from harness.gate.online.evidence_paths import counts_path
from harness.gate.online.rollout_evidence import collect_evidence
from tests.support.canary import guarded_traffic
from tests.support.canary.guarded_traffic import SimulatedHarm, Truth, simulate_traffic

ALPHA: Final = 0.05
INCIDENT: Final = range(400, 420)
EVERYTHING: Final = CanaryPolicy(guardrails=replace(Guardrails(), judge=1.25))


def detect_errors(
    truth: Truth, *, cap: int, rollouts: int, seed: int = 5, incident: Sequence[int] = ()
) -> list[float]:
    """Exposures to the rollback by errors alone, inf for never, of each rollout."""
    found = []
    for index in range(rollouts):
        rng = np.random.default_rng([seed, index, round(truth.canary * 1000)])
        traffic = simulate_traffic(truth, cap // truth.canaries, rng, incident)
        over = np.flatnonzero(counts_path(traffic.counts()) >= math.log(1.0 / ALPHA))
        found.append(float((over[0] + 1) * truth.canaries) if len(over) else math.inf)
    return found


def detect_harm(harm: SimulatedHarm, *, cap: int, seed: Sequence[int]) -> float:
    """Exposures until the product's `collect_evidence` trips; inf for never within the cap."""
    rng = np.random.default_rng(seed)
    blocks = guarded_traffic.simulate_rollout(harm, EVERYTHING, blocks=cap, rng=rng)
    tripped = collect_evidence(blocks, EVERYTHING).block
    return math.inf if tripped is None else tripped + 1.0
