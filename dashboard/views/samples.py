"""The samples of the Compare page. The last large comparisons stay in memory, so that a filter
does not read 100,000 answers again; a decision changes the cache's key.

The index has no texts: the page reads only the texts of the rows that it shows. It compares the
two answers to an item by their scores, and `difference` marks their words.
"""

import difflib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from html import escape as plain_escape
from typing import Any, Final

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import labels, markup, page_frame
from dashboard.labels import Tone
from dashboard.markup import (
    SHOWN_CHARACTERS,
    escape,
    pill,
    scrolled_text,
    strong,
)
from harness.frame.formatting import (
    escape_formula,
    format_excerpt,
    format_score,
)
from harness.frame.imports import pause_garbage_collection
from harness.gate.run import Sample, SampleError
from harness.operations.context import Context
from harness.proposals.report import comparison as comparisons
from harness.proposals.report.answer_examples import (
    SuiteTexts,
    load_item_texts,
)
from harness.proposals.report.blocks import Commands, Folded
from harness.proposals.report.comparison import (
    Comparison,
    SuiteAnswers,
    is_large,
    load_comparison,
    load_texts,
)
from harness.proposals.report.document import describe_format_failure
from harness.proposals.report.findings import (
    FormatExample,
    find_format_failures,
)
from harness.proposals.report.page import render_html
from harness.proposals.submission import get_proposal
from harness.routing.records.runs import Suites

# With more answers, the page reads only the texts of the samples that it shows.
MOST_TEXTS: Final = comparisons.MOST_TEXTS


# Smaller differences count as a tie.
TIE_BAND = 0.01
# `missing`: one of the two answers has no score.
CHANGES = ("regressed", "improved", "same", "missing")
CHANGE_SYMBOLS = {
    "regressed": "▼",
    "improved": "▲",
    "same": "=",
    "missing": "?",
}
UNREGRESSED_NOTES = {
    "improved": " The table shows samples that improved.",
    "same": " All scored the same.",
    "missing": " Scores are missing.",
}
INDEX_COLUMNS = ("key", "suite", "item", "epoch", "change", "difference")
PINS = {
    "version": "version",
    "data_sha256": "data",
    "scorer": "scorer",
    "template": "prompt template",
}
NO_TEXTS = SuiteTexts({}, "", "")
EXCERPT_CHARACTERS = 60  # characters of an answer in the table
QUESTION_CHARACTERS = 160  # characters of a question in the table
ROW_PX = 35
VISIBLE_ROWS = 6
WIDTHS_PX = (130, 100, 310, 120, 150, 150, 75)  # widths of the table's columns
PAGE_ROWS = 200
PREFIX_ITEMS = 50  # number of items that show the prompts' common start
RATING_TONES: Final = {  # by the first character of a rating
    "✓": Tone.BETTER,
    "✕": Tone.WORSE,
    "◐": Tone.NEUTRAL,
    "?": Tone.UNDECIDED,
}
MOST_CACHED: Final = 2
# For this time, the page may still show an expired verdict as valid.
CACHE_S: Final = 60


@dataclass(frozen=True, slots=True)
class AnswerPanel:
    """One of two answers that stand side by side. author: the model and its part."""

    author: str
    text: str
    rating: str  # `✓ correct`
    tone: Tone


@dataclass(frozen=True)
class ComparisonView:
    """A comparison as the page shows it. titles: by suite, also of the weighted mean."""

    comparison: Comparison
    titles: Mapping[str, str]
    differing: Mapping[str, Sequence[str]]  # by suite, the pins that differ between the models
    now: datetime

    @property
    def id(self) -> str:
        return self.comparison.proposal.id

    @cached_property
    def index(self) -> pd.DataFrame:
        """Pairs the two answers to each item, the largest losses first. With a verdict, it has
        only the verdict's items. It omits texts, because there may be 100,000 pairs.
        """
        verdict = self.comparison.verdict
        stored_pairs: Any = verdict.inputs.get("pairs", {}) if verdict else {}
        items_by_suite = {
            suite: frozenset(str(row[0]) for row in rows)
            for suite, rows in stored_pairs.items()
        }
        with pause_garbage_collection():
            parts = [
                _index_side(side, items_by_suite.get(side.plan.suite))
                for side in self.comparison.suites
            ]
        if not parts:
            return pd.DataFrame(columns=list(INDEX_COLUMNS))
        index = pd.concat(parts, ignore_index=True)
        size = index["difference"].abs()
        change_codes = np.select(
            [
                size.isna(),
                size <= TIE_BAND,
                index["difference"] > 0,
            ],
            [
                CHANGES.index("missing"),
                CHANGES.index("same"),
                CHANGES.index("improved"),
            ],
            CHANGES.index("regressed"),
        )
        index["change"] = pd.Categorical.from_codes(change_codes, pd.Index(CHANGES))
        ordered = index[list(INDEX_COLUMNS)].iloc[np.lexsort((-size, change_codes))]
        return ordered.reset_index(drop=True)


