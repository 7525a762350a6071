"""The rows of the canary's benchmark, and their goals."""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CanaryBenchmarkRow:
    """One row of the printed tables.

    median, p95: exposures to the rollback; None above `cap`. share: of the rollouts that are
    rolled back, or that end as the case says.
    """

    table: str
    case: str
    cap: int
    rollouts: int
    median: int | None
    p95: int | None
    share: float


@dataclass(frozen=True)
class Limits:
    """The goals of a row; None for no goal. median, p95: at most so many exposures.
    most, least: share of the rollouts.
    """

    median: float | None = None
    p95: float | None = None
    most: float | None = None
    least: float | None = None


@dataclass(frozen=True)
class Goal:
    """A measured figure and its limit. is_least: the figure must not be below the limit."""

    what: str
    found: float
    limit: float
    is_least: bool = False

    @property
    def is_missed(self) -> bool:
        good = self.found >= self.limit if self.is_least else self.found <= self.limit
        return not good


@dataclass(frozen=True)
class BenchmarkCell:
    """A row with its goals."""

    row: CanaryBenchmarkRow
    limits: Limits

    @property
    def goals(self) -> Iterator[Goal]:
        row, limits = self.row, self.limits
        what = f"{row.table}, {row.case}"
        if limits.median is not None:
            yield Goal(f"{what}: exposures, median", row.median or math.inf, limits.median)
        if limits.p95 is not None:
            yield Goal(f"{what}: exposures, 95 %", row.p95 or math.inf, limits.p95)
        if limits.most is not None:
            yield Goal(f"{what}: share at most", row.share, limits.most)
        if limits.least is not None:
            yield Goal(f"{what}: share at least", row.share, limits.least, is_least=True)


def cell(
    table: str,
    case: str,
    cap: int,
    found: Sequence[float],
    limits: Limits,
) -> BenchmarkCell:
    """Sums up a cell's rollouts.

    Args:
        found: exposures to the rollback, inf for never.
    """
    print(f"{table}, {case}", file=sys.stderr)
    median = float(np.quantile(found, 0.5, method="higher"))
    p95 = float(np.quantile(found, 0.95, method="higher"))
    row = CanaryBenchmarkRow(
        table=table,
        case=case,
        cap=cap,
        rollouts=len(found),
        median=int(median) if math.isfinite(median) else None,
        p95=int(p95) if math.isfinite(p95) else None,
        share=float(np.isfinite(found).mean()),
    )
    return BenchmarkCell(row, limits)


def share_cell(
    table: str,
    case: str,
    cap: int,
    found: Sequence[bool],
    limits: Limits,
) -> BenchmarkCell:
    """Sums up a cell whose rollouts end as the case says, or do not.

    Args:
        cap: requests of each.
    """
    print(f"{table}, {case}", file=sys.stderr)
    share = float(np.mean(found))
    row = CanaryBenchmarkRow(table, case, cap, len(found), None, None, share)
    return BenchmarkCell(row, limits)
