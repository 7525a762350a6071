"""The Compare page's samples. The last large comparisons are kept in memory, so that a filter
does not read 100,000 answers anew; a decision changes the key.
"""

import difflib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from html import escape as plain_escape
from typing import Any, Final

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import html, labels, page_frame
from dashboard.html import SHOWN_CHARACTERS, escape, pill, scrolled_text, strong
from dashboard.labels import Tone
from harness.control.context import Context
from harness.control.proposals import comparison as comparisons
from harness.control.proposals import recorded_answers
from harness.control.proposals.comparison import (
    Comparison,
    SuiteAnswers,
    is_large,
    load_comparison,
    with_texts,
)
from harness.control.proposals.format_failures import FormatExample, find_format_failures
from harness.control.proposals.recorded_answers import SuiteTexts
from harness.control.proposals.submission import get_proposal
from harness.domain.evals.run import Sample, SampleError
from harness.domain.formatting import escape_formula, format_excerpt, format_score
from harness.imports import pause_garbage_collection
from harness.store.sql.evals import Suites

# Of a comparison with more answers, the texts are read for the samples that are shown.
MOST_TEXTS: Final = comparisons.MOST_TEXTS


@dataclass(frozen=True)
class ComparisonView:
    comparison: Comparison
    titles: Mapping[str, str]
    differing: Mapping[str, Sequence[str]]  # by suite, which pins the two arms do not share
    now: datetime

    @property
    def id(self) -> str:
        return self.comparison.proposal.id


def load_comparison_view(ctx: Context, proposal: str) -> ComparisonView:
    found = load_comparison(ctx, proposal, most_texts=MOST_TEXTS)
    basis = found.basis
    mean = {basis.mean.suite: "Weighted mean"} if basis and basis.mean else {}
    return ComparisonView(
        comparison=found,
        titles={**mean, **page_frame.titles(ctx)},
        differing={
            side.plan.suite: _list_differing(ctx, *digests)
            for side in found.suites
            for digests in [(side.incumbent_run.suite_digest, side.candidate_run.suite_digest)]
            if len(set(digests)) > 1
        },
        now=ctx.clock.now(),
    )


def _list_differing(ctx: Context, one: str, other: str) -> Sequence[str]:
    with ctx.store.read() as tx:
        a, b = Suites(tx).get(one), Suites(tx).get(other)
    names = {
        "version": "version",
        "data_sha256": "data",
        "scorer": "scorer",
        "template": "prompt template",
    }
    return [words for name, words in names.items() if getattr(a, name) != getattr(b, name)]


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
NO_TEXTS = SuiteTexts({}, "", "")
EXCERPT = 60  # characters of an answer in the table
QUESTION = 160  # and of a question


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


def with_answers(
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


def table_of(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Sample": [escape_formula(item) for item in frame["item"]],
            "Change": [f"{CHANGE_SYMBOLS[change]} {change}" for change in frame["change"]],
            "Question": [_excerpt(question, QUESTION) for question in frame["question"]],
            "Expected": [_excerpt(expected, EXCERPT) for expected in frame["expected"]],
            "Current": _answer_cells(frame, "incumbent"),
            "Candidate": _answer_cells(frame, "candidate"),
            "Latency": [labels.seconds(latency) for latency in frame["latency_s"]],
        }
    )


def _excerpt(text: str, length: int) -> str:
    return str(escape_formula(format_excerpt(text, length).removeprefix("- ")))


def _answer_cells(frame: pd.DataFrame, arm: str) -> list[str]:
    return [
        f"{rated[0]} {format_excerpt(answer, EXCERPT)}" if answer else rated
        for rated, answer in zip(frame[arm], frame[f"{arm}_answer"], strict=True)
    ]


ROW_PX, SEEN_ROWS = 35, 6
PAGE_ROWS = 200  # rows of the table
TELLING = 50  # items by which is told what every prompt begins with


RATING_TONES: Final = {  # by the first character of a rating
    "✓": labels.Tone.BETTER,
    "✕": labels.Tone.WORSE,
    "◐": labels.Tone.NEUTRAL,
    "?": labels.Tone.UNDECIDED,
}
MOST_KEPT: Final = 2
# Whether a verdict is still valid is told that much later.
LASTS_S: Final = 60


