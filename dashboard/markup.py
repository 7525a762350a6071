"""Renders the dashboard's parts as HTML and escapes every text.

Functions take plain text, unless their docstring says HTML. Pure, without Streamlit, so that
the sign-in page uses them too. The classes are styled in styles.css.
"""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from dashboard.labels import FigureChange, Label, Tone
from harness.frame.formatting import escape_directions
from harness.frame.pagination import INVALID_ROWS_HINT
from harness.frame.signing.signed_rows import RowFault

# Pages cut a longer answer and note its length; the CLI prints all of it.
SHOWN_CHARACTERS = 6_000
_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
_CODE = re.compile(r"`([^`\n]+)`")
# No line breaks between a number and its unit.
_UNIT = re.compile(r"(?<=\d) (?=(?:%|s|min|h|d)\b|%)")


def escape(value: object) -> str:
    """Escapes for elements and quoted attributes, and makes direction marks visible."""
    return _UNIT.sub("\u00a0", html.escape(escape_directions(str(value)), quote=True))


def keep_units(markup: str) -> str:
    """Replaces the spaces between numbers and units by unbreakable ones. markup: HTML."""
    return _UNIT.sub("\u00a0", markup)


def strong(value: object) -> str:
    return f"<b>{escape(value)}</b>"


def rich(text: object) -> str:
    """Escapes a text, and renders `backticks` as code."""
    return _CODE.sub(r"<code>\1</code>", escape(text))


def emphasized(text: object) -> str:
    """Escapes a text, and renders `backticks` as code and **names** as strong."""
    return _BOLD.sub(r"<b>\1</b>", rich(text))


def block(*parts: str, kind: str = "") -> str:
    """Joins parts of HTML in a box. kind: further CSS classes."""
    return f'<div class="sg {kind}">{"".join(parts)}</div>'


def title(heading: str, note: str = "") -> str:
    """Renders the page's one h1. heading, note: HTML."""
    below = f'<p class="note">{note}</p>' if note else ""
    return block(f"<h1>{heading}</h1>{below}")


def section(heading: str, note: str = "") -> str:
    """Renders a heading with a note below it. The note may contain `backticks`."""
    below = f'<p class="note">{rich(note)}</p>' if note else ""
    return block(f"<h2>{escape(heading)}</h2>{below}")


def note(text: str) -> str:
    return block(f'<p class="note">{rich(text)}</p>')


def faint(words: object) -> str:
    return f'<span class="note">{escape(words)}</span>'


