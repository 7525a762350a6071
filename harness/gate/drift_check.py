"""A drift watch sends the same items to an incumbent at intervals, and compares the scores
(F7). The watch begins with a baseline run. `harness.gate.drift` compares each later run, a
check, with all earlier runs. Once the watch finds drift, it rests until a person accepts a new
baseline or swaps the model.
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
    """How often and with how many items a suite's drift runs measure incumbents."""

    every_s: float = 86_400.0  # from the start of a run to the next start
    items: int | None = 200  # per run, None for the whole suite
    epochs: int = 1  # answers to each item
    alpha: float = 0.05  # probability that an unchanged model ever raises an alarm
    max_cost_usd: float | None = None  # max_cost_usd, max_tokens: per run
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class DriftPlan:
    """Registers a watch's items and settings; a different plan needs a new baseline."""

    suite_digest: str
    items: int
    epochs: int
    alpha: float


class DriftCheckState(StrEnum):
    RUNNING = "running"
    COUNTED = "counted"
    NOT_MEASURED = "not_measured"  # an infrastructure error, not evidence about the model


@dataclass(frozen=True, slots=True)
class DriftEvidence:
    """The comparison of a run with those before it. Scores are shares of 1."""

    check: int  # number of comparisons with the baseline, from 1
    # Number of newest runs that form the window with the most evidence; the figures below
    # describe this window.
    window: int
    items: int
    # Newer mean minus earlier mean, over `items`. The 95 % interval is for reading only: it is
    # not adjusted for repeated checks.
    delta: float
    ci_low: float | None
    ci_high: float | None
    ci_method: str
    log_e: float  # the watch finds drift at log_e_limit
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
"""(item, mean score over its epochs) in the run's order; None if not measured."""


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
    reason: str = ""  # why a person or the schedule measures this baseline
    ended_at: datetime | None = None
    message: str = ""  # why the run measured no item; empty otherwise
    served: tuple[str, ...] = ()  # model names in the provider's responses
    scores: ItemScores = ()
    evidence: DriftEvidence | None = None  # None for the baseline and for a failed check
    closed_at: datetime | None = None  # baseline only: when its watch ended

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
        """Tells whether the watch found drift: a person must accept it, or swap the model."""
        return any(check.evidence and check.evidence.drifted for check in self.checks)

    def find_next_due(self, every_s: float) -> datetime:
        last = self.checks[-1]
        measured = last.state is DriftCheckState.COUNTED
        return last.started_at + timedelta(
            seconds=every_s if measured else min(every_s, RETRY_S)
        )


def list_served(checks: Iterable[DriftCheck]) -> list[str]:
    return sorted({name for check in checks for name in check.served})
