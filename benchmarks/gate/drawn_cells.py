"""Measures how often labels pass a candidate that is worse for the traffic, because the drawn
pairs are few: `python -m benchmarks.gate.drawn_cells [--runs 200]`.

A claim about these pairs is right about them. The pairs of a small draw may prefer a candidate
that the traffic does not, and each new draw is a new chance, whatever its alpha.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.gate.label_cells import Ints
from benchmarks.print_rows import print_rows
from harness.gate.budget import spend_alpha
from harness.gate.offline.label_evidence import PairWeights
from harness.gate.offline.label_forecast import LabelRuns, joint_pairs, simulate_labels
from harness.gate.offline.label_plan import (
    JUDGE_LEVELS,
    TIE,
    USUAL_CORRELATION,
    LabelDesign,
    draw_error,
    plan_label,
)
from harness.gate.offline.people_claims import SuiteLabels, draw_threshold
from harness.gate.suite_plan import Claim

RUNS: Final = 200
MARGIN: Final = 0.1
_ALPHA: Final = 0.05
_LOG: Final = 100_000  # pairs of the traffic
_SEED: Final = 82


@dataclass(frozen=True)
class DrawnCandidate:
    """How often a candidate passes. share: its win share of the traffic. claim: about these
    pairs, or about traffic. without: the same without the threshold of the draw.
    """

    pairs: int
    share: float
    claim: str
    look: int
    passed: float
    without: float


def measure_candidate(
    pairs: int, share: float, runs: int, *, look: int = 1, traffic: bool = False
) -> DrawnCandidate:
    """Draws pairs from the traffic, and labels up to all of them."""
    shares = joint_pairs(_LOG, share, USUAL_CORRELATION).reshape(-1) / _LOG
    alpha = spend_alpha(_ALPHA, look)
    error = draw_error(pairs, 1.0, alpha) if traffic else None
    design = LabelDesign(Claim.NON_INFERIOR, MARGIN, alpha, error)
    rng = np.random.default_rng(_SEED)
    found = [
        _label_draw(rng.multinomial(pairs, shares).reshape(3, 3), design, run)
        for run in range(runs)
    ]
    open_weight = (0.0, 1.0, 0.0)
    labels = SuiteLabels(
        "lb_1", ("ada",), 0, 1, design, PairWeights(0.0, open_weight), (), units=pairs
    )
    needed = draw_threshold(labels)
    return DrawnCandidate(
        pairs,
        share,
        "traffic" if traffic else "these pairs",
        look,
        passed=sum(is_passed and estimate > needed for is_passed, estimate in found) / runs,
        without=sum(is_passed for is_passed, _ in found) / runs,
    )


def _label_draw(counts: Ints, design: LabelDesign, seed: int) -> tuple[bool, float]:
    """Labels a draw until its end. Returns whether its pairs pass, and the estimate."""
    states = LabelRuns(counts, 0, 1)
    # The last pairs decide nothing by bets: then all labels are known.
    most = int(counts.sum()) - len(JUDGE_LEVELS)
    found = simulate_labels(states, design, seed, most)
    if found.failed[0]:
        return False, 0.0
    if not found.passed[0]:
        whole = float(states.win_share)
        return whole > design.theta0, whole
    step = plan_label(states.open_weight, (states.known, states.known), states.counts, design)
    expected = (states.open_weight * step.predicted).sum(axis=1)
    return True, float((states.known + expected)[0])


def measure_draws(runs: int) -> Iterator[DrawnCandidate]:
    null = TIE - MARGIN
    for pairs in (60, 200, 500):
        for share in (null - 0.05, null, TIE, TIE + 0.05):
            yield measure_candidate(pairs, share, runs)
    yield measure_candidate(60, null, runs, look=2)
    yield measure_candidate(500, null, runs, traffic=True)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=RUNS, help="of each cell")
    print_rows("labels of few drawn pairs", [*measure_draws(options.parse_args().runs)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
