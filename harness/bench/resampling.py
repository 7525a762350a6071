"""Items drawn with replacement, under weights that make the true difference exactly known."""

from collections.abc import Sequence

import numpy as np

from harness.bench.score_matrix import Floats, ModelPair

# Beyond it every weight lies on the best, or the worst, item.
STEEPEST = 5_000.0


def tilt_weights(d: Floats, mean: float) -> Floats:
    """Item weights, exponential in d, under which the mean difference is `mean`."""
    low, high = -STEEPEST, STEEPEST
    for _ in range(200):
        middle = (low + high) / 2.0
        if float(np.sum(_weights(d, middle) * d)) < mean:
            low = middle
        else:
            high = middle
    return _weights(d, (low + high) / 2.0)


def _weights(d: Floats, tilt: float) -> Floats:
    logs = tilt * d
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())


def resample_items(
    pair: ModelPair, mean: float, shape: Sequence[int], rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Scores of both sides on items drawn with replacement, true mean difference `mean`."""
    items = rng.choice(len(pair.d), size=tuple(shape), p=tilt_weights(pair.d, mean))
    return pair.a[items], pair.b[items]
