"""Measures how often slices that are proposed alone are promoted by luck:
`python -m benchmarks.gate.slice_levels [--runs 2000]`.

The whole route is tested first, at alpha. If it does not pass, Holm's rule tests the declared
slices at the alpha of the next look (docs/explanation/statistics.md §1.24). Each slice is a
column of items; the whole route's test reads all of them in a random order. The guards of the
gate are left out: they can only prevent a promotion. Ends with 3 if a share exceeds MOST_FALSE.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.gate.score_matrix import Floats
from benchmarks.print_rows import print_rows
from harness.gate.budget import slice_level, spend_alpha
from harness.gate.offline.design import Design
from harness.gate.offline.sequential import judge_batch
from harness.gate.suite_plan import QUALITY_CLAIMS, Claim

ALPHA: Final = 0.05
MARGIN: Final = 0.05
MOST_FALSE: Final = 0.055
SLICES: Final = 10
ITEMS: Final = 100  # of each slice
DISAGREE: Final = 0.2  # share of items on which only one model passes
MISTAGGED: Final = 0.05
GOOD: Final = 0.10  # the good slice's difference
MISSED: Final = 3


@dataclass(frozen=True)
class SliceRow:
    """Shares of comparisons with a promotion.

    whole: of the whole route. false: of a slice, or the route, whose claim is not true. good:
    of the slice whose claim is true.
    """

    claim: str
    cell: str
    runs: int
    whole: float
    false: float
    good: float

    @property
    def missed(self) -> bool:
        return self.false > MOST_FALSE


def promote_slices(
    whole: Floats, slices: Sequence[Floats], claim: Claim
) -> tuple[np.ndarray, np.ndarray]:
    """Returns which routes and which slices the rule promotes.

    Args:
        whole: differences (runs, items), in the whole route's order.
        slices: the same for each slice.

    The results have the shapes (runs) and (runs, slices).
    """
    n_runs = len(whole)
    is_whole = np.asarray(judge_batch(whole, _design(claim, ALPHA, whole)).promoted)
    alpha = spend_alpha(ALPHA, look=2)
    passed = np.zeros((n_runs, len(slices)), bool)
    for n_passed in range(len(slices)):
        level = slice_level(alpha, len(slices), n_passed)
        at_level = np.stack(
            [judge_batch(d, _design(claim, level, d)).promoted for d in slices], axis=1
        )
        # Holm's rule reaches this level in the runs in which so many slices have passed.
        reached = passed.sum(axis=1) >= n_passed
        passed |= at_level & reached[:, None]
        if not (passed.sum(axis=1) > n_passed).any():
            break
    return is_whole, passed & ~is_whole[:, None]


def _design(claim: Claim, alpha: float, d: Floats) -> Design:
    return Design(claim, MARGIN, d.shape[1], alpha=alpha)


def draw_differences(
    rng: np.random.Generator, means: Sequence[float], n_runs: int
) -> list[Floats]:
    """Draws pass/fail differences of slices with these true means."""
    columns = []
    for mean in means:
        wins = (DISAGREE + mean) / 2
        losses = (DISAGREE - mean) / 2
        columns.append(
            rng.choice(
                [1.0, -1.0, 0.0], size=(n_runs, ITEMS), p=[wins, losses, 1 - wins - losses]
            )
        )
    return columns


def measure_cell(cell: str, claim: Claim, n_runs: int, seed: int = 21) -> SliceRow:
    """Measures one cell. Cells: "equal" (ten slices at the null), "overlapping" (each slice has
    half of the next slice's items), "good in worse" (one good slice, all others below the
    null), "mistagged" (one good slice, the others at the null with 5 % of its items).
    """
    rng = np.random.default_rng([seed, len(cell), claim is Claim.SUPERIOR])
    null = 0.0 if claim is Claim.SUPERIOR else -MARGIN
    has_good = cell in ("good in worse", "mistagged")
    others = null - 2 * GOOD / (SLICES - 1) if cell == "good in worse" else null
    means = [null + GOOD if has_good else null, *[others] * (SLICES - 1)]
    drawn = draw_differences(rng, means, n_runs)
    whole = rng.permuted(np.concatenate(drawn, axis=1), axis=1)
    slices = drawn
    if cell == "overlapping":
        half = ITEMS // 2
        following = [*drawn[1:], drawn[0]]
        slices = [
            rng.permuted(np.concatenate([d, other[:, :half]], axis=1), axis=1)
            for d, other in zip(drawn, following, strict=True)
        ]
    if cell == "mistagged":
        slices = [drawn[0], *(_mistag(rng, d, means[0]) for d in drawn[1:])]
    is_whole, passed = promote_slices(whole, slices, claim)
    first_false = 1 if has_good else 0
    # A good slice lifts the mean of the whole route above the null, unless others are worse.
    is_false = passed[:, first_false:].any(axis=1)
    if cell != "mistagged":
        is_false |= is_whole
    good = float(passed[:, 0].mean()) if has_good else 0.0
    return SliceRow(
        claim.value, cell, n_runs, float(is_whole.mean()), float(is_false.mean()), good
    )


def _mistag(rng: np.random.Generator, d: Floats, mean: float) -> Floats:
    """Replaces a share of a slice's items by items of the good slice."""
    [good] = draw_differences(rng, [mean], len(d))
    return np.where(rng.random(d.shape) < MISTAGGED, good, d)


CELLS: Final = ("equal", "overlapping", "good in worse", "mistagged")


def measure_slices(n_runs: int) -> Iterator[SliceRow]:
    for claim in QUALITY_CLAIMS:
        for cell in CELLS:
            yield measure_cell(cell, claim, n_runs)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=2000)
    rows = list(measure_slices(parser.parse_args(arguments).runs))
    print_rows("ten slices proposed alone: shares promoted", rows)
    return MISSED if any(row.missed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
