"""Draws each benchmark's results as one SVG picture. Of CanaryBench: for each rule the
exposures until a canary with 5 % errors is rolled back, and how often a healthy one is. Of
GateBench: for each matrix, claim and size, every rule's share of false promotions and its power
at 5 points, side by side.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import Final

from harness.bench.canary_benchmark import MOST_FALSE, CanaryBenchmark, CanaryBenchmarkRow
from harness.bench.canary_rules import OURS as OUR_CANARY_RULE
from harness.bench.gate_benchmark import GateBenchmark, GateBenchmarkRow
from harness.bench.gate_rules import OURS as OUR_GATE_RULE
from harness.domain.formatting import format_percent

ROW, TOP, LEFT, PANEL, FOOT = 22, 58, 190, 250, 40
CANARY_GAP, GATE_GAP = 60, 40
PROMISE: Final = 0.05
MOST_EXPOSURES: Final = 10_000.0
OUR_COLOUR, OTHER_COLOUR, LINE_COLOUR = "#2f6f4f", "#8a8f98", "#c2493d"
FONT: Final = 'font-family="system-ui, sans-serif" font-size="12"'
SICK: Final = "5 % errors"


def draw_canary_chart(bench: CanaryBenchmark) -> str:
    """Draws a row per rule: left a canary with 5 % errors, right a healthy one."""
    sick = [line for line in bench.lines if line.table == "errors" and line.case == SICK]
    healthy = {
        line.rule: line
        for line in bench.lines
        if line.table == "errors" and line.case == "healthy"
    }
    height, width = TOP + ROW * len(sick) + FOOT, LEFT + 2 * PANEL + CANARY_GAP + 60
    right = LEFT + PANEL + CANARY_GAP
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" {FONT}>'
        ),
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(10, 22, "A canary at 1 % beside an incumbent with 1 % errors", weight="bold"),
        _text(LEFT, 42, f"{SICK}: exposures to rollback, median – 95 %"),
        _text(right, 42, "healthy: rolled back within 1,000"),
    ]
    for index, line in enumerate(sick):
        parts += _canary_row(line, healthy[line.rule], TOP + index * ROW)
    x, bottom = right + PANEL * MOST_FALSE, TOP + ROW * len(sick)
    parts += [
        (
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom}" '
            f'stroke="{LINE_COLOUR}" stroke-dasharray="4 3"/>'
        ),
        _text(x - 8, bottom + 14, format_percent(MOST_FALSE, 0), colour=LINE_COLOUR),
        _text(LEFT, bottom + 14, "1 to 10,000, by powers of ten"),
    ]
    return "\n".join([*parts, "</svg>", ""])


def _canary_row(sick: CanaryBenchmarkRow, healthy: CanaryBenchmarkRow, y: int) -> Sequence[str]:
    colour = OUR_COLOUR if sick.rule == OUR_CANARY_RULE else OTHER_COLOUR
    right, middle = LEFT + PANEL + CANARY_GAP, y + 7
    median, late = _place(sick.median), _place(sick.p95)
    told = f"> {sick.cap}" if sick.p95 is None else str(sick.p95)
    return [
        _text(10, y + 12, sick.rule),
        _bar(LEFT, y, median, colour),
        (
            f'<line x1="{LEFT + median:.1f}" x2="{LEFT + late:.1f}" y1="{middle}" '
            f'y2="{middle}" stroke="{colour}" stroke-width="2"/>'
        ),
        _text(LEFT + late + 4, y + 12, told),
        _bar(right, y, PANEL * healthy.rolled_back, colour),
        _text(
            right + PANEL * healthy.rolled_back + 4,
            y + 12,
            format_percent(healthy.rolled_back, 1),
        ),
    ]


def _place(exposures: int | None) -> float:
    return (
        PANEL * math.log10(max(1.0, exposures or MOST_EXPOSURES)) / math.log10(MOST_EXPOSURES)
    )


def draw_gate_chart(bench: GateBenchmark) -> str:
    """One block per matrix, claim and size; a picture that stands alone."""
    blocks: dict[tuple[str, str, int], list[GateBenchmarkRow]] = {}
    for line in bench.lines:
        blocks.setdefault((line.matrix, line.claim.value, line.n), []).append(line)
    height = sum(TOP + ROW * len(lines) + FOOT for lines in blocks.values())
    width = LEFT + 2 * PANEL + GATE_GAP + 60
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" {FONT}>'
        ),
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    top = 0
    for (matrix, claim, n), lines in blocks.items():
        parts += _gate_block(f"{matrix} · {claim} · {n} items", lines, top)
        top += TOP + ROW * len(lines) + FOOT
    return "\n".join([*parts, "</svg>", ""])


def _gate_block(title: str, lines: Sequence[GateBenchmarkRow], top: int) -> list[str]:
    widest = max(0.1, *(line.false_worst for line in lines))
    power = LEFT + PANEL + GATE_GAP
    parts = [
        _text(10, top + 22, title, weight="bold"),
        _text(LEFT, top + 42, "false promotions: mean, and the worst pair"),
        _text(power, top + 42, "better by 5 points: promoted"),
    ]
    for index, line in enumerate(lines):
        y = top + TOP + index * ROW
        colour = OUR_COLOUR if line.rule == OUR_GATE_RULE else OTHER_COLOUR
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
            _text(power + PANEL * line.five + 4, y + 12, format_percent(line.five, 0)),
        ]
    bottom = top + TOP + ROW * len(lines)
    x = LEFT + PANEL * PROMISE / widest
    parts += [
        (
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top + TOP - 6}" y2="{bottom}" '
            f'stroke="{LINE_COLOUR}" stroke-dasharray="4 3"/>'
        ),
        _text(x - 8, bottom + 14, format_percent(PROMISE, 0), colour=LINE_COLOUR),
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
