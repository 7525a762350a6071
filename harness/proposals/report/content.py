"""Gathers the content of a report on one comparison, for the renderers of Markdown and JUnit.

It builds rows of tables and the most telling answers. It writes no sentences and no markup: see
`markdown`, `junit`, and the pages of terminal and dashboard.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from shlex import quote
from statistics import fmean
from typing import Final

from harness.frame.errors import SwapproofError
from harness.frame.formatting import (
    DASH,
    NOT_RECORDED,
    format_latency,
    format_number,
    format_percent,
    format_points,
    format_points_interval,
    format_range,
    format_score,
    format_thousand_price,
)
from harness.gate.run import Sample
from harness.gate.sentences import difference_cells, standing_text
from harness.gate.verdict import BaseVerdict, SuiteReport, VerdictBasis
from harness.proposals.context import ProposalsContext
from harness.proposals.report.comparison import (
    ArmFigures,
    Comparison,
    SuiteAnswers,
    load_comparison,
)
from harness.proposals.report.next_steps import NEXT_STEPS, TRIAL_STEPS

DATABASE_VARIABLE: Final = "SWAPPROOF__DATABASE_URL"
DATABASE_FILE: Final = "swapproof.db"
KEYRING_VARIABLE: Final = "SWAPPROOF_SIGNING_KEYRING_FILE"
PUBLIC_KEYS_FILE: Final = "signing.pub"


def database_url(folder: Path) -> str:
    """Writes the database URL of a folder in which `gate run --keep` keeps its database."""
    return f"sqlite:///{folder.resolve() / DATABASE_FILE}"


def replay_variables(folder: Path) -> str:
    """Writes the shell variables for `swapproof gate replay`: database and signers."""
    keyring = folder.resolve() / PUBLIC_KEYS_FILE
    return (
        f"{DATABASE_VARIABLE}={quote(database_url(folder))} "
        f"{KEYRING_VARIABLE}={quote(str(keyring))}"
    )


def figure_cells(figures: ArmFigures) -> list[str]:
    """Writes an arm's figures as the cells of one row."""
    cost = figures.cost_interval_usd_per_1000
    return [
        format_thousand_price(figures.cost_usd_per_1000, NOT_RECORDED),
        format_range(cost, format_thousand_price, missing=DASH),
        format_latency(figures.p50_s, DASH),
        format_range(figures.p50_interval_s, format_latency, missing=DASH),
        format_latency(figures.p95_s, DASH),
        DASH if figures.tokens_per_s is None else format_number(figures.tokens_per_s),
        format_percent(figures.failed, 1, DASH),
    ]


def list_pins(side: SuiteAnswers) -> Sequence[tuple[str, str]]:
    """Lists the pinned parts of a suite and the served models, as (name, text), without empty
    ones.
    """
    pin = side.pin
    served = side.served
    arms = (
        ("incumbent", served.incumbent),
        ("candidate", served.candidate),
        ("judge", served.judge),
    )
    pinned = (
        ("data", pin.data_sha256[:12]),
        ("scorer", pin.scorer_alone),
        ("judge", pin.judge_pin),
        ("prompt and settings", pin.template),
        *(
            (f"{arm} served", ", ".join(model.label for model in models))
            for arm, models in arms
        ),
    )
    return [(name, text) for name, text in pinned if text]


SUITE_HEADS: Final = (
    "suite",
    "role",
    "outcome",
    "delta",
    "95 % interval",
    "allowed loss",
    "items",
    "wins/ties/losses",
)


def suite_rows(verdict: BaseVerdict) -> Sequence[Sequence[str]]:
    """Writes a row for each suite of a verdict, in the order of SUITE_HEADS."""
    basis = VerdictBasis.from_verdict(verdict)
    return [
        (
            report.suite,
            report.role.value,
            standing_text(basis, report),
            *difference_cells(report),
            format_score(report.margin, None),
            basis.used_text(report),
            f"{report.wins}/{report.ties}/{report.losses}",
        )
        for report in verdict.suites
    ]