def load(ctx: Context, proposal: str) -> ComparisonView:
    """Loads the comparison. Large comparisons that have ended stay in memory, so their times
    and validity may be a minute old. Raises NotFound.
    """
    stored_proposal = get_proposal(ctx, proposal)
    if not is_large(stored_proposal, MOST_TEXTS) or (
        stored_proposal.open and stored_proposal.verdict is None
    ):
        return load_comparison_view(ctx, proposal)
    return _load_cached(ctx, proposal, stored_proposal.version)


@st.cache_resource(max_entries=MOST_CACHED, ttl=CACHE_S, show_spinner=False)
def _load_cached(
    _ctx: Context,
    proposal: str,
    version: int,  # noqa: ARG001 - the key
) -> ComparisonView:
    """Loads a comparison, or returns it from memory.

    Args:
        version: changes with each decision, so that the page shows a decision at once.
    """
    with pause_garbage_collection():
        return load_comparison_view(_ctx, proposal)


def load_comparison_view(ctx: Context, proposal: str) -> ComparisonView:
    """Loads a comparison, and the pins that differ between both models. Raises NotFound."""
    comparison = load_comparison(ctx, proposal, most_texts=MOST_TEXTS)
    basis = comparison.basis
    mean_title = {basis.mean.suite: "Weighted mean"} if basis and basis.mean else {}
    differing = {}
    for side in comparison.suites:
        digests = (
            side.incumbent_run.suite_digest,
            side.candidate_run.suite_digest,
        )
        if len(set(digests)) > 1:
            with ctx.store.read() as tx:
                incumbent_suite, candidate_suite = map(Suites(tx).get, digests)
            differing[side.plan.suite] = [
                pin
                for name, pin in PINS.items()
                if getattr(incumbent_suite, name) != getattr(candidate_suite, name)
            ]
    titles = {**mean_title, **page_frame.titles(ctx)}
    return ComparisonView(comparison, titles, differing, ctx.clock.now())


def _index_side(side: SuiteAnswers, decided_items: Collection[str] | None) -> pd.DataFrame:
    """Pairs the answers of one suite.

    Args:
        decided_items: the verdict's; None for all.
    """
    incumbent = side.figures.incumbent
    candidate = side.figures.candidate
    old_scores = dict(
        zip(zip(incumbent.item, incumbent.epoch, strict=True), incumbent.strict, strict=True)
    )
    rows = []
    for item, epoch, position, new_score in zip(
        candidate.item,
        candidate.epoch,
        candidate.position,
        candidate.strict,
        strict=True,
    ):
        if (item, epoch) in old_scores and (decided_items is None or item in decided_items):
            old_score = old_scores[item, epoch]
            difference = (
                math.nan if old_score is None or new_score is None else new_score - old_score
            )
            rows.append((position, epoch, item, difference))
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


def rating(sample: Sample) -> str:
    """Describes a score: `✓ correct`, `◐ 0.50`, or `✕ wrong form (code_fence)`."""
    if sample.error is SampleError.INFRA:
        return "? no answer"
    if sample.error is SampleError.FALLBACK:
        return "? a gateway's fallback answered"
    if sample.error is SampleError.UNSCORED or sample.strict is None:
        return "? not scored"
    if sample.strict >= 1 - TIE_BAND:
        return "✓ correct"
    if sample.rule and sample.lenient is not None and sample.lenient > sample.strict:
        return f"✕ wrong form ({sample.rule})"
    return "✕ wrong" if sample.strict <= TIE_BAND else f"◐ {sample.strict:.2f}"


