"""Many comparisons at once by the rule of planned analyses, for calibrations: a test holds it
against the product, which judges one at a time.
"""

import numpy as np
from numpy.typing import ArrayLike

from harness.gate.offline import adjusted
from harness.gate.offline.adjusted import Covariates, analyse
from harness.gate.offline.design import Design
from harness.gate.offline.sequential import (
    BatchDecisions,
    check_differences,
    evidence_path,
)


def judge_adjusted_batch(
    matrix: ArrayLike,
    design: Design,
    covariates: Covariates | None = None,
    *,
    futility: float = 0.0,
) -> BatchDecisions:
    """Judges every row of differences (comparisons, items), without display figures."""
    d = check_differences(matrix)
    bad = evidence_path(d, design).rejects
    rejected_at = np.where(bad.any(axis=-1), np.argmax(bad, axis=-1) + 1, d.shape[-1] + 1)
    columns, noise = adjusted._known(covariates, len(d))
    promoted, futile = np.zeros((2, len(d)), dtype=np.bool_)
    used = np.minimum(rejected_at, d.shape[-1])
    for n, level in adjusted._analyses(design, d.shape[-1]):
        test = analyse(d[:, :n], columns, adjusted._whole(d[:, :n]), design, noise)
        now = ~promoted & ~futile & (rejected_at >= n) & (test.p <= level)
        gone = ~promoted & ~now & ~futile & (rejected_at > n)
        gone &= adjusted._hopeless(test, n, design, futility)
        used = np.where(now | gone, n, used)
        promoted |= now
        futile |= gone
    rejected = ~promoted & ~futile & (rejected_at <= d.shape[-1])
    return BatchDecisions(promoted, rejected, used)
