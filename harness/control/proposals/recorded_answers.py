"""Recorded answers say how much differences between two models vary, and show items' texts.
These come from the suite's data as long as these are the data that were measured, else from
the stored prompts.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from harness.control.context import Context
from harness.control.proposals.answer_usage import MOST_SAMPLES
from harness.control.proposals.comparison import Comparison, SuiteAnswers
from harness.domain.errors import SwapgateError
from harness.domain.evals.run import Sample
from harness.domain.evals.suite_plan import SuitePlan
from harness.domain.proposals.proposal import Proposal
from harness.gate.planning import budget
from harness.gate.planning.budget import DifferenceSpread
from harness.store.sql.evals import EvalRuns
from harness.store.transaction import Transaction


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
        ours = EvalRuns(tx).samples(runs.incumbent, below=MOST_SAMPLES)
        theirs = EvalRuns(tx).samples(runs.candidate, below=MOST_SAMPLES)
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