def show(view: ComparisonView) -> None:
    """Shows the filters, a table of samples, and both answers to the selected one."""
    index = view.index
    if index.empty:
        return
    st.html(markup.section("Samples", "Select a row to see both answers side by side."))
    counts = index["change"].value_counts()
    default_change = next((kind for kind in CHANGES if counts.get(kind, 0)), "all")
    change, suite = _ask_filters(
        view.titles,
        list(dict.fromkeys(index["suite"])),
        default_change,
    )
    count_texts = [
        f"{CHANGE_SYMBOLS[kind]} {counts.get(kind, 0):,} {kind}"
        for kind in CHANGES
        if kind != "missing" or counts.get(kind, 0)
    ]
    st.html(markup.note(" · ".join((*count_texts, f"{len(index):,} in all"))))
    if default_change != "regressed":
        remark = UNREGRESSED_NOTES[default_change] if change == default_change else ""
        st.html(markup.note(f"No sample regressed.{remark}"))
    filtered = index
    if change != "all":
        filtered = filtered[filtered["change"] == change]
    if suite != "all":
        filtered = filtered[filtered["suite"] == suite]
    rows = filtered.reset_index(drop=True)
    if rows.empty:
        suite_text = "" if suite == "all" else f" of {view.titles.get(suite, suite)}"
        st.html(markup.note(f"No sample{suite_text} is “{change}”. Choose another filter."))
        return
    ctx = page_frame.context()
    page, number = _choose_page(rows)
    with pause_garbage_collection():
        # The comparison's first items show the prompts' common start.
        page, texts = _read_texts(
            ctx,
            view,
            page,
            index.head(PREFIX_ITEMS),
        )
    row = page.iloc[_show_table(page, f"{change}-{suite}-{number}")]
    # The download uses this `ctx`: Streamlit builds it in a thread without the visitor's
    # session.
    page_frame.offer_csv(
        f"samples-{view.id}",
        lambda: _read_texts(ctx, view, rows, rows.head(0))[0].drop(columns=["key", "title"]),
    )
    _show_answers(view, row, texts[row["suite"]])


def _ask_filters(
    titles: Mapping[str, str],
    suites: Sequence[str],
    default_change: str,
) -> tuple[str, str]:
    """Asks for the change and the suite.

    Args:
        default_change: the preselected change.
    """
    left, right = st.columns([2, 1], vertical_alignment="bottom")
    change = left.segmented_control(
        "Change",
        [*CHANGES, "all"],
        default=default_change,
        required=True,
        key="show",
        bind="query-params",
        wrap=True,
        label_visibility="collapsed",
    )
    suite = right.selectbox(
        "Suite",
        ["all", *suites],
        key="suite",
        bind="query-params",
        help="all, or one of: " + ", ".join(titles.get(name, name) for name in suites),
    )
    return change or default_change, suite or "all"


