"""Simulates rollouts whose arms fail, are limited, leave early or are not measured at known
rates, as the observation builder would store them (statistics.md §2.16, §2.17).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from harness.gate.online.guardrails import (
    ArmSplit,
    ErrorTally,
    Guardrail,
    bets_block,
)
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.outcome import (
    READINGS,
    OutcomeKind,
    OutcomeReason,
    Reading,
    outcome_key,
)

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
FAILED: Final = outcome_key(OutcomeKind.FAILED, OutcomeReason.PROVIDER)
LIMITED: Final = outcome_key(OutcomeKind.LIMITED, OutcomeReason.RATE)
EARLY: Final = outcome_key(OutcomeKind.LEFT, OutcomeReason.EARLY)
FALLBACK: Final = outcome_key(OutcomeKind.NOT_MEASURED, OutcomeReason.GATEWAY_FALLBACK)
ANSWERED: Final = OutcomeKind.ANSWERED.value


@dataclass(frozen=True)
class ArmTruth:
    """The rates of one arm. limited, early, fallback: of all; failed: of the others."""

    failed: float = 0.01
    limited: float = 0.0
    early: float = 0.0
    fallback: float = 0.0

    @property
    def chances(self) -> Mapping[str, float]:
        rest = 1.0 - self.limited - self.early - self.fallback
        return {
            LIMITED: self.limited,
            EARLY: self.early,
            FALLBACK: self.fallback,
            FAILED: rest * self.failed,
            ANSWERED: rest * (1.0 - self.failed),
        }


@dataclass(frozen=True)
class LeftOutScene:
    """A rollout. burst: how often a block is in a burst, in which both arms are limited."""

    canary: ArmTruth
    control: ArmTruth = field(default_factory=ArmTruth)
    share: float = 0.25
    size: int = 100
    burst: float = 0.0


def simulate_left_out(
    scene: LeftOutScene,
    *,
    blocks: int,
    rng: np.random.Generator,
    before: int = 0,
) -> list[ObservationBlock]:
    """Simulates blocks of one rollout.

    Args:
        before: the number of blocks that came before.
    """
    return [
        _block(
            scene,
            before + number,
            rng,
            burst=bool(rng.random() < scene.burst),
        )
        for number in range(1, blocks + 1)
    ]


def _block(
    scene: LeftOutScene,
    number: int,
    rng: np.random.Generator,
    *,
    burst: bool,
) -> ObservationBlock:
    arm = rng.random(scene.size) < scene.share
    units = {True: int(arm.sum()), False: int(scene.size - arm.sum())}
    truths = {True: scene.canary, False: scene.control}
    found: dict[bool, dict[str, int]] = {}
    for canary, truth in truths.items():
        chances = {LIMITED: 1.0} if burst else truth.chances
        drawn = rng.multinomial(units[canary], list(chances.values()))
        found[canary] = dict(zip(chances, map(int, drawn), strict=True))
    outcomes = {
        key: ArmSplit(
            found[True].get(key, 0) + found[False].get(key, 0),
            found[True].get(key, 0),
        )
        for key in (ANSWERED, FAILED, LIMITED, EARLY, FALLBACK)
    }
    outcomes = {key: split for key, split in outcomes.items() if split.failures}
    failed = outcomes.get(FAILED, ArmSplit(0, 0))
    unknown = _sum(outcomes, _is_unknown)
    tally = ErrorTally(scene.size, units[True], *failed, unknown=unknown)
    at = START + timedelta(seconds=number)
    return ObservationBlock(
        rollout="r",
        worker="w",
        sequence=number,
        number=number,
        weight_bps=round(10_000 * scene.share),
        units=scene.size,
        canary_units=units[True],
        failures=failed.failures,
        canary_failures=failed.canary,
        missing=0,
        opened_at=at,
        closed_at=at,
        counts={Guardrail.ERRORS: tally},
        outcomes=outcomes,
        bets={Guardrail.LIMITS: _bets(found, number, rng)},
    )


def _is_unknown(kind: OutcomeKind) -> bool:
    return READINGS[Guardrail.ERRORS][kind] is Reading.UNKNOWN


def _sum(outcomes: Mapping[str, ArmSplit], counts: object) -> ArmSplit:
    assert callable(counts)
    splits = [
        split for key, split in outcomes.items() if counts(OutcomeKind(key.partition(": ")[0]))
    ]
    return ArmSplit(sum(s.failures for s in splits), sum(s.canary for s in splits))


def _bets(
    found: Mapping[bool, Mapping[str, int]],
    number: int,
    rng: np.random.Generator,
) -> tuple[float, ...]:
    """Bets as the builder does: on units that were measured, in a random order."""
    values = [
        (canary, float(key == LIMITED))
        for canary, counts in found.items()
        for key, count in counts.items()
        if key != FALLBACK
        for _ in range(count)
    ]
    shuffled = [values[index] for index in rng.permutation(len(values))]
    return bets_block(
        shuffled,
        guardrail=Guardrail.LIMITS,
        margin=0.10,
        block=("r", "w", number),
    )
