"""Holds the decision rules that GateBench compares: our gate, and the paired t test once or
with peeking.

Every rule takes both sides' scores (comparisons, items) and the null's mean difference, and
gives for each comparison whether it promotes and how many items it used.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.domain.evals.suite_plan import Claim
from harness.gate.offline.design import Design, choose_unseen_loss
from harness.gate.offline.sequential import judge_batch

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
    design = Design(claim, MARGIN, n, ALPHA, unseen=choose_unseen_loss(n))
    promoted, used = [], []
    for first in range(0, len(a), _ROWS):
        rows = slice(first, first + _ROWS)
        decisions = judge_batch(b[rows] - a[rows], design)
        promoted.append(decisions.promoted)
        used.append(decisions.n_used)
    return np.concatenate(promoted), np.concatenate(used)


def paired_t(a: Floats, b: Floats, theta0: float) -> Result:
    return _fixed(_t_p(b - a, theta0) <= ALPHA, a)


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


def _fixed(promoted: NDArray[np.bool_], a: Floats) -> Result:
    return promoted, np.full(len(a), a.shape[1])


OURS = "hybrid gate"
PAIRED_T = "paired t, fixed n"
RULES: Mapping[str, Rule] = {
    OURS: hybrid,
    PAIRED_T: paired_t,
    "peeking t, every 25": peeking_t,
}
