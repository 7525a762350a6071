"""Measures several candidates at once: how often one that is at the null goes on, and how often
the better one does among others at the null (statistics.md §1.16).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.gate.gate_rules import ALPHA, MARGIN
from benchmarks.gate.score_matrix import Floats
from harness.domain.evals.suite_plan import Claim
from harness.gate.offline.design import Design, choose_unseen_loss
from harness.gate.offline.futility import hopeless_at
from harness.gate.offline.sequential import judge_batch
from harness.gate.planning.multiplicity import FUTILITY

CANDIDATES: Final = 3
SEVERAL: Final = f"{CANDIDATES} candidates at once"
_ROWS: Final = 250


@dataclass(frozen=True)
class SelectionDecisions:
    """Holds what became of each selection: one entry per row."""

    chosen: NDArray[np.int64]  # which candidate goes on, -1 for none
    items: float  # mean number used by one candidate


def decide_selections(
    differences: Sequence[Floats], claim: Claim, alpha: float = ALPHA
) -> SelectionDecisions:
    """Decides on selections as the product does. differences: by candidate, (selections,
    items).
    """
    n = differences[0].shape[1]
    share = alpha / len(differences)
    design = Design(claim, MARGIN, n, share, unseen=choose_unseen_loss(n))
    judged = [_judge(d, design) for d in differences]
    deltas = np.stack([delta for delta, _ in judged])
    used = [float(items.mean()) for _, items in judged]
    chosen = np.where(np.isfinite(deltas).any(axis=0), deltas.argmax(axis=0), -1)
    return SelectionDecisions(chosen, float(np.mean(used)))


def _judge(d: Floats, design: Design) -> tuple[Floats, NDArray[np.int64]]:
    """The difference of each that passed, minus infinity of the others; and the items used."""
    deltas, items = [], []
    for first in range(0, len(d), _ROWS):
        rows = d[first : first + _ROWS]
        decided = judge_batch(rows, design)
        hopeless = hopeless_at(rows, design, FUTILITY)
        used = np.minimum(decided.n_used, hopeless)
        passed = decided.promoted & (decided.n_used <= hopeless)
        at = np.cumsum(rows, axis=1)[np.arange(len(rows)), used - 1]
        deltas.append(np.where(passed, at / used, -np.inf))
        items.append(used)
    return np.concatenate(deltas), np.concatenate(items)
