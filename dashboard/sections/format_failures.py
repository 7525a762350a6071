"""The Compare page shows a FORMAT MISMATCH here: broken rules, answers, and what would help."""

from collections.abc import Mapping, Sequence

import streamlit as st

from dashboard.text import answer_panels, html, labels
from dashboard.text.answer_panels import AnswerPanel
from dashboard.text.html import escape, strong
from harness.control.proposals.comparison import Comparison
from harness.control.proposals.format_failures import (
    FormatExample,
    FormatFailure,
    find_format_failures,
)
from harness.domain.formatting import format_score


def line(lost: FormatFailure) -> str:
    return (
        f"The candidate {lost.remedy.what}. As scored: {labels.points(lost.strict_delta)} "
        "points; with format errors ignored on both sides: "
        f"{labels.points(lost.lenient_delta)}."
    )


def rule_rows(lost: FormatFailure) -> Sequence[html.Row]:
    ordered = sorted(lost.rules.items(), key=lambda rule: (-rule[1], rule[0]))
    return [
        {
            "Broken rule": escape(rule),
            "What it means": escape(lost.meanings[rule]),
            "Answers": f"{count:,}",
        }
        for rule, count in ordered
    ]


def remedies(lost: FormatFailure) -> Sequence[str]:
    plain = [mend.what.replace("`", "") for mend in lost.mends]
    return [*plain, f"a parser in your application that can {lost.remedy.parser}"]


def answers(comparison: Comparison, example: FormatExample) -> tuple[AnswerPanel, AnswerPanel]:
    forgiven = f"{_points_of(example.candidate_score)}, format ignored "
    return (
        AnswerPanel(
            f"Current · {comparison.incumbent.name}",
            example.incumbent,
            _points_of(example.incumbent_score),
            labels.Tone.NEUTRAL,
        ),
        AnswerPanel(
            f"Candidate · {comparison.candidate.name}",
            example.candidate,
            forgiven + _points_of(example.lenient_score),
            labels.Tone.UNDECIDED,
        ),
    )


def _points_of(score: float | None) -> str:
    return "no score" if score is None else f"{format_score(score, None)} of 100"


def show(comparison: Comparison, titles: Mapping[str, str]) -> None:
    """Show each suite that was lost by format; nothing where there is none."""
    for lost in find_format_failures(comparison):
        name = titles.get(lost.suite, lost.suite)
        heading = html.section(f"What to change: {name}", line(lost))
        st.html(heading + html.table(rule_rows(lost)))
        st.html(html.note("Options: " + "; or ".join(remedies(lost)) + "."))
        st.html(
            html.note(
                "The first option as commands, which create another target and propose it:"
            )
        )
        st.code("\n".join(lost.mends[0].commands), language=None, wrap_lines=True)
        shown = labels.plural(len(lost.examples), "answer")
        with st.expander(f"{shown} that lost points by format alone", expanded=True):
            for example in lost.examples:
                head = (
                    f"<p>{strong(example.item)} · {escape(example.rule or 'unnamed rule')}</p>"
                )
                st.html(html.block(head) + answer_panels.render(*answers(comparison, example)))
