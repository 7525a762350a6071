"""GateBench of claims about these items, where both models answer anew: a suite stays the same,
its items pass with chances of their own, and each model is asked every item once or twice
(statistics.md §1.15).

The candidate's chances on the suite are moved until their mean is exactly the incumbent's, or
so many points above it: the null is about these items. Beside the claim about items like these
stands the one about these, from two answers on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy import special

from benchmarks.gate.gate_benchmark import FIVE, GateBenchmarkPlan, theta0_of
from benchmarks.gate.gate_rules import ALPHA, MARGIN
from benchmarks.gate.score_matrix import (
    Floats,
    ModelPair,
    ScoreMatrix,
    close_pairs,
)
from harness.gate.offline.design import Design
from harness.gate.offline.item_tests import MOST_NOISE, AnswerNoise
from harness.gate.offline.sequential import judge_batch
from harness.gate.suite_plan import Claim, ClaimPopulation

_STEEPEST: Final = 40.0
_ROWS: Final = 250


@dataclass(frozen=True)
class AnsweredSuite:
    """Says how much of a suite the candidate may be asked, and how often each item."""

    claim: Claim
    n: int  # items that the candidate may be asked
    items: int  # of the suite
    answers: int  # of one model to one item
    copied: float = 0.0  # share of items whose later answers a cache copies from the first


@dataclass(frozen=True, kw_only=True)
class AnswersRow:
    """Shares promoted and mean items used on one suite, over the pairs."""

    suite: AnsweredSuite
    population: ClaimPopulation
    false_mean: float
    worst: float  # of the worst pair, at the null
    five: float  # of a candidate that is 5 points above the null
    items_five: float

    @property
    def candidate_answers(self) -> float:
        """Counts the candidate's answers where it is 5 points above the null."""
        return self.suite.answers * self.items_five


def measure_answers(
    matrix: ScoreMatrix,
    suite: AnsweredSuite,
    plan: GateBenchmarkPlan,
) -> Iterator[AnswersRow]:
    """Measures both claims on the same draws; with one answer there is only that about items
    like these.

    Args:
        matrix: of chances, as `generate_chances` gives it.
    """
    draws = max(20, plan.replications // 4)
    pairs = close_pairs(matrix, plan.pairs)
    cells = {
        lift: [
            _decide(pair, suite, lift, count, [plan.seed, index])
            for index, pair in enumerate(pairs)
        ]
        for lift, count in ((0.0, draws), (FIVE, plan.power))
    }
    for population in cells[0.0][0]:
        null, five = (np.array([pair[population] for pair in cells[x]]) for x in (0.0, FIVE))
        yield AnswersRow(
            suite=suite,
            population=population,
            false_mean=float(null[:, 0].mean()),
            worst=float(null[:, 0].max()),
            five=float(five[:, 0].mean()),
            items_five=float(five[:, 1].mean()),
        )


def measure_repeats(
    repeats: Mapping[str, Floats],
    draws: int,
    seed: int = 11,
) -> dict[str, float]:
    """Returns by model how often it passes as better than itself, by a claim about these items
    with two answers of each arm.

    Args:
        repeats: scores of real answers, four or more to an item.
    """
    found = {}
    for index, (model, scores) in enumerate(sorted(repeats.items())):
        rng = np.random.default_rng([seed, index])
        known = scores[:, ~np.isnan(scores).any(axis=0)]
        items = known.shape[1]
        design = Design(Claim.SUPERIOR, MARGIN, items, ALPHA, suite_items=items)
        promoted = 0
        for first in range(0, draws, _ROWS):
            shape = (min(_ROWS, draws - first), *known.shape)
            drawn = rng.permuted(np.broadcast_to(known, shape), axis=1)[:, :4]
            drawn = np.take(drawn, rng.permutation(items), axis=2)
            noises = [drawn[:, arm : arm + 2].var(axis=1, ddof=1) / 2.0 for arm in (0, 2)]
            d = drawn[:, 2:].mean(axis=1) - drawn[:, :2].mean(axis=1)
            promoted += int(judge_batch(d, design, AnswerNoise(*noises)).promoted.sum())
        found[model] = promoted / draws
    return found


def move_chances(chances: Floats, mean: float) -> Floats:
    """Makes all items easier, or harder, alike in log odds, until the mean chance is `mean`."""
    low = -_STEEPEST
    high = _STEEPEST
    odds = special.logit(chances)
    for _ in range(200):
        middle = (low + high) / 2.0
        if float(special.expit(odds + middle).mean()) < mean:
            low = middle
        else:
            high = middle
    return np.asarray(special.expit(odds + (low + high) / 2.0))


def _decide(
    pair: ModelPair,
    suite: AnsweredSuite,
    lift: float,
    draws: int,
    key: Sequence[int],
) -> Mapping[ClaimPopulation, tuple[float, float]]:
    """Returns each claim's share promoted, and its mean number of items. The suite is drawn
    once; its order and all answers are drawn for every comparison.
    """
    n = suite.n
    like = Design(suite.claim, MARGIN, n, ALPHA)
    about_these = replace(like, suite_items=suite.items)
    rng = np.random.default_rng([*key, n, suite.items, suite.answers, round(lift * 1000)])
    drawn = rng.permutation(len(pair.a))[: suite.items]
    ours = pair.a[drawn]
    mean = float(ours.mean()) + theta0_of(suite.claim) + lift
    theirs = move_chances(pair.b[drawn], mean)
    known = list(ClaimPopulation)[: min(suite.answers, 2)]
    found = {population: np.zeros(2) for population in known}
    for first in range(0, draws, _ROWS):
        count = min(_ROWS, draws - first)
        order = rng.permuted(np.tile(np.arange(suite.items), (count, 1)), axis=1)[:, :n]
        a, a_noise = _answer(
            ours[order],
            suite,
            rng,
        )
        b, b_noise = _answer(
            theirs[order],
            suite,
            rng,
        )
        for population in known:
            these = population is ClaimPopulation.THESE
            noise = AnswerNoise(a_noise, b_noise) if these else None
            decisions = judge_batch(b - a, about_these if these else like, noise)
            found[population] += (
                decisions.promoted.sum(),
                decisions.n_used.sum(),
            )
    return {name: (total[0] / draws, total[1] / draws) for name, total in found.items()}


def _answer(
    chances: Floats,
    suite: AnsweredSuite,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Draws every item's mean score, and says how noisy it seems."""
    fresh = rng.binomial(suite.answers, chances) / suite.answers
    noise = fresh * (1.0 - fresh) / max(suite.answers - 1, 1)
    if not suite.copied:
        return fresh, noise
    copied = rng.random(chances.shape) < suite.copied
    once = (rng.random(chances.shape) < chances).astype(np.float64)
    return np.where(copied, once, fresh), np.where(copied, MOST_NOISE, noise)
