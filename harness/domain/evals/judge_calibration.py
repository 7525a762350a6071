"""A judge's calibration says how its scores of references compare with people's. It is written
into the audit log by the worker that measured it, and read when a plan is registered
(statistics.md §1.17).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

CALIBRATED: Final = "judge.calibrated"  # an action of the audit log
EVER: Final = datetime.fromtimestamp(0, UTC)  # no calibration is older
DIGITS: Final = 6  # of what is written


@dataclass(frozen=True, slots=True)
class JudgeSlope:
    """Says how much of a difference between answers, as people score them, a judge's scores
    show: 1 for all of it.
    """

    slope: float
    error: float  # its standard error, from so few references

    def __post_init__(self) -> None:
        # It comes from files and rows that others may write: an error below 0 would loosen the
        # gate.
        if not (math.isfinite(self.slope) and math.isfinite(self.error) and self.error >= 0.0):
            raise ValueError(f"no slope of a judge: {self.slope} with error {self.error}")


@dataclass(frozen=True, slots=True)
class ReferenceCounts:
    """Counts pass/fail references by the people's score and the judge's."""

    passed: int  # by both
    judge_failed: int  # that people passed
    judge_passed: int  # that people failed
    failed: int  # by both


@dataclass(frozen=True, slots=True)
class JudgeCalibration:
    """Holds one measurement of a judge on references that people scored."""

    references: int
    kappa: float | None
    slope: JudgeSlope
    counts: ReferenceCounts | None = None  # None for graded scores

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Restores what as_json wrote."""
        counts = stored["counts"]
        return cls(
            references=stored["references"],
            kappa=stored["kappa"],
            slope=JudgeSlope(**stored["slope"]),
            counts=ReferenceCounts(**counts) if counts else None,
        )
