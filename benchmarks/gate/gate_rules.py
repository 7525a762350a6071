"""The decision rules that GateBench compares: Swapproof's gate, and the paired t test once or
with peeking.

Every rule takes both sides' scores (comparisons, items) and the null's mean difference. It
returns for each comparison whether it promotes, and how many items it used.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.gate.budget import FUTILITY
from harness.gate.offline.design import Design
from harness.gate.offline.sequential import judge_batch
from harness.gate.suite_plan import Claim

Floats = NDArray[np.float64]
Result = tuple[NDArray[np.bool_], NDArray[np.int64]]
Rule = Callable[[Floats, Floats, float], Result]

MARGIN = 0.05
ALPHA = 0.05
PEEK_EVERY = 25
_ROWS = 100


def hybrid(
    a: Floats,
    b: Floats,
    theta0: float,
) -> Result:
    """Applies the product's own gate."""
    claim = Claim.NON_INFERIOR if theta0 < 0.0 else Claim.SUPERIOR
    return judge_rows(b - a, Design(claim, MARGIN, a.shape[1], ALPHA))


def judge_rows(d: Floats, design: Design) -> Result:
    """Judges a few rows at a time, because the gate needs much memory for each."""
    chunks = [d[first : first + _ROWS] for first in range(0, len(d), _ROWS)]
    decided = [judge_batch(rows, design) for rows in chunks]
    promoted = np.concatenate([one.promoted for one in decided])
    return promoted, np.concatenate([one.n_used for one in decided])


def paired_t(
    a: Floats,
    b: Floats,
    theta0: float,
    every: int | None = None,
) -> Result:
    """Applies the paired t test to all items, or after each `every` items until p <= ALPHA."""
    d = b - a
    n = a.shape[1]
    promoted = np.zeros(len(d), dtype=np.bool_)
    used = np.full(len(d), n)
    for peeked in range(every or n, n + 1, every or n):
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
    "peeking t, every 25": partial(paired_t, every=PEEK_EVERY),
}


CANDIDATES: Final = 3
SEVERAL: Final = f"{CANDIDATES} candidates at once"


def decide_selections(
    differences: Sequence[Floats], claim: Claim
) -> tuple[NDArray[np.int64], float]:
    """Decides selections as the product does. Returns the index of each selection's chosen
    candidate (-1 for no candidate), and the mean number of items of a candidate.

    Args:
        differences: by candidate, (selections, items).
    """
    rows, n = differences[0].shape
    design = Design(claim, MARGIN, n, ALPHA / len(differences), futility=FUTILITY)
    deltas = []
    items = []
    for d in differences:
        promoted, used = judge_rows(d, design)
        means = np.cumsum(d, axis=1)[np.arange(rows), used - 1] / used
        deltas.append(np.where(promoted, means, -np.inf))
        items.append(float(used.mean()))
    best = np.stack(deltas)
    chosen = np.where(np.isfinite(best).any(axis=0), best.argmax(axis=0), -1)
    return chosen, float(np.mean(items))
