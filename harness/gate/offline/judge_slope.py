"""The slope of a judge's scores on people's, measured on references, and what it makes of a
measured difference (statistics.md §1.17).

A judge that errs alike on both arms' answers shows `slope` of every difference between them.
"""

import math
from collections.abc import Sequence

from harness.domain.evals.judge_calibration import DIGITS, JudgeSlope, ReferenceCounts
from harness.domain.evals.suite_figures import JudgeFigures
from harness.gate.offline.intervals import Z95

# Sum of squares that is added to what the line leaves: few references may all lie on it.
_GUARD = 0.25
# The residual of a reference that alone holds the line says nothing.
_LEAST_FREEDOM = 0.1

# (people's score, the judge's): None where the judge gave none.
Ratings = Sequence[tuple[float, float | None]]


def count_references(ratings: Ratings) -> ReferenceCounts | None:
    """Counts pass/fail ratings; None where a score is graded."""
    scored = _scored(ratings)
    if any(score not in (0.0, 1.0) for rating in scored for score in rating):
        return None
    return ReferenceCounts(
        passed=scored.count((1.0, 1.0)),
        judge_failed=scored.count((1.0, 0.0)),
        judge_passed=scored.count((0.0, 1.0)),
        failed=scored.count((0.0, 0.0)),
    )


def measure_slope(ratings: Ratings) -> JudgeSlope | None:
    """Measures the slope by least squares; None where people gave one score alone.

    For pass/fail scores it is sensitivity + specificity - 1, and its error counts one right
    and one wrong answer more of either kind: few references do not make certain.
    """
    counts = count_references(ratings)
    good = counts.passed + counts.judge_failed if counts else 0
    bad = counts.failed + counts.judge_passed if counts else 0
    if counts is None:
        return _least_squares(_scored(ratings))
    if not good or not bad:
        return None
    slope = counts.passed / good - counts.judge_passed / bad
    error = math.sqrt(_variance(counts.passed, good) + _variance(counts.judge_passed, bad))
    return JudgeSlope(round(slope, DIGITS), round(error, DIGITS))


def _scored(ratings: Ratings) -> list[tuple[float, float]]:
    """A reference without the judge's score counts against the judge."""
    return [(people, 1.0 - round(people) if ours is None else ours) for people, ours in ratings]


def _variance(hits: int, count: int) -> float:
    share = (hits + 1) / (count + 2)
    return share * (1.0 - share) / count


def _least_squares(scored: Sequence[tuple[float, float]]) -> JudgeSlope | None:
    """The error is the larger one of the usual and of HC3 (MacKinnon & White 1985), which holds
    where a judge is surer of some answers than of others.
    """
    n = len(scored)
    means = [math.fsum(column) / n for column in zip(*scored, strict=True)]
    spread = [people - means[0] for people, _ in scored]
    size = math.fsum(gap * gap for gap in spread)
    if n < 3 or size <= 0.0:
        return None
    rises = [gap * (ours - means[1]) for gap, (_, ours) in zip(spread, scored, strict=True)]
    slope = math.fsum(rises) / size
    left = [
        ours - means[1] - slope * gap for gap, (_, ours) in zip(spread, scored, strict=True)
    ]
    usual = (math.fsum(residual**2 for residual in left) + _GUARD) / (n - 2) / size
    freedom = [max(1.0 - 1.0 / n - gap * gap / size, _LEAST_FREEDOM) for gap in spread]
    robust = math.fsum(
        (gap * residual / free) ** 2
        for gap, residual, free in zip(spread, left, freedom, strict=True)
    )
    error = math.sqrt(max(usual, robust / size**2))
    return JudgeSlope(round(slope, DIGITS), round(error, DIGITS))


def judge_figures(
    judge: JudgeSlope, delta: float, low: float | None, high: float | None
) -> JudgeFigures:
    """The difference as people would score it, of one as judged with its 95 % interval.

    The interval holds the error of the slope too; there is none where the slope itself may be
    0. Source: MOVER, Donner & Zou 2012, with the delta method's error of the slope.
    """
    slope, error = judge.slope, judge.error
    figures = JudgeFigures(slope=slope, error=error)
    if slope <= Z95 * error or low is None or high is None:
        return figures
    bent = Z95 * delta * error / slope**2
    return JudgeFigures(
        slope=slope,
        error=error,
        delta=delta / slope,
        ci_low=max(-1.0, delta / slope - math.hypot((delta - low) / slope, bent)),
        ci_high=min(1.0, delta / slope + math.hypot((high - delta) / slope, bent)),
    )
