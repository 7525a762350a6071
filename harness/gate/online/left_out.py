"""Compares how many requests each arm leaves out of the evidence after they were assigned
(statistics.md §2.16).

Early departures, limited requests and unmeasured outcomes tell nothing about errors. If the
candidate has more of them than the incumbent, they may hide failures. So `compare_left_out`
tests for each reason whether the arms leave out equal shares, in both directions. If a test
fires, `bound_blocks` counts the canary's excess as failures. The step holds if it would not
pass with these failures (`step_holds`).

Reasons that are known before the answer are in `ObservationBlock.uncounted`, and belong to the
sample-ratio check. Missing outcomes have their own rule (`ObservationBlock.set_missing`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from harness.frame.formatting import format_percent
from harness.gate.arrays import Floats, log_mean_rows, np
from harness.gate.online.evidence_paths import ODDS_WEIGHTS
from harness.gate.online.fisher import log_factors
from harness.gate.online.guardrails import (
    NO_SPLIT,
    ArmSplit,
    ErrorTally,
    Guardrail,
)
from harness.gate.online.observation import NeverSeen, ObservationBlock
from harness.gate.online.outcome import (
    READINGS,
    OutcomeKind,
    OutcomeReason,
    Reading,
    split_key,
)
from harness.gate.online.worker_guard import HARM_GRID


class ExclusionCause(StrEnum):
    """A reason why an exposure tells nothing about errors. Rollouts store the values that an
    approver acknowledged.
    """

    EARLY = "left_early"
    REFUSED = "refused"
    LIMITED = "limited"
    NOT_SENT = "not_sent"
    FALLBACK = "gateway_fallback"
    NOT_MEASURED = "not_measured"
    UNSUPPORTED = "unsupported"
    LATE = "late"


LEFT_OUT_WORDS: Final[Mapping[ExclusionCause, str]] = {
    ExclusionCause.EARLY: "callers who left early",
    ExclusionCause.REFUSED: "requests that the provider refused",
    ExclusionCause.LIMITED: "requests that the provider limited",
    ExclusionCause.NOT_SENT: "requests that were not sent after their assignment",
    ExclusionCause.FALLBACK: "answers that a gateway marks as its fallback's",
    ExclusionCause.NOT_MEASURED: "requests that were not measured",
    ExclusionCause.UNSUPPORTED: "requests that the model cannot take",
    ExclusionCause.LATE: "requests that a router reported too late, or never",
}
# The chance that an equal candidate makes a test fire in a rollout, over all reasons, both
# directions and all periods.
LEFT_OUT_ALPHA: Final = 0.001
# The first period's part of LEFT_OUT_ALPHA. Later periods share the rest: callers return in the
# same arm, so periods are dependent.
FIRST_PERIOD: Final = 0.9
_ODDS: Final = (1.0, *HARM_GRID)
_LOG_WEIGHTS: Final = tuple(map(math.log, ODDS_WEIGHTS))
_EARLY_REASONS: Final = frozenset({OutcomeReason.EARLY, OutcomeReason.DEADLINE_EARLY})


def left_out_reason(key: str) -> ExclusionCause | None:
    """Returns the reason of a key of `ObservationBlock.outcomes`; None for other outcomes."""
    kind, reason = split_key(key)
    if kind is OutcomeKind.LEFT:
        return ExclusionCause.EARLY if reason in _EARLY_REASONS else None
    if kind is OutcomeKind.NOT_MEASURED:
        if reason is OutcomeReason.MISSING:
            return None
        return _NOT_MEASURED.get(reason, ExclusionCause.NOT_MEASURED)
    return _BY_KIND.get(kind)


_NOT_MEASURED: Final[Mapping[OutcomeReason | None, ExclusionCause]] = {
    OutcomeReason.GATEWAY_FALLBACK: ExclusionCause.FALLBACK,
    OutcomeReason.UNSUPPORTED: ExclusionCause.UNSUPPORTED,
    OutcomeReason.LATE: ExclusionCause.LATE,
}
_BY_KIND: Final = {
    OutcomeKind.REFUSED: ExclusionCause.REFUSED,
    OutcomeKind.LIMITED: ExclusionCause.LIMITED,
    OutcomeKind.NOT_SENT: ExclusionCause.NOT_SENT,
}


@dataclass(frozen=True, slots=True)
class LeftOutDifference:
    """A reason for which the arms leave out unlike shares.

    left_out, `units`: exposures in both arms and in the canary, over all blocks.
    """

    reason: ExclusionCause
    left_out: ArmSplit
    units: ArmSplit

    @property
    def text(self) -> str:
        """Writes the reason with both arms' counts."""
        out = self.left_out
        exposures = self.units
        control = out.failures - out.canary
        control_units = exposures.failures - exposures.canary
        return (
            f"{LEFT_OUT_WORDS[self.reason]}: {_write_share(out.canary, exposures.canary)} of "
            f"the candidate, {_write_share(control, control_units)} of the incumbent"
        )


