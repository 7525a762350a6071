"""Adds up costs of eval runs: calls and dollars of a suite's judge (`sum_judging_cost`), and
the cost of runs so far (`sum_cost_so_far`). A missing price makes a sum unknown, never 0.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import compress

from harness.frame.records.transaction import Transaction
from harness.gate.run import AnswerColumns
from harness.providers.models.model_figures import find_price
from harness.providers.records import Providers
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns


@dataclass(frozen=True, slots=True)
class JudgingCost:
    calls: int  # of the judge
    usd: float | None  # 0 without a judge, None if its price is unknown


def sum_judging_cost(answers: AnswerColumns, *, judged: bool) -> JudgingCost:
    """Sums the calls of a run's judge, and their cost. judged: whether the suite has a judge.

    Answers from before Swapgate counted judge calls have no calls and an unknown cost.
    """
    if not judged:
        return JudgingCost(0, 0.0)
    calls = sum(answers.judge_calls)
    costs = list(compress(answers.judge_cost_usd, answers.judge_calls))
    known = [usd for usd in costs if usd is not None]
    return JudgingCost(calls, math.fsum(known) if costs and len(known) == len(costs) else None)


def sum_cost_so_far(tx: Transaction, runs: Iterable[str]) -> float | None:
    providers, targets = Providers(tx).all(), Routing(tx).targets()
    usd = 0.0
    for run in runs:
        answers, cost, _, _ = EvalRuns(tx).progress(run)
        target = targets.get(EvalRuns(tx).get(run).target)
        if answers and (target is None or find_price(providers, target.name) is None):
            return None
        usd += cost
    return usd
