"""Score matrices (models by items), pairs of models, and resampling with a known truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.domain.errors import InputError

Floats = NDArray[np.float64]
BINARY = Path(__file__).parent / "suite_binary.csv"
GRADED = Path(__file__).parent / "suite_graded.csv"
CLOSE = 0.12


@dataclass(frozen=True)
class ModelPair:
    """Both sides' scores over the same items."""

    name: str
    a: Floats
    b: Floats

    @property
    def d(self) -> Floats:
        return self.b - self.a


def load(path: Path) -> dict[str, Floats]:
    """`model,0110…` (a digit per item) or `model,55,90,…` (0 to 100); # begins a comment."""
    rows: dict[str, Floats] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        model, _, scores = line.partition(",")
        try:
            values = _scores(scores)
        except ValueError as error:
            raise InputError(f"{path}:{number}: {error}") from None
        rows[model] = values
    if len({len(row) for row in rows.values()}) != 1:
        raise InputError(f"{path}: every model needs the same number of items")
    return rows


def _scores(text: str) -> Floats:
    fields = [int(field) for field in (text.split(",") if "," in text else list(text))]
    top = 100.0 if "," in text else 1.0
    scores = np.array(fields, dtype=np.float64) / top
    if not ((scores >= 0.0) & (scores <= 1.0)).all():
        raise ValueError("scores are digits 0 and 1, or numbers from 0 to 100")
    return scores


def close_pairs(matrix: dict[str, Floats], count: int, seed: int = 7) -> list[ModelPair]:
    """Pairs of models whose means are within .12, chosen by seed."""
    models = sorted(matrix)
    found = [
        ModelPair(f"{one}/{other}", matrix[one], matrix[other])
        for one in models
        for other in models
        if one != other and abs(float(np.mean(matrix[other] - matrix[one]))) <= CLOSE
    ]
    if len(found) < count:
        raise InputError(f"only {len(found)} pairs of models are within {CLOSE}")
    chosen = np.random.default_rng(seed).choice(len(found), size=count, replace=False)
    return [found[index] for index in chosen]


def tilted(d: Floats, mean: float) -> Floats:
    """Item weights, exponential in d, under which the mean difference is exactly `mean`."""
    low, high = -200.0, 200.0
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


def resample(
    pair: ModelPair, mean: float, shape: Sequence[int], rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Scores of both sides on items drawn with replacement, true mean difference `mean`."""
    items = rng.choice(len(pair.d), size=tuple(shape), p=tilted(pair.d, mean))
    return pair.a[items], pair.b[items]
