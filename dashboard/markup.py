"""Renders the dashboard's parts as HTML and escapes every text.

Functions take plain text, unless their docstring says HTML. Pure, without Streamlit, so that
the sign-in page uses them too. The classes are styled in styles.css.
"""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from dashboard.labels import FigureChange, Label, Tone, date_time
from harness.frame.formatting import escape_directions, format_timestamp
from harness.frame.pagination import INVALID_ROWS_HINT
from harness.frame.signing.signed_rows import RowFault

# Pages cut longer answers and note their length; the CLI prints whole answers.
SHOWN_CHARACTERS = 6_000
_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
# `code`, or a time; a time within code stays as it is, because a command contains it.
_MARK = re.compile(
    r"`(?P<code>[^`\n]+)`"
    r"|\b(?P<day>\d{1,2} [A-Z][a-z]{2} \d{4}|\d{4}-\d{2}-\d{2}) \d{2}:\d{2}(?P<seconds>:\d{2})?"
    r" UTC(?P<offset>[+-]\d{2}:\d{2})?"
)
# The space between a number and its unit, where no line may break.
_UNIT = re.compile(r"(?<=\d) (?=(?:%|s|min|h|d)\b|%)")


def escape(value: object) -> str:
    """Escapes a text for elements and quoted attributes, and makes direction marks visible."""
    return _UNIT.sub("\u00a0", html.escape(escape_directions(str(value)), quote=True))


def keep_units(markup: str) -> str:
    """Replaces the spaces between numbers and units by unbreakable ones.

    Args:
        markup: HTML.
    """
    return _UNIT.sub("\u00a0", markup)


def strong(value: object) -> str:
    return f"<b>{escape(value)}</b>"


def rich(text: object) -> str:
    """Escapes a text, renders `backticks` as code, and writes times in the reader's zone, with
    UTC as a tooltip.
    """
    return _MARK.sub(_render_mark, escape(text))


def _render_mark(found: re.Match[str]) -> str:
    if code := found["code"]:
        return f"<code>{code}</code>"
    day = "%Y-%m-%d" if "-" in found["day"] else "%d %b %Y"
    clock = "%H:%M:%S" if found["seconds"] else "%H:%M"
    offset = "" if found["offset"] else "+00:00"
    try:
        at = datetime.strptime(f"{found[0]}{offset}", f"{day} {clock} UTC%z")
    except ValueError:
        # A person's text may contain a day that does not exist.
        return found[0]
    # No line breaks before the zone.
    local_text = date_time(at, clock).replace(" UTC", "\u00a0UTC")
    return f'<time title="{format_timestamp(at)} UTC">{local_text}</time>'


def emphasized(text: object) -> str:
    """Escapes a text, and renders `backticks` as code and **names** as strong."""
    return _BOLD.sub(r"<b>\1</b>", rich(text))


def block(*parts: str, kind: str = "") -> str:
    """Joins parts of HTML in a box.

    Args:
        kind: further CSS classes.
    """
    return f'<div class="sg {kind}">{"".join(parts)}</div>'


def title(heading: str, note: str = "") -> str:
    """Renders the page's one h1.

    Args:
        heading: HTML.
        note: HTML.
    """
    note_html = f'<p class="note">{note}</p>' if note else ""
    return block(f"<h1>{heading}</h1>{note_html}")


def section(heading: str, note: str = "") -> str:
    """Renders a heading with a note below it. The note may contain `backticks`."""
    note_html = f'<p class="note">{rich(note)}</p>' if note else ""
    return block(f"<h2>{escape(heading)}</h2>{note_html}")


def note(text: str) -> str:
    return block(f'<p class="note">{rich(text)}</p>')


def faint(words: object) -> str:
    return f'<span class="note">{rich(words)}</span>'


def noted(cell: str, words: object) -> str:
    """Adds a faint line below a cell.

    Args:
        cell: HTML.
        words: plain text; empty for no line.
    """
    return f"{cell}<br>{faint(words)}" if words else cell


def state(label: Label) -> str:
    return f'<b class="{label.tone}">{escape(label.symbol)} {escape(label.words)}</b>'


