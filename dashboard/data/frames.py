"""Pandas frames of comparisons and traffic. Cells are made safe from spreadsheet formulas."""

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dashboard.text import labels
from harness.control.proposals.comparison import Comparison, SuiteAnswers
from harness.control.proposals.recorded_answers import SuiteTexts
from harness.domain.evals.run import Sample, SampleError
from harness.domain.evals.suite_plan import Claim, SuiteRole
from harness.domain.evals.verdict import SuiteReport, VerdictBasis
from harness.domain.formatting import escape_formula, format_excerpt

# Fewer pairs than this carry no interval worth showing.
FEWEST_PAIRS = 30
# Differences this small look like a tie to people.
TIE_BAND = 0.01

# `missing`: one of the two answers has no score.
CHANGES = ("regressed", "improved", "same", "missing")
CHANGE_SYMBOLS = {"regressed": "▼", "improved": "▲", "same": "=", "missing": "?"}

INDEX_COLUMNS = ("key", "suite", "item", "epoch", "change", "difference")
TEXT_COLUMNS = (
    "title", "question", "expected", "incumbent", "candidate", "latency_s",
    "incumbent_answer", "candidate_answer",
)  # fmt: skip
FIGURES = ("delta", "low", "high", "limit")
NO_TEXTS = SuiteTexts({}, "", "")
EXCERPT = 60  # characters of an answer in the table
QUESTION = 160  # and of a question


def limit_of(report: SuiteReport) -> float:
    return 0.0 if report.claim is Claim.SUPERIOR else -report.margin


def in_reading_order(reports: Sequence[SuiteReport]) -> list[SuiteReport]:
    return sorted(reports, key=lambda report: report.role is not SuiteRole.PRIMARY)


def suites(
    reports: Sequence[SuiteReport],
    titles: Mapping[str, str],
    basis: VerdictBasis | None = None,
) -> pd.DataFrame:
    """Builds one row per measured suite, in points. low, high: NaN below 30 pairs."""
    rows: list[dict[str, Any]] = []
    for report in reports:
        if report.is_unscored:
            continue
        decides = basis is None or basis.decides(report)
        outcome = report.outcome if decides else "member"
        label = {**labels.VERDICT_LABELS, **labels.MEMBER_LABELS}[outcome]
        title = titles.get(report.suite, report.suite)
        shown = report.n_used >= FEWEST_PAIRS and report.ci_low is not None
        low, high = (report.ci_low, report.ci_high) if shown else (None, None)
        limit = limit_of(report) if decides else None
        row = _row([title], outcome, label.words.lower(), (report.delta, low, high, limit))
        rows.append({"suite": report.suite, "title": title, **row})
    return _forest_frame(rows, ["suite", "title"])


def _row(
    name: Sequence[str], outcome: str, words: str, figures: Sequence[float | None]
) -> dict[str, Any]:
    """Builds a row of a forest plot. name: its lines. figures: shares of 1, as in FIGURES."""
    label = {**labels.VERDICT_LABELS, **labels.MEMBER_LABELS, **labels.SLICE_LABELS}[outcome]
    return {
        "row": "|".join([*textwrap.wrap(name[0], 18), *name[1:]]),
        "outcome": outcome,
        "verdict": f"{label.symbol} {words}",
        "label": labels.points(figures[0]),
        **{
            field: None if figure is None else figure * 100
            for field, figure in zip(FIGURES, figures, strict=True)
        },
    }


def _forest_frame(rows: Sequence[Mapping[str, Any]], first: Sequence[str] = ()) -> pd.DataFrame:
    columns = [*first, "row", "outcome", "verdict", "label", *FIGURES]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.astype(dict.fromkeys(FIGURES, "float64"))