def slice_rows(verdict: BaseVerdict | None) -> Sequence[Sequence[str]]:
    """Writes a row for each guarded slice: suite, slice, result, difference, interval, units
    used.
    """
    return [
        (
            report.suite,
            slice_.name,
            "worse" if slice_.worse else "not shown worse",
            format_points(slice_.delta) if slice_.n_used else DASH,
            format_points_interval(slice_.ci_low, slice_.ci_high),
            f"{slice_.n_used} of {slice_.n_max}",
        )
        for report in (verdict.suites if verdict else ())
        for slice_ in report.figures.slices or ()
    ]


MAX_TELLING: Final = 10


@dataclass(frozen=True)
class TellingAnswer:
    """One item on which the two models differ, with the answers of the first epoch.

    Scores are shares of 1, means over epochs. rule: the format rule that the candidate broke;
    empty without one. expected: empty if unknown.
    """

    suite: str
    item: str
    prompt: str
    expected: str
    incumbent: str
    candidate: str
    incumbent_score: float
    candidate_score: float
    rule: str


@dataclass(frozen=True)
class SuiteSection:
    """One suite in a report."""

    side: SuiteAnswers
    report: SuiteReport | None  # None while the gate is open
    decides: bool = True  # whether it decides alone, not only as a part of the weighted mean


@dataclass(frozen=True, slots=True)
class FileTrial:
    """A comparison of `try --suite`: it has a file of questions, and no route."""

    file: str
    command: str  # asks the questions of the file again
    suite_command: str  # makes a suite of the file
    folder: Path  # keeps every answer

    def describe_next_step(self, outcome: str) -> str:
        """Describes the step that `next_command` begins."""
        return TRIAL_STEPS[outcome].format(file=self.file, folder=self.folder)

    def next_command(self, outcome: str) -> str:
        return self.suite_command if outcome == "passed" else self.command


@dataclass(frozen=True)
class Report:
    """The content of a report, for all renderers."""

    comparison: Comparison
    suites: Sequence[SuiteSection]
    telling: Sequence[TellingAnswer]
    made_at: datetime
    # From `gate run`, which has no route, and keeps its database only with `--keep`.
    standalone: bool = False
    kept: Path | None = None  # the folder of that database
    trial: FileTrial | None = None  # of `try --suite`

    @property
    def together(self) -> Sequence[SuiteReport]:
        """The report of several primary suites' weighted mean, if the claim is about it; else
        empty.
        """
        basis = self.comparison.basis
        return [basis.mean] if basis is not None and basis.mean is not None else []

    @property
    def next_step(self) -> str:
        verdict = self.comparison.verdict
        if self.trial is not None and verdict is not None:
            return self.trial.describe_next_step(verdict.outcome)
        # A `gate run` opens no canary, even if its proposal waits for one.
        if self.standalone and verdict is not None and verdict.outcome == "passed":
            return NEXT_STEPS[verdict.outcome]
        return self.comparison.next_step

    @property
    def arms(self) -> Sequence[tuple[str, ArmFigures]]:
        """Name and figures of incumbent and candidate, in this order."""
        comparison = self.comparison
        return (
            (comparison.incumbent.name, comparison.incumbent_figures),
            (comparison.candidate.name, comparison.candidate_figures),
        )


def gather_report(
    ctx: ProposalsContext,
    proposal: str,
    *,
    standalone: bool = False,
    kept: Path | None = None,
    trial: FileTrial | None = None,
) -> Report:
    """Gathers a proposal's report. Raises NotFound.

    Args:
        standalone: as in `Report`.
        kept: as in `Report`.
        trial: as in `Report`.

    Omits answers that only broke the form, because the report shows them as format failures.
    """
    comparison = load_comparison(ctx, proposal)
    basis = comparison.basis
    reports_by_suite = {suite.suite: suite for suite in basis.suites} if basis else {}
    sections: list[SuiteSection] = []
    telling: list[TellingAnswer] = []
    for side in comparison.suites:
        report = reports_by_suite.get(side.plan.suite)
        used_items = _list_used_items(side, basis)
        decides = report is None or basis is None or basis.decides(report)
        sections.append(SuiteSection(side=side, report=report, decides=decides))
        # The report already shows examples of a broken form.
        failed_by_form = report is not None and report.outcome == "harness_mismatch"
        example_items = report.figures.examples if report is not None and failed_by_form else ()
        telling += [
            _build_telling_answer(ctx, side.plan.suite, item)
            for item in used_items
            if item.item not in example_items and item.scores[0] != item.scores[1]
        ]
    return Report(
        comparison,
        sections,
        _choose_most_telling(telling),
        ctx.clock.now(),
        standalone,
        kept,
        trial,
    )