def noted(cell: str, words: object) -> str:
    """Adds a faint line below a cell. cell: HTML. words: plain text; nothing is added without
    any.
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
    """Renders a verdict's card. stale: greys it, because its figures may be out of date."""
    label = card.label
    advice = f": {escape(label.advice)}" if label.advice else ""
    # The words are empty if the page's first line already shows the label.
    head = f'<div class="headline">{escape(label.words)}{advice}</div>' if label.words else ""
    bullets = "".join(f"<p>{strong(what)}: {rich(fact)}</p>" for what, fact in card.bullets)
    following = f"<p>{strong('Next:')} {rich(card.next_step)}</p>" if card.next_step else ""
    foot = f'<p class="note">{escape(card.foot)}</p>' if card.foot else ""
    return (
        f'<div class="sg sg-verdict {label.tone}{" sg-stale" if stale else ""}">'
        f'<div class="sg-round {label.tone}" aria-hidden="true">{escape(label.symbol)}</div>'
        f'<div class="body">{head}'
        f"<p>{rich(card.lead)}</p>{bullets}{following}{foot}</div></div>"
    )


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure with its name. interval: in words; below: a line of text instead of a change."""

    name: str
    figure: str
    change: FigureChange | None = None
    below: str = ""
    interval: str = ""


def tiles(row: Iterable[Tile], *, stale: bool = False) -> str:
    """Renders tiles in a row. stale: greys them."""
    return f'<div class="sg sg-tiles{" sg-stale" if stale else ""}">' + (
        "".join(_tile(tile) for tile in row) + "</div>"
    )


def _tile(tile: Tile) -> str:
    below = escape(tile.below)
    if tile.change is not None:
        change = tile.change
        moved = f"{escape(change.symbol)} {escape(change.words)}"
        below = f'<span class="{change.tone}">{moved}</span> {escape(change.was)}'
    between = f'<p class="note">{escape(tile.interval)}</p>' if tile.interval else ""
    return (
        f'<div class="sg-card"><p class="note">{escape(tile.name)}</p>'
        f'<div class="figure">{escape(tile.figure)}</div>{between}'
        f'<p class="note">{below}</p></div>'
    )


def pair_bars(suites: Sequence[tuple[str, int, int, int]]) -> str:
    """Draws lost and won pairs on one scale. suites: name, won, lost, tied."""
    most = max([1, *(max(won, lost) for _, won, lost, _ in suites)])
    rows = (
        '<div class="row"><span class="name"></span><span class="lost head">candidate lost'
        '</span><span class="won head">candidate won</span><span class="ties"></span></div>'
    )
    for name, won, lost, tied in suites:
        # Room for the number beside the longest bar.
        left = 78 * lost / most
        right = 78 * won / most
        rows += (
            f'<div class="row"><span class="name">{escape(name)}</span>'
            f'<span class="lost"><span class="worse">▼ {lost:,}</span>'
            f'<span class="bar" style="width:{left:.2f}%"></span></span>'
            f'<span class="won"><span class="bar" style="width:{right:.2f}%"></span>'
            f'<span class="better">▲ {won:,}</span></span>'
            f'<span class="ties">{tied:,} tied of {won + lost + tied:,}</span></div>'
        )
    return block(f'<div class="pairbars">{rows}</div>')


def meter(
    name: str,
    share: float,
    tone: Tone,
    furthest: float = 0.0,
) -> str:
    """Renders a meter. name: for screen readers. furthest: the highest share so far; a tick."""
    width = 100 * min(1.0, max(0.0, share))
    tick = 100 * min(1.0, max(0.0, furthest))
    mark = f'<em style="left:{tick:.1f}%"></em>' if tick > width + 0.5 else ""
    return (
        f'<div class="sg sg-meter" role="meter" aria-label="{escape(name)}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{width:.0f}">'
        f'<i class="{tone}" style="width:{width:.1f}%"></i>{mark}</div>'
    )


def checklist(rows: Iterable[tuple[Label, str]]) -> str:
    """Renders conditions, each with a text about when it is met."""
    lines = "".join(
        f'<p class="check">{state(label)} <span class="when">{escape(when)}</span></p>'
        for label, when in rows
    )
    return block(lines)


def scrolled_text(body: str, kind: str = "") -> str:
    """Renders a text in a box that scrolls, by the keyboard as well. body: HTML."""
    named = f' class="{kind}"' if kind else ""
    return f'<pre{named} tabindex="0">{body}</pre>'


Row = Mapping[str, str]  # a table row: HTML cells by column head (plain text)


def table(rows: Iterable[Row], *, stacked: bool = False) -> str:
    """Renders a table; empty without a row. stacked: on a phone, each row becomes a block."""
    cells = [list(row.items()) for row in rows]
    if not cells:
        return ""
    heads = [head.strip() for head, _ in cells[0]]
    head = "".join(f"<th>{escape(heading)}</th>" for heading in heads)
    if stacked:
        # On a phone, CSS shows the heads; a screen reader finds them in the first row.
        named = [f'<td data-head="{escape(heading)}">' for heading in heads]
    else:
        named = ["<td>"] * len(heads)
    # A stacked row is a grid, so a cell's content must be one element.
    start = "<div>" if stacked else ""
    end = "</div>" if stacked else ""
    body = "".join(
        "<tr>"
        + "".join(
            f"{td}{start}{cell}{end}</td>" for td, (_, cell) in zip(named, row, strict=True)
        )
        + "</tr>"
        for row in cells
    )
    kinds = [
        *(["wide"] if len(heads) > 4 else []),
        *(["stacked"] if stacked else []),
    ]
    wide = f' class="{" ".join(kinds)}"' if kinds else ""
    name = f"Table: {', '.join(filter(None, heads))}"
    return block(
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">'
        f"<table{wide}><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def listing(
    heading: str,
    below: str,
    rows: Iterable[Row],
    nothing: str = "",
) -> str:
    """Renders a section with a table, or with `nothing` if there are no rows."""
    return section(heading, below) + (table(rows, stacked=True) or note(nothing))


def changes(heads: tuple[str, str, str], rows: Iterable[tuple[str, str, str]]) -> str:
    """Renders a table of old and new values. heads: of the name, the old and the new value."""
    cells = [
        (
            escape(name),
            f"<del>{escape(before)}</del>",
            f"<ins>{escape(after)}</ins>",
        )
        for name, before, after in rows
    ]
    return table(dict(zip(heads, row, strict=True)) for row in cells)


def steps(
    plan: Sequence[tuple[str, str]],
    now: int | None,
    words: str = "now",
) -> str:
    """Renders a canary's steps. plan: (share, exit conditions). now: current index."""
    cells = []
    for at, (share, needs) in enumerate(plan):
        kind = "step now" if at == now else "step"
        mark = f" ◂ {escape(words)}" if at == now else ""
        cells.append(f'<div class="{kind}"><b>{escape(share)}{mark}</b>{escape(needs)}</div>')
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
    """Builds a banner. page: the address to which the heading links."""
    more = f" {docs_link(docs_page, docs_label)}" if docs_page else ""
    head = strong(heading)
    if page:
        head = f'<a href="{escape(page)}" target="_self">{head}</a>'
    words = f"{head} {rich(text)}{more}"
    return f'<div class="sg sg-banner {tone}" role="status">{words}</div>'


