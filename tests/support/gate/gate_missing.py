"""GateBench with missing scores: whether the gate errs where a share of one model's scores is
lost, at random or by somebody who knows all scores and hides what speaks against an error
(statistics.md §1.1).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

from benchmarks.gate.gate_benchmark import resample_items
from benchmarks.gate.gate_rules import ALPHA, MARGIN
from benchmarks.gate.score_matrix import Floats, ModelPair
from harness.gate.offline.design import Design
from harness.gate.offline.sequential import judge_batch
from harness.gate.suite_plan import Claim

MISSING_SHARES: Final = (0.05, 0.2, 0.5)
ARMS: Final = ("incumbent", "candidate")
MOST_WRONG: Final = 0.05


@dataclass(frozen=True)
class MissingRow:
    """The worst of the pairs. passed: of candidates at the null. failed: of equal ones."""

    claim: Claim
    arm: str  # whose scores are missing
    share: float
    hidden: str
    passed: float
    failed: float


@dataclass(frozen=True)
class _Loss:
    n: int
    share: float
    arm: str
    chosen: bool  # by somebody who knows all scores

    def draw(
        self,
        mean: float,
        sign: float,
        pair: ModelPair,
        rows: int,
        rng: np.random.Generator,
    ) -> Floats:
        """Draws differences.

        Args:
            sign: 1 with the missing scores against the candidate, -1 with them for it.
        """
        a, b = resample_items(
            pair,
            mean,
            (rows, self.n),
            rng,
        )
        speaks = (sign * (b - a) < 0.0) & self.chosen
        order = np.argsort(rng.random(a.shape) - speaks, axis=-1)
        hidden = np.argsort(order, axis=-1) < self.share * self.n
        a = np.where(hidden & (self.arm == ARMS[0]), float(sign > 0.0), a)
        return np.where(hidden & (self.arm == ARMS[1]), float(sign < 0.0), b) - a


def measure_missing(
    pairs: Sequence[ModelPair],
    claim: Claim,
    *,
    n: int,
    replications: int,
    seed: int = 11,
) -> Iterator[MissingRow]:
    design = Design(claim, MARGIN, n, ALPHA)
    for share, arm, chosen in product(MISSING_SHARES, ARMS, (False, True)):
        loss = _Loss(n, share, arm, chosen)
        found = []
        for index, pair in enumerate(pairs):
            rng = np.random.default_rng([seed, index, n, round(share * 100), ARMS.index(arm)])
            null, equal = (
                judge_batch(loss.draw(mean, sign, pair, replications, rng), design)
                for mean, sign in ((design.theta0, 1.0), (0.0, -1.0))
            )
            found.append((null.promoted.mean(), equal.rejected.mean()))
        passed, failed = np.array(found).T
        rates = float(passed.max()), float(failed.max())
        yield MissingRow(claim, arm, share, "by score" if chosen else "at random", *rates)