@dataclass(frozen=True)
class _Item:
    """An item behind the verdict, with scored answers of both sides."""

    item: str
    incumbent: Sequence[Sample]
    candidate: Sequence[Sample]

    @property
    def scores(self) -> tuple[float, float]:
        return _mean_score(self.incumbent), _mean_score(self.candidate)


def _list_used_items(side: SuiteAnswers, basis: VerdictBasis | None) -> Sequence[_Item]:
    """Lists the items behind the verdict whose answers have no error on either side."""
    limit = basis.items[side.plan.suite] if basis else side.plan.planned_items
    incumbent_answers = _group_by_item(side.incumbent, limit)
    candidate_answers = _group_by_item(side.candidate, limit)
    return [
        _Item(item, incumbent_answers[item], candidate_answers[item])
        for item in incumbent_answers
        if item in candidate_answers
        and not any(
            sample.error for sample in (*incumbent_answers[item], *candidate_answers[item])
        )
    ]


def _mean_score(samples: Sequence[Sample]) -> float:
    return fmean(sample.strict or 0.0 for sample in samples)


def _group_by_item(samples: Sequence[Sample], below: int) -> Mapping[str, list[Sample]]:
    samples_by_item: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.position < below:
            samples_by_item.setdefault(sample.item, []).append(sample)
    return samples_by_item


def _build_telling_answer(
    ctx: ProposalsContext,
    suite: str,
    item: _Item,
) -> TellingAnswer:
    """Builds a telling answer. A suite that is unknown here leaves `expected` empty."""
    incumbent_score, candidate_score = item.scores
    incumbent_sample = item.incumbent[0]
    candidate_sample = item.candidate[0]
    try:
        expected = ctx.suites.item_texts(suite, item.item)[1]
    except SwapproofError:
        expected = ""  # the suite's items are unknown here
    return TellingAnswer(
        suite=suite,
        item=item.item,
        prompt=candidate_sample.prompt or incumbent_sample.prompt,
        expected=expected,
        incumbent=incumbent_sample.answer or incumbent_sample.error_text,
        candidate=candidate_sample.answer or candidate_sample.error_text,
        incumbent_score=incumbent_score,
        candidate_score=candidate_score,
        rule=next((sample.rule for sample in item.candidate if sample.rule), ""),
    )


def _choose_most_telling(telling: Sequence[TellingAnswer]) -> Sequence[TellingAnswer]:
    """Returns the largest losses, then the largest wins, at most MAX_TELLING together.

    Losses come first, because a decision must consider them.
    """
    losses, wins = (
        _sort_by_difference(
            [
                answer
                for answer in telling
                if (answer.candidate_score < answer.incumbent_score) is is_loss
            ]
        )
        for is_loss in (True, False)
    )
    half = MAX_TELLING // 2
    kept_losses = losses[: max(half, MAX_TELLING - len(wins))]
    return [*kept_losses, *wins[: MAX_TELLING - len(kept_losses)]]


def _sort_by_difference(telling: Sequence[TellingAnswer]) -> Sequence[TellingAnswer]:
    """Sorts answers by the size of the difference. At equal size, alternates between the
    suites.
    """

    def difference(answer: TellingAnswer) -> float:
        return abs(answer.candidate_score - answer.incumbent_score)

    counts: Counter[tuple[str, float]] = Counter()
    ranked = []
    for answer in sorted(telling, key=lambda telling_answer: telling_answer.item):
        counts[answer.suite, difference(answer)] += 1
        ranked.append(
            (
                -difference(answer),
                counts[answer.suite, difference(answer)],
                answer.suite,
                answer,
            )
        )
    return [answer for *_, answer in sorted(ranked, key=lambda entry: entry[:3])]
