"""Score matrices made up from a logistic item-response model, of four kinds.

Spreads are set so that accuracies and disagreement (.18 for models within 5 points) lie where
published benchmarks have them: the more two models disagree, the more items any rule needs.
"""

from enum import StrEnum
from typing import Final

import numpy as np

from harness.bench.score_matrix import Floats, ScoreMatrix, row

MODELS: Final = 16
ITEMS: Final = 800


class ScoreKind(StrEnum):
    """pass_fail: 0 or 1. epochs: means of five answers. graded: most scores near 0 or 1.

    rare: an easy suite, on which models hardly differ, with heavy losses.
    """

    PASS_FAIL = "pass_fail"  # noqa: S105 - a kind of scores, not a secret
    EPOCHS = "epochs"
    GRADED = "graded"
    RARE = "rare"


def generate_scores(kind: ScoreKind, seed: int) -> ScoreMatrix:
    """MODELS by ITEMS; the same for the same kind and seed."""
    rng = np.random.default_rng([seed, list(ScoreKind).index(kind)])
    ability = rng.normal(0.0, 1.5, (MODELS, 1)) + (6.0 if kind is ScoreKind.RARE else 0.0)
    difficulty = rng.normal(0.0, 4.0, (1, ITEMS))
    # What a model finds hard is partly its own: two of equal ability differ on items.
    own = rng.normal(0.0, 0.8, (MODELS, ITEMS))
    right = 1.0 / (1.0 + np.exp(-1.3 * (ability - difficulty + own)))
    return ScoreMatrix(
        f"generated_{kind.value}_{seed}",
        {
            f"g{index:02d}": row(_simulate_scores(kind, chance, rng))
            for index, chance in enumerate(right)
        },
    )


def _simulate_scores(kind: ScoreKind, right: Floats, rng: np.random.Generator) -> Floats:
    if kind is ScoreKind.GRADED:
        spread = 0.6
        return np.asarray(rng.beta(spread * right + 0.02, spread * (1.0 - right) + 0.02))[None]
    epochs = 5 if kind is ScoreKind.EPOCHS else 1
    passed = rng.random((epochs, len(right))) < right
    if kind is ScoreKind.RARE:
        graded = np.where(passed, rng.uniform(0.9, 1.0, passed.shape), 0.0)
        return np.asarray(graded)
    return passed.astype(np.float64)