@dataclass(frozen=True, slots=True)
class AnswerPanel:
    who: str
    text: str
    rating: str  # `✓ correct`, with its tone
    tone: Tone


def load(ctx: Context, proposal: str) -> ComparisonView:
    """Loads the comparison, from memory where it is large and has ended. Raises NotFound."""
    found = get_proposal(ctx, proposal)
    if not is_large(found, MOST_TEXTS) or (found.open and found.verdict is None):
        return load_comparison_view(ctx, proposal)
    return replace(_kept(ctx, proposal, found.version), now=ctx.clock.now())


@st.cache_resource(max_entries=MOST_KEPT, ttl=LASTS_S, show_spinner=False)
def _kept(_ctx: Context, proposal: str, version: int) -> ComparisonView:  # noqa: ARG001 - the key
    with pause_garbage_collection():
        return load_comparison_view(_ctx, proposal)


@st.cache_resource(max_entries=MOST_KEPT, ttl=LASTS_S, show_spinner=False)
def _kept_samples(_view: ComparisonView, proposal: str, version: int) -> pd.DataFrame:  # noqa: ARG001 - the key
    with pause_garbage_collection():
        return sample_index(_view.comparison)


def show(view: ComparisonView) -> None:
    ctx, proposal = page_frame.context(), view.comparison.proposal
    everything = (
        _kept_samples(view, proposal.id, proposal.version)
        if view.comparison.without_texts
        else sample_index(view.comparison)
    )
    if everything.empty:
        return
    st.html(html.section("Samples", "Select a row to see both answers side by side."))
    counts = everything["change"].value_counts()
    first = next((kind for kind in CHANGES if counts.get(kind, 0)), "all")
    change, suite = filters(view.titles, list(dict.fromkeys(everything["suite"])), first)
    st.html(
        html.note(
            " · ".join(
                f"{CHANGE_SYMBOLS[kind]} {counts.get(kind, 0):,} {kind}"
                for kind in CHANGES
                if kind != "missing" or counts.get(kind, 0)
            )
            + f" · {len(everything):,} in all"
        )
    )
    if first != "regressed":
        instead = {
            "improved": " Shown are those that improved.",
            "same": " All scored the same.",
            "missing": " Scores are missing.",
        }
        st.html(html.note(f"None regressed.{instead[first] if change == first else ''}"))
    rows = filter_rows(everything, change, suite)
    if rows.empty:
        where = "" if suite == "all" else f" of {view.titles.get(suite, suite)}"
        st.html(html.note(f"No sample{where} is “{change}”. Choose another filter."))
        return
    page, number = _page(rows)
    with pause_garbage_collection():
        # The first items of all show what every prompt begins with.
        page, texts = _read(ctx, view, page, everything.head(TELLING))
    row = page.iloc[sample_table(page, f"{change}-{suite}-{number}")]
    downloads(view, rows)
    answers(view, row, texts[row["suite"]])


