"""The scorer `similarity` compares the meaning of answer and target by embeddings."""

import math
from collections.abc import Sequence

from evals.scorers.interface import (
    EMPTY_ANSWER,
    NotJudged,
    Options,
    Scorer,
    ScoreResult,
    score_result,
)
from evals.scorers.judge_protocol import AnswerJudge, target_text, without_a_judge
from evals.suites.items import Item
from harness.domain.errors import InputError


async def similarity(
    judging: AnswerJudge, answer: str, item: Item, options: Options
) -> ScoreResult:
    """The cosine with the nearest target, 0 where it is negative; with a `threshold` 1 from
    there up, else 0. Raises NotJudged.
    """
    if not answer.strip():
        return EMPTY_ANSWER
    targets = item.target if isinstance(item.target, list) else [item.target]
    mine, *theirs = await judging.embed([answer, *map(target_text, targets)])
    near = max(cosine(mine, other_vector) for other_vector in theirs)
    score = min(max(near, 0.0), 1.0)
    if options["threshold"]:
        score = float(score >= options["threshold"])
    return score_result(score, score)


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Computes the cosine of the angle between two vectors. Raises NotJudged for vectors that
    have no angle.
    """
    lengths = math.hypot(*one) * math.hypot(*other)
    if len(one) != len(other) or not (lengths and math.isfinite(lengths)):
        raise NotJudged("the embeddings cannot be compared: their lengths differ, or one is 0")
    return math.fsum(a * b for a, b in zip(one, other, strict=True)) / lengths


def check(item: Item, options: Options) -> str | None:
    threshold = options["threshold"]
    if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise InputError("scorer 'similarity': option 'threshold' must be from 0 to 1")
    if item.target == []:
        raise InputError(f"item {item.id!r}: scorer 'similarity' needs a text as target")
    return None


SIMILARITY = Scorer(
    "similarity", without_a_judge, {"threshold": 0}, check=check, judged=similarity
)
