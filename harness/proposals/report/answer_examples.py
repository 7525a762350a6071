"""Adds to the document of a comparison its most telling answers, and the steps to check it.

Loads items' texts from the suite's data if the data have not changed since the measurement,
otherwise from stored prompts. The rest of the document is in `document`.
"""

import os.path
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.frame.errors import SwapproofError
from harness.frame.formatting import format_points, format_score
from harness.gate.verdict import Verdict
from harness.proposals.context import ProposalsContext
from harness.proposals.report import findings
from harness.proposals.report.blocks import (
    Blocks,
    Code,
    Commands,
    Heading,
    Quotation,
    Sentence,
    Table,
    mark_code,
)
from harness.proposals.report.comparison import Comparison, SuiteAnswers
from harness.proposals.report.content import Report, TellingAnswer, replay_variables
from harness.proposals.report.document import describe_comparison


def describe_report(report: Report) -> Blocks:
    """Builds the whole document of a report: the comparison, answers, and how to check it."""
    yield from describe_comparison(
        report.comparison,
        standalone=report.standalone,
        next_step=report.next_step,
        file=report.trial.file if report.trial is not None else "",
    )
    yield from _build_telling_answers(report.telling)
    yield from _build_check(report)


# A text with only these characters needs no quotation: a table shows it.
_TABLE_TEXT: Final = re.compile(r"[\w .,:+%$–-]{1,40}")


def _build_telling_answers(telling: Sequence[TellingAnswer]) -> Blocks:
    """Shows the most telling answers, losses first, without the prompts' common start."""
    if not telling:
        return
    losses = sum(answer.candidate_score < answer.incumbent_score for answer in telling)
    yield Heading("The most telling answers")
    prompts: dict[str, dict[str, str]] = {}
    for answer in telling:
        prompts.setdefault(answer.suite, {})[answer.item] = answer.prompt
    starts = {suite: strip_common_start(texts)[1] for suite, texts in prompts.items()}
    wins = len(telling) - losses
    note = f"{losses} losses and {wins} wins of the candidate, the largest of each."
    if any(starts.values()):
        note += " The common start of a suite's prompts is left out."
    yield Sentence(note)
    for answer in telling:
        yield from _build_telling_answer(answer, answer.prompt[len(starts[answer.suite]) :])


def _build_telling_answer(answer: TellingAnswer, prompt: str) -> Blocks:
    """Shows one answer. Short answers share a table; others get a quotation each.

    Args:
        prompt: without the common start.
    """
    change = format_points(answer.candidate_score - answer.incumbent_score)
    broken = f", broken rule: {answer.rule}" if answer.rule else ""
    yield Heading(f"{answer.item} ({answer.suite}): {change} points{broken}", 3)
    yield Quotation("", prompt.strip())
    incumbent_score = format_score(answer.incumbent_score, None)
    candidate_score = format_score(answer.candidate_score, None)
    answers = (
        ("expected", answer.expected),
        (f"incumbent: {incumbent_score}", answer.incumbent),
        (f"candidate: {candidate_score}", answer.candidate),
    )
    if all(_TABLE_TEXT.fullmatch(text) for _, text in answers):
        yield Table([head for head, _ in answers], [[text for _, text in answers]])
        return
    for head, text in answers:
        if text:
            yield Quotation(head.capitalize(), text)


def _build_check(report: Report) -> Blocks:
    """Shows the commands that check the verdict, or measure anew."""
    yield Heading("To check it")
    verdict = report.comparison.verdict
    if verdict is not None:
        yield from _build_replay(report, verdict)
    if report.trial is not None:
        yield Commands([report.trial.command])
        asks = "asks both models again, if you first delete the folder "
        yield Sentence((asks, Code(str(report.trial.folder)), " of the answers."))
        return
    command = findings.build_rerun_command(report.comparison)
    if not command:
        return
    yield Commands([command])
    policy = Code(report.comparison.proposal.policy.name)
    earlier = ""
    if any(plan.look > 1 for plan in report.comparison.proposal.plans):
        earlier = " It does not know earlier looks, so alpha is that of a first look."
    introduction = "asks both models again, with the suites and the policy "
    yield Sentence((introduction, policy, f" of your configuration.{earlier}"))