def _page(rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    pages = -(-len(rows) // PAGE_ROWS)
    if pages == 1:
        return rows, 1
    wanted = st.query_params.get("sample")
    keys = list(rows["key"]) if wanted else []
    first = keys.index(wanted) // PAGE_ROWS + 1 if wanted in keys else 1
    number = st.number_input(
        f"Page of {pages:,}, with {PAGE_ROWS} samples each", 1, pages, value=first, key="page"
    )
    start = (number - 1) * PAGE_ROWS
    return rows.iloc[start : start + PAGE_ROWS].reset_index(drop=True), number


def _read(
    ctx: Context, view: ComparisonView, rows: pd.DataFrame, beside: pd.DataFrame
) -> tuple[pd.DataFrame, Mapping[str, SuiteTexts]]:
    """The rows with their texts. beside: rows whose questions are compared with theirs."""
    whole = view.comparison
    if whole.without_texts:
        asked = pd.concat([rows, beside])
        items = {
            str(suite): list(of["item"]) for suite, of in asked.groupby("suite", observed=True)
        }
        whole = with_texts(ctx, whole, items)
    texts = recorded_answers.load_item_texts(ctx, whole)
    return with_answers(rows, whole, view.titles, texts), texts


def downloads(view: ComparisonView, rows: pd.DataFrame) -> None:
    name = f"samples-{view.comparison.proposal.id}"
    # A download is read in a thread that knows no visitor.
    ctx = page_frame.context()

    def load() -> pd.DataFrame:
        return _read(ctx, view, rows, rows.head(0))[0].drop(columns=["key", "title"])

    page_frame.offer_csv(name, load)


def filters(titles: Mapping[str, str], suites: Sequence[str], first: str) -> tuple[str, str]:
    left, right = st.columns([2, 1], vertical_alignment="bottom")
    with left:
        show = st.segmented_control(
            "Change", [*CHANGES, "all"], default=first, required=True, key="show",
            bind="query-params", wrap=True, label_visibility="collapsed",
        )  # fmt: skip
    with right:
        suite = st.selectbox(
            "Suite", ["all", *suites], key="suite", bind="query-params",
            help="all, or one of: " + ", ".join(titles.get(name, name) for name in suites),
        )  # fmt: skip
    return show or first, suite or "all"


def sample_table(rows: pd.DataFrame, filter_key: str) -> int:
    """Shows the table; returns the position of the selected row (`sample` in the URL)."""
    keys = list(rows["key"])
    wanted = st.query_params.get("sample")
    first = keys.index(wanted) if wanted in keys else 0
    table = table_of(rows)
    event = st.dataframe(
        table,
        hide_index=True,
        height=ROW_PX * (min(SEEN_ROWS, len(table)) + 1) + 3,
        row_height=ROW_PX,
        on_select="rerun",
        selection_mode="single-row",
        selection_default={"selection": {"rows": [first]}},
        # The filter is part of the key: an old selection would point to a wrong row.
        key=f"samples-{filter_key}",
        column_config={
            "Sample": st.column_config.TextColumn(width=130),
            "Change": st.column_config.TextColumn(width=100),
            "Question": st.column_config.TextColumn(width=310),
            "Expected": st.column_config.TextColumn(width=120),
            "Current": st.column_config.TextColumn(width=150),
            "Candidate": st.column_config.TextColumn(width=150),
            "Latency": st.column_config.TextColumn(width=75, alignment="right"),
        },
    )
    picked = event["selection"]["rows"]
    place = int(picked[0]) if picked else first
    if picked and keys[place] != keys[0]:
        st.query_params["sample"] = keys[place]
    return place


def answers(view: ComparisonView, row: pd.Series, texts: SuiteTexts) -> None:
    st.html(
        _question(
            f"{strong(row['item'])} · {escape(row['title'])} · "
            f"{CHANGE_SYMBOLS[row['change']]} {row['change']}",
            str(row["question"]),
            str(row["expected"]),
            start=texts.start,
            missing=texts.missing,
        )
        + render(
            _answer("Current", view.comparison.incumbent.name, row, "incumbent"),
            _answer("Candidate", view.comparison.candidate.name, row, "candidate"),
        )
    )


def _question(
    heading: str, text: str, expected: str, *, start: str = "", missing: str = ""
) -> str:
    """heading: HTML. start: the words that every question begins with. missing: why no answer
    is known.
    """
    folded = ""
    if start:
        summary = "… after the words that every prompt begins with"
        folded = f"<details><summary>{summary}</summary>{_scrolled(start)}</details>"
    wanted = f'<p class="note">unknown: {escape(missing or "nobody stored it")}</p>'
    if expected:
        wanted = _scrolled(expected)
    return html.block(
        f"<p>{heading}</p>"
        f'<div class="part"><h3>Question</h3>{folded}'
        f"{_scrolled(text)}</div>"
        f'<div class="part"><h3>Expected answer</h3>{wanted}</div>',
        kind="sg-question",
    )


def _scrolled(text: str) -> str:
    return html.scrolled_text(escape(text[: html.SHOWN_CHARACTERS]))


def _answer(side: str, name: str, row: pd.Series, arm: str) -> AnswerPanel:
    rating = str(row[arm])
    tone = RATING_TONES[rating[0]]
    return AnswerPanel(f"{side} · {name}", str(row[f"{arm}_answer"]), rating, tone)


_TOKENS = re.compile(r"\s+|\w+|[^\w\s]")


def render(before: AnswerPanel, after: AnswerPanel) -> str:
    """Side by side: words that went are struck through, words that came are underlined."""
    went, came = difference(before.text, after.text)
    return f'<div class="sg sg-answers">{_panel(before, went)}{_panel(after, came)}</div>'


def _panel(answer: AnswerPanel, body: str) -> str:
    length, cut = len(answer.text), ""
    if length > SHOWN_CHARACTERS:
        words = f"The first {SHOWN_CHARACTERS:,} of {length:,} characters."
        cut = f'<p class="note" style="padding:0 12px 8px">{words}</p>'
    shown = body or '<span class="neutral">(empty)</span>'
    return (
        f'<section class="answer"><header><span>{escape(answer.who)}</span>'
        f"{pill(answer.rating, answer.tone)}</header>{scrolled_text(shown)}{cut}</section>"
    )


def difference(before: str, after: str) -> tuple[str, str]:
    """Renders two texts as HTML, with the words marked that only one of them has."""
    old, new = (_TOKENS.findall(text[:SHOWN_CHARACTERS]) for text in (before, after))
    went, came = [], []
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    steps = matcher.get_opcodes()
    shared = (token for kind, a0, a1, *_ in steps if kind == "equal" for token in old[a0:a1])
    if not any(map(str.isalnum, shared)):
        # Nothing to compare: marks on every word would hide which answer is the right one.
        return plain_escape("".join(old)), plain_escape("".join(new))
    for kind, a0, a1, b0, b1 in steps:
        left, right = plain_escape("".join(old[a0:a1])), plain_escape("".join(new[b0:b1]))
        if kind == "equal":
            went.append(left)
            came.append(right)
            continue
        went.append(f"<del>{left}</del>" if left else "")
        came.append(f"<ins>{right}</ins>" if right else "")
    return "".join(went), "".join(came)


def show_format_failures(comparison: Comparison, titles: Mapping[str, str]) -> None:
    for lost in find_format_failures(comparison):
        line = (
            f"The candidate {lost.remedy.what}. As scored: {labels.points(lost.strict_delta)} "
            "points; with format errors ignored on both sides: "
            f"{labels.points(lost.lenient_delta)}."
        )
        rows = [
            {
                "Broken rule": escape(rule),
                "What it means": escape(lost.meanings[rule]),
                "Answers": f"{count:,}",
            }
            for rule, count in sorted(lost.rules.items(), key=lambda rule: (-rule[1], rule[0]))
        ]
        options = [
            *(mend.what.replace("`", "") for mend in lost.mends),
            f"a parser in your application that can {lost.remedy.parser}",
        ]
        heading = html.section(f"What to change: {titles.get(lost.suite, lost.suite)}", line)
        st.html(heading + html.table(rows))
        st.html(html.note(f"Options: {'; or '.join(options)}."))
        as_commands = (
            "The first option as commands, which create another target and propose it:"
        )
        st.html(html.note(as_commands))
        st.code("\n".join(lost.mends[0].commands), language=None, wrap_lines=True)
        shown = labels.plural(len(lost.examples), "answer")
        with st.expander(f"{shown} that lost points by format alone", expanded=True):
            for example in lost.examples:
                st.html(_example(comparison, example))


def _example(comparison: Comparison, example: FormatExample) -> str:
    scores = (example.incumbent_score, example.candidate_score, example.lenient_score)
    before, after, lenient = (
        "no score" if score is None else f"{format_score(score, None)} of 100"
        for score in scores
    )
    current, candidate = comparison.incumbent.name, comparison.candidate.name
    forgiven = f"{after}, format ignored {lenient}"
    head = f"<p>{strong(example.item)} · {escape(example.rule or 'unnamed rule')}</p>"
    return html.block(head) + render(
        AnswerPanel(f"Current · {current}", example.incumbent, before, Tone.NEUTRAL),
        AnswerPanel(f"Candidate · {candidate}", example.candidate, forgiven, Tone.UNDECIDED),
    )
