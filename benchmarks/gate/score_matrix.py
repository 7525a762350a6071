"""Score matrices (models by items) for GateBench: reads them from files (`load_matrix`),
generates them (`generate_scores`), and picks pairs of models with close means (`close_pairs`).

Generated scores come from a logistic item-response model. Generated models with close means
correlate as little as in published benchmarks, because the correlation decides how many items a
rule needs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from harness.frame.errors import InputError

MODELS: Final = 16
ITEMS: Final = 800
Floats = NDArray[np.float64]
CLOSE = 0.12
# A pair needs a difference below and a difference above these, so that weights reach every
# truth.
REACH = (-0.05, 0.10)
UNSCORED = "-"
HEADER = "model,"


@dataclass(frozen=True)
class ScoreRow:
    """One model's mean score of each item, from 0 to 1.

    A missing score counts against a promotion (statistics.md §1.1): 1 for the incumbent, 0 for
    the candidate.
    """

    as_incumbent: Floats
    as_candidate: Floats


@dataclass(frozen=True)
class ScoreMatrix:
    """Several models' scores on the same items."""

    name: str
    rows: Mapping[str, ScoreRow]  # by model, all over the same items


@dataclass(frozen=True)
class ModelPair:
    """The scores of two models on the same items."""

    name: str
    a: Floats  # the incumbent's
    b: Floats  # the candidate's

    @property
    def d(self) -> Floats:
        return self.b - self.a


def load_matrix(path: Path) -> ScoreMatrix:
    """Loads a score matrix. Raises as `load_epochs`."""
    epochs = load_epochs(path)
    return ScoreMatrix(path.stem, {model: row(scores) for model, scores in epochs.items()})


