"""A loss that was not met yet: graded suites are tested as if one more item had come, and been
lost (statistics.md §1.17). How much of it was lost is what the registered rule says.
"""

from typing import Final

from harness.domain.evals.suite_plan import UnseenLoss
from harness.gate.arrays import ArrayLike, Floats, np
from harness.gate.logspace import running_sum

# Below this, a suite may simply not have met the rare disaster yet.
SMALL_SUITE_ITEMS: Final = 200
_WHOLE: Final = -1.0


def choose_unseen_loss(n_max: int) -> UnseenLoss:
    """Chooses the rule of new plans that are judged by the differences of items alone.

    In large suites a whole loss weighs little.
    """
    return UnseenLoss.MIRRORED if n_max < SMALL_SUITE_ITEMS else UnseenLoss.WHOLE


def mirrored_spread(differences: ArrayLike) -> Floats:
    """Sums the squared deviations of (…, items) that the other side of the mean mirrors: the
    smaller one of the sums above and below it.
    """
    d = np.asarray(differences, dtype=np.float64)
    gaps = d - running_sum(0.0, d)[..., -1:] / max(d.shape[-1], 1)
    above, below = np.maximum(gaps, 0.0), np.minimum(gaps, 0.0)
    return np.minimum(
        running_sum(0.0, above * above)[..., -1], running_sum(0.0, below * below)[..., -1]
    )


def unseen_loss(rule: UnseenLoss, mirrored: ArrayLike) -> Floats:
    """The difference of an item that nobody met; mirrored: of `mirrored_spread`.

    Where wins spread as much as losses, the test's own error covers what a rare loss adds to
    it. Wins that are all alike say nothing of losses.
    """
    spread = np.asarray(mirrored, dtype=np.float64)
    if rule is UnseenLoss.WHOLE:
        return np.full_like(spread, _WHOLE)
    return np.asarray(_WHOLE / (1.0 + spread / 2.0))