def _write_share(part: int, whole: int) -> str:
    percent = format_percent(part / whole, significant=2) if whole else "none"
    return f"{part:,} of {whole:,} ({percent})"


def compare_left_out(blocks: Sequence[ObservationBlock]) -> tuple[LeftOutDifference, ...]:
    """Returns the reasons for which the arms leave out unlike shares.

    Args:
        blocks: of one rollout in the order of number; they may lack outcomes.
    """
    exposures = ArmSplit(
        sum(block.units for block in blocks),
        sum(block.canary_units for block in blocks),
    )
    periods = sorted({block.period for block in blocks})
    differences = []
    for place, (reason, splits) in enumerate(_in_order_of_appearance(blocks), start=1):
        counts = list(zip(blocks, splits, strict=True))
        by_period = ([one for one in counts if one[0].period == number] for number in periods)
        if any(
            left_out_path(part)[-1] >= log_e_limit(number, place)
            for number, part in zip(periods, by_period, strict=True)
        ):
            differences.append(LeftOutDifference(reason, _sum_splits(splits), exposures))
    return tuple(differences)


def _in_order_of_appearance(
    blocks: Sequence[ObservationBlock],
) -> list[tuple[ExclusionCause, list[ArmSplit]]]:
    """Returns the reasons that occur, the earliest first, with their exposures in each
    block.
    """
    found = []
    for reason in ExclusionCause:
        splits = [left_out_exposures(block, reason) for block in blocks]
        first = next(
            (number for number, split in enumerate(splits) if split.failures),
            None,
        )
        if first is not None:
            found.append((first, reason, splits))
    found.sort(key=lambda one: (one[0], one[1]))
    return [(reason, splits) for _, reason, splits in found]


def log_e_limit(period: int, place: int) -> float:
    """Returns the log e at which the test of one reason fires.

    Args:
        place: the reason's place in the order of appearance, from 1.

    The j-th reason has the part 1/(j(j + 1)) of the chance, so that a rollout with few reasons
    needs little evidence.
    """
    part = FIRST_PERIOD if period <= 1 else (1.0 - FIRST_PERIOD) / (period * (period - 1))
    return math.log(2 * place * (place + 1) / (LEFT_OUT_ALPHA * part))


def left_out_path(counts: Sequence[tuple[ObservationBlock, ArmSplit]]) -> Floats:
    """Returns the larger log e of both directions after each block.

    Args:
        counts: the blocks of one period, each with its exposures of one reason.

    The evidence that the canary has more or fewer of them is the weighted mean over HARM_GRID
    of the products of Fisher's factors, against an odds ratio of 1.
    """
    more = [
        log_factors(
            block.units,
            block.canary_units,
            split.failures,
            split.canary,
            odds=_ODDS,
        )
        for block, split in counts
    ]
    fewer = [
        log_factors(
            block.units,
            block.units - block.canary_units,
            split.failures,
            split.failures - split.canary,
            odds=_ODDS,
        )
        for block, split in counts
    ]
    return np.maximum(_mean_path(more), _mean_path(fewer))


def _mean_path(factors: Sequence[tuple[float, ...]]) -> Floats:
    products = np.cumsum(np.array(factors, dtype=np.float64), axis=0) + np.array(_LOG_WEIGHTS)
    rows = list(products.T)
    # The mean of n terms times n is their sum.
    return log_mean_rows(rows) + math.log(len(rows))