def _build_replay(report: Report, verdict: Verdict) -> Blocks:
    """Shows how to decide again from the stored answers, if they were kept."""
    if report.standalone and report.kept is None:
        yield Sentence(
            mark_code(
                "The answers were not kept. `swapproof gate run … --keep FOLDER` keeps "
                "answers, so that `swapproof gate replay` can decide again from them."
            )
        )
        return
    arguments = ["swapproof", "gate", "replay", verdict.id]
    environment = "" if report.kept is None else f"{replay_variables(report.kept)} "
    yield Commands([environment + shlex.join(arguments)])
    yield Sentence("decides again from the stored answers, and must give the same bytes.")


# A report omits a common start of at least this length: of whole sentences, or of whole words
# inside a common first sentence.
SHORT_START: Final = 12
SHORT_WORDS: Final = 60
SENTENCE_ENDS: Final = ("\n", ". ", "? ", "! ", ": ", '"', "“")
WORD_ENDS: Final = (" ", "\t", "'")


@dataclass(frozen=True, slots=True)
class ItemText:
    """Question and expected answer of one item, for people."""

    question: str
    expected: str  # empty if unknown


@dataclass(frozen=True, slots=True)
class SuiteTexts:
    """Texts of a suite's items, by item."""

    items: Mapping[str, ItemText]
    start: str  # the common start of every question, which is left out of each
    missing: str  # why no expected answer is known; empty if one is known

    def find(self, item: str) -> ItemText:
        """Returns an item's texts; empty texts for an unknown item."""
        return self.items.get(item, ItemText("", ""))


def load_item_texts(ctx: ProposalsContext, comparison: Comparison) -> Mapping[str, SuiteTexts]:
    """Loads the texts of a comparison's items, by suite."""
    return {side.plan.suite: _load_suite(ctx, side) for side in comparison.suites}


def strip_common_start(questions: Mapping[str, str]) -> tuple[Mapping[str, str], str]:
    """Returns the questions without their common sentences (or, within a long common sentence,
    their common words), and the removed start. A single question stays whole.
    """
    texts = [*set(questions.values())]
    start = os.path.commonprefix(texts) if len(texts) > 1 else ""  # noqa: RUF071 - texts, not paths
    sentences = _last_mark_end(start, SENTENCE_ENDS)
    words = _last_mark_end(start, WORD_ENDS)
    start = start[: sentences if sentences >= SHORT_START else words]
    if len(start) < (SHORT_START if sentences >= SHORT_START else SHORT_WORDS):
        return questions, ""
    return {item: text[len(start) :] for item, text in questions.items()}, start


def _last_mark_end(text: str, marks: tuple[str, ...]) -> int:
    """Returns the end of the last mark in a text; 0 without a mark."""
    return max(text.rfind(mark) + len(mark) if mark in text else 0 for mark in marks)


def _load_suite(ctx: ProposalsContext, side: SuiteAnswers) -> SuiteTexts:
    prompts = {sample.item: sample.prompt for sample in (*side.candidate, *side.incumbent)}
    shown_texts, missing = _read_suite(
        ctx,
        side,
        prompts,
    )
    stored = {
        item: shown_texts[item][0] if item in shown_texts else prompts[item] for item in prompts
    }
    questions, start = strip_common_start(stored)
    return SuiteTexts(
        {
            item: ItemText(question, shown_texts[item][1] if item in shown_texts else "")
            for item, question in questions.items()
        },
        start,
        missing,
    )


def _read_suite(
    ctx: ProposalsContext,
    side: SuiteAnswers,
    items: Iterable[str],
) -> tuple[Mapping[str, tuple[str, str]], str]:
    """Reads (question, expected answer) by item from the suite's data. Also returns the reason
    for missing texts.

    Without the data of the measurement, the items are empty: other data would show other
    questions.
    """
    suite = side.plan.suite
    try:
        if ctx.suites.pin(suite).data_sha256 != side.pin.data_sha256:
            return {}, "the suite's data have changed since"
        shown_texts = {item: ctx.suites.item_texts(suite, item) for item in items}
    except SwapproofError as error:
        return {}, str(error)
    if not any(expected for _, expected in shown_texts.values()):
        return shown_texts, "the suite's items contain no expected answer"
    return shown_texts, ""
