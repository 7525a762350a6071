"""A drift watch asks an incumbent the same items again and again, and compares its scores (F7).
It begins with the baseline; each later run, a check, is compared with those before it
(`harness.gate.drift`). Once drift is found the watch rests until a person accepts a new
baseline, or swaps the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from harness.domain.formatting import format_percent, format_points, format_points_interval

RETRY_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class DriftPolicy:
    """How often the incumbents of a suite's routes are asked again, and how much."""

    every_s: float = 86_400.0  # from one run's start to the next
    items: int | None = 200  # per run, None for the whole suite
    epochs: int = 1  # answers to each item
    alpha: float = 0.05  # chance that a watch of an unchanged model ever raises an alarm
    max_cost_usd: float | None = None  # max_cost_usd, max_tokens: per run
    max_tokens: int | None = None


class DriftWatchState(StrEnum):
    WATCHING = "watching"
    DRIFTED = "drifted"  # a person accepts, or swaps
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class DriftPlan:
    """Registers a watch before its first answer; another plan needs another baseline."""

    suite_digest: str
    items: int
    epochs: int
    alpha: float


@dataclass(frozen=True, slots=True)
class DriftWatch:
    """Watches one suite on one target, from one baseline on."""

    id: str
    target: str
    suite: str
    plan: DriftPlan
    state: DriftWatchState
    opened_at: datetime
    opened_by: str
    reason: str  # why there is this baseline
    closed_at: datetime | None = None


class DriftCheckState(StrEnum):
    RUNNING = "running"
    COUNTED = "counted"
    NOT_MEASURED = "not_measured"  # infrastructure: it says nothing about the model


@dataclass(frozen=True, slots=True)
class DriftEvidence:
    """The comparison of a run with those before it. Scores are shares of 1."""

    check: int  # how often the baseline was compared, from 1
    # How many of the newest runs are taken together; the figures are of the window that says
    # most.
    window: int
    items: int
    # New minus before, over `items`; its 95 % interval is for reading, not adjusted for having
    # looked often.
    delta: float
    ci_low: float | None
    ci_high: float | None
    ci_method: str
    log_e: float  # the highest; at log_e_limit it is drift
    log_e_limit: float
    direction: str  # worse | better, by the sign of delta
    drifted: bool
    worse: int
    same: int
    better: int

    @property
    def share_of_limit(self) -> float:
        """Says how far the evidence is to the alarm: 0 for nothing, 1 for drift."""
        return min(max(self.log_e / self.log_e_limit, 0.0), 1.0)

    @property
    def change_text(self) -> str:
        """Writes the change in points, with its interval where there is one."""
        ends = format_points_interval(self.ci_low, self.ci_high, missing="")
        return f"{format_points(self.delta)} points" + (f" ({ends})" if ends else "")

    @property
    def share_text(self) -> str:
        return f"{format_percent(self.share_of_limit, 0)} of the alarm level"


ItemScores = tuple[tuple[str, float | None], ...]
"""(item, mean score over its epochs) in the run's order; None where it was not measured."""


@dataclass(frozen=True, slots=True)
class DriftCheck:
    """One run of a watch."""

    watch: str
    number: int  # from 0
    run: str
    started_at: datetime
    state: DriftCheckState = DriftCheckState.RUNNING
    ended_at: datetime | None = None
    message: str = ""
    served: tuple[str, ...] = ()  # models that the provider named
    scores: ItemScores = ()
    # None for the baseline and where nothing was measured.
    evidence: DriftEvidence | None = None


def next_check_due(checks: Sequence[DriftCheck], every_s: float, now: datetime) -> datetime:
    """Says when the next run is to start; after one that was not measured, within the hour.
    checks: of one watch, oldest first, none of them running.
    """
    if not checks:
        return now
    last = checks[-1]
    measured = last.state is DriftCheckState.COUNTED
    return last.started_at + timedelta(seconds=every_s if measured else min(every_s, RETRY_S))


def counted_checks(checks: Sequence[DriftCheck]) -> list[DriftCheck]:
    """The baseline and what was compared with it."""
    return [check for check in checks if check.state is DriftCheckState.COUNTED]
