"""A judge's calibration says how its scores of references compare with people's. It is written
into the audit log by the worker that measured it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

CALIBRATED: Final = "judge.calibrated"  # an action of the audit log
EVER: Final = datetime.fromtimestamp(0, UTC)  # no calibration is older


@dataclass(frozen=True, slots=True)
class JudgeCalibration:
    """Holds one measurement of a judge on references that people scored."""

    references: int
    kappa: float | None  # Cohen's; None where all have one score

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Restores what as_json wrote."""
        return cls(**stored)
