"""Item texts are what people read of a comparison's items: the question without the words that
every prompt of the suite begins with, and the expected answer. Both come from the suite's data
as long as these are the data that were measured, else from the stored prompts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from harness.control.context import Context
from harness.control.proposals.comparison import Comparison, SuiteAnswers
from harness.domain.errors import SwapgateError

# A shorter beginning that all prompts share hides nothing: of whole sentences, and where their
# first sentence begins alike, of whole words.
SHORT_START: Final = 12
SHORT_WORDS: Final = 60
SENTENCE_ENDS: Final = ("\n", ". ", "? ", "! ", ": ", '"', "“")
WORD_ENDS: Final = (" ", "\t", "'")


@dataclass(frozen=True, slots=True)
class ItemText:
    """What an item asks, and what is expected."""

    question: str
    expected: str  # empty where nobody knows


@dataclass(frozen=True, slots=True)
class SuiteTexts:
    """The texts of a suite's items."""

    items: Mapping[str, ItemText]
    start: str  # what every question begins with; left out of each
    missing: str  # why no expected answer is known; empty where one is

    def find(self, item: str) -> ItemText:
        return self.items.get(item, ItemText("", ""))


def load_item_texts(ctx: Context, comparison: Comparison) -> Mapping[str, SuiteTexts]:
    """Loads the texts of the items that both models answered, by suite."""
    return {side.plan.suite: _load_suite(ctx, side) for side in comparison.suites}


def strip_common_start(questions: Mapping[str, str]) -> tuple[Mapping[str, str], str]:
    """Returns the questions without the sentences that all of them begin with, and those; where
    a long first sentence begins alike, without its words. One question alone keeps everything.
    """
    texts = sorted(set(questions.values()))
    start = _common_start(texts[0], texts[-1]) if len(texts) > 1 else ""
    sentences, words = _end_of(start, SENTENCE_ENDS), _end_of(start, WORD_ENDS)
    start = start[: sentences if sentences >= SHORT_START else words]
    if len(start) < (SHORT_START if sentences >= SHORT_START else SHORT_WORDS):
        return questions, ""
    return {item: text[len(start) :] for item, text in questions.items()}, start


def _end_of(text: str, marks: tuple[str, ...]) -> int:
    """The place after the last of the marks; 0 without one."""
    return max(text.rfind(mark) + len(mark) if mark in text else 0 for mark in marks)


def _common_start(one: str, other: str) -> str:
    """Of the first and the last in order, what all between them begin with, too."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(mark for mark, _ in same)


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
    """(input, expected answer) by item, and why there is none."""
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
