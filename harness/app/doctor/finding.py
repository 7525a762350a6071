"""A finding says what one check of `swapgate doctor` saw, and what to do next."""

from dataclasses import dataclass
from typing import Literal

FindingLevel = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """What one check of `swapgate doctor` found, and what to do next."""

    subject: str
    status: FindingLevel
    found: str
    next_step: str = ""  # empty where there is nothing to do
