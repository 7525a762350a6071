"""Draws GateBench's results as one SVG picture: for each matrix, claim and size, every rule's
share of false promotions and its power at 5 points, side by side.
"""

from collections.abc import Sequence
from html import escape
from typing import Final

from harness.bench.gate_benchmark import GateBenchmark, GateBenchmarkRow
from harness.bench.gate_rules import OURS

ROW, TOP, LEFT, PANEL, GAP, FOOT = 22, 58, 190, 250, 40, 40
PROMISE: Final = 0.05
OUR_COLOUR, OTHER_COLOUR, RULE_COLOUR = "#2f6f4f", "#8a8f98", "#c2493d"
FONT: Final = 'font-family="system-ui, sans-serif" font-size="12"'


def draw_gate_chart(bench: GateBenchmark) -> str:
    """One block per matrix, claim and size; a picture that stands alone."""
    blocks: dict[tuple[str, str, int], list[GateBenchmarkRow]] = {}
    for line in bench.lines:
        blocks.setdefault((line.matrix, line.claim.value, line.n), []).append(line)
    height = sum(TOP + ROW * len(lines) + FOOT for lines in blocks.values())
    width = LEFT + 2 * PANEL + GAP + 60
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" {FONT}>'
        ),
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    top = 0
    for (matrix, claim, n), lines in blocks.items():
        parts += _block(f"{matrix} · {claim} · {n} items", lines, top)
        top += TOP + ROW * len(lines) + FOOT
    return "\n".join([*parts, "</svg>", ""])


def _block(title: str, lines: Sequence[GateBenchmarkRow], top: int) -> list[str]:
    widest = max(0.1, *(line.false_worst for line in lines))
    power = LEFT + PANEL + GAP
    parts = [
        _text(10, top + 22, title, weight="bold"),
        _text(LEFT, top + 42, "false promotions: mean, and the worst pair"),
        _text(power, top + 42, "better by 5 points: promoted"),
    ]
    for index, line in enumerate(lines):
        y = top + TOP + index * ROW
        colour = OUR_COLOUR if line.rule == OURS else OTHER_COLOUR
        mean, worst = PANEL * line.false_mean / widest, PANEL * line.false_worst / widest
        middle = y + 7
        parts += [
            _text(10, y + 12, line.rule),
            _bar(LEFT, y, mean, colour),
            (
                f'<line x1="{LEFT + mean:.1f}" x2="{LEFT + worst:.1f}" y1="{middle}" '
                f'y2="{middle}" stroke="{colour}" stroke-width="2"/>'
            ),
            _bar(power, y, PANEL * line.five, colour),
            _text(power + PANEL * line.five + 4, y + 12, f"{line.five:.0%}"),
        ]
    bottom = top + TOP + ROW * len(lines)
    x = LEFT + PANEL * PROMISE / widest
    parts += [
        (
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top + TOP - 6}" y2="{bottom}" '
            f'stroke="{RULE_COLOUR}" stroke-dasharray="4 3"/>'
        ),
        _text(x - 8, bottom + 14, f"{PROMISE:.0%}", colour=RULE_COLOUR),
    ]
    return parts


def _bar(x: float, y: float, width: float, colour: str) -> str:
    return f'<rect x="{x}" y="{y}" width="{width:.1f}" height="14" fill="{colour}"/>'


def _text(
    x: float, y: float, text: str, *, weight: str = "normal", colour: str = "#1d2430"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-weight="{weight}" fill="{colour}">'
        f"{escape(text)}</text>"
    )
