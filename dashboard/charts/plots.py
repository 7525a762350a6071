"""Draws the forest plot of a comparison's suites from a frame, and dresses Altair charts in the
theme. Text for readers comes ready in the frame.
"""

from typing import Any

import altair as alt
import pandas as pd

from dashboard.text.labels import MEMBER_LABELS, SLICE_LABELS, VERDICT_LABELS
from dashboard.theme import FONT, Palette

ROW_HEIGHT = 58
EDGES = 104
SHAPES = {
    "passed": "circle",
    "failed": "square",
    "inconclusive": "diamond",
    "harness_mismatch": "triangle-up",
    "infra_error": "cross",
    "worse": "square",
    "kept": "circle",
    "untested": "diamond",
    "member": "circle",
}
LABELS = {**VERDICT_LABELS, **SLICE_LABELS, **MEMBER_LABELS}


def forest(
    frame: pd.DataFrame, palette: Palette, beside: pd.DataFrame | None = None
) -> alt.LayerChart:
    """Draws one row per suite: estimate, 95 % whisker, zero line and the suite's own limit.

    frame: as `frames.suites`; rows without an interval show their point alone, rows without a
    limit no tick. beside: the rows of all charts that share this one's scale.
    """
    rows = alt.Y(
        "row:N",
        sort=list(frame["row"]),
        title=None,
        axis=alt.Axis(
            # Two short lines leave the whiskers room on a phone.
            labelExpr="split(datum.label, '|')",
            labelLineHeight=14,
            labelLimit=150,
            ticks=False,
            domain=False,
            labelPadding=8,
        ),
    )
    colour, shape = _legend(frame, palette)
    base = alt.Chart(frame)
    scale = _scale(frame if beside is None else beside)
    axis = alt.Axis(tickCount=7, labelExpr="replace(datum.label, '-', '−')", labelFlush=False)
    across = alt.X("low:Q", title="points (→ candidate better)", scale=scale, axis=axis)
    zero = (
        alt.Chart(pd.DataFrame({"zero": [0.0]}))
        .mark_rule(color=palette.neutral, size=1.2)
        .encode(x=alt.X("zero:Q"))
    )
    whisker = (
        base.transform_filter("isValid(datum.low)")
        # A reader's software would meet an image without a name where no row has an interval.
        .mark_rule(size=2.5, aria=bool(frame["low"].notna().any()))
        .encode(x=across, x2="high:Q", y=rows, color=colour)
    )
    limit = base.mark_tick(
        thickness=3,
        size=24,
        opacity=1,
        color=palette.worse,
        aria=bool(frame["limit"].notna().any()),
    ).encode(x=alt.X("limit:Q"), y=rows)
    point = base.mark_point(size=95, filled=True, opacity=1).encode(
        x=alt.X("delta:Q"), y=rows, color=colour, shape=shape
    )
    text = base.mark_text(dy=-14, fontSize=12, fontWeight=600, color=palette.text).encode(
        x=alt.X("delta:Q"), y=rows, text="label:N"
    )
    figure = alt.layer(zero, whisker, limit, point, text)
    return dressed(figure, palette, ROW_HEIGHT * len(frame) + EDGES)


def _legend(frame: pd.DataFrame, palette: Palette) -> tuple[alt.Color, alt.Shape]:
    present = [outcome for outcome in SHAPES if outcome in set(frame["outcome"])]
    labels = [LABELS[outcome] for outcome in present]
    names = [f"{label.symbol} {label.words.lower()}" for label in labels]
    legend = alt.Legend(title=None, orient="top", symbolSize=110, columns=2)
    colour = alt.Color(
        "verdict:N",
        scale=alt.Scale(
            domain=names, range=[palette.colour_for(label.tone) for label in labels]
        ),
        legend=legend,
    )
    shape = alt.Shape(
        "verdict:N",
        scale=alt.Scale(domain=names, range=[SHAPES[outcome] for outcome in present]),
        legend=legend,
    )
    return colour, shape


def _scale(frame: pd.DataFrame) -> alt.Scale:
    values = pd.concat([frame[name] for name in ("low", "high", "delta", "limit")]).dropna()
    reach = max(1.0, float(values.abs().max()) * 1.08)
    low = min(0.0, float(values.min()))
    high = max(0.0, float(values.max()))
    return alt.Scale(
        domain=[min(low * 1.08, -0.12 * reach), max(high * 1.08, 0.12 * reach)], nice=True
    )


def dressed(figure: Any, palette: Palette, height: int) -> alt.LayerChart:
    """Gives a chart its height and the theme's colours and fonts."""
    chart: alt.LayerChart = (
        figure.properties(height=height, width="container")
        .configure(background="transparent", font=FONT)
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=palette.text,
            titleColor=palette.neutral,
            gridColor=palette.line,
            domainColor=palette.line,
            tickColor=palette.line,
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
        )
        .configure_legend(labelColor=palette.text, labelFontSize=12, labelLimit=260)
    )
    return chart
