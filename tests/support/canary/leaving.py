"""Simulates callers who leave, by the router's ledger: how soon a candidate that hangs is
rolled back, and how often a healthy one is (statistics.md §2.15).

The incumbent's answers take 1 s in the median and 4 s at the 99th percentile, a stream's first
output half of that. A caller's patience is log-normal and equal in both arms: it limits the
wait for the next output, and in `total_patience` the whole stream.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import numpy as np

from harness.gate.online.exposures import SEGMENTS_FROM
from harness.gate.online.guardrails import ExposureRule, Guardrail
from harness.gate.online.observation import (
    SEGMENTS,
    ObservationBlock,
    Segment,
)
from harness.gate.online.outcome import (
    ExposureOutcome,
    OutcomeKind,
    OutcomeReason,
    WaitLimits,
)
from harness.gate.online.reading.scored_exposures import RequestTraits
from harness.gate.online.rollout import IncumbentHistory, build_exposure_rule
from harness.gate.online.rollout_evidence import collect_evidence
from harness.gate.online.waiting import (
    RequestWaits,
    count_waits,
    limits_before,
)
from harness.gate.policy import CanaryPolicy
from router.recording.ledger import Ledger

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
STREAM_TRAITS: Final = 1 << SEGMENTS_FROM + SEGMENTS.index(Segment.STREAM)
SERVED: Final = RequestTraits.SERVED.value
DEFAULT: Final = CanaryPolicy()
SPREAD: Final = math.log(4.0) / 2.3263  # of the answers' times: 1 s in the median, 4 s at 99 %
PATIENCE_SPREAD: Final = 0.7
TIMEOUT_S: Final = 120.0
ERRORS: Final = 0.01  # the share of both arms' requests that fail
HISTORY: Final = 1000  # answers of the incumbent before the rollout
FIRST: Final = 8  # blocks before the evidence is computed for the first time


@dataclass(frozen=True)
class Leavers:
    """A candidate and the callers of its route.

    patience_s: median patience. hanging, failing: shares of the candidate's requests; of the
    incumbent's, ERRORS fail. times,
    words: ratios of the candidate's times and lengths to the incumbent's. streamed: all
    requests stream, and a request that hangs does so in the middle. stops_at: after so many
    words, readers stop. total_patience: the patience limits the whole stream. hedged_s: after
    this time, callers send a second request, and leave the first if the second is answered
    sooner. history: the incumbent answered before the rollout.
    """

    patience_s: float
    hanging: float = 0.0
    failing: float = 0.0
    times: float = 1.0
    words: float = 1.0
    streamed: bool = False
    stops_at: float = math.inf
    total_patience: bool = False
    hedged_s: float = math.inf
    history: bool = True


def exposures(
    leavers: Leavers,
    *,
    most: int,
    seed: Sequence[int],
    share_bps: int = 100,
) -> float:
    """Returns the exposures until the default policy rolls the canary back; inf for never.

    Args:
        most: exposures after which the simulation ends.
    """
    blocks: list[ObservationBlock] = []
    evaluated_at = FIRST
    for block in record(leavers, most, seed, share_bps):
        blocks.append(block)
        if len(blocks) == evaluated_at:
            evaluated_at *= 2
            if (found := _rolled_back(blocks)) is not None:
                return found
    return _rolled_back(blocks) or math.inf


def _rolled_back(blocks: Sequence[ObservationBlock]) -> float | None:
    found = collect_evidence(blocks, DEFAULT)
    return None if found.block is None else float(found.exposures)


def record(
    leavers: Leavers,
    most: int,
    seed: Sequence[int],
    share_bps: int,
) -> Iterator[ObservationBlock]:
    """Yields the blocks of one rollout."""
    rng = np.random.default_rng(seed)
    limits = limits_before(
        count_waits(_waits(leavers, rng) if leavers.history else ()),
        first_byte_s=None,
        first_token_s=None,
    )
    ledger = Ledger("r", "w", _rule(limits))
    number = math.ceil(most * 10_000 / share_bps)
    canary = rng.random(number) < share_bps / 10_000
    traits = SERVED | (STREAM_TRAITS if leavers.streamed else 0)
    ended = zip(canary.tolist(), simulate(leavers, canary, rng), strict=True)
    for key, (arm, outcome) in enumerate(ended):
        unit = ledger.admit(
            key,
            canary=arm,
            weight_bps=share_bps,
            now=0.0,
            at=START,
            traits=traits,
        )
        assert unit is not None
        ledger.finish(unit, outcome=outcome)
        if not (key + 1) % 100:
            for block in ledger.tick(0.0, START):
                yield replace(block, number=block.sequence)


def _rule(limits: WaitLimits) -> ExposureRule:
    """Other guardrails have no observations here; they keep their part of the weight."""
    rule = build_exposure_rule(DEFAULT, START, history=IncumbentHistory(limits))
    return replace(
        rule,
        guardrails={Guardrail.LEAVING: rule.guardrails[Guardrail.LEAVING]},
    )


def _waits(leavers: Leavers, rng: np.random.Generator) -> Iterator[RequestWaits]:
    """Yields the waits of the incumbent before the rollout."""
    for outcome in simulate(leavers, np.zeros(HISTORY, dtype=bool), rng):
        left_s = outcome.waited_s
        yield RequestWaits(leavers.streamed, outcome.first_s, outcome.gap_s, left_s)


def simulate(
    leavers: Leavers,
    canary: np.ndarray,
    rng: np.random.Generator,
) -> Iterator[ExposureOutcome]:
    """Yields an outcome for each caller.

    Args:
        canary: whether the caller's arm is the canary.
    """
    number = len(canary)
    pace = np.where(canary, leavers.times, 1.0)
    patience = rng.lognormal(math.log(leavers.patience_s), PATIENCE_SPREAD, number)
    failed = rng.random(number) < np.where(canary, max(leavers.failing, ERRORS), ERRORS)
    hangs = canary & (rng.random(number) < leavers.hanging)
    whole = rng.lognormal(0.0, SPREAD, number) * pace
    if leavers.streamed:
        make = _streams(leavers, canary, whole, patience, hangs, rng)
    else:
        second = leavers.hedged_s + rng.lognormal(0.0, SPREAD, number) * pace
        waits = np.minimum(patience, second)
        answer = np.where(hangs, math.inf, whole)
        make = map(_plain, answer.tolist(), waits.tolist())
    for fails, outcome in zip(failed.tolist(), make, strict=True):
        yield FAILED if fails else outcome


FAILED: Final = ExposureOutcome(OutcomeKind.FAILED, OutcomeReason.PROVIDER, "timeout")


def _plain(answer_s: float, patience_s: float) -> ExposureOutcome:
    if answer_s <= min(patience_s, TIMEOUT_S):
        return ExposureOutcome(OutcomeKind.ANSWERED, first_s=answer_s)
    if patience_s >= TIMEOUT_S:
        return FAILED
    return ExposureOutcome(OutcomeKind.LEFT, OutcomeReason.EARLY, waited_s=patience_s)


def _streams(
    leavers: Leavers,
    canary: np.ndarray,
    whole: np.ndarray,
    patience: np.ndarray,
    hangs: np.ndarray,
    rng: np.random.Generator,
) -> Iterator[ExposureOutcome]:
    number = len(canary)
    pace = np.where(canary, leavers.times, 1.0)
    words = rng.lognormal(5.0, 0.8, number) * np.where(canary, leavers.words, 1.0)
    between = rng.lognormal(-4.0, 0.3, number) * pace
    longest = between * (3.0 + 3.0 * rng.gumbel(np.log(words), 1.0))
    # A caller who ends a stream while it flows does so at any time between two outputs.
    at_stop = between * rng.exponential(1.0, number)
    cut_at = rng.random(number)
    columns = (
        whole / 2.0,
        words,
        between,
        np.maximum(longest, between),
        at_stop,
    )
    rows = zip(*(column.tolist() for column in columns), strict=True)
    callers = zip(patience.tolist(), hangs.tolist(), cut_at.tolist(), strict=True)
    for row, caller in zip(rows, callers, strict=True):
        yield _stream(leavers, row, caller)


def _stream(
    leavers: Leavers,
    times: tuple[float, float, float, float, float],
    caller: tuple[float, bool, float],
) -> ExposureOutcome:
    first_s, words, between_s, gap_s, at_stop_s = times
    patience_s, hangs, cut_at = caller
    if first_s > patience_s:
        return ExposureOutcome(OutcomeKind.LEFT, OutcomeReason.EARLY, waited_s=patience_s)
    if hangs:
        # Before the hang, the caller had a part of the words.
        return ExposureOutcome(
            OutcomeKind.LEFT,
            OutcomeReason.EARLY,
            "",
            min(patience_s, TIMEOUT_S),
            True,  # noqa: FBT003
            first_s,
            gap_s * cut_at,
        )
    takes_s = first_s + between_s * words
    stops = words > leavers.stops_at or (leavers.total_patience and takes_s > patience_s)
    if stops:
        waited_s = min(at_stop_s, gap_s)
        return ExposureOutcome(
            OutcomeKind.LEFT,
            OutcomeReason.EARLY,
            "",
            waited_s,
            True,  # noqa: FBT003
            first_s,
            gap_s,
        )
    return ExposureOutcome(OutcomeKind.ANSWERED, None, "", 0.0, True, first_s, gap_s)  # noqa: FBT003