def pill(text: str, tone: Tone) -> str:
    return f'<span class="sg-pill {tone}">{escape(text)}</span>'


@dataclass(frozen=True, slots=True)
class VerdictCard:
    """The card that answers Compare and Canary. lead, next_step: may contain `backticks`."""

    label: Label
    lead: str
    bullets: Sequence[tuple[str, str]] = ()  # (name, finding) in plain text
    next_step: str = ""
    foot: str = ""


def verdict(card: VerdictCard, *, stale: bool = False) -> str:
    """Renders a verdict's card.

    Args:
        stale: greys it, because its figures may be out of date.
    """
    label = card.label
    advice = f": {escape(label.advice)}" if label.advice else ""
    # The words are empty if the page's first line already shows the label.
    head = f'<div class="headline">{escape(label.words)}{advice}</div>' if label.words else ""
    bullets = "".join(
        f"<p>{strong(name)}: {rich(finding)}</p>" for name, finding in card.bullets
    )
    next_step = f"<p>{strong('Next:')} {rich(card.next_step)}</p>" if card.next_step else ""
    foot = f'<p class="note">{rich(card.foot)}</p>' if card.foot else ""
    return (
        f'<div class="sg sg-verdict {label.tone}{" sg-stale" if stale else ""}">'
        f'<div class="sg-round {label.tone}" aria-hidden="true">{escape(label.symbol)}</div>'
        f'<div class="body">{head}'
        f"<p>{rich(card.lead)}</p>{bullets}{next_step}{foot}</div></div>"
    )


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure with its name. interval: as text. below: a line of text instead of a change."""

    name: str
    figure: str
    change: FigureChange | None = None
    below: str = ""
    interval: str = ""


def tiles(row: Iterable[Tile], *, stale: bool = False) -> str:
    """Renders tiles in a row.

    Args:
        stale: greys them.
    """
    return f'<div class="sg sg-tiles{" sg-stale" if stale else ""}">' + (
        "".join(_render_tile(tile) for tile in row) + "</div>"
    )


def _render_tile(tile: Tile) -> str:
    below_html = escape(tile.below)
    if tile.change is not None:
        change = tile.change
        change_text = f"{escape(change.symbol)} {escape(change.words)}"
        below_html = f'<span class="{change.tone}">{change_text}</span> {escape(change.was)}'
    interval = f'<p class="note">{escape(tile.interval)}</p>' if tile.interval else ""
    return (
        f'<div class="sg-card"><p class="note">{escape(tile.name)}</p>'
        f'<div class="figure">{escape(tile.figure)}</div>{interval}'
        f'<p class="note">{below_html}</p></div>'
    )


def pair_bars(suites: Sequence[tuple[str, int, int, int]]) -> str:
    """Draws lost and won pairs on one scale.

    Args:
        suites: name, won, lost, tied.
    """
    most_pairs = max([1, *(max(won, lost) for _, won, lost, _ in suites)])
    bars = (
        '<div class="row"><span class="name"></span><span class="lost head">candidate lost'
        '</span><span class="won head">candidate won</span><span class="ties"></span></div>'
    )
    for name, won, lost, tied in suites:
        # Widths in percent. The longest bar leaves room for the number beside it.
        lost_width = 78 * lost / most_pairs
        won_width = 78 * won / most_pairs
        bars += (
            f'<div class="row"><span class="name">{escape(name)}</span>'
            f'<span class="lost"><span class="worse">▼ {lost:,}</span>'
            f'<span class="bar" style="width:{lost_width:.2f}%"></span></span>'
            f'<span class="won"><span class="bar" style="width:{won_width:.2f}%"></span>'
            f'<span class="better">▲ {won:,}</span></span>'
            f'<span class="ties">{tied:,} tied of {won + lost + tied:,}</span></div>'
        )
    return block(f'<div class="pairbars">{bars}</div>')


def meter(
    name: str,
    share: float,
    tone: Tone,
    furthest: float = 0.0,
) -> str:
    """Renders a meter.

    Args:
        name: for screen readers.
        furthest: the highest share so far, which a tick marks.
    """
    width_percent = 100 * min(1.0, max(0.0, share))
    tick_percent = 100 * min(1.0, max(0.0, furthest))
    mark = (
        f'<em style="left:{tick_percent:.1f}%"></em>'
        if tick_percent > width_percent + 0.5
        else ""
    )
    return (
        f'<div class="sg sg-meter" role="meter" aria-label="{escape(name)}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{width_percent:.0f}">'
        f'<i class="{tone}" style="width:{width_percent:.1f}%"></i>{mark}</div>'
    )


def checklist(rows: Iterable[tuple[Label, str]]) -> str:
    """Renders conditions. Each row has a condition's state, and an estimate of the time."""
    lines = "".join(
        f'<p class="check">{state(label)} <span class="when">{escape(estimate)}</span></p>'
        for label, estimate in rows
    )
    return block(lines)


