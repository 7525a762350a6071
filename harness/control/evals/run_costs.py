"""Adds up costs of eval runs: calls and dollars of a suite's judge (`sum_judging_cost`), and
what was saved where the gate decided before all planned answers were asked for
(`compute_savings`), and what runs have cost so far (`sum_cost_so_far`). A missing price makes a
sum unknown, never 0.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from statistics import fmean

from harness.control.routing.monthly_bill import find_price
from harness.domain.evals.run import AnswerColumns
from harness.domain.formatting import format_usd
from harness.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class JudgingCost:
    """What a judge was asked, and what that cost."""

    calls: int  # of the judge
    usd: float | None  # 0 where nobody is asked, None where its price is unknown


def sum_judging_cost(answers: AnswerColumns, *, judged: bool) -> JudgingCost:
    """Sums the calls of a run's judge, and their cost. judged: whether the suite has a judge.

    Answers from before calls were counted have none, and nobody knows what they cost.
    """
    if not judged:
        return JudgingCost(0, 0.0)
    calls = sum(answers.judge_calls)
    asked = list(compress(answers.judge_cost_usd, answers.judge_calls))
    known = [usd for usd in asked if usd is not None]
    return JudgingCost(calls, math.fsum(known) if asked and len(known) == len(asked) else None)


def sum_cost_so_far(tx: Transaction, runs: Iterable[str]) -> float | None:
    """Sums what the stored answers of runs have cost; None where a model has no price."""
    targets = tx.routing.targets()
    usd = 0.0
    for run in runs:
        answers, cost, _, _ = tx.runs.progress(run)
        if answers and find_price(tx, targets.get(tx.runs.get(run).target)) is None:
            return None
        usd += cost
    return usd


@dataclass(frozen=True)
class ArmCosts:
    """Holds what the answers of one arm on one suite cost, and how many were planned."""

    planned: int  # its answers at most
    costs_usd: Sequence[float | None]  # of those that were given


@dataclass(frozen=True)
class Savings:
    """Sums what the early decision of a gate saved on both sides: `answers` of `planned` were
    asked for.
    """

    answers: int
    planned: int
    # saved_usd, planned_usd: estimates, by what each side's answers cost on average; None where
    # a price is unknown, or a side has no answer.
    saved_usd: float | None
    planned_usd: float | None

    @property
    def text(self) -> str:
        """Says in words: `412 of 1,000 planned answers were asked for; saved about $1.20 of
        $2.05`.
        """
        asked = f"{self.answers:,} of {self.planned:,} planned answers were asked for"
        if self.saved_usd is None or self.planned_usd is None:
            return f"{asked}; what that saved is not known: a price is missing"
        return (
            f"{asked}; saved about {format_usd(self.saved_usd)} of "
            f"{format_usd(self.planned_usd)}"
        )


def compute_savings(arms: Sequence[ArmCosts]) -> Savings | None:
    """Computes what a gate saved by deciding early; None when everything planned was asked."""
    asked = sum(min(len(arm.costs_usd), arm.planned) for arm in arms)
    planned = sum(arm.planned for arm in arms)
    if asked >= planned:
        return None
    usd = [_mean_usd(arm.costs_usd) for arm in arms]
    prices = [price for price in usd if price is not None]
    if len(prices) < len(arms):
        return Savings(asked, planned, None, None)
    open_usd = sum(
        price * max(0, arm.planned - len(arm.costs_usd))
        for price, arm in zip(prices, arms, strict=True)
    )
    whole_usd = sum(
        price * max(arm.planned, len(arm.costs_usd))
        for price, arm in zip(prices, arms, strict=True)
    )
    return Savings(asked, planned, open_usd, whole_usd)


def _mean_usd(costs_usd: Sequence[float | None]) -> float | None:
    known = [cost for cost in costs_usd if cost is not None]
    return fmean(known) if known and len(known) == len(costs_usd) else None
