"""Holds the decision rules that GateBench compares: our gate, and the paired t test once or
with peeking.

Every rule takes both sides' scores (comparisons, items) and the null's mean difference, and
gives for each comparison whether it promotes and how many items it used.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.domain.evals.suite_plan import Claim
from harness.gate.offline.design import Design
from harness.gate.offline.sequential import judge_batch
from harness.gate.planning.multiplicity import FUTILITY

Floats = NDArray[np.float64]
Result = tuple[NDArray[np.bool_], NDArray[np.int64]]
Rule = Callable[[Floats, Floats, float], Result]

MARGIN = 0.05
ALPHA = 0.05
PEEK_EVERY = 25
_ROWS = 250


def hybrid(a: Floats, b: Floats, theta0: float) -> Result:
    """Applies the product's own gate."""
    claim = Claim.NON_INFERIOR if theta0 < 0.0 else Claim.SUPERIOR
    n = a.shape[1]
    design = Design(claim, MARGIN, n, ALPHA)
    return judge_rows(b - a, design)


def judge_rows(d: Floats, design: Design) -> Result:
    decided = [judge_batch(rows, design) for rows in _chunks(d)]
    promoted = np.concatenate([one.promoted for one in decided])
    return promoted, np.concatenate([one.n_used for one in decided])


def _chunks(d: Floats) -> list[Floats]:
    """A few rows at a time: what the gate computes of each is large."""
    return [d[first : first + _ROWS] for first in range(0, len(d), _ROWS)]


def paired_t(a: Floats, b: Floats, theta0: float) -> Result:
    return _t_p(b - a, theta0) <= ALPHA, np.full(len(a), a.shape[1])


def peeking_t(a: Floats, b: Floats, theta0: float) -> Result:
    """Applies the paired t after each 25 items, and stops at the first p of .05 or less."""
    d, n = b - a, a.shape[1]
    promoted = np.zeros(len(d), dtype=np.bool_)
    used = np.full(len(d), n)
    for peeked in range(PEEK_EVERY, n + 1, PEEK_EVERY):
        now = ~promoted & (_t_p(d[:, :peeked], theta0) <= ALPHA)
        used[now] = peeked
        promoted |= now
    return promoted, used


def _t_p(d: Floats, theta0: float) -> Floats:
    n = d.shape[1]
    error = np.maximum(d.std(axis=1, ddof=1), 1e-12) / np.sqrt(n)
    return np.asarray(special.stdtr(n - 1.0, -(d.mean(axis=1) - theta0) / error))


OURS = "hybrid gate"
PAIRED_T = "paired t, fixed n"
RULES: Mapping[str, Rule] = {
    OURS: hybrid,
    PAIRED_T: paired_t,
    "peeking t, every 25": peeking_t,
}


CANDIDATES: Final = 3
SEVERAL: Final = f"{CANDIDATES} candidates at once"


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
    design = Design(claim, MARGIN, n, share, futility=FUTILITY)
    judged = [_judge(d, design) for d in differences]
    deltas = np.stack([delta for delta, _ in judged])
    used = [float(items.mean()) for _, items in judged]
    chosen = np.where(np.isfinite(deltas).any(axis=0), deltas.argmax(axis=0), -1)
    return SelectionDecisions(chosen, float(np.mean(used)))


def _judge(d: Floats, design: Design) -> tuple[Floats, NDArray[np.int64]]:
    """The difference of each that passed, minus infinity of the others; and the items used."""
    deltas, items = [], []
    for rows in _chunks(d):
        decided = judge_batch(rows, design)
        used = decided.n_used
        at = np.cumsum(rows, axis=1)[np.arange(len(rows)), used - 1]
        deltas.append(np.where(decided.promoted, at / used, -np.inf))
        items.append(used)
    return np.concatenate(deltas), np.concatenate(items)
