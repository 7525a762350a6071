"""Writes what an item asks, and the answer that is expected, as HTML."""

from html import escape

from dashboard.text import html


def question(
    heading: str, text: str, expected: str, *, start: str = "", missing: str = ""
) -> str:
    """Renders what an item asks and the answer that is expected. heading: HTML. start: the
    words that every question begins with, folded. missing: why no answer is known.
    """
    folded = (
        "<details><summary>… after the words that every prompt begins with</summary>"
        f"{_text(start)}</details>"
        if start
        else ""
    )
    wanted = (
        _text(expected)
        if expected
        else f'<p class="note">unknown: {html.escape(missing or "nobody stored it")}</p>'
    )
    return html.block(
        f"<p>{heading}</p>"
        f'<div class="part"><h3>Question</h3>{folded}'
        f"{_text(text)}</div>"
        f'<div class="part"><h3>Expected answer</h3>{wanted}</div>',
        kind="sg-question",
    )


def _text(text: str) -> str:
    return html.scrolled_text(escape(text[: html.SHOWN_CHARACTERS]))
