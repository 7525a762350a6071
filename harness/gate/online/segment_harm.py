"""Finds the segment of a canary's traffic that has the harm of a rollback (statistics.md
§2.13), as figures and as a sentence.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from harness.gate.arrays import Ints, np, special
from harness.gate.online.fisher import MAX_EXPOSURES
from harness.gate.online.guardrails import (
    ErrorTally,
    FailureTally,
    Guardrail,
)
from harness.gate.online.observation import (
    SEGMENTS,
    SOURCES,
    ObservationBlock,
    Segment,
)

# The maximum probability of naming a segment by chance alone.
_MAX_FALSE_NAMING: Final = 0.1
# With a higher p-value of the failures elsewhere, the harm is in the segment alone.
_MIN_P_ELSEWHERE: Final = 0.05


@dataclass(frozen=True, slots=True)
class SegmentHarm:
    """Names the harmed segment, with the failures in it and elsewhere.

    alone: whether the incumbent's failure rate explains the failures elsewhere. compared: the
    number of segments.
    """

    segment: Segment
    inside: FailureTally
    elsewhere: FailureTally
    alone: bool
    compared: int

    @property
    def text(self) -> str:
        """Writes a sentence without its full stop."""
        verb = "is in" if self.alone else "is greatest in"
        inside = self.inside
        elsewhere = self.elsewhere
        return (
            f"The harm {verb} {self.segment.text}: {inside.canary_failures:,} of the canary's "
            f"{inside.canary:,} callers failed there, {elsewhere.canary_failures:,} of "
            f"{elsewhere.canary:,} elsewhere (incumbent: {_control_text(inside)} and "
            f"{_control_text(elsewhere)}). Segments compared: {self.compared}; in at most 1 of "
            "10 rollbacks, chance alone names a segment"
        )

    def as_json(self) -> dict[str, object]:
        return {
            "segment": self.segment.value,
            "canary": self.inside.canary,
            "canary_failures": self.inside.canary_failures,
            "control": self.inside.units - self.inside.canary,
            "control_failures": self.inside.failures - self.inside.canary_failures,
            "alone": self.alone,
            "words": self.text,
        }


def segmented_errors(block: ObservationBlock) -> ErrorTally | None:
    """Returns a block's errors with their segments; None for a block without segments."""
    errors = block.counts.get(Guardrail.ERRORS)
    return errors if isinstance(errors, ErrorTally) and errors.segments else None


def describe_sources(blocks: Sequence[ObservationBlock]) -> str:
    """Describes which part of the requests named the callers: `840 by a field of the body, 12
    by the request`.
    """
    exposures = Counter[str]()
    for block in blocks:
        if errors := segmented_errors(block):
            exposures.update({name: errors.segments[name].units for name in errors.segments})
    return ", ".join(
        f"{exposures[segment]:,} by {words}"
        for segment, words in SOURCES.items()
        if exposures[segment]
    )


def find_segment(blocks: Sequence[ObservationBlock]) -> SegmentHarm | None:
    """Finds the harmed segment of a rollout that is rolled back; None if no segment stands out.

    The null hypothesis is equal harm in all segments. Then a segment's expected share of the
    canary's failures is proportional to its canary exposures times the incumbent's failure rate
    there.
    """
    tallies = [
        errors
        for block in blocks
        if (errors := segmented_errors(block)) and _can_be_summed(errors)
    ]
    whole = FailureTally(
        sum(errors.units for errors in tallies),
        sum(errors.canary for errors in tallies),
        sum(errors.failures for errors in tallies),
        sum(errors.canary_failures for errors in tallies),
    )
    sums: dict[str, Ints] = defaultdict(lambda: np.zeros(4, dtype=np.int64))
    for errors in tallies:
        for name, count in errors.segments.items():
            sums[name] += count
    by_segment = {
        name: FailureTally(*map(int, sums[name])) for name in SEGMENTS if name in sums
    }
    p_values = [
        (_p_value(tally, _subtract(whole, tally)), Segment(name))
        for name, tally in by_segment.items()
        if 0 < tally.canary < whole.canary
    ]
    if not p_values:
        return None
    p_value, segment = min(p_values, key=lambda pair: pair[0])
    if p_value > _MAX_FALSE_NAMING / len(p_values):
        return None
    inside = by_segment[segment]
    elsewhere = _subtract(whole, inside)
    p_elsewhere = special.bdtrc(
        elsewhere.canary_failures - 1,
        elsewhere.canary,
        _control_rate(elsewhere),
    )
    alone = not elsewhere.canary_failures or bool(p_elsewhere > _MIN_P_ELSEWHERE)
    return SegmentHarm(segment, inside, elsewhere, alone, len(p_values))


def _can_be_summed(errors: ErrorTally) -> bool:
    """Tells whether a block's segments have valid counts.

    A row that was written directly to the database must not block a rollback.
    """
    whole = (
        errors.units,
        errors.canary,
        errors.failures,
        errors.canary_failures,
    )
    numbers = [n for count in (whole, *errors.segments.values()) for n in count]
    return all(isinstance(n, int) and 0 <= n <= MAX_EXPOSURES for n in numbers) and errors.fits


def _p_value(inside: FailureTally, elsewhere: FailureTally) -> float:
    """Returns the probability of at least as many canary failures inside, if the harm is equal
    everywhere.
    """
    expected = inside.canary * _control_rate(inside)
    share = expected / (expected + elsewhere.canary * _control_rate(elsewhere))
    failures = inside.canary_failures + elsewhere.canary_failures
    if not inside.canary_failures:
        return 1.0
    return float(special.bdtrc(inside.canary_failures - 1, failures, share))


def _control_rate(tally: FailureTally) -> float:
    """Returns the incumbent's failure rate. Adding half a failure keeps it above 0."""
    control = tally.units - tally.canary
    return (tally.failures - tally.canary_failures + 0.5) / (control + 1.0)


def _control_text(tally: FailureTally) -> str:
    return f"{tally.failures - tally.canary_failures:,} of {tally.units - tally.canary:,}"


def _subtract(whole: FailureTally, part: FailureTally) -> FailureTally:
    return FailureTally(
        whole.units - part.units,
        whole.canary - part.canary,
        whole.failures - part.failures,
        whole.canary_failures - part.canary_failures,
    )