def invalid(faults: Sequence[RowFault]) -> str:
    """Renders a banner for each row with an invalid signature."""
    return "".join(
        banner(f"✕ {fault.name}.", INVALID_ROWS_HINT, tone=Tone.WORSE) for fault in faults
    )


def loading(what: str) -> str:
    """Renders a placeholder of a fixed height, so that the page does not jump when the part
    arrives.
    """
    return (
        '<div class="sg sg-loading" aria-busy="true" style="min-height: 150px">'
        f"Reading {escape(what)} …</div>"
    )


def empty(sentence: str, command: str) -> str:
    """Renders what to do on a page without content. command: a command that begins it."""
    return block(
        f"<p>{escape(sentence)}</p><p><code>{escape(command)}</code></p>",
        kind="sg-card",
    )


def failure(
    what: str,
    why: str,
    works: str,
    *,
    docs_page: str = "",
) -> str:
    """Renders an error: what failed, why, and what still works. docs_page: explains it."""
    more = f"<p>{docs_link(docs_page, 'More about it')}</p>" if docs_page else ""
    return (
        '<div class="sg sg-banner worse" role="alert">'
        f"<p><b>✕ {escape(what)}</b></p><p>{rich(why)}</p><p>{rich(works)}</p>{more}</div>"
    )


def folded(summary: str, body: str) -> str:
    """Renders a part that a click unfolds. body: HTML."""
    return block(f'<details><summary class="note">{escape(summary)}</summary>{body}</details>')


def docs_link(page: str, shown: str) -> str:
    """Links to a page of the docs, such as `runbook#drift`, in a tab of its own."""
    name, mark, section = page.partition("#")
    address = escape(f"docs/{name}.html{mark}{section}")
    return f'<a href="{address}" target="_blank" rel="noopener">{escape(shown)}</a>'


def trend(values: Sequence[float], *, name: str) -> str:
    """Renders values as small bars, the highest full. Empty for fewer than two. name: for
    screen readers.
    """
    if len(values) < 2:
        return ""
    high = max(values) or 1.0
    heights = (max(4.0, 100 * value / high) for value in values)
    bars = "".join(f'<i style="height:{height:.0f}%"></i>' for height in heights)
    return f'<span class="trend" role="img" aria-label="{escape(name)}">{bars}</span>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Renders pairs of a name and a fact. fact: HTML."""
    cells = "".join(
        f'<span class="note">{escape(name)}</span><span>{fact}</span>' for name, fact in rows
    )
    return block(cells, kind="sg-facts")


def link(
    page: str,
    shown: str,
    **query: str,
) -> str:
    """Renders a link to a page of the dashboard. shown: HTML. query: the page's filters."""
    query_text = f"?{urlencode(query)}" if query else ""
    return f'<a href="{escape(f"{page}{query_text}")}" target="_self">{shown}</a>'
