"""Defers the import of numpy and scipy's special functions until a rule of the gate computes.
Their import takes half of a command's start, and most commands only read stored decisions.

E-values are kept as logarithms: this module sums and averages them in a fixed order, so that
results do not depend on an array's shape. Modules of the gate import numpy from here, not
directly. The tests that use these sums are in `harness.gate.offline` and `harness.gate.online`.
"""

import math
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray
    from scipy import special

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]
else:

    class _Deferred:
        """Imports a module when the code first reads one of its names."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> object:
            found = getattr(import_module(self._name), name)
            setattr(self, name, found)
            return found

    np, special = _Deferred("numpy"), _Deferred("scipy.special")
    ArrayLike = Floats = Ints = Bools = object

__all__ = ["ArrayLike", "Bools", "Floats", "Ints", "np", "special"]


def log_mean(logs: Sequence[float], log_weights: Sequence[float] | None = None) -> float:
    """Computes the log of the weighted mean of e-values given as logs.

    Without log_weights all weights are equal. -inf represents an e-value of 0.
    """
    if log_weights is None:
        terms = list(logs)
        shift = math.log(len(terms))
    else:
        terms = [value + weight for value, weight in zip(logs, log_weights, strict=True)]
        shift = 0.0
    top = max(terms)
    if top == -math.inf:
        return top
    return top + math.log(sum(math.exp(term - top) for term in terms)) - shift


def log_mean_rows(rows: Sequence[Floats]) -> Floats:
    """Computes log_mean for arrays of one shape; adds the rows in order, first to last.

    numpy's own sum picks its order by memory layout. The result for a single item could then
    differ in the last bit, and a step-by-step recomputation would give another verdict.
    """
    top = rows[0]
    for row in rows[1:]:
        top = np.maximum(top, row)
    total = np.zeros_like(top)
    for row in rows:
        total = total + np.exp(row - top)
    return np.asarray(top + np.log(total / len(rows)), dtype=np.float64)


def ordered_sum(values: Floats) -> Floats:
    """Adds up the last axis strictly from first to last."""
    return np.asarray(np.cumsum(values, axis=-1)[..., -1])


def geometric_grid(low: float, high: float, count: int) -> tuple[float, ...]:
    """Returns `count` values from low to high, each a fixed multiple of its predecessor."""
    ratio = high / low
    return tuple(low * ratio ** (k / (count - 1)) for k in range(count))


def normalize_zeros(values: Iterable[float]) -> tuple[float, ...]:
    """Replaces -0.0 by 0.0, because databases lose the sign of zero."""
    return tuple(value + 0.0 for value in values)