def scrolled_text(body: str, kind: str = "") -> str:
    """Renders a text in a box that scrolls, also by the keyboard.

    Args:
        body: HTML.
    """
    class_attribute = f' class="{kind}"' if kind else ""
    return f'<pre{class_attribute} tabindex="0">{body}</pre>'


Row = Mapping[str, str]  # a table row: HTML cells by column head (plain text)


def table(rows: Iterable[Row], *, stacked: bool = False) -> str:
    """Renders a table; empty without a row.

    Args:
        stacked: on a phone, each row becomes a block.
    """
    cells = [list(row.items()) for row in rows]
    if not cells:
        return ""
    heads = [head_cells.strip() for head_cells, _ in cells[0]]
    head_cells = "".join(f"<th>{escape(heading)}</th>" for heading in heads)
    if stacked:
        # On a phone, CSS shows the heads; a screen reader finds them in the first row.
        cell_tags = [f'<td data-head="{escape(heading)}">' for heading in heads]
    else:
        cell_tags = ["<td>"] * len(heads)
    # A stacked row is a grid, so a cell's content must be one element.
    start = "<div>" if stacked else ""
    end = "</div>" if stacked else ""
    body = "".join(
        "<tr>"
        + "".join(
            f"{cell_tag}{start}{cell}{end}</td>"
            for cell_tag, (_, cell) in zip(cell_tags, row, strict=True)
        )
        + "</tr>"
        for row in cells
    )
    classes = [
        *(["wide"] if len(heads) > 4 else []),
        *(["stacked"] if stacked else []),
    ]
    class_attribute = f' class="{" ".join(classes)}"' if classes else ""
    aria_label = f"Table: {', '.join(filter(None, heads))}"
    return block(
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(aria_label)}">'
        f"<table{class_attribute}><thead><tr>{head_cells}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def listing(
    heading: str,
    note_text: str,
    rows: Iterable[Row],
    empty_text: str = "",
) -> str:
    """Renders a section with a table, or with `empty_text` if there are no rows."""
    return section(heading, note_text) + (table(rows, stacked=True) or note(empty_text))


def changes(heads: tuple[str, str, str], rows: Iterable[tuple[str, str, str]]) -> str:
    """Renders a table of old and new values.

    Args:
        heads: of the name, the old and the new value.
    """
    value_cells = [
        (
            escape(name),
            f"<del>{escape(old)}</del>",
            f"<ins>{escape(new)}</ins>",
        )
        for name, old, new in rows
    ]
    return table(dict(zip(heads, row, strict=True)) for row in value_cells)


def steps(
    plan: Sequence[tuple[str, str]],
    current: int | None,
    words: str = "now",
    progress: float = 1.0,
) -> str:
    """Renders a canary's steps as a bar that fills.

    Args:
        plan: each step's share, and a text about it.
        current: the index of the present step; None before the first one.
        words: the mark of the present step.
        progress: the part of the present step that is done.
    """
    cells = []
    for index, (share, text) in enumerate(plan):
        is_current = index == current
        is_done = current is not None and index < current
        filled = progress if is_current else float(is_done)
        percent = 100 * min(1.0, max(0.0, filled))
        mark = f" ◂ {escape(words)}" if is_current else ""
        cells.append(
            f'<div class="{"step now" if is_current else "step"}">'
            f'<i aria-hidden="true"><i style="width:{percent:.0f}%"></i></i>'
            f"<b>{escape(share)}{mark}</b>{escape(text)}</div>"
        )
    return f'<div class="sg sg-steps">{"".join(cells)}</div>'


