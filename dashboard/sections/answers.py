"""The Compare page's answers: two side by side, with the words marked that only one of them
has; and of a FORMAT MISMATCH the broken rules, answers that lost by form alone, and what would
help.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape as plain_escape

import streamlit as st

from dashboard.text import html, labels
from dashboard.text.html import SHOWN_CHARACTERS, escape, pill, scrolled_text, strong
from dashboard.text.labels import Tone
from harness.control.proposals.comparison import Comparison
from harness.control.proposals.format_failures import FormatExample, find_format_failures
from harness.domain.formatting import format_score

_TOKENS = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class AnswerPanel:
    who: str
    text: str
    rating: str  # `✓ correct`, with its tone
    tone: Tone


def render(before: AnswerPanel, after: AnswerPanel) -> str:
    """Side by side: words that went are struck through, words that came are underlined."""
    went, came = difference(before.text, after.text)
    return f'<div class="sg sg-answers">{_answer(before, went)}{_answer(after, came)}</div>'


def _answer(answer: AnswerPanel, body: str) -> str:
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
