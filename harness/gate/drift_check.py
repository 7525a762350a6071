"""A drift watch asks an incumbent the same items again and again, and compares its scores (F7).
It begins with the baseline; each later run, a check, is compared with those before it
(`harness.gate.drift`). Once drift is found the watch rests until a person accepts a new
baseline, or swaps the model.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from harness.frame.formatting import format_percent, format_points, format_points_interval

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


@dataclass(frozen=True, slots=True)
class DriftPlan:
    """Registers what a watch asks; another plan needs another baseline."""

    suite_digest: str
    items: int
    epochs: int
    alpha: float


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
        return min(max(self.log_e / self.log_e_limit, 0.0), 1.0)

    @property
    def change_text(self) -> str:
        ends = format_points_interval(self.ci_low, self.ci_high, missing="")
        return f"{format_points(self.delta)} points" + (f" ({ends})" if ends else "")

    @property
    def share_text(self) -> str:
        return f"{format_percent(self.share_of_limit, 0)} of the alarm level"


ItemScores = tuple[tuple[str, float | None], ...]
"""(item, mean score over its epochs) in the run's order; None where it was not measured."""


@dataclass(frozen=True, slots=True)
class DriftCheck:
    run: str
    watch: str
    number: int  # 0 for the baseline
    target: str
    suite: str
    plan: DriftPlan
    started_at: datetime
    started_by: str
    reason: str = ""  # of a baseline: why it is measured
    ended_at: datetime | None = None
    message: str = ""  # why nothing was measured
    served: tuple[str, ...] = ()  # models that the provider named
    scores: ItemScores = ()
    # None for the baseline and where nothing was measured.
    evidence: DriftEvidence | None = None
    closed_at: datetime | None = None  # of a baseline: when its watch ended

    @property
    def state(self) -> DriftCheckState:
        if self.ended_at is None:
            return DriftCheckState.RUNNING
        return DriftCheckState.NOT_MEASURED if self.message else DriftCheckState.COUNTED


@dataclass(frozen=True, slots=True)
class DriftWatch:
    checks: tuple[DriftCheck, ...]  # the baseline first

    @property
    def baseline(self) -> DriftCheck:
        return self.checks[0]

    @property
    def id(self) -> str:
        return self.baseline.watch

    @property
    def plan(self) -> DriftPlan:
        return self.baseline.plan

    @property
    def running(self) -> DriftCheck | None:
        last = self.checks[-1]
        return last if last.state is DriftCheckState.RUNNING else None

    @property
    def ended(self) -> Sequence[DriftCheck]:
        return [check for check in self.checks if check.ended_at is not None]

    @property
    def counted(self) -> Sequence[DriftCheck]:
        return [check for check in self.checks if check.state is DriftCheckState.COUNTED]

    @property
    def is_drifted(self) -> bool:
        """Tells whether drift was found; a person accepts it, or swaps the model."""
        return any(check.evidence and check.evidence.drifted for check in self.checks)

    def find_next_due(self, every_s: float) -> datetime:
        last = self.checks[-1]
        measured = last.state is DriftCheckState.COUNTED
        return last.started_at + timedelta(
            seconds=every_s if measured else min(every_s, RETRY_S)
        )


def list_served(checks: Iterable[DriftCheck]) -> list[str]:
    return sorted({name for check in checks for name in check.served})
