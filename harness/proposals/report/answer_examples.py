"""Renders a comparison's most telling answers, and the steps to check it, as Markdown.

Models' texts are data, never markup: `fenced`, `cell` and `code` escape them. Loads items'
texts from the suite's data if the data have not changed since the measurement, otherwise from
stored prompts. The rest of the document is in `markdown`.
"""

import os.path
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.evals.proof_validity import ProofValidity
from harness.frame.errors import SwapgateError
from harness.frame.formatting import format_points, format_score
from harness.gate.order_seeds import SeedOrigin
from harness.gate.pins import ServedModel, named_models
from harness.gate.sentences import clusters_text, spending_text
from harness.gate.verdict import Verdict
from harness.proposals.context import ProposalsContext
from harness.proposals.report import findings
from harness.proposals.report.comparison import Comparison, SuiteAnswers
from harness.proposals.report.content import Report, TellingAnswer, variables

SHOWN: Final = 700
_FENCE: Final = re.compile("`{3,}")


def fenced(text: str) -> Sequence[str]:
    """Fences a text with a fence longer than any in the text, and marks a cut end."""
    shown = text if len(text) <= SHOWN else text[:SHOWN].rstrip() + " […]"
    longest = max((len(match_) for match_ in _FENCE.findall(shown)), default=2)
    fence = "`" * (longest + 1)
    return (f"{fence}text", *shown.splitlines(), fence)


