"""Measures how often labels of drawn callers pass a candidate that is worse for the traffic:
`python -m benchmarks.gate.drawn_cells [--runs 2000]`.

Each run draws other callers, and people label until the end.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.gate.label_cells import MISSED, MOST_FALSE
from benchmarks.print_rows import print_rows
from harness.gate.budget import spend_alpha
from harness.gate.offline.label_forecast import LabelRuns, joint_pairs, simulate_labels
from harness.gate.offline.label_plan import TIE, LabelDesign
from harness.gate.suite_plan import Claim

RUNS: Final = 2_000
MARGIN: Final = 0.1
CALLERS: Final = (60, 200, 500, 3_000)
_ALPHA: Final = 0.05
_SHARES: Final = 100_000  # of the traffic, for its rounding
_SEED: Final = 82


@dataclass(frozen=True)
class DrawnCandidate:
    """How often a candidate passes. share: its win share of the traffic. tested: the part of
    `passed` that the last test decides. median, quantile_80: labels until PASSED, −1 if fewer
    runs pass.
    """

    callers: int
    correlation: float
    share: float
    look: int
    passed: float
    tested: float
    failed: float
    median: int
    quantile_80: int

    @property
    def missed(self) -> bool:
        """Whether a candidate at the null hypothesis, or below, passes too often."""
        return self.share <= TIE - MARGIN and self.passed > MOST_FALSE


def measure_candidate(
    callers: int,
    share: float,
    runs: int,
    *,
    correlation: float = 0.6,
    look: int = 1,
) -> DrawnCandidate:
    """Draws callers from the traffic, and labels until the end."""
    shares = joint_pairs(_SHARES, share, correlation) / _SHARES
    design = LabelDesign(Claim.NON_INFERIOR, MARGIN, spend_alpha(_ALPHA, look))
    states = LabelRuns.draw(shares, callers, runs, np.random.default_rng(_SEED))
    found = simulate_labels(states, design, _SEED)
    used = np.where(found.passed, found.labels, callers + 1)
    median, late = (int(np.quantile(used, share, method="higher")) for share in (0.5, 0.8))
    return DrawnCandidate(
        callers,
        correlation,
        share,
        look,
        float(found.passed.mean()),
        float(found.tested.mean()),
        float(found.failed.mean()),
        median if median <= callers else -1,
        late if late <= callers else -1,
    )


def measure_draws(runs: int) -> Iterator[DrawnCandidate]:
    null = TIE - MARGIN
    for callers in CALLERS:
        for correlation in (0.6, 0.8):
            for distance in (-0.05, 0.0, 0.05, 0.1, 0.15):
                share = round(null + distance, 2)
                yield measure_candidate(callers, share, runs, correlation=correlation)
    yield measure_candidate(60, null, runs, look=2)


def print_drawn_cells(runs: int) -> list[DrawnCandidate]:
    """Prints the table, and returns the cells that miss their goal."""
    cells = [*measure_draws(runs)]
    print_rows("people's labels of drawn callers: a claim about the traffic", cells)
    return [cell for cell in cells if cell.missed]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=RUNS, help="of each cell")
    missed = print_drawn_cells(options.parse_args().runs)
    for cell in missed:
        print(f"MISSED: {cell}")
    return MISSED if missed else 0


if __name__ == "__main__":
    sys.exit(main())
