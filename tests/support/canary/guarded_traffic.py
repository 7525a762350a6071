"""Simulates canary traffic with a known truth, for CanaryBench: failures of both arms
(`simulate_traffic`), or observation blocks with all that guardrails read (`simulate_rollout`).

The last is made as real traffic is, where everything depends on everything: a longer answer
takes longer, costs more and meets the token limit; who gets an error sends a thumb down. One
canary unit in each block of 100, or, in a `Scene`, callers whose arm is a coin and blocks as
full as traffic makes them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from harness.gate.arrays import Floats
from harness.gate.online.guardrails import (
    WINDOW_REQUESTS,
    ArmLevels,
    FailureTally,
    Guardrail,
    MeasuredExposure,
    WindowTally,
    rank_block,
)
from harness.gate.online.observation import ObservationBlock
from harness.gate.policy import CanaryPolicy

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Truth:
    control: float = 0.01
    canary: float = 0.01
    size: int = 100  # size, canary: units of a block, and how many are canary
    canaries: int = 1


@dataclass(frozen=True)
class SimulatedTraffic:
    """One rollout, block by block: failures of both arms separately."""

    truth: Truth
    canary_failures: Ints
    control_failures: Ints

    def counts(self) -> list[FailureTally]:
        size = self.truth.size
        canaries = self.truth.canaries
        return [
            FailureTally(size, canaries, int(ours + theirs), int(theirs))
            for ours, theirs in zip(self.control_failures, self.canary_failures, strict=True)
        ]


def simulate_traffic(
    truth: Truth,
    blocks: int,
    rng: np.random.Generator,
    incident: Sequence[int] = (),
) -> SimulatedTraffic:
    """Failures of both arms by block.

    Args:
        incident: blocks in which both fail 30 %.
    """
    canary = np.full(blocks, truth.canary)
    control = np.full(blocks, truth.control)
    if len(incident):
        canary[list(incident)] = control[list(incident)] = 0.30
    return SimulatedTraffic(
        truth,
        rng.binomial(truth.canaries, canary).astype(np.int64),
        rng.binomial(truth.size - truth.canaries, control).astype(np.int64),
    )


def ranks_of_rows(
    canary: Floats,
    controls: Floats,
    tie_breakers: Floats,
    among: NDArray[np.bool_] | None = None,
) -> Floats:
    """Ranks one canary value among its controls in each row, as `rank_among` does.

    Args:
        among: which controls count, all when not given.
    """
    if among is None:
        among = np.ones(controls.shape, dtype=bool)
    below = ((controls < canary[:, None]) & among).sum(axis=1)
    equal = ((controls == canary[:, None]) & among).sum(axis=1)
    return np.asarray((below + tie_breakers * (equal + 1)) / (among.sum(axis=1) + 1))


Bools = NDArray[np.bool_]
SIZE: Final = 100
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
INCIDENT_RATE: Final = 0.30
CANARY_SHARE: Final = 0.01
NO_LEVELS: Final = ArmLevels(1.0, 1.0)
TOKEN_LIMIT: Final = 900.0
# Requests of a caller after the first one that its window counts. They fail as the incumbent's
# first requests do, in both arms.
LATER: Final = WINDOW_REQUESTS - 1
# A window is known so many blocks after its caller's block: 12 min, if a block takes a minute.
WINDOW_BLOCKS: Final = 12
# Shares of units: failing for each reason; asking for JSON, offering tools, judged, streaming.
ERRORS = 0.01
REFUSED = 0.02
BAD_JSON = 0.02
BAD_CALL = 0.02
DISLIKED = 0.03
JUDGED_BAD = 0.1
LEFT = 0.005
REPEATED = 0.002
ASKS_JSON = 0.3
OFFERS_TOOLS = 0.2
IS_JUDGED = 0.1
STREAMS = 0.5


@dataclass(frozen=True)
class SimulatedHarm:
    errors: float = ERRORS  # errors, bad_json: shares
    bad_json: float = BAD_JSON
    slower: float = 1.0  # slower, longer: ratios
    longer: float = 1.0


@dataclass(frozen=True)
class Scene:
    """What happens to both arms alike, for each of a rollout's blocks."""

    sizes: Ints  # units of each block
    failing: Floats  # times that ERRORS is the rate of both arms, by block and unit
    slower: Floats  # times that both arms are as slow
    share: float = CANARY_SHARE  # of the callers in the canary


