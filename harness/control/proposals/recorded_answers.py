"""Recorded answers say what the next comparison on a suite may take, and how much differences
vary. Item texts come from the suite's data as long as these are the data that were measured,
else from the stored prompts.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Final

from harness.control.context import Context
from harness.control.evals.run_costs import sum_judging_cost
from harness.control.proposals.comparison import Comparison, SuiteAnswers
from harness.control.routing import monthly_bill
from harness.domain.errors import SwapgateError
from harness.domain.evals.run import AnswerColumns, Sample, SampleError, is_nothing_readable
from harness.domain.evals.suite_plan import SuitePlan
from harness.domain.proposals.proposal import Proposal
from harness.domain.routing.target import Target
from harness.gate.planning import budget
from harness.gate.planning.budget import DifferenceSpread, MeanUsage
from harness.store.transaction import Transaction

# Enough to know a mean; reading every stored answer would take longer than it tells.
MOST_SAMPLES: Final = 500


def mean_usage(tx: Transaction, plan: SuitePlan, target: Target | None) -> MeanUsage | None:
    """Computes the means of the newest run with answers; None where there is none. A run in
    which nothing can be read tells nothing of the tokens that answers take.
    """
    if target is None:
        return None
    for run in tx.runs.of_suite(target.id, plan.suite, plan.suite_digest):
        answered = [
            sample
            for sample in tx.runs.samples(run.id, below=MOST_SAMPLES)
            if sample.error is not SampleError.INFRA
        ]
        if answered and not is_nothing_readable((one.error, one.rule) for one in answered):
            judged = tx.suites.get(plan.suite_digest).judged
            return _means(answered, judged=judged)
    return None


def _means(samples: Sequence[Sample], *, judged: bool) -> MeanUsage:
    costs = [sample.cost_usd for sample in samples if sample.cost_usd is not None]
    judging = sum_judging_cost(AnswerColumns.from_samples(samples), judged=judged)
    return MeanUsage(
        answers=len(samples),
        input_tokens=fmean(sample.input_tokens for sample in samples),
        output_tokens=fmean(sample.output_tokens for sample in samples),
        cost_usd=fmean(costs) if len(costs) == len(samples) else None,
        duration_s=fmean(sample.duration_s for sample in samples),
        judge_usd=None if judging.usd is None else judging.usd / len(samples),
    )


def usage_at_price(
    ctx: Context, tx: Transaction, target: Target | None, of: MeanUsage
) -> MeanUsage:
    """Prices a target as if it took the same tokens and time, and the judge as much."""
    price = monthly_bill.find_list_price(ctx, tx, target)
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
    """Guesses what an answer takes before any was measured, from the items' texts and list
    prices; None for a suite whose texts are not read.
    """
    tokens = ctx.suites.guess_tokens(plan.suite)
    if tokens is None:
        return None
    judge = ctx.judges.get(plan.suite)
    judge_usd: float | None = 0.0
    if judge is not None:
        price = monthly_bill.find_list_price(ctx, tx, judge)
        read = sum(tokens) + GUESSED_RUBRIC_TOKENS
        judge_usd = price.cost_usd(read, GUESSED_VERDICT_TOKENS) if price else None
    duration_s = GUESSED_START_S + GUESSED_TOKEN_S * tokens[1]
    unpriced = MeanUsage(0, *tokens, None, duration_s, judge_usd)
    return usage_at_price(ctx, tx, target, unpriced)


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


def measure_spread(
    tx: Transaction, plan: SuitePlan, incumbent: str, earlier: Sequence[Proposal]
) -> DifferenceSpread | None:
    """Measures the newest comparison on this suite; one with the same incumbent goes first."""
    for proposal in sorted(earlier, key=lambda former: former.incumbent != incumbent):
        registered = {
            registered_plan.suite: registered_plan for registered_plan in proposal.plans
        }.get(plan.suite)
        runs = proposal.runs.get(plan.suite)
        if registered is None or runs is None or registered.suite_digest != plan.suite_digest:
            continue
        ours = tx.runs.samples(runs.incumbent, below=MOST_SAMPLES)
        theirs = tx.runs.samples(runs.candidate, below=MOST_SAMPLES)
        spread = budget.measure_spread(_differences(registered, ours, theirs))
        if spread is not None:
            return spread
    return None


def _differences(
    plan: SuitePlan, ours: Sequence[Sample], theirs: Sequence[Sample]
) -> list[list[float]]:
    """Per unit, per epoch; only answers that both sides have a score of."""
    scores = {(s.item, s.epoch): s.strict for s in ours if s.strict is not None}
    units: dict[int, dict[int, list[float]]] = {}
    for sample in theirs:
        score = scores.get((sample.item, sample.epoch))
        if score is not None and sample.strict is not None:
            epochs = units.setdefault(plan.units_in(sample.position), {})
            epochs.setdefault(sample.epoch, []).append(sample.strict - score)
    return [[fmean(epoch) for epoch in epochs.values()] for epochs in units.values()]


# A shorter beginning that all prompts share hides nothing: of whole sentences, and where their
# first sentence begins alike, of whole words.
SHORT_START: Final = 12
SHORT_WORDS: Final = 60
SENTENCE_ENDS: Final = ("\n", ". ", "? ", "! ", ": ", '"', "“")
WORD_ENDS: Final = (" ", "\t", "'")


@dataclass(frozen=True, slots=True)
class ItemText:
    question: str
    expected: str  # empty where it is unknown


@dataclass(frozen=True, slots=True)
class SuiteTexts:
    items: Mapping[str, ItemText]
    start: str  # what every question begins with; left out of each
    missing: str  # why no expected answer is known; empty where one is

    def find(self, item: str) -> ItemText:
        return self.items.get(item, ItemText("", ""))


def load_item_texts(ctx: Context, comparison: Comparison) -> Mapping[str, SuiteTexts]:
    return {side.plan.suite: _load_suite(ctx, side) for side in comparison.suites}


def strip_common_start(questions: Mapping[str, str]) -> tuple[Mapping[str, str], str]:
    """Returns the questions without the sentences that all of them begin with, and those; where
    a long first sentence begins alike, without its words. One question alone keeps everything.
    """
    texts = [*set(questions.values())]
    start = os.path.commonprefix(texts) if len(texts) > 1 else ""  # noqa: RUF071 - no paths
    sentences, words = _end_of(start, SENTENCE_ENDS), _end_of(start, WORD_ENDS)
    start = start[: sentences if sentences >= SHORT_START else words]
    if len(start) < (SHORT_START if sentences >= SHORT_START else SHORT_WORDS):
        return questions, ""
    return {item: text[len(start) :] for item, text in questions.items()}, start


def _end_of(text: str, marks: tuple[str, ...]) -> int:
    """The place after the last of the marks; 0 without one."""
    return max(text.rfind(mark) + len(mark) if mark in text else 0 for mark in marks)


def _load_suite(ctx: Context, side: SuiteAnswers) -> SuiteTexts:
    prompts = {sample.item: sample.prompt for sample in (*side.candidate, *side.incumbent)}
    shown, missing = _read_suite(ctx, side, prompts)
    stored = {item: shown[item][0] if item in shown else prompts[item] for item in prompts}
    questions, start = strip_common_start(stored)
    return SuiteTexts(
        {
            item: ItemText(question, shown[item][1] if item in shown else "")
            for item, question in questions.items()
        },
        start,
        missing,
    )


def _read_suite(
    ctx: Context, side: SuiteAnswers, items: Iterable[str]
) -> tuple[Mapping[str, tuple[str, str]], str]:
    """(input, expected answer) by item, and why an item lacks them."""
    suite = side.plan.suite
    try:
        if ctx.suites.pin(suite).data_sha256 != side.pin.data_sha256:
            return {}, "the suite's data have changed since"
        shown = {item: ctx.suites.shown(suite, item) for item in items}
    except SwapgateError as error:
        return {}, str(error)
    if not any(expected for _, expected in shown.values()):
        return shown, "the suite's items name none"
    return shown, ""
