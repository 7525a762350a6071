"""A label plan fixes, before a person labels the next pair, how Swapgate draws this pair and
what it bets (statistics.md §1.23). Pure.

A pair has the answers of both models to one request. The judge's preference and the person's
label are the candidate's share of the win: 1 for a win, ½ for a tie, 0 for a loss. The judge's
preferences predict labels, and the labels so far calibrate the predictions. A worthless judge
costs labels, but no validity: the draw's known probabilities carry the proof.

Most arrays have the levels of the judge's preference (0, ½, 1) as their last axis. Earlier axes
are independent runs, for simulations.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from harness.frame.errors import InputError
from harness.frame.formatting import format_number
from harness.gate.arrays import Bools, Floats, np, ordered_sum
from harness.gate.offline.design import REJECT_LOG_E
from harness.gate.suite_plan import QUALITY_CLAIMS, Claim

JUDGE_LEVELS: Final = (0.0, 0.5, 1.0)  # the judge's preference for the candidate
TIE: Final = 0.5
USUAL_CORRELATION: Final = 0.6  # between judge and people, before a pilot
# The share of the draw that ignores the predictions: each open pair's probability is at least
# this share of a uniform draw's.
UNIFORM_SHARE: Final = 0.5
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
# A claim about traffic divides alpha between the labels and the draw of the pairs.
LABELS_ALPHA_SHARE: Final = 0.8
FEWEST_DRAWN: Final = 2_000  # pairs, for an allowed loss of 5 points


@dataclass(frozen=True, slots=True)
class LabelDesign:
    """Fixes the claim about people's preference before the first label.

    Raises InputError for a margin or alpha outside (0, 1), or a margin without room for the
    draw's error.
    """

    claim: Claim  # superior or non_inferior
    margin: float  # allowed loss, a share of 1
    alpha: float = 0.05  # of the claim: the draw's error takes a fifth of it
    # How far the win share of these pairs may lie from the traffic's (`draw_error`). None is a
    # claim about these pairs.
    draw_error: float | None = None
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
        if self.claim is Claim.NON_INFERIOR and (self.draw_error or 0.0) >= self.margin:
            raise InputError(
                f"the draw's error ({format_number(self.draw_error or 0.0, 3)}) leaves nothing "
                f"of the margin ({self.margin:g}); draw more pairs"
            )

    @property
    def theta0(self) -> float:
        """The null hypothesis of PASSED: these pairs' win share is at most this value."""
        return self.claimed + (self.draw_error or 0.0)

    @property
    def rejected_below(self) -> float:
        """FAILED refutes that these pairs' win share is this value or more."""
        return self.claimed - (self.draw_error or 0.0)

    @property
    def claimed(self) -> float:
        """The win share that a passed claim exceeds, without the draw's error."""
        return TIE if self.claim is Claim.SUPERIOR else TIE - self.margin

    @property
    def level(self) -> float:
        """The error of the labels alone: the whole alpha for a claim about these pairs."""
        return self.alpha if self.draw_error is None else LABELS_ALPHA_SHARE * self.alpha

    @property
    def enough_log_e(self) -> float:
        """The log e-value that shows the claim."""
        return -math.log(self.level)

    @property
    def reject_log_e(self) -> float:
        """The log e-value that shows FAILED. A rejection has an error of 5 % of its own."""
        share = 1.0 if self.draw_error is None else LABELS_ALPHA_SHARE
        return REJECT_LOG_E - math.log(share)

    @property
    def gains(self) -> tuple[float, ...]:
        """The distances from the null hypothesis that the stakes suit best."""
        equal = TIE - self.theta0
        base = max(equal, _LEAST_GAIN) if self.claim is Claim.NON_INFERIOR else _USUAL_GAIN
        return tuple(share * base for share in _GAINS)


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

    predicted: the expected label for each judge's preference. rates: the probability of a pair
    is its weight times the rate of its judge's preference. passing and failing: the stakes of
    the bets for PASSED and for FAILED, (…, stakes), in shares of the capital per unit of the
    win share.
    """

    predicted: Floats
    rates: Floats
    passing: Floats
    failing: Floats

    def as_json(self) -> dict[str, list[float]]:
        return {
            "predicted": self.predicted.tolist(),
            "rates": self.rates.tolist(),
            "passing": self.passing.tolist(),
            "failing": self.failing.tolist(),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        names = ("predicted", "rates", "passing", "failing")
        return cls(*(np.asarray(stored[name], dtype=np.float64) for name in names))


def judge_level(preference: float) -> int:
    """Returns the index in `JUDGE_LEVELS` of a judge's preference from 0 to 1: for the
    incumbent, for neither, or for the candidate.

    Raises InputError for another number.
    """
    if not 0.0 <= preference <= 1.0:
        raise InputError(f"a judge's preference is from 0 to 1, not {preference}")
    return int(np.sign(preference - TIE)) + 1


def plan_label(
    open_weight: Floats,
    known: tuple[Floats, Floats],
    counts: LabelCounts,
    design: LabelDesign,
) -> LabelStep:
    """Plans the next label from the labels before it.

    open_weight: the weight of the pairs that are not drawn yet, by judge's preference (…, 3);
    some weight must be left. known: the lowest and highest possible sum of weight times label,
    over ties and drawn pairs (…). A drawn pair without a label counts 0 and 1.
    """
    predicted, variance = _calibrate(counts, design.correlation)
    rates = _choose_rates(open_weight, variance)
    is_open = open_weight > 0.0
    expected = ordered_sum(open_weight * predicted)
    spread = ordered_sum(open_weight * variance / rates)
    lowest = known[0] + expected - _largest(predicted / rates, is_open)
    highest = known[1] + expected + _largest((1.0 - predicted) / rates, is_open)
    return LabelStep(
        predicted,
        rates,
        _choose_stakes(design, spread, design.theta0 - lowest),
        _choose_stakes(design, spread, highest - design.rejected_below),
    )


def _calibrate(counts: LabelCounts, correlation: float) -> tuple[Floats, Floats]:
    """Predicts mean and variance of the labels of each judge's preference (…, 3)."""
    prior = TIE + correlation * (np.asarray(JUDGE_LEVELS) - TIE)
    weight = counts.labels + _PRIOR_LABELS
    mean = (counts.total + _PRIOR_LABELS * prior) / weight
    squares = counts.squares - 2.0 * mean * counts.total + counts.labels * mean * mean
    expected = _PRIOR_LABELS * _PRIOR_VARIANCE * (1.0 - correlation**2)
    return mean, np.maximum((squares + expected) / weight, _LEAST_VARIANCE)


