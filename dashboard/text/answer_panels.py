"""Renders two answers side by side, with the words marked that only one of them has."""

import difflib
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dashboard.text.html import SHOWN_CHARACTERS, escape, pill, scrolled_text
from dashboard.text.labels import Tone

_TOKENS = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class AnswerPanel:
    """Holds one model's answer to show."""

    who: str
    text: str
    rating: str  # `✓ correct`, with its tone
    tone: Tone


def render(before: AnswerPanel, after: AnswerPanel) -> str:
    """Side by side: words that went are struck through, words that came are underlined."""
    went, came = difference(before.text, after.text)
    return f'<div class="sg sg-answers">{_answer(before, went)}{_answer(after, came)}</div>'


def _answer(answer: AnswerPanel, body: str) -> str:
    cut = (
        f'<p class="note" style="padding:0 12px 8px">The first {SHOWN_CHARACTERS:,} of '
        f"{len(answer.text):,} characters.</p>"
        if len(answer.text) > SHOWN_CHARACTERS
        else ""
    )
    shown = body or '<span class="neutral">(empty)</span>'
    return (
        f'<section class="answer"><header><span>{escape(answer.who)}</span>'
        f"{pill(answer.rating, answer.tone)}</header>{scrolled_text(shown)}{cut}</section>"
    )


def difference(before: str, after: str) -> tuple[str, str]:
    """Renders two texts as HTML, with the words marked that only one of them has; without marks
    where no word is in both.
    """
    old, new = (_TOKENS.findall(text[:SHOWN_CHARACTERS]) for text in (before, after))
    went, came = [], []
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    steps = matcher.get_opcodes()
    if not any(kind == "equal" and _has_words(old[a0:a1]) for kind, a0, a1, *_ in steps):
        # Nothing to compare: marks on every word would hide which answer is the right one.
        return html.escape("".join(old)), html.escape("".join(new))
    for kind, a0, a1, b0, b1 in steps:
        left, right = html.escape("".join(old[a0:a1])), html.escape("".join(new[b0:b1]))
        if kind == "equal":
            went.append(left)
            came.append(right)
            continue
        went.append(f"<del>{left}</del>" if left else "")
        came.append(f"<ins>{right}</ins>" if right else "")
    return "".join(went), "".join(came)


def _has_words(tokens: Sequence[str]) -> bool:
    return any(token.isalnum() for token in tokens)
