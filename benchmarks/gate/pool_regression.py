"""The rule of a pool that was tried first, and rejected (docs/adr/0048): the candidate's own
differences give the slopes. A null that a search found passes it in more than .2 of runs.

In that null the sample's predictions are nearly exact, and the losses are rare items of the
pool whose covariates lie far from all others. Without such an item among the candidate's
answers, the regression extrapolates gains to them. Source: MacKinnon & White 1985 (HC2).
"""

from typing import Final

import numpy as np

from benchmarks.gate.gate_rules import MARGIN, Floats
from harness.gate.offline.design import Design, interim_levels, with_unseen_loss
from harness.gate.offline.intervals import VARIANCE_GUARD
from harness.gate.offline.item_tests import t_tail
from harness.gate.suite_plan import Claim

# Kinds of items: share, difference, incumbent's score, mean of past models. The mean
# difference is 0 up to the last figure, which `found_null` sets.
FOUND_NULL: Final = (
    (0.4256, -0.073, 0.25, 0.30),
    (0.4209, -0.073, 0.22, 0.30),
    (0.1417, 0.511, 0.34, 0.38),
    (0.0065, -0.866, 0.99, 0.58),
    (0.0034, -0.876, 0.93, 1.00),
    (0.0019, -0.989, 0.99, 1.00),
)
ASKED: Final = 150
POOL: Final = 1_000
_RIDGE: Final = 1e-9
_COEFFICIENTS: Final = 3


def found_null() -> tuple[Floats, Floats, Floats]:
    """Returns shares, differences and covariates (kinds, 2), with a mean difference of 0."""
    table = np.array(FOUND_NULL)
    shares = table[:, 0] / table[:, 0].sum()
    return shares, table[:, 1] - shares @ table[:, 1], table[:, 2:]


def regressed_p(d: Floats, covariates: Floats) -> Floats:
    """Computes the p-value of (rows, n) differences, regressed on covariates (rows, N, 2), for
    a mean of at most 0. The covariates' first n items are the candidate's.

    It has HC2 variance, n - 4 degrees of freedom, Johnson's correction and the unseen loss on
    the residuals.
    """
    rows, n = d.shape
    z = covariates - covariates.mean(axis=1, keepdims=True)
    x = np.concatenate([np.ones((rows, n, 1)), z[:, :n]], axis=-1)
    gram = x.swapaxes(1, 2) @ x + _RIDGE * np.eye(_COEFFICIENTS)
    turned = x @ np.linalg.inv(gram)
    slopes = (turned.swapaxes(1, 2) @ d[..., None])[..., 0]
    leverage = np.minimum((turned * x).sum(axis=-1), 0.999)
    errors = (d - (x @ slopes[..., None])[..., 0]) / np.sqrt(1.0 - leverage)
    residuals = with_unseen_loss(slopes[:, :1] + n * turned[..., 0] * errors)
    mean = residuals.mean(axis=1)
    gaps = residuals - mean[:, None]
    fitted = (z @ slopes[:, 1:, None])[..., 0]
    many = z.shape[1]
    left = ((gaps * gaps).sum(axis=1) + VARIANCE_GUARD) / ((n + 1) * (n + 1))
    variance = left + (fitted * fitted).mean(axis=1) / many
    cubes = (gaps**3).sum(axis=1) / (n + 1) ** 3 + (fitted**3).mean(axis=1) / many**2
    a = np.minimum(cubes / variance**1.5, 0.0) / 3.0
    t = mean / np.sqrt(variance)
    return t_tail(n - _COEFFICIENTS, t + a / 2.0 + a * t * t + a * a * t**3 / 3.0)


def regression_share(rows: int, seed: int = 11) -> float:
    """Returns the share of pools of the found null that the regression promotes."""
    shares, differences, covariates = found_null()
    rng = np.random.default_rng(seed)
    items = rng.choice(len(shares), size=(rows, POOL), p=shares)
    p = regressed_p(differences[items[:, :ASKED]], covariates[items])
    level = interim_levels((ASKED,), Design(Claim.SUPERIOR, MARGIN, ASKED).alpha)[0]
    return float((p <= level).mean())