def slices(report: SuiteReport) -> Mapping[str, pd.DataFrame]:
    """Builds a frame for each slice field of a suite, a row per slice, in points. A slice has
    no limit: it may not be shown worse at all.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for part in report.figures.slices or ():
        if part.n_used == 0:
            continue
        outcome = "worse" if part.worse else "untested" if part.p is None else "kept"
        words = labels.SLICE_LABELS[outcome].words
        used = labels.plural(part.n_used, report.figures.unit)
        figures = (part.delta, part.ci_low, part.ci_high, None)
        row = _row([part.value, used], outcome, words, figures)
        found.setdefault(part.field, []).append(row)
    return {name: _forest_frame(rows) for name, rows in found.items()}


def sample_index(comparison: Comparison) -> pd.DataFrame:
    """Pairs both answers to each item that has two, the largest losses first; with a verdict,
    only the items that it used. Texts are read for a page of the table: there may be 100,000.
    """
    verdict = comparison.verdict
    stored: Any = verdict.inputs.get("pairs", {}) if verdict else {}
    used = {suite: frozenset(str(row[0]) for row in pairs) for suite, pairs in stored.items()}
    parts = [_side_index(side, used.get(side.plan.suite)) for side in comparison.suites]
    if not parts:
        return pd.DataFrame(columns=list(INDEX_COLUMNS))
    index = pd.concat(parts, ignore_index=True)
    size = index["difference"].abs()
    changed = np.select(
        [size.isna(), size <= TIE_BAND, index["difference"] > 0],
        [CHANGES.index("missing"), CHANGES.index("same"), CHANGES.index("improved")],
        CHANGES.index("regressed"),
    )
    index["change"] = pd.Categorical.from_codes(changed, pd.Index(CHANGES))
    ordered = index[list(INDEX_COLUMNS)].iloc[np.lexsort((-size, changed))]
    return ordered.reset_index(drop=True)


def _side_index(side: SuiteAnswers, used: Collection[str] | None) -> pd.DataFrame:
    ours, theirs = side.figures.incumbent, side.figures.candidate
    before = dict(zip(zip(ours.item, ours.epoch, strict=True), ours.strict, strict=True))
    rows = []
    for item, epoch, position, score in zip(
        theirs.item, theirs.epoch, theirs.position, theirs.strict, strict=True
    ):
        if (item, epoch) in before and (used is None or item in used):
            was = before[item, epoch]
            change = math.nan if was is None or score is None else score - was
            rows.append((position, epoch, item, change))
    rows.sort()
    suite = side.plan.suite
    return pd.DataFrame(
        {
            "key": [f"{suite}/{item}/{epoch}" for _, epoch, item, _ in rows],
            "suite": pd.Categorical.from_codes([0] * len(rows), pd.Index([suite])),
            "item": pd.Series([row[2] for row in rows], dtype=object),
            "epoch": pd.Series([row[1] for row in rows], dtype="int64"),
            "difference": pd.Series([row[3] for row in rows], dtype="float64"),
        }
    )


def samples(
    rows: pd.DataFrame,
    comparison: Comparison,
    titles: Mapping[str, str],
    texts: Mapping[str, SuiteTexts],
) -> pd.DataFrame:
    answers = {}
    for side in comparison.suites:
        before = {(sample.item, sample.epoch): sample for sample in side.incumbent}
        for after in side.candidate:
            if ours := before.get((after.item, after.epoch)):
                answers[side.plan.suite, after.item, after.epoch] = ours, after
    found = []
    for suite, item, epoch in zip(rows["suite"], rows["item"], rows["epoch"], strict=True):
        ours, after = answers[suite, item, epoch]
        text = texts.get(suite, NO_TEXTS).find(item)
        found.append(
            (
                titles.get(suite, suite),
                text.question,
                text.expected,
                rating(ours),
                rating(after),
                after.duration_s,
                ours.answer,
                after.answer,
            )
        )
    more = pd.DataFrame(found, columns=list(TEXT_COLUMNS), index=rows.index)
    return rows.astype({"suite": object, "change": object}).join(more)


def rating(sample: Sample) -> str:
    """Describes a score: `✓ correct`, `◐ 0.50`, and for form: `✕ wrong form (code_fence)`."""
    if sample.error is SampleError.INFRA:
        return "? no answer"
    if sample.error is SampleError.UNSCORED or sample.strict is None:
        return "? not scored"
    if sample.strict >= 1 - TIE_BAND:
        return "✓ correct"
    if sample.rule and sample.lenient is not None and sample.lenient > sample.strict:
        return f"✕ wrong form ({sample.rule})"
    return "✕ wrong" if sample.strict <= TIE_BAND else f"◐ {sample.strict:.2f}"


def filter_rows(frame: pd.DataFrame, show: str, suite: str) -> pd.DataFrame:
    if show != "all":
        frame = frame[frame["change"] == show]
    if suite != "all":
        frame = frame[frame["suite"] == suite]
    return frame.reset_index(drop=True)


def sample_table(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Sample": [escape_formula(item) for item in frame["item"]],
            "Change": [f"{CHANGE_SYMBOLS[change]} {change}" for change in frame["change"]],
            "Question": [_excerpt(question, QUESTION) for question in frame["question"]],
            "Expected": [_excerpt(expected, EXCERPT) for expected in frame["expected"]],
            "Current": _answers(frame, "incumbent"),
            "Candidate": _answers(frame, "candidate"),
            "Latency": [labels.seconds(latency) for latency in frame["latency_s"]],
        }
    )


def _excerpt(text: str, length: int) -> str:
    return str(escape_formula(format_excerpt(text, length).removeprefix("- ")))


def _answers(frame: pd.DataFrame, arm: str) -> list[str]:
    return [
        f"{rated[0]} {format_excerpt(answer, EXCERPT)}" if answer else rated
        for rated, answer in zip(frame[arm], frame[f"{arm}_answer"], strict=True)
    ]
