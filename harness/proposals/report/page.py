"""Renders blocks as HTML, for the report's page and the dashboard. Every text is escaped."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Final, assert_never

from harness.frame.formatting import (
    escape_controls,
    format_points,
    format_points_interval,
)
from harness.proposals.report.blocks import (
    Block,
    BulletList,
    Code,
    Commands,
    Facts,
    Folded,
    Heading,
    Interval,
    Quotation,
    Sentence,
    Strong,
    Table,
    Text,
    plain_text,
    split_spans,
)

_STYLE: Final = """
body{font:16px/1.55 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1c2430;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem}
th,td{text-align:left;padding:.35rem .7rem;border-bottom:1px solid #d5dbe3;white-space:nowrap}
pre{background:#f3f5f8;padding:.7rem;overflow-x:auto;white-space:pre-wrap}
code{font-size:.9em}figure{margin:1rem 0}figcaption{font-size:.9rem;color:#4a5666}
@media(prefers-color-scheme:dark){body{background:#12171f;color:#e4e9f0}
pre{background:#1c2430}th,td{border-color:#36404e}figcaption{color:#a9b4c2}}
"""
_WIDTH: Final = 640
_MIDDLE: Final = _WIDTH / 2


def render_page(blocks: Iterable[Block]) -> str:
    """Renders a whole HTML file, which loads no other file. Its title is the first heading."""
    document = list(blocks)
    titles = [plain_text(block.text) for block in document if isinstance(block, Heading)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{_escape(''.join(titles[:1]))}</title><style>{_STYLE}</style></head>"
        f"<body>{render_html(document)}</body></html>\n"
    )


def render_html(blocks: Iterable[Block]) -> str:
    """Renders a part of a page."""
    return "".join("".join(_format_block(block)) for block in blocks)


def _format_block(block: Block) -> Iterator[str]:
    match block:
        case Heading(text, level):
            yield f"<h{level}>{_format_inline(text)}</h{level}>"
        case Sentence(text):
            yield f"<p>{_format_inline(text)}</p>"
        case Facts(rows):
            yield from (
                f"<p><b>{_escape(name)}:</b> {_format_inline(text)}</p>" for name, text in rows
            )
        case BulletList(name, items):
            lines = "".join(f"<li>{_format_inline(item)}</li>" for item in items)
            yield f"<p><b>{_escape(name)}:</b></p><ul>{lines}</ul>"
        case Table(heads, rows):
            yield from _format_table(heads, rows)
        case Commands(lines):
            yield f'<pre tabindex="0">{_escape(chr(10).join(lines))}</pre>'
        case Quotation(name, text):
            yield f"<p>{_escape(name)}</p>" if name else ""
            yield f'<pre tabindex="0">{_escape(text)}</pre>'
        case Interval():
            yield from _draw_interval(block)
        case Folded(name, blocks):
            yield f"<details><summary>{_escape(name)}</summary>{render_html(blocks)}</details>"
        case _:
            assert_never(block)


def _format_fact(name: str, text: Text) -> str:
    return f"<p><b>{_escape(name)}:</b> {_format_inline(text)}</p>"


def _format_bullet(item: Text) -> str:
    return f"<li>{_format_inline(item)}</li>"


def _format_table(heads: Sequence[str], rows: Sequence[Sequence[Text]]) -> Iterator[str]:
    """Yields a table in a box that scrolls, by the keyboard as well."""
    label = _escape(f"Table: {', '.join(filter(None, heads))}")
    yield f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table>'
    yield f"<thead>{_format_row('th', heads)}</thead>"
    yield f"<tbody>{''.join(_format_row('td', row) for row in rows)}</tbody></table></div>"


def _format_row(tag: str, cells: Sequence[Text]) -> str:
    inner = "".join(f"<{tag}>{_format_inline(cell)}</{tag}>" for cell in cells)
    return f"<tr>{inner}</tr>"


def _format_inline(text: Text) -> str:
    return "".join(map(_format_span, split_spans(text)))


def _format_span(span: str | Code | Strong) -> str:
    match span:
        case Code(text):
            return f"<code>{_escape(text)}</code>"
        case Strong(text):
            return f"<b>{_escape(text)}</b>"
        case str():
            return _escape(span)
        case _:
            assert_never(span)


def _escape(text: str) -> str:
    return escape(escape_controls(text), quote=True)


def _draw_interval(interval: Interval) -> Iterator[str]:
    """Draws a difference with its interval, between 100 points worse and 100 better."""
    caption = _escape(
        f"{interval.name}: {format_points(interval.delta)} points (95 % interval "
        f"{format_points_interval(interval.low, interval.high)}); left of the line the "
        "candidate is worse"
    )
    low = _x_coordinate(interval.low)
    high = _x_coordinate(interval.high)
    delta = _x_coordinate(interval.delta)
    yield (
        f'<figure><svg viewBox="0 0 {_WIDTH} 40" width="100%" role="img" '
        f'stroke="currentColor" aria-label="{caption}">'
        f'<line x1="{_MIDDLE}" x2="{_MIDDLE}" y1="0" y2="40" stroke-dasharray="3 3"/>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="20" y2="20" stroke-width="3"/>'
        f'<circle cx="{delta:.1f}" cy="20" r="6" fill="currentColor"/></svg>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _x_coordinate(share: float) -> float:
    """Returns the x coordinate of a difference in the drawing; 0 is in the middle."""
    return _MIDDLE * (1.0 + max(-1.0, min(share, 1.0)))
