"""The default canary is what a team has that sets nothing: this module measures its policy, all
guardrails together, on callers who come back as they do, over incidents, drift and days.

Each caller counts once, by the first request. What must not be rolled back is simulated with
arms that are coins, 1 % of them canary, in a `Scene`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from harness.gate.online.evidence_paths import counts_path
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout_evidence import collect_evidence
from harness.gate.policy import CanaryPolicy
from tests.support.canary.guarded_traffic import (
    CANARY_SHARE,
    SIZE,
    WINDOW_BLOCKS,
    Scene,
    SimulatedHarm,
    Truth,
    delay_windows,
    simulate_rollout,
    simulate_traffic,
)

DEFAULT: Final = CanaryPolicy()
# Every guardrail that there is, for what must not be rolled back.
TWELVE: Final = replace(DEFAULT, guardrails=replace(DEFAULT.guardrails, judge=1.25))
# Exposures simulated at first: most rollbacks come sooner.
FIRST: Final = 250
HIT: Final = slice(400, 420)  # blocks
# Callers of an uneven route, and requests for each exposure that is simulated.
KEYS: Final = 400_000
PER_DAY: Final = 400  # blocks


def exposures(
    harm: SimulatedHarm,
    *,
    policy: CanaryPolicy = DEFAULT,
    cap: int,
    seed: Sequence[int],
) -> float:
    """Counts exposures until the policy rolls a canary back; inf for never within `cap`."""
    rng = np.random.default_rng(seed)
    blocks: list[ObservationBlock] = []
    more = FIRST
    while len(blocks) < cap:
        more = min(more, cap - len(blocks))
        blocks += simulate_rollout(
            harm,
            policy,
            blocks=more,
            rng=rng,
            before=len(blocks),
        )
        found = collect_evidence(delay_windows(blocks), policy)
        if found.block is not None:
            return float(found.exposures)
        more = len(blocks)
    return math.inf


def detect_errors(
    truth: Truth,
    *,
    cap: int,
    rollouts: int,
    seed: int = 5,
    incident: Sequence[int] = (),
) -> list[float]:
    """Exposures to the rollback by errors alone at alpha .05 by rollout; inf for never."""
    found = []
    for index in range(rollouts):
        rng = np.random.default_rng([seed, index, round(truth.canary * 1000)])
        traffic = simulate_traffic(truth, cap // truth.canaries, rng, incident)
        over = np.flatnonzero(counts_path(traffic.counts()) >= math.log(20.0))
        found.append(float((over[0] + 1) * truth.canaries) if len(over) else math.inf)
    return found


def is_rolled_back(
    harm: SimulatedHarm,
    make_scene: "SceneMaker",
    *,
    exposures: int,
    seed: Sequence[int],
) -> bool:
    """Tells whether all twelve guardrails roll a canary back within about so many exposures."""
    rng = np.random.default_rng(seed)
    blocks = round(exposures / (SIZE * CANARY_SHARE))
    scene = make_scene(blocks, rng)
    units = simulate_rollout(
        harm,
        TWELVE,
        blocks=blocks,
        rng=rng,
        scene=scene,
    )
    return collect_evidence(delay_windows(units), TWELVE).block is not None


def is_promoted(seed: Sequence[int]) -> bool:
    """Tells whether a healthy candidate passes all steps of the default policy: no rollback,
    and a certificate within twice the last step's exposures.
    """
    rng = np.random.default_rng(seed)
    units: list[ObservationBlock] = []
    for step in DEFAULT.steps:
        share = step.weight_bps / 10_000
        times = 2.0 if step.certify else 1.0
        number = WINDOW_BLOCKS + math.ceil(times * step.min_exposures / (SIZE * share))
        units += simulate_rollout(
            SimulatedHarm(),
            DEFAULT,
            blocks=number,
            rng=rng,
            scene=replace(steady(number, rng), share=share),
            before=len(units),
        )
    found = collect_evidence(delay_windows(units), DEFAULT)
    return found.block is None and found.log_certificate >= found.certificate_limit


SceneMaker = Callable[[int, np.random.Generator], Scene]


def steady(blocks: int, _: np.random.Generator) -> Scene:
    return Scene(np.full(blocks, SIZE), np.ones((blocks, 1)), np.ones((blocks, 1)))


def incident(blocks: int, rng: np.random.Generator) -> Scene:
    """Makes an incident: in 20 blocks both arms fail 30 times as often, three times slower."""
    scene = steady(blocks, rng)
    scene.failing[HIT] = 30.0
    scene.slower[HIT] = 3.0
    return scene


def drift(blocks: int, rng: np.random.Generator) -> Scene:
    """Makes a provider that becomes worse and slower, in both arms."""
    grows = np.linspace(0.0, 1.0, blocks)[:, None]
    return replace(steady(blocks, rng), failing=0.5 + 4.0 * grows, slower=1.0 + grows)


def days(blocks: int, rng: np.random.Generator) -> Scene:
    """Makes days: at night blocks close with few callers, by day all is slower, fails more."""
    day = 0.5 + 0.5 * np.sin(2.0 * math.pi * np.arange(blocks) / PER_DAY)
    sizes = np.clip(rng.poisson(1.0 + 120.0 * day), 1, SIZE)
    return Scene(sizes, 0.5 + day[:, None], 0.7 + 0.6 * day[:, None])


def uneven(blocks: int, rng: np.random.Generator) -> Scene:
    """Makes callers as Zipf's law says: the busy ones come first, and these fail more."""
    busy = 1.0 / np.arange(1.0, KEYS + 1.0)
    asked = rng.choice(KEYS, size=6 * blocks * SIZE, p=busy / busy.sum())
    _, first = np.unique(asked, return_index=True)
    order = asked[np.sort(first)][: blocks * SIZE]
    rates = rng.beta(0.3, 29.7, KEYS)
    rates[: KEYS // 100] *= 3.0
    failing = np.full(blocks * SIZE, 1.0)
    failing[: len(order)] = rates[order] / 0.01
    full = np.minimum(np.maximum(len(order) - SIZE * np.arange(blocks), 0), SIZE)
    return Scene(full, failing.reshape(blocks, SIZE), np.ones((blocks, 1)))