def _choose_rates(open_weight: Floats, variance: Floats) -> Floats:
    """Draws pairs with uncertain labels more often. Half of the draw is uniform, so that a
    wrong prediction cannot hide pairs.
    """
    sd = np.sqrt(variance)
    uniform = UNIFORM_SHARE / ordered_sum(open_weight)
    chosen = (1.0 - UNIFORM_SHARE) / ordered_sum(open_weight * sd)
    return np.asarray(uniform[..., None] + chosen[..., None] * sd, dtype=np.float64)


def _choose_stakes(design: LabelDesign, spread: Floats, most_lost: Floats) -> Floats:
    """Chooses the stake with nearly the largest expected growth for each of the design's gains.
    most_lost: the distance from the null hypothesis to the worst possible value.
    """
    gains = np.asarray(design.gains)
    best = gains / (spread[..., None] + gains * gains)
    limit = MOST_STAKED / np.maximum(most_lost, MOST_STAKED / best.max())[..., None]
    return np.asarray(np.minimum(best, limit), dtype=np.float64)


def _largest(values: Floats, mask: Bools) -> Floats:
    return np.asarray(np.where(mask, values, 0.0).max(axis=-1))


def draw_error(
    units: int,
    open_share: float,
    alpha: float = 0.05,
    *,
    logged_units: int | None = None,
) -> float:
    """Computes how far the win share of the drawn pairs may lie from the log's, on one side.

    units: independently drawn callers or conversations, at least 2. open_share: the weight of
    the pairs that are not mechanically equal. alpha: of the claim; the draw has a fifth of it.
    logged_units: all units of the log; if all are drawn, the error is 0.
    Source: the empirical Bernstein bound, Maurer & Pontil 2009, Theorem 4. The variance of
    labels is unknown, so the bound uses the largest possible variance around ½.
    """
    if logged_units is not None and units >= logged_units:
        return 0.0
    if units < 2:
        raise InputError(f"a draw has at least 2 units, not {units}")
    log_error = math.log(2.0 / ((1.0 - LABELS_ALPHA_SHARE) * alpha))
    variance = open_share / 4.0 * units / (units - 1)
    return math.sqrt(2.0 * variance * log_error / units) + 7.0 * log_error / (3 * (units - 1))


def check_drawn_pairs(units: int, margin: float) -> None:
    """Raises InputError if a claim about traffic needs more drawn pairs for this margin."""
    fewest = math.ceil(FEWEST_DRAWN * (0.05 / margin) ** 2)
    if units < fewest:
        raise InputError(
            f"a claim about traffic with a margin of {margin:g} needs at least {fewest:,} "
            f"drawn pairs, not {units:,}; draw more, choose a larger margin, or make the claim "
            "about these pairs"
        )
