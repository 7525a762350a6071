"""What judging cost: a judge is a model too, and its calls are paid for."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.domain.evals.run import Sample


@dataclass(frozen=True, slots=True)
class JudgingCost:
    """calls: of the judge. usd: 0 where nobody is asked, None where its price is unknown."""

    calls: int
    usd: float | None


def sum_judging_cost(samples: Sequence[Sample], *, judged: bool) -> JudgingCost:
    """judged: whether the suite has a judge.

    Answers from before calls were counted have none, and nobody knows what they cost.
    """
    if not judged:
        return JudgingCost(0, 0.0)
    calls = sum(sample.judge_calls for sample in samples)
    asked = [sample.judge_cost_usd for sample in samples if sample.judge_calls]
    known = [usd for usd in asked if usd is not None]
    return JudgingCost(calls, math.fsum(known) if asked and len(known) == len(asked) else None)
