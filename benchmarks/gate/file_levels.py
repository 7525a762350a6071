"""Measures how often the gate passes a useless candidate if somebody chooses the order of a
file's rows, looks at a growing file again and again, or chooses the seed of a live comparison:
`python -m benchmarks.gate.file_levels [--runs 200]`.

Each row compares the rule of version 5, in which a file had planned looks in its own order and
a seed followed from the suite's digest alone, with the present rule.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.print_rows import print_rows
from harness.gate.budget import spend_alpha
from harness.gate.offline.design import Design
from harness.gate.offline.sequential import judge_batch
from harness.gate.suite_plan import Claim, Looks

Floats = NDArray[np.float64]
# Decides (files, rows) in the order of the rows.
FileRule = Callable[[Floats], NDArray[np.bool_]]

ALPHA: Final = 0.05
MARGIN: Final = 0.05
RUNS: Final = 200
SEEDS: Final = 1000
MISSED: Final = 3
# The most that the present rule may pass: alpha, or 1.5 alpha over all looks without a plan.
ONE_LOOK: Final = ALPHA
ALL_LOOKS: Final = 1.5 * ALPHA


@dataclass(frozen=True)
class LevelRow:
    """Shares of useless candidates that pass."""

    cell: str
    runs: int
    before: float
    now: float
    most: float  # goal of `now`, without the error of the simulation

    @property
    def missed(self) -> bool:
        error = (self.most * (1.0 - self.most) / self.runs) ** 0.5
        return bool(self.now > self.most + 3.0 * error)


def design(n: int, looks: Looks, alpha: float = ALPHA) -> Design:
    return Design(Claim.SUPERIOR, MARGIN, n, alpha, looks=looks)


def judge_files(d: Floats, looks: Looks, alpha: float = ALPHA) -> NDArray[np.bool_]:
    """Tells for each file whether it passes, in one call with these looks."""
    promoted: NDArray[np.bool_] = judge_batch(d, design(d.shape[1], looks, alpha)).promoted
    return promoted


Skills = tuple[float, float]  # the share of right answers of incumbent and candidate
SUBJECT_ROWS: Final = (100, 300)  # of the subject that comes first, and of the others


def sorted_by_subject(runs: int, seed: int, skills: tuple[Skills, Skills]) -> Floats:
    """Draws files of pass/fail rows, sorted by subject.

    Args:
        skills: by subject.
    """
    rng = np.random.default_rng([17, seed])
    parts = []
    for rows, (incumbent, candidate) in zip(SUBJECT_ROWS, skills, strict=True):
        ours = rng.random((runs, rows)) < incumbent
        theirs = rng.random((runs, rows)) < candidate
        parts.append(theirs.astype(np.float64) - ours)
    return np.concatenate(parts, axis=1)


def equal_models(runs: int, seed: int, rows: int) -> Floats:
    """Draws files of equal models, which differ on 3 of 10 rows."""
    rng = np.random.default_rng([23, seed])
    return rng.choice([-1.0, 0.0, 1.0], p=[0.15, 0.7, 0.15], size=(runs, rows))


def any_look(d: Floats, looks_at: Sequence[int], rule: FileRule) -> float:
    """Returns the share of files that pass at one of the looks after so many rows."""
    passed = np.zeros(len(d), dtype=np.bool_)
    for rows in looks_at:
        open_ = np.flatnonzero(~passed)
        passed[open_] = rule(d[open_, :rows])
    return float(passed.mean())


def with_looks_named(d: Floats, looks_at: Sequence[int]) -> float:
    """Returns the share that passes if each look has its number (`--look`)."""
    passed = np.zeros(len(d), dtype=np.bool_)
    for look, rows in enumerate(looks_at, start=1):
        alpha = spend_alpha(ALPHA, look)
        passed |= judge_files(d[:, :rows], Looks.WHOLE, alpha)
    return float(passed.mean())


def with_plan(d: Floats, looks_at: Sequence[int]) -> float:
    """Returns the share that passes if the last number of rows was planned (`--n-max`)."""
    planned = design(looks_at[-1], Looks.GROWING)
    return any_look(d, looks_at, lambda rows: judge_batch(rows, planned).promoted)


def best_of_seeds(d: Floats, seeds: int, seed: int) -> float:
    """Returns the share of comparisons that pass in the best of so many orders."""
    rng = np.random.default_rng([29, seed])
    planned = design(d.shape[1], Looks.PLANNED)
    found = 0
    for items in d:
        orders = rng.permuted(np.tile(items, (seeds, 1)), axis=1)
        found += bool(judge_batch(orders, planned).promoted.any())
    return found / len(d)


def measure_orders(runs: int, seed: int = 1) -> Iterator[LevelRow]:
    """Measures finished files, sorted by subject and mixed."""
    for name, skills in (
        ("7.5 points worse, +30 then −20", ((0.55, 0.85), (0.80, 0.60))),
        ("equal models, +15 then −5", ((0.60, 0.75), (0.70, 0.65))),
    ):
        d = sorted_by_subject(runs, seed, skills)
        mixed = np.random.default_rng(seed).permuted(d, axis=1)
        for order, files in (("sorted", d), ("mixed", mixed)):
            before = float(judge_files(files, Looks.PLANNED).mean())
            now = float(judge_files(files, Looks.WHOLE).mean())
            yield LevelRow(f"{name}: {order}", runs, before, now, ONE_LOOK)


def measure_looks(runs: int, seed: int = 1) -> Iterator[LevelRow]:
    """Measures files of equal models that grow by 100 rows, and by 20."""
    for looks_at in (range(100, 501, 100), range(100, 501, 20)):
        d = equal_models(runs, seed, 500)
        before = any_look(d, looks_at, lambda rows: judge_files(rows, Looks.PLANNED))
        for name, now, most in (
            ("--look", with_looks_named(d, looks_at), ALL_LOOKS),
            ("--n-max", with_plan(d, looks_at), ONE_LOOK),
        ):
            cell = f"{len(looks_at)} looks at a growing file, {name}"
            yield LevelRow(cell, runs, before, now, most)


def measure_seeds(runs: int, seeds: int = SEEDS, seed: int = 1) -> Iterator[LevelRow]:
    """Measures live comparisons of equal models, on 200 items. Their author knows all scores,
    and chooses the best of many seeds, or cannot choose. The choice takes long, so only a fifth
    of the runs measure it.
    """
    d = equal_models(runs, seed, 200)
    before = best_of_seeds(d[: max(1, runs // 5)], seeds, seed)
    now = float(judge_files(d, Looks.PLANNED).mean())
    yield LevelRow(f"best of {seeds} seeds", runs, before, now, ONE_LOOK)


def measure_file_levels(runs: int) -> list[LevelRow]:
    return [*measure_orders(runs), *measure_looks(runs), *measure_seeds(runs)]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=RUNS)
    rows = measure_file_levels(options.parse_args().runs)
    print_rows("useless candidates that pass, before and now", rows)
    missed = [row for row in rows if row.missed]
    for row in missed:
        print(f"MISSED: {row}")
    return MISSED if missed else 0


if __name__ == "__main__":
    sys.exit(main())
