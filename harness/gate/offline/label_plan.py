"""A label plan fixes, before a person labels the next pair, what Swapproof bets on its label
(statistics.md §1.23). Pure.

A pair has the answers of both models to one request. The judge's preference and the person's
label are the candidate's share of the win: 1 for a win, ½ for a tie, 0 for a loss. The drawn
callers come in random order, in blocks. In each block, a person labels one pair, and the
judge's preferences predict the labels of all its pairs. A worthless judge costs labels, but no
validity: the label corrects the prediction. The claim holds for the traffic behind the draw.

Most arrays have the levels of the judge's preference (0, ½, 1) as their last axis. Earlier axes
are independent runs, for simulations.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from harness.frame.errors import InputError
from harness.gate.arrays import Floats, np, ordered_sum
from harness.gate.suite_plan import QUALITY_CLAIMS, Claim

JUDGE_LEVELS: Final = (0.0, 0.5, 1.0)  # the judge's preference for the candidate
TIE: Final = 0.5
USUAL_CORRELATION: Final = 0.6  # between judge and people, before a pilot
# A bet stakes at most this share of the capital that the worst label could take.
MOST_STAKED: Final = 0.9
# The gains that the two stakes of each bet suit best, as multiples of the allowed loss.
_GAINS: Final = (0.8, 1.6)
_USUAL_GAIN: Final = 0.05
_LEAST_GAIN: Final = 0.01
# Weight of the calibration's prior, in labels of each level, and its variance of a label. A
# large variance keeps the first stakes small.
_PRIOR_LABELS: Final = 6.0
_PRIOR_VARIANCE: Final = 0.3
_LEAST_VARIANCE: Final = 1e-4
# Callers that each level counts before the first block, for the expected spread.
_PRIOR_CALLERS: Final = 1.0
# The share of alpha for e-values, which may end the labelling after any label. The last test,
# when each block has a label, has the rest. With few callers, an early end is improbable.
EARLY_SHARE: Final = 0.8
EARLY_SHARE_OF_FEW: Final = 0.2


@dataclass(frozen=True, slots=True)
class LabelDesign:
    """Fixes the claim about people's preference before the first label.

    Raises InputError for a margin or alpha outside (0, 1).
    """

    claim: Claim  # superior or non_inferior
    margin: float  # allowed loss, a share of 1
    alpha: float = 0.05
    correlation: float = USUAL_CORRELATION  # expected between judge and people

    def __post_init__(self) -> None:
        if self.claim not in QUALITY_CLAIMS:
            raise InputError(
                f"labels cannot show {self.claim.value}; use superior or non_inferior"
            )
        if not 0.0 < self.margin < 0.5:
            raise InputError(f"the margin is between 0 and .5, not {self.margin:g}")
        if not 0.0 < self.alpha < 1.0:
            raise InputError(f"alpha is between 0 and 1, not {self.alpha:g}")
        if not 0.0 <= self.correlation < 1.0:
            raise InputError(
                f"the correlation is from 0 to below 1, not {self.correlation:g}; a judge that "
                "disagrees with people counts as 0"
            )

    @property
    def theta0(self) -> float:
        """The null hypothesis of PASSED is a win share of at most this value. FAILED refutes a
        win share of this value or more.
        """
        return TIE if self.claim is Claim.SUPERIOR else TIE - self.margin

    @property
    def gains(self) -> tuple[float, ...]:
        """The distances from the null hypothesis that the stakes suit best."""
        return tuple(share * self._usual_gain for share in _GAINS)

    @property
    def reserve(self) -> int:
        """How many callers remain when the blocks become single callers.

        1/gain² labels are about enough for a verdict without a judge: the expected growth of a
        label is gain²/(2·variance), with a variance of about .2.
        """
        return math.ceil(1.0 / self._usual_gain**2)

    @property
    def _usual_gain(self) -> float:
        if self.claim is Claim.NON_INFERIOR:
            return max(self.margin, _LEAST_GAIN)
        return _USUAL_GAIN

    def early_share(self, callers: int) -> float:
        """Returns the share of alpha for the e-values, fixed by the number of drawn callers."""
        return EARLY_SHARE if callers > self.reserve else EARLY_SHARE_OF_FEW


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """The completed labels so far, by the judge's preference (…, 3): their number, the sum of
    the labels, and the sum of their squares.
    """

    labels: Floats
    total: Floats
    squares: Floats

    @classmethod
    def empty(cls, *runs: int) -> Self:
        return cls(*(np.zeros((*runs, len(JUDGE_LEVELS))) for _ in range(3)))


@dataclass(frozen=True, slots=True)
class LabelStep:
    """Everything that is fixed and logged before one label.

    predicted: the expected label for each judge's preference. passing and failing: the stakes
    of the bets for PASSED and for FAILED, (…, stakes), in shares of the capital per unit of the
    win share.
    """

    predicted: Floats
    passing: Floats
    failing: Floats

    def as_json(self) -> dict[str, list[float]]:
        return {
            "predicted": self.predicted.tolist(),
            "passing": self.passing.tolist(),
            "failing": self.failing.tolist(),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        names = ("predicted", "passing", "failing")
        return cls(*(np.asarray(stored[name], dtype=np.float64) for name in names))


def size_blocks(callers: int, design: LabelDesign) -> tuple[int, ...]:
    """Divides the drawn callers, in random order, into blocks: how many callers each has.

    Large blocks first: the judge's predictions of many pairs cost no label. The blocks shrink,
    so that enough labels remain for a late verdict. The sizes depend on no answer.
    """
    sizes = []
    left = callers
    while left:
        size = max(1, left // design.reserve)
        sizes.append(size)
        left -= size
    return tuple(sizes)


def judge_level(preference: float) -> int:
    """Returns the index in `JUDGE_LEVELS` of a judge's preference from 0 to 1: for the
    incumbent, for neither, or for the candidate.

    Raises InputError for another number.
    """
    if not 0.0 <= preference <= 1.0:
        raise InputError(f"a judge's preference is from 0 to 1, not {preference}")
    return int(np.sign(preference - TIE)) + 1


def plan_label(
    composition: Floats,
    counts: LabelCounts,
    callers: int,
    design: LabelDesign,
) -> LabelStep:
    """Plans the next label from the blocks and labels before it.

    Args:
        composition: the callers of these blocks by their answers (…, 4): mechanically equal,
            and by the judge's preference.
        callers: of the next block. Its answers must not decide the plan.
    """
    predicted, variance = _calibrate(counts, design.correlation)
    spread = _expect_spread(composition, predicted, variance, callers)
    # The worst label of a block is this far below or above the mean of its predictions, or
    # nearer to it.
    reach = predicted.max(axis=-1) - predicted.min(axis=-1)
    return LabelStep(
        predicted,
        _choose_stakes(design, spread, design.theta0 + reach),
        _choose_stakes(design, spread, 1.0 - design.theta0 + reach),
    )


def _expect_spread(
    composition: Floats, predicted: Floats, variance: Floats, callers: int
) -> Floats:
    """Expects the variance of the value of the next block (…): of the predictions' mean over
    its callers, and of one label around its prediction.
    """
    levels = composition[..., 1:] + _PRIOR_CALLERS
    ties = composition[..., 0]
    total = ties + ordered_sum(levels)
    mean = (TIE * ties + ordered_sum(levels * predicted)) / total
    between = ties * (TIE - mean) ** 2 + ordered_sum(
        levels * (predicted - mean[..., None]) ** 2
    )
    within = ordered_sum(levels * variance)
    return np.asarray((between / callers + within) / total, dtype=np.float64)


def _calibrate(counts: LabelCounts, correlation: float) -> tuple[Floats, Floats]:
    """Predicts mean and variance of the labels of each judge's preference (…, 3)."""
    prior = TIE + correlation * (np.asarray(JUDGE_LEVELS) - TIE)
    weight = counts.labels + _PRIOR_LABELS
    mean = (counts.total + _PRIOR_LABELS * prior) / weight
    squares = counts.squares - 2.0 * mean * counts.total + counts.labels * mean * mean
    expected = _PRIOR_LABELS * _PRIOR_VARIANCE * (1.0 - correlation**2)
    return mean, np.maximum((squares + expected) / weight, _LEAST_VARIANCE)


def _choose_stakes(design: LabelDesign, spread: Floats, most_lost: Floats) -> Floats:
    """Chooses the stake with nearly the largest expected growth for each of the design's gains.

    Args:
        most_lost: a bound of the distance from the null hypothesis to the worst possible value
            (…).
    """
    gains = np.asarray(design.gains)
    best = gains / (spread[..., None] + gains * gains)
    limit = MOST_STAKED / np.maximum(most_lost, MOST_STAKED / best.max())[..., None]
    return np.asarray(np.minimum(best, limit), dtype=np.float64)
