"""Says what an answer on a suite takes in tokens, money and time, measured or guessed."""

import math
from contextlib import suppress
from dataclasses import replace
from statistics import fmean
from typing import Final

from harness.control.context import Context
from harness.control.evals.run_costs import sum_judging_cost
from harness.control.providers import prices
from harness.domain.errors import SignatureInvalid
from harness.domain.evals.run import AnswerColumns, is_nothing_readable
from harness.domain.evals.suite_plan import SuitePlan
from harness.domain.routing.target import Target
from harness.gate.planning.budget import MeanUsage
from harness.store.sql.evals import EvalRuns, Suites
from harness.store.transaction import Transaction

# Enough to know a mean; reading every stored answer would take longer than it tells.
MOST_SAMPLES: Final = 500


def mean_usage(tx: Transaction, plan: SuitePlan, target: Target | None) -> MeanUsage | None:
    """Computes the means of the newest run with answers; None where there is none. A run in
    which nothing can be read tells nothing of the tokens that answers take, and neither does a
    row whose signature does not hold: the estimate goes without it.
    """
    if target is None:
        return None
    with suppress(SignatureInvalid):
        return _measured_usage(tx, plan, target)
    return None


def _measured_usage(tx: Transaction, plan: SuitePlan, target: Target) -> MeanUsage | None:
    for run in EvalRuns(tx).of_suite(target.id, plan.suite, plan.suite_digest):
        answers = EvalRuns(tx).figures(run.id, below=MOST_SAMPLES).answered
        readable = not is_nothing_readable(zip(answers.error, answers.rule, strict=True))
        if len(answers) and readable:
            judged = Suites(tx).get(plan.suite_digest).judged
            return _means(answers, judged=judged)
    return None


def _means(answers: AnswerColumns, *, judged: bool) -> MeanUsage:
    costs = [cost for cost in answers.cost_usd if cost is not None]
    judging, count = sum_judging_cost(answers, judged=judged), len(answers)
    return MeanUsage(
        answers=count,
        input_tokens=fmean(answers.input_tokens),
        output_tokens=fmean(answers.output_tokens),
        cost_usd=fmean(costs) if len(costs) == count else None,
        duration_s=fmean(answers.duration_s),
        judge_usd=None if judging.usd is None else judging.usd / count,
    )


def usage_at_price(
    ctx: Context, tx: Transaction, target: Target | None, of: MeanUsage
) -> MeanUsage:
    """Prices a target as if it took the same tokens and time, and the judge as much."""
    price = prices.find_list_price(ctx, tx, target)
    per_answer = price.cost_usd(of.input_tokens, of.output_tokens) if price else None
    return replace(of, answers=0, cost_usd=per_answer)


# An answer's time before it was ever measured: to the first token, and for each token.
GUESSED_START_S: Final = 0.5
GUESSED_TOKEN_S: Final = 0.02
# What a judge writes, and reads beside the question and the answer.
GUESSED_VERDICT_TOKENS: Final = 64
GUESSED_RUBRIC_TOKENS: Final = 300


def guess_usage(
    ctx: Context, tx: Transaction, plan: SuitePlan, target: Target | None
) -> MeanUsage | None:
    """Guesses from the items' texts and list prices; None where texts are not read."""
    tokens = ctx.suites.guess_tokens(plan.suite)
    if tokens is None:
        return None
    judge = ctx.judges.get(plan.suite)
    judge_usd: float | None = 0.0
    if judge is not None:
        price = prices.find_list_price(ctx, tx, judge)
        read = sum(tokens) + GUESSED_RUBRIC_TOKENS
        judge_usd = price.cost_usd(read, GUESSED_VERDICT_TOKENS) if price else None
    duration_s = GUESSED_START_S + GUESSED_TOKEN_S * tokens[1]
    unpriced = MeanUsage(0, *tokens, None, duration_s, judge_usd)
    return usage_at_price(ctx, tx, target, unpriced)


def bound_tokens(ours: MeanUsage | None, plan: SuitePlan, ceiling: float) -> int | None:
    """Returns the most tokens that a run of unknown price may take: `ceiling` times those of
    the incumbent. None where the incumbent's are unknown. ours: the incumbent's answer.
    """
    if ours is None:
        return None
    each = max(1.0, ours.input_tokens + ours.output_tokens)
    return math.ceil(ceiling * each * plan.planned_items * plan.epochs)


def estimate_sides(
    ctx: Context, tx: Transaction, plan: SuitePlan, arms: tuple[Target, Target | None]
) -> tuple[MeanUsage | None, MeanUsage | None]:
    """Estimates what an answer of either model takes. A candidate without answers is priced by
    those of the incumbent, and an incumbent without answers by the texts of the items.
    """
    ours, theirs = (mean_usage(tx, plan, arm) for arm in arms)
    if ours is None:
        ours = guess_usage(ctx, tx, plan, arms[0])
    if ours is not None and theirs is None:
        theirs = usage_at_price(ctx, tx, arms[1], ours)
    return ours, theirs