def simulate_rollout(
    harm: SimulatedHarm,
    policy: CanaryPolicy,
    *,
    blocks: int,
    rng: np.random.Generator,
    incident: range = range(0),
    scene: Scene | None = None,
    before: int = 0,
) -> list[ObservationBlock]:
    """Simulates the blocks of one rollout.

    Args:
        incident: blocks in which both arms fail 30 % of their units, three times slower.
        scene: arms are coins in it.
        before: blocks of the rollout that came before these.

    Only first requests show the harm of errors. The windows of a block's callers are in this
    block, see `delay_windows`.
    """
    shape = (blocks, SIZE)
    arm = np.zeros(shape, dtype=bool)
    arm[:, 0] = True  # units of a block are alike: which one it is does not matter
    everyone = np.ones(shape, dtype=bool)
    hit = np.zeros((blocks, 1))
    hit[list(incident)] = 1.0
    chance = np.where(arm, harm.errors, ERRORS)
    slow = np.ones(shape)
    if scene is not None:
        arm = rng.random(shape) < scene.share
        everyone = np.arange(SIZE) < scene.sizes[:, None]
        chance = np.minimum(np.where(arm, harm.errors, ERRORS) * scene.failing, 1.0)
        slow = slow * scene.slower
    hit_chance = np.where(hit > 0, np.maximum(chance, INCIDENT_RATE), chance)
    failed = (rng.random(shape) < hit_chance) & everyone
    tokens = rng.lognormal(5.0, 0.8, shape) * np.where(arm, harm.longer, 1.0)
    slow = slow * np.where(arm, harm.slower, 1.0) * (1.0 + 2.0 * hit)
    first = rng.lognormal(-1.0, 0.5, shape) * slow
    between = rng.lognormal(-4.0, 0.3, shape) * slow
    asks = rng.random(shape) < ASKS_JSON
    offers = rng.random(shape) < OFFERS_TOOLS
    judged = rng.random(shape) < IS_JUDGED
    streams = rng.random(shape) < STREAMS

    def draw(share: float | Floats) -> Bools:
        return np.asarray((rng.random(shape) < share) & ~failed)

    # A failed request gives no credit to guardrails of answers.
    answered = ~failed
    counts = {
        Guardrail.TRUNCATION: (answered, tokens > TOKEN_LIMIT),
        Guardrail.REFUSALS: (answered, draw(REFUSED)),
        Guardrail.JSON_VALIDITY: (
            asks & answered,
            draw(np.where(arm, harm.bad_json, BAD_JSON)),
        ),
        Guardrail.TOOL_VALIDITY: (offers & answered, draw(BAD_CALL)),
        Guardrail.FEEDBACK: (
            everyone,
            draw(DISLIKED) | (failed & (rng.random(shape) < 0.2)),
        ),
        Guardrail.JUDGE: (judged & answered, draw(JUDGED_BAD)),
        Guardrail.LEAVING: (everyone, draw(LEFT)),
        Guardrail.REPEATS: (answered, draw(REPEATED)),
    }
    latency = first + between * tokens
    values = {
        Guardrail.LATENCY: (everyone, _or_worst(latency, failed)),
        Guardrail.TIME_TO_FIRST_TOKEN: (streams, _or_worst(first, failed)),
        Guardrail.INTER_TOKEN_LATENCY: (streams, _or_worst(between, failed)),
        Guardrail.OUTPUT_TOKENS: (answered, tokens),
        Guardrail.COST_PER_SUCCESS: (
            everyone,
            _or_worst(1e-4 + 1e-5 * tokens, failed),
        ),
    }
    on = policy.tolerated
    tallies = {
        guardrail: _tallies(applies & everyone, bad, arm)
        for guardrail, (applies, bad) in counts.items()
        if guardrail in on
    }
    ranked = {
        guardrail: _ranked(applies, measured, on[guardrail], rng)
        if scene is None
        else _ranked_by_coin(arm, applies & everyone, measured, (guardrail, on[guardrail]))
        for guardrail, (applies, measured) in values.items()
        if guardrail in on
    }
    errors = _tallies(everyone, failed, arm)
    if Guardrail.CALLER_ERRORS in on:
        usual = ERRORS if scene is None else np.minimum(ERRORS * scene.failing, 1.0)
        usual = np.where(hit > 0, np.maximum(usual, INCIDENT_RATE), usual)
        later = rng.random(shape) < 1.0 - (1.0 - usual) ** LATER
        tallies[Guardrail.CALLER_ERRORS] = [
            WindowTally(tally.units, tally.canary, tally.failures, tally.canary_failures)
            for tally in _tallies(everyone, failed | later, arm)
        ]
    return [
        ObservationBlock(
            rollout="r",
            worker="w",
            sequence=before + n,
            weight_bps=round(10_000 * (scene.share if scene else CANARY_SHARE)),
            units=errors[n].units,
            canary_units=errors[n].canary,
            failures=errors[n].failures,
            canary_failures=errors[n].canary_failures,
            missing=0,
            opened_at=START + timedelta(minutes=before + n),
            closed_at=START + timedelta(minutes=before + n + 1),
            number=before + n + 1,
            counts={guardrail: tally[n] for guardrail, tally in tallies.items()},
            ranks={name: ranks[n][0] for name, ranks in ranked.items() if ranks[n][0]},
            levels={name: ranks[n][1] for name, ranks in ranked.items() if ranks[n][0]},
        )
        for n in range(blocks)
    ]