def _choose_page(rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Returns a page of the rows and its number. By default, the page has the sample that the
    address names.
    """
    pages = -(-len(rows) // PAGE_ROWS)
    if pages == 1:
        return rows, 1
    named_sample = st.query_params.get("sample")
    keys = list(rows["key"]) if named_sample else []
    default_page = keys.index(named_sample) // PAGE_ROWS + 1 if named_sample in keys else 1
    number = st.number_input(
        f"Page of {pages:,}, with {PAGE_ROWS} samples each",
        1,
        pages,
        value=default_page,
        key="page",
    )
    start = (number - 1) * PAGE_ROWS
    return rows.iloc[start : start + PAGE_ROWS].reset_index(drop=True), number


def _read_texts(
    ctx: Context,
    view: ComparisonView,
    rows: pd.DataFrame,
    prefix_rows: pd.DataFrame,
) -> tuple[pd.DataFrame, Mapping[str, SuiteTexts]]:
    """Reads the rows' texts.

    Args:
        prefix_rows: further rows, to find the prompts' common start.
    """
    comparison = view.comparison
    if comparison.without_texts:
        needed = pd.concat([rows, prefix_rows])
        items = {
            str(suite): list(group["item"])
            for suite, group in needed.groupby("suite", observed=True)
        }
        comparison = load_texts(ctx, comparison, items)
    texts = load_item_texts(ctx, comparison)
    answers = {
        (side.plan.suite, sample.item, sample.epoch, arm): sample
        for side in comparison.suites
        for arm, samples in (
            ("incumbent", side.incumbent),
            ("candidate", side.candidate),
        )
        for sample in samples
    }
    text_rows = []
    for key in zip(rows["suite"], rows["item"], rows["epoch"], strict=True):
        incumbent_answer = answers[*key, "incumbent"]
        candidate_answer = answers[*key, "candidate"]
        item_text = texts.get(key[0], NO_TEXTS).find(key[1])
        text_rows.append(
            {
                "title": view.titles.get(key[0], key[0]),
                "question": item_text.question,
                "expected": item_text.expected,
                "incumbent": rating(incumbent_answer),
                "candidate": rating(candidate_answer),
                "latency_s": candidate_answer.duration_s,
                "incumbent_answer": incumbent_answer.answer,
                "candidate_answer": candidate_answer.answer,
            }
        )
    texts_frame = pd.DataFrame(text_rows, index=rows.index)
    return rows.astype({"suite": object, "change": object}).join(texts_frame), texts


def _show_table(rows: pd.DataFrame, filter_key: str) -> int:
    """Shows the table; returns the position of the selected row (`sample` in the URL)."""
    keys = list(rows["key"])
    named_sample = st.query_params.get("sample")
    default_row = keys.index(named_sample) if named_sample in keys else 0
    table = pd.DataFrame(
        {
            "Sample": [escape_formula(item) for item in rows["item"]],
            "Change": [f"{CHANGE_SYMBOLS[change]} {change}" for change in rows["change"]],
            "Question": [
                _format_excerpt(question, QUESTION_CHARACTERS) for question in rows["question"]
            ],
            "Expected": [
                _format_excerpt(expected, EXCERPT_CHARACTERS) for expected in rows["expected"]
            ],
            "Current": _build_answer_cells(rows, "incumbent"),
            "Candidate": _build_answer_cells(rows, "candidate"),
            "Latency": [labels.seconds(latency) for latency in rows["latency_s"]],
        }
    )
    event = st.dataframe(
        table,
        hide_index=True,
        height=ROW_PX * (min(VISIBLE_ROWS, len(table)) + 1) + 3,
        row_height=ROW_PX,
        on_select="rerun",
        selection_mode="single-row",
        selection_default={"selection": {"rows": [default_row]}},
        # The key contains the filter, because an old selection would point to a wrong row.
        key=f"samples-{filter_key}",
        column_config={
            name: st.column_config.TextColumn(
                width=width, alignment="right" if name == "Latency" else None
            )
            for name, width in zip(table.columns, WIDTHS_PX, strict=True)
        },
    )
    selected_rows = event["selection"]["rows"]
    position = int(selected_rows[0]) if selected_rows else default_row
    if selected_rows and keys[position] != keys[0]:
        st.query_params["sample"] = keys[position]
    return position


def _format_excerpt(text: str, length: int) -> str:
    return str(escape_formula(format_excerpt(text, length).removeprefix("- ")))


def _build_answer_cells(rows: pd.DataFrame, arm: str) -> list[str]:
    """Builds the table's cells of one model: the sign of the rating and the beginning of the
    answer.
    """
    return [
        f"{rating_text[0]} {format_excerpt(answer, EXCERPT_CHARACTERS)}"
        if answer
        else rating_text
        for rating_text, answer in zip(rows[arm], rows[f"{arm}_answer"], strict=True)
    ]


def _show_answers(
    view: ComparisonView,
    row: pd.Series,
    texts: SuiteTexts,
) -> None:
    """Shows question, expected answer and both answers.

    Args:
        texts: of the suite.
    """
    start_html = ""
    expected = str(row["expected"])
    if texts.start:
        summary = "… after the start that all prompts share"
        start_html = (
            f"<details><summary>{summary}</summary>{_render_scrolled(texts.start)}</details>"
        )
    unknown_note = f'<p class="note">unknown: {escape(texts.missing or "not stored")}</p>'
    question = markup.block(
        f"<p>{strong(row['item'])} · {escape(row['title'])} · "
        f"{CHANGE_SYMBOLS[row['change']]} {row['change']}</p>",
        f'<div class="part"><h3>Question</h3>{start_html}'
        f"{_render_scrolled(str(row['question']))}</div>",
        '<div class="part"><h3>Expected answer</h3>'
        f"{_render_scrolled(expected) if expected else unknown_note}</div>",
        kind="sg-question",
    )
    before, after = (
        AnswerPanel(
            author,
            str(row[f"{arm}_answer"]),
            str(row[arm]),
            RATING_TONES[row[arm][0]],
        )
        for author, arm in (
            (f"Current · {view.comparison.incumbent.name}", "incumbent"),
            (f"Candidate · {view.comparison.candidate.name}", "candidate"),
        )
    )
    st.html(question + render(before, after))


def _render_scrolled(text: str) -> str:
    return markup.scrolled_text(escape(text[: markup.SHOWN_CHARACTERS]))


_TOKENS = re.compile(r"\s+|\w+|[^\w\s]")


def render(before: AnswerPanel, after: AnswerPanel) -> str:
    """Renders both answers: removed words struck through, added words underlined."""
    old_html, new_html = difference(before.text, after.text)
    panels = _render_panel(before, old_html) + _render_panel(after, new_html)
    return f'<div class="sg sg-answers">{panels}</div>'


def _render_panel(answer: AnswerPanel, body: str) -> str:
    """Renders an answer below its author and rating.

    Args:
        body: HTML.

    Notes the length of a cut answer.
    """
    length = len(answer.text)
    length_note = ""
    if length > SHOWN_CHARACTERS:
        text = f"The first {SHOWN_CHARACTERS:,} of {length:,} characters."
        length_note = f'<p class="note" style="padding:0 12px 8px">{text}</p>'
    content = body or '<span class="neutral">(empty)</span>'
    return (
        f'<section class="answer"><header><span>{escape(answer.author)}</span>'
        f"{pill(answer.rating, answer.tone)}</header>{scrolled_text(content)}{length_note}"
        "</section>"
    )


def difference(before: str, after: str) -> tuple[str, str]:
    """Renders two texts as HTML, and marks the words that only one text has."""
    old_tokens = _TOKENS.findall(before[:SHOWN_CHARACTERS])
    new_tokens = _TOKENS.findall(after[:SHOWN_CHARACTERS])
    old_parts = []
    new_parts = []
    matcher = difflib.SequenceMatcher(None, old_tokens, new_tokens, autojunk=False)
    steps = matcher.get_opcodes()
    shared = (
        token for kind, a0, a1, *_ in steps if kind == "equal" for token in old_tokens[a0:a1]
    )
    if not any(map(str.isalnum, shared)):
        # Without a common word, marks on every word would make both answers hard to read.
        return plain_escape("".join(old_tokens)), plain_escape("".join(new_tokens))
    for kind, a0, a1, b0, b1 in steps:
        old_text = plain_escape("".join(old_tokens[a0:a1]))
        new_text = plain_escape("".join(new_tokens[b0:b1]))
        if kind == "equal":
            old_parts.append(old_text)
            new_parts.append(new_text)
            continue
        old_parts.append(f"<del>{old_text}</del>" if old_text else "")
        new_parts.append(f"<ins>{new_text}</ins>" if new_text else "")
    return "".join(old_parts), "".join(new_parts)


def show_format_failures(comparison: Comparison, titles: Mapping[str, str]) -> None:
    """Shows the format rules that the candidate broke, with examples and remedies."""
    for format_failure in find_format_failures(comparison):
        for block in describe_format_failure(format_failure, titles):
            if isinstance(block, Commands):
                st.code("\n".join(block.lines), language=None, wrap_lines=True)
            elif not isinstance(block, Folded):
                st.html(markup.block(render_html([block])))
        count_text = labels.plural(len(format_failure.examples), "answer")
        with st.expander(f"{count_text} that lost points by format alone", expanded=True):
            for example in format_failure.examples:
                st.html(_render_example(comparison, example))


def _render_example(comparison: Comparison, example: FormatExample) -> str:
    """Renders an answer that lost points by its format alone, beside the incumbent's."""
    scores = (
        example.incumbent_score,
        example.candidate_score,
        example.lenient_score,
    )
    old_score, new_score, lenient_score = (
        "no score" if score is None else f"{format_score(score, None)} of 100"
        for score in scores
    )
    incumbent = comparison.incumbent.name
    candidate = comparison.candidate.name
    candidate_scores = f"{new_score}, format ignored {lenient_score}"
    head = f"<p>{strong(example.item)} · {escape(example.rule or 'unnamed rule')}</p>"
    return markup.block(head) + render(
        AnswerPanel(f"Current · {incumbent}", example.incumbent, old_score, Tone.NEUTRAL),
        AnswerPanel(
            f"Candidate · {candidate}",
            example.candidate,
            candidate_scores,
            Tone.UNDECIDED,
        ),
    )