def cell(text: str) -> str:
    """Writes a text in one line of a table, with Markdown's signs escaped."""
    return re.sub(r"([|`*_<>\[\]\\])", r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """Writes a name as a code span that is valid in a table."""
    plain = " ".join(text.split()).replace("`", "'").replace("|", "\\|")
    return f"`{plain}`"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yields the lines of a table, whose cells must be escaped already."""
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


# A text with only these characters needs no fence in a table.
_SHORT: Final = re.compile(r"[\w .,:+%$–-]{1,40}")


def most_telling(telling: Sequence[TellingAnswer]) -> Iterator[str]:
    """Writes the most telling answers, losses first, without the prompts' common start."""
    lost = sum(answer.candidate_score < answer.incumbent_score for answer in telling)
    yield from ("", "## The most telling answers", "")
    yield f"{lost} losses and {len(telling) - lost} wins of the candidate, the largest of each."
    prompts: dict[str, dict[str, str]] = {}
    for answer in telling:
        prompts.setdefault(answer.suite, {})[answer.item] = answer.prompt
    heads = {suite: strip_common_start(texts)[1] for suite, texts in prompts.items()}
    if any(heads.values()):
        yield "The common start of a suite's prompts is left out."
    for answer in telling:
        yield from _telling(answer, answer.prompt[len(heads[answer.suite]) :])


def _telling(answer: TellingAnswer, prompt: str) -> Iterator[str]:
    """Writes one answer. Short answers share a table; others get a fence each.

    prompt: without the common start.
    """
    change = format_points(answer.candidate_score - answer.incumbent_score)
    broken = f", broken rule: {answer.rule}" if answer.rule else ""
    yield from (
        "",
        f"### {cell(answer.item)} ({answer.suite}): {change} points{broken}",
        "",
    )
    yield from fenced(prompt.strip())
    ours = format_score(answer.incumbent_score, None)
    theirs = format_score(answer.candidate_score, None)
    answers = (
        ("expected", answer.expected),
        (f"incumbent: {ours}", answer.incumbent),
        (f"candidate: {theirs}", answer.candidate),
    )
    if all(_SHORT.fullmatch(text) for _, text in answers):
        heads = [head for head, _ in answers]
        yield from ("", *table(heads, [[cell(text) for _, text in answers]]))
    else:
        for head, text in answers:
            if text:
                yield from ("", f"{head.capitalize()}", "", *fenced(text))


def describe_pins(report: Report) -> Iterator[str]:
    """Writes the versions of suites, models and verdict, and how to repeat the comparison."""
    comparison = report.comparison
    yield from ("", "## Pinned versions", "")
    rows = [
        (
            cell(pin.name),
            cell(pin.version),
            f"`{pin.data_sha256[:12]}`",
            code(pin.scorer_alone),
            f"`{pin.judge_pin}`" if pin.judge_pin else "–",
            f"`{pin.template}`",
            f"`{pin.digest[:12]}`",
        )
        for pin in (part.side.pin for part in report.suites)
    ]
    heads = (
        "suite",
        "version",
        "data",
        "scorer",
        "judge",
        "prompt and settings",
        "together",
    )
    yield from table(heads, rows)
    yield ""
    parts = [part.side.served for part in report.suites]
    for head, target, served in (
        (
            "Incumbent",
            comparison.incumbent,
            {s for part in parts for s in part.incumbent},
        ),
        (
            "Candidate",
            comparison.candidate,
            {s for part in parts for s in part.candidate},
        ),
    ):
        yield f"- {head} `{target.id}`; its provider reported serving {_reported(served)}."
    if judges := {s for part in parts for s in part.judge}:
        yield f"- The judge's provider reported serving {_reported(judges)}."
    for part in report.suites:
        plan = part.side.plan
        how = f"{plan.epochs} epoch(s), order seed {plan.order_seed}"
        if plan.seed_origin is SeedOrigin.RUNNER:
            how += " (seed chosen by the runner)"
        look = spending_text(plan.look, plan.alpha, plan.spend, plan.candidates)
        yield f"- {plan.suite}: {how}" + (f"; {look}" if look else "") + "."
        if plan.cluster:
            yield f"  {clusters_text(plan)}"
    verdict = comparison.verdict
    if verdict is not None:
        yield f"- Verdict `{verdict.id}`, of {verdict.decided_at:%Y-%m-%d %H:%M} UTC,"
        yield f"  {_until(verdict, comparison.standing)}."
    yield from _rerun_lines(report, verdict)


def _rerun_lines(report: Report, verdict: Verdict | None) -> Iterator[str]:
    """Writes the commands that check the verdict. verdict: None while the gate is open."""
    yield from ("", "## To check it")
    if verdict is not None:
        yield from _replaying(report, verdict)
    command = findings.build_rerun_command(report.comparison)
    if not command:
        return
    proposal = report.comparison.proposal
    yield from ("", "```", command, "```", "")
    yield "asks both models again, with the suites and the policy"
    yield f"{code(proposal.policy.name)} of your configuration."
    if any(plan.look > 1 for plan in proposal.plans):
        yield "It does not know earlier looks, so alpha is that of a first look."


def _replaying(report: Report, verdict: Verdict) -> Iterator[str]:
    """Writes how to decide again from the stored answers, if they were kept."""
    if report.standalone and report.kept is None:
        yield from (
            "",
            "The answers were not kept. `swapgate gate run … --keep FOLDER` keeps",
        )
        yield "answers, so that `swapgate gate replay` can decide again from them."
        return
    words = ["swapgate", "gate", "replay", verdict.id]
    place = "" if report.kept is None else f"{variables(report.kept)} "
    yield from ("", "```", place + shlex.join(words), "```")
    yield from (
        "",
        "decides again from the stored answers, and must give the same bytes.",
    )


def _reported(served: Iterable[ServedModel]) -> str:
    return ", ".join(code(model.label) for model in named_models(served)) or "nothing"


def _until(verdict: Verdict, standing: ProofValidity | None) -> str:
    """Writes whether a verdict is valid. standing: None for a verdict without an assessment."""
    if verdict.outcome == "infra_error":
        return "it does not prove anything, because it is not measured"
    if standing is None or standing.holds:
        return f"is valid until {verdict.expires_at:%Y-%m-%d}"
    return f"no longer valid: **{standing.proof.value.upper()}**, {cell(standing.why)}"


# Minimum lengths of a common start that is left out: of whole sentences, and of whole words
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
    missing: str  # why no expected answer is known; empty if any is

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
    sentences = _end_of(start, SENTENCE_ENDS)
    words = _end_of(start, WORD_ENDS)
    start = start[: sentences if sentences >= SHORT_START else words]
    if len(start) < (SHORT_START if sentences >= SHORT_START else SHORT_WORDS):
        return questions, ""
    return {item: text[len(start) :] for item, text in questions.items()}, start


def _end_of(text: str, marks: tuple[str, ...]) -> int:
    """Returns the end of the last mark in a text; 0 without a mark."""
    return max(text.rfind(mark) + len(mark) if mark in text else 0 for mark in marks)


def _load_suite(ctx: ProposalsContext, side: SuiteAnswers) -> SuiteTexts:
    prompts = {sample.item: sample.prompt for sample in (*side.candidate, *side.incumbent)}
    shown, missing = _read_suite(
        ctx,
        side,
        prompts,
    )
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
    ctx: ProposalsContext,
    side: SuiteAnswers,
    items: Iterable[str],
) -> tuple[Mapping[str, tuple[str, str]], str]:
    """Reads (question, expected answer) by item from the suite's data, and why any of it is
    missing.

    Without the data of the measurement, the items are empty: other data would show other
    questions.
    """
    suite = side.plan.suite
    try:
        if ctx.suites.pin(suite).data_sha256 != side.pin.data_sha256:
            return {}, "the suite's data have changed since"
        shown = {item: ctx.suites.shown(suite, item) for item in items}
    except SwapgateError as error:
        return {}, str(error)
    if not any(expected for _, expected in shown.values()):
        return shown, "the suite's items contain no expected answer"
    return shown, ""