def delay_windows(blocks: Sequence[ObservationBlock]) -> list[ObservationBlock]:
    """Moves the windows of each block's callers to the block `WINDOW_BLOCKS` later, when they
    are known.
    """
    name = Guardrail.CALLER_ERRORS
    found = []
    for n, block in enumerate(blocks):
        counts = {key: tally for key, tally in block.counts.items() if key is not name}
        if n >= WINDOW_BLOCKS and name in blocks[n - WINDOW_BLOCKS].counts:
            counts[name] = blocks[n - WINDOW_BLOCKS].counts[name]
        found.append(replace(block, counts=counts))
    return found


def _or_worst(values: Floats, failed: Bools) -> Floats:
    return np.where(failed, np.inf, values)


def _tallies(
    applies: Bools,
    failed: Bools,
    arm: Bools,
) -> list[FailureTally]:
    bad = applies & failed
    columns = (applies, applies & arm, bad, bad & arm)
    rows = zip(*(column.sum(axis=1) for column in columns), strict=True)
    return [FailureTally(*map(int, row)) for row in rows]


def _ranked_by_coin(
    arm: Bools,
    applies: Bools,
    values: Floats,
    measure: tuple[Guardrail, float],
) -> list[tuple[tuple[float, ...], ArmLevels]]:
    """Ranks each block's values as the router does.

    Args:
        measure: with the tolerated ratio.
    """
    guardrail, tolerated = measure
    found: list[tuple[tuple[float, ...], ArmLevels]] = [((), NO_LEVELS)] * len(arm)
    for n in np.flatnonzero((arm & applies).any(axis=1)):
        on = applies[n]
        units = [
            MeasuredExposure(bool(canary), float(value) if math.isfinite(value) else None)
            for canary, value in zip(arm[n, on], values[n, on], strict=True)
        ]
        ranked = rank_block(
            units,
            guardrail=guardrail,
            tolerated=tolerated,
            block=("r", "w", int(n)),
        )
        found[n] = ranked.u, ranked.level or NO_LEVELS
    return found


def _ranked(
    applies: Bools,
    values: Floats,
    tolerated: float,
    rng: np.random.Generator,
) -> list[tuple[tuple[float, ...], ArmLevels]]:
    """Ranks of the blocks whose canary unit the guardrail applies to."""
    ranks = ranks_of_rows(
        values[:, 0] / tolerated,
        values[:, 1:],
        rng.random(len(values)),
        among=applies[:, 1:],
    )
    return [
        ((float(rank),) if scored else (), level)
        for rank, scored, level in zip(
            ranks, applies[:, 0], _levels(applies, values), strict=True
        )
    ]


def _levels(applies: Bools, values: Floats) -> list[ArmLevels]:
    answered = applies & np.isfinite(values) & (values > 0.0)
    logs = np.log(np.where(answered, values, 1.0))
    control = answered[:, 1:].sum(axis=1)
    means = np.exp(logs[:, 1:].sum(axis=1) / np.maximum(control, 1))
    return [
        ArmLevels(float(c), float(m)) for c, m in zip(np.exp(logs[:, 0]), means, strict=True)
    ]