def banner(
    heading: str,
    text: str,
    *,
    tone: Tone = Tone.UNDECIDED,
    docs_page: str = "",
    docs_label: str = "More about it",
    page: str = "",
) -> str:
    """Builds a banner.

    Args:
        page: the address to which the heading links.
    """
    docs = f" {docs_link(docs_page, docs_label)}" if docs_page else ""
    head = strong(heading)
    if page:
        head = f'<a href="{escape(page)}" target="_self">{head}</a>'
    body = f"{head} {rich(text)}{docs}"
    return f'<div class="sg sg-banner {tone}" role="status">{body}</div>'


def invalid(faults: Sequence[RowFault]) -> str:
    """Renders a banner for each row with an invalid signature."""
    return "".join(
        banner(f"✕ {fault.name}.", INVALID_ROWS_HINT, tone=Tone.WORSE) for fault in faults
    )


def loading(part: str) -> str:
    """Renders a placeholder while a part of the page loads. Its height is fixed, so that the
    page does not jump when the part arrives.
    """
    return (
        '<div class="sg sg-loading" aria-busy="true" style="min-height: 150px">'
        f"Reading {escape(part)} …</div>"
    )


def empty(sentence: str, command: str) -> str:
    """Renders the advice of a page without content.

    Args:
        command: creates the first content.
    """
    return block(
        f"<p>{escape(sentence)}</p><p><code>{escape(command)}</code></p>",
        kind="sg-card",
    )


def failure(
    problem: str,
    reason: str,
    still_works: str,
    *,
    docs_page: str = "",
) -> str:
    """Renders an error.

    Args:
        still_works: names the parts that the error does not affect.
        docs_page: explains the error.
    """
    docs = f"<p>{docs_link(docs_page, 'More about it')}</p>" if docs_page else ""
    return (
        '<div class="sg sg-banner worse" role="alert">'
        f"<p><b>✕ {escape(problem)}</b></p><p>{rich(reason)}</p>"
        f"<p>{rich(still_works)}</p>{docs}</div>"
    )


def folded(summary: str, body: str) -> str:
    """Renders a part that a click unfolds.

    Args:
        body: HTML.
    """
    return block(f'<details><summary class="note">{escape(summary)}</summary>{body}</details>')


def docs_link(page: str, label: str) -> str:
    """Renders a link to a page of the docs, such as `runbook#drift`, which opens a new tab."""
    name, hash_sign, section = page.partition("#")
    address = escape(f"docs/{name}.html{hash_sign}{section}")
    return f'<a href="{address}" target="_blank" rel="noopener">{escape(label)}</a>'


def trend(values: Sequence[float], *, name: str) -> str:
    """Renders values as small bars; the highest value fills its bar. Empty for fewer than two
    values.

    Args:
        name: for screen readers.
    """
    if len(values) < 2:
        return ""
    highest = max(values) or 1.0
    heights_percent = (max(4.0, 100 * value / highest) for value in values)
    bars = "".join(
        f'<i style="height:{height_percent:.0f}%"></i>' for height_percent in heights_percent
    )
    return f'<span class="trend" role="img" aria-label="{escape(name)}">{bars}</span>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Renders pairs of a name and a fact.

    Args:
        rows: a name, and its fact as HTML.
    """
    cells = "".join(
        f'<span class="note">{escape(name)}</span><span>{fact}</span>' for name, fact in rows
    )
    return block(cells, kind="sg-facts")


def link(
    page: str,
    content: str,
    **query: str,
) -> str:
    """Renders a link to a page of the dashboard.

    Args:
        content: HTML.
        query: the page's filters.
    """
    query_text = f"?{urlencode(query)}" if query else ""
    return f'<a href="{escape(f"{page}{query_text}")}" target="_self">{content}</a>'