def left_out_exposures(block: ObservationBlock, reason: ExclusionCause) -> ArmSplit:
    """Counts a block's exposures that were left out for a reason."""
    return _sum_splits(
        split for key, split in block.outcomes.items() if left_out_reason(key) is reason
    )


def _sum_splits(splits: Iterable[ArmSplit]) -> ArmSplit:
    both = canary = 0
    for split in splits:
        both = both + split.failures
        canary = canary + split.canary
    return ArmSplit(both, canary)


def bound_blocks(
    blocks: Sequence[ObservationBlock], reasons: Iterable[ExclusionCause]
) -> list[ObservationBlock]:
    """Returns the blocks with the canary's excess of left-out exposures counted as its
    failures.

    The excess is the canary's number beyond the incumbent's share, summed over the blocks so
    far. Its whole part is added block by block.
    """
    excess = dict.fromkeys(reasons, 0.0)
    added = dict.fromkeys(excess, 0)
    bounded = []
    for block in blocks:
        changed = block
        control = block.units - block.canary_units
        for reason in excess:
            split = left_out_exposures(block, reason)
            share = (split.failures - split.canary) / control if control else 0.0
            excess[reason] += split.canary - share * block.canary_units
            added_now = min(
                split.canary,
                max(0, math.floor(excess[reason]) - added[reason]),
            )
            if added_now:
                added[reason] += added_now
                changed = _add_failures(
                    changed, added_now, known=reason not in _UNKNOWN_TO_ERRORS
                )
        bounded.append(changed)
    return bounded


# The reasons whose exposures the guardrail of errors leaves out. It counts the exposures of
# other reasons as successes.
_UNKNOWN_TO_ERRORS: Final = frozenset(
    reason
    for kind, reason in (
        *_BY_KIND.items(),
        (OutcomeKind.NOT_MEASURED, ExclusionCause.NOT_MEASURED),
        (OutcomeKind.NOT_MEASURED, ExclusionCause.FALLBACK),
        (OutcomeKind.NOT_MEASURED, ExclusionCause.LATE),
    )
    if READINGS[Guardrail.ERRORS][kind] is Reading.UNKNOWN
)


def _add_failures(
    block: ObservationBlock,
    number: int,
    *,
    known: bool,
) -> ObservationBlock:
    """Counts exposures of the canary as failures.

    Args:
        known: the errors contain them as successes.
    """
    failures = block.failures + number
    canary_failures = block.canary_failures + number
    counts = block.counts
    errors = block.counts.get(Guardrail.ERRORS)
    if isinstance(errors, ErrorTally):
        less = 0 if known else number
        unknown = ArmSplit(errors.unknown.failures - less, errors.unknown.canary - less)
        tally = replace(
            errors,
            failures=failures,
            canary_failures=canary_failures,
            unknown=unknown,
        )
        counts = {**block.counts, Guardrail.ERRORS: tally}
    return replace(
        block,
        failures=failures,
        canary_failures=canary_failures,
        counts=counts,
        never_seen=_bound_never_seen(block.never_seen, number, known=known),
    )


def _bound_never_seen(
    new: NeverSeen | None,
    number: int,
    *,
    known: bool,
) -> NeverSeen | None:
    """Counts up to `number` further failures among a block's never-seen keys."""
    if new is None:
        return None
    errors = (new.counts or {}).get(Guardrail.ERRORS)
    unknown = errors.unknown if isinstance(errors, ErrorTally) else NO_SPLIT
    room = new.canary_units - new.canary_failures - (unknown.canary if known else 0)
    more = max(0, min(number, room))
    counts = new.counts
    if isinstance(errors, ErrorTally):
        less = 0 if known else min(more, unknown.canary)
        tally = replace(
            errors,
            failures=errors.failures + more,
            canary_failures=errors.canary_failures + more,
            unknown=ArmSplit(unknown.failures - less, unknown.canary - less),
        )
        counts = {**(new.counts or {}), Guardrail.ERRORS: tally}
    return replace(
        new,
        failures=new.failures + more,
        canary_failures=new.canary_failures + more,
        counts=counts,
    )
