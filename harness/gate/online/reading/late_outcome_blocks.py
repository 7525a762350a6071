"""Builds blocks of late outcomes: callers' windows, and users' feedback (statistics.md §2.19).

The outcomes of a block's first requests are in the block itself. Its late outcomes follow in
blocks of their own, because they become known later. Pure.
"""

from collections.abc import Sequence
from typing import NamedTuple

from harness.gate.online.guardrails import (
    ArmSplit,
    FailureTally,
    FeedbackTally,
    Guardrail,
    WindowTally,
)
from harness.gate.online.observation import KeyHistory, NeverSeen, ObservationBlock
from harness.gate.online.one_key import MAX_BLOCK_KEYS, count_keys
from harness.gate.online.reading.scored_exposures import LedgerExposure, OpenBlock


class LateReading(NamedTuple):
    """An exposure's late outcome. A missing outcome is bad, too."""

    exposure: LedgerExposure
    bad: bool
    missing: bool


class LatePart(NamedTuple):
    """The late outcomes of a block for one guardrail. of: the block as it was sent."""

    guardrail: Guardrail
    block: OpenBlock
    units: Sequence[LedgerExposure]
    of: ObservationBlock
    known_s: float  # the time when all outcomes are known, in monotonic seconds


def build_late(part: LatePart, readings: Sequence[LateReading]) -> ObservationBlock:
    """Builds the block of late outcomes of a part, without its number."""
    never_seen = None
    by_key = _count_by_key(part.guardrail, readings)
    if part.block.claimed:
        exposures = [
            exposure for exposure in part.units if exposure.history is KeyHistory.NEVER_SEEN
        ]
        new_readings = [
            reading for reading in readings if reading.exposure.history is KeyHistory.NEVER_SEEN
        ]
        new_by_key = _count_by_key(part.guardrail, new_readings)
        never_seen = NeverSeen(
            len(exposures),
            sum(exposure.canary for exposure in exposures),
            0,
            0,
            None
            if len(exposures) == len(part.units)
            else {part.guardrail: _count_readings(part.guardrail, new_readings)},
            by_key=None if new_by_key == by_key else new_by_key,
        )
    sent_block = part.of
    return ObservationBlock(
        rollout=sent_block.rollout,
        worker=sent_block.worker,
        sequence=0,
        weight_bps=sent_block.weight_bps,
        units=0,
        canary_units=0,
        failures=0,
        canary_failures=0,
        missing=0,
        opened_at=sent_block.opened_at,
        closed_at=sent_block.closed_at,
        period=sent_block.period,
        usual_rates=sent_block.usual_rates,
        counts={part.guardrail: _count_readings(part.guardrail, readings)},
        by_key=by_key,
        never_seen=never_seen,
        late_of=sent_block.sequence,
        late_units=len(part.units),
        late_canary_units=sum(exposure.canary for exposure in part.units),
    )


def _count_readings(guardrail: Guardrail, readings: Sequence[LateReading]) -> FailureTally:
    bad = [reading for reading in readings if reading.bad]
    missing = _split_arms([reading for reading in readings if reading.missing])
    counts = (*_split_arms(readings), *_split_arms(bad))
    if guardrail is Guardrail.FEEDBACK:
        with_feedback = [reading for reading in readings if reading.exposure.heard]
        return FeedbackTally(*counts, opinions=_split_arms(with_feedback), missing=missing)
    known_exposures = [reading.exposure for reading in readings if not reading.missing]
    return WindowTally(
        *counts,
        missing=missing,
        requests=ArmSplit(
            sum(exposure.requests for exposure in known_exposures),
            sum(exposure.requests for exposure in known_exposures if exposure.canary),
        ),
        squares=ArmSplit(
            sum(exposure.requests**2 for exposure in known_exposures),
            sum(exposure.requests**2 for exposure in known_exposures if exposure.canary),
        ),
    )


def _count_by_key(
    guardrail: Guardrail, readings: Sequence[LateReading]
) -> dict[str, dict[Guardrail, FailureTally]]:
    """Counts exposures by client key. A missing outcome counts for the canary."""
    by_client: dict[str, list[LateReading]] = {}
    for reading in readings:
        if reading.exposure.client:
            by_client.setdefault(reading.exposure.client, []).append(reading)
    tallies: dict[str, dict[Guardrail, FailureTally]] = {}
    for client, client_readings in by_client.items():
        bad = [
            reading
            for reading in client_readings
            if reading.bad and not (reading.missing and reading.exposure.canary)
        ]
        tallies[client] = {
            guardrail: FailureTally(*_split_arms(client_readings), *_split_arms(bad))
        }
    return count_keys(tallies, MAX_BLOCK_KEYS)


def _split_arms(readings: Sequence[LateReading]) -> ArmSplit:
    return ArmSplit(len(readings), sum(reading.exposure.canary for reading in readings))