def load_epochs(path: Path) -> dict[str, Floats]:
    """Loads each model's scores (epochs by items; NaN for a missing score). The file has a line
    for each model, or for each model and epoch.

    Formats: `model,0110…` has a digit per item, `model,2,01-0…` the digits of epoch 2.
    `model,55,90,…` has numbers from 0 to 100; from 0 to 1 if the file has a decimal point, or
    only 0 and 1. `-` is a missing score. A first line that begins with `model,` is a header;
    `#` begins a comment. Raises InputError with file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text: {error}") from None
    lines = [
        (number, line.strip())
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.startswith("#")
    ]
    if lines and lines[0][1].lower().startswith(HEADER):
        del lines[0]
    top = _top([line.partition(",")[2] for _, line in lines])
    epochs: dict[str, list[Floats]] = {}
    items: int | None = None
    for number, line in lines:
        model, _, rest = line.partition(",")
        try:
            scores = _scores(rest, top)
        except ValueError as error:
            raise InputError(f"{path}:{number}: {error}") from None
        items = items or len(scores)
        if len(scores) != items:
            raise InputError(
                f"{path}:{number}: {len(scores)} items, and {items} in the lines above"
            )
        epochs.setdefault(model, []).append(scores)
    if not epochs:
        raise InputError(f"{path}: there is no line `model,scores` in it")
    if len({len(epoch) for epoch in epochs.values()}) != 1:
        raise InputError(f"{path}: every model needs the same number of epochs")
    return {model: np.array(epoch) for model, epoch in epochs.items()}


def row(epochs: Floats) -> ScoreRow:
    """Averages a model's scores over the epochs.

    Args:
        epochs: epochs by items.
    """
    return ScoreRow(
        np.nan_to_num(epochs, nan=1.0).mean(axis=0),
        np.nan_to_num(epochs, nan=0.0).mean(axis=0),
    )


def _top(rows: Sequence[str]) -> float:
    """Returns the best score of rows of numbers: 1 or 100."""
    marks = {field.strip() for row in rows for field in row.split(",")}
    return 1.0 if marks <= {"0", "1", UNSCORED} or "." in "".join(rows) else 100.0


def _scores(text: str, top: float) -> Floats:
    fields = [field.strip() for field in text.split(",")]
    if len(fields) == 2 and _digits(fields[1]) and len(fields[1]) > 1:
        fields = fields[1:]
    if len(fields) == 1 and _digits(fields[0]):
        fields = list(fields[0])
        top = 1.0
    values = [float("nan") if field == UNSCORED else float(field) / top for field in fields]
    scores = np.array(values, dtype=np.float64)
    given = scores[~np.isnan(scores)]
    if "nan" in text.lower() or not ((given >= 0.0) & (given <= 1.0)).all():
        raise ValueError("scores are digits 0 and 1, or numbers from 0 to 100")
    return scores


def _digits(field: str) -> bool:
    return bool(field) and set(field) <= {"0", "1", UNSCORED}


def close_pairs(
    matrix: ScoreMatrix,
    count: int,
    seed: int = 7,
) -> list[ModelPair]:
    """Draws at most `count` pairs of models with means within CLOSE. Raises InputError."""
    models = sorted(matrix.rows)
    pairs = [
        ModelPair(f"{one}/{other}", matrix.rows[one].as_incumbent, candidate)
        for one in models
        for other in models
        if one != other
        and _usable((candidate := matrix.rows[other].as_candidate), matrix.rows[one])
    ]
    if not pairs:
        raise InputError(
            f"{matrix.name}: no two models are within {CLOSE} of each other and differ on "
            "items either way; GateBench needs such pairs"
        )
    chosen = np.random.default_rng(seed).permutation(len(pairs))[:count]
    return [pairs[index] for index in chosen]


def _usable(candidate: Floats, incumbent: ScoreRow) -> bool:
    d = candidate - incumbent.as_incumbent
    low, high = REACH
    return abs(float(d.mean())) <= CLOSE and float(d.min()) < low and float(d.max()) > high


class ScoreKind(StrEnum):
    """The kinds of scores in a matrix. pass_fail: 0 or 1. epochs: means of five answers.
    graded: most scores are near 0 or 1. rare: an easy suite with rare, but whole losses.
    """

    PASS_FAIL = "pass_fail"  # noqa: S105 - a kind of scores, not a secret
    EPOCHS = "epochs"
    GRADED = "graded"
    RARE = "rare"


def generate_scores(kind: ScoreKind, seed: int) -> ScoreMatrix:
    """Generates scores of MODELS by ITEMS, which depend only on kind and seed."""
    rng = np.random.default_rng([seed, list(ScoreKind).index(kind)])
    scores = (_simulate_scores(kind, chance, rng) for chance in _draw_chances(kind, rng))
    return _generated(f"generated_{kind.value}_{seed}", scores)


def _generated(name: str, models: Iterable[Floats]) -> ScoreMatrix:
    """Builds a matrix.

    Args:
        models: each model's scores, epochs by items.
    """
    return ScoreMatrix(name, {f"g{index:02d}": row(one) for index, one in enumerate(models)})


def generate_chances(seed: int) -> ScoreMatrix:
    """Generates a matrix of the chances that a model passes an item, instead of scores."""
    rng = np.random.default_rng([seed, list(ScoreKind).index(ScoreKind.PASS_FAIL)])
    chances = _draw_chances(ScoreKind.PASS_FAIL, rng)
    return _generated(f"generated_chances_{seed}", chances[:, None])


def _draw_chances(kind: ScoreKind, rng: np.random.Generator) -> Floats:
    ability = rng.normal(0.0, 1.5, (MODELS, 1)) + (6.0 if kind is ScoreKind.RARE else 0.0)
    difficulty = rng.normal(0.0, 4.0, (1, ITEMS))
    # Models find different items hard, so two models of equal ability differ on items.
    own = rng.normal(0.0, 0.8, (MODELS, ITEMS))
    return np.asarray(1.0 / (1.0 + np.exp(-1.3 * (ability - difficulty + own))))


def _simulate_scores(
    kind: ScoreKind,
    right: Floats,
    rng: np.random.Generator,
) -> Floats:
    if kind is ScoreKind.GRADED:
        spread = 0.6
        return np.asarray(rng.beta(spread * right + 0.02, spread * (1.0 - right) + 0.02))[None]
    epochs = 5 if kind is ScoreKind.EPOCHS else 1
    passed = rng.random((epochs, len(right))) < right
    if kind is ScoreKind.RARE:
        graded = np.where(passed, rng.uniform(0.9, 1.0, passed.shape), 0.0)
        return np.asarray(graded)
    return passed.astype(np.float64)
