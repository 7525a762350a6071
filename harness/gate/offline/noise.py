"""The noise of answers says how much an item's mean score varies when the item is asked anew: a
claim about the suite's own items has no other error (statistics.md §1.15).
"""

from dataclasses import dataclass
from typing import Final

from harness.gate.arrays import ArrayLike, Floats, np, ordered_sum, special

MOST_NOISE: Final = 0.25  # variance of the mean of two scores
# Of the differences' variance, this share counts at the suite's last item too, however calm the
# models seem.
_LEAST_LEFT: Final = 0.5
_NOTHING: Final = 1e-12


@dataclass(frozen=True, slots=True)
class AnswerNoise:
    """How much each item's mean score varies when it is asked anew, in the registered order."""

    incumbent: Floats  # (…, items)
    candidate: Floats

    def first(self, n: int) -> tuple[Floats, Floats]:
        """The mean variances of both arms' first n items."""
        return _mean_noise(self.incumbent[..., :n]), _mean_noise(self.candidate[..., :n])


def _mean_noise(variances: Floats) -> Floats:
    """Adds one more item, as noisy as can be: answers that are alike prove no calm."""
    total = ordered_sum(variances)
    return np.asarray((total + MOST_NOISE) / (variances.shape[-1] + 1))


def asked_anew(noise: ArrayLike, variance: ArrayLike) -> Floats:
    """The share of variance by asking items anew; all of it where a figure is no number."""
    found = np.asarray(noise, dtype=np.float64) / np.maximum(variance, _NOTHING)
    return np.where(np.isnan(found), 1.0, np.clip(found, _LEAST_LEFT, 1.0))


def share_left(share: ArrayLike, anew: ArrayLike) -> Floats:
    """The share of the mean difference's variance that counts for a claim about these items.

    share: of the suite's items that are in. Asked items vary by their noise alone; the others
    add the error of sampling from a finite lot. anew: as `asked_anew` gives it.
    """
    return 1.0 - np.asarray(share, dtype=np.float64) * (1.0 - np.asarray(anew))


def p_about_these(p: ArrayLike, left: ArrayLike) -> Floats:
    """Turns the p-value of a claim about items like these into one about these items."""
    anew = special.ndtr(special.ndtri(p) / np.sqrt(left))
    return np.asarray(np.where(np.equal(left, 1.0), p, anew), dtype=np.float64)
