"""Draws the charts of a comparison, and has the parts of all charts: panels, axes, scales.

The pure functions `suite_frame` and `slice_frames` build frames from reports, and charts draw
frames. Other charts are beside their pages in `views`, and use the parts here. Charts read no
data by themselves.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, TypeVar

import altair as alt
import pandas as pd

from dashboard import labels
from dashboard.labels import (
    MEMBER_LABELS,
    SLICE_LABELS,
    VERDICT_LABELS,
    Label,
)
from dashboard.theme import FONT, Palette
from harness.gate.offline.decision_intervals import DecisionInterval
from harness.gate.verdict import SuiteReport, VerdictBasis

Channel = TypeVar("Channel", alt.Color, alt.Shape, alt.StrokeDash)
# Width of the labels of stacked panels, so that their axes of time align.
LABELS_WIDTH_PX: Final = 46
ROW_HEIGHT_PX = 58
COST_HEIGHT_PX: Final = 300
EDGES_PX = 104
# A difference of this many points is possible for all scores: the interval has no such end.
OPEN_END: Final = 100.0
TICKS_H: Final = (1 / 60, 5 / 60, 0.25, 0.5, 1, 2, 4, 8, 24, 48, 168, 720)
MOST_TICKS: Final = 8
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
LABELS = {
    **VERDICT_LABELS,
    **SLICE_LABELS,
    **MEMBER_LABELS,
}


def forest(
    frame: pd.DataFrame,
    palette: Palette,
    scale_rows: pd.DataFrame | None = None,
) -> alt.LayerChart:
    """Draws one row per suite: a point, a whisker if there is an interval, and a tick if there
    is a limit.

    Args:
        scale_rows: the rows of all charts that share the scale.
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
    present = set(frame["outcome"])
    states = {
        _write_state(label): (label, SHAPES[outcome])
        for outcome, label in LABELS.items()
        if outcome in present
    }
    colour, shape = _tell_apart("verdict:N", states, palette)
    base = alt.Chart(frame)
    scale = _build_scale(frame if scale_rows is None else scale_rows)
    axis = alt.Axis(
        tickCount=7,
        labelExpr="replace(datum.label, '-', '−')",
        labelFlush=False,
    )
    x_axis = alt.X(
        "low:Q",
        title="points (→ candidate better)",
        scale=scale,
        axis=axis,
    )
    zero = (
        alt.Chart(pd.DataFrame({"zero": [0.0]}))
        .mark_rule(color=palette.neutral, size=1.2)
        .encode(x=alt.X("zero:Q"))
    )
    whisker = (
        base.transform_filter("isValid(datum.low)")
        # Without an interval, a screen reader would find an image without a name.
        # The plot cuts a whisker whose end is open, because that end is at 100 points.
        .mark_rule(size=2.5, clip=True, aria=bool(frame["low"].notna().any()))
        .encode(
            x=x_axis,
            x2="high:Q",
            y=rows,
            color=colour,
        )
    )
    limit = base.mark_tick(
        thickness=3,
        size=24,
        opacity=1,
        color=palette.worse,
        aria=bool(frame["limit"].notna().any()),
    ).encode(x=alt.X("limit:Q"), y=rows)
    point = base.mark_point(size=95, filled=True, opacity=1).encode(
        x=alt.X("delta:Q"),
        y=rows,
        color=colour,
        shape=shape,
    )
    point_labels = base.mark_text(
        dy=-14,
        fontSize=12,
        fontWeight=600,
        color=palette.text,
    ).encode(x=alt.X("delta:Q"), y=rows, text="label:N")
    figure = alt.layer(zero, whisker, limit, point, point_labels)
    return dressed(figure, palette, ROW_HEIGHT_PX * len(frame) + EDGES_PX)


def _write_state(label: Label) -> str:
    return f"{label.symbol} {label.words.lower()}"


def _tell_apart(
    field: str,
    states: Mapping[str, tuple[Label, str]],
    palette: Palette,
) -> tuple[alt.Color, alt.Shape]:
    """Encodes a field of states by colour and by shape.

    Args:
        states: label and shape, by name.
    """
    legend = top_legend(symbolSize=110)
    colours = {name: palette.colour_for(label.tone) for name, (label, _) in states.items()}
    shapes = {name: shape for name, (_, shape) in states.items()}
    return (
        named(alt.Color, field, colours, legend),
        named(alt.Shape, field, shapes, legend),
    )


def quality_against_cost(
    frame: pd.DataFrame,
    standings: Iterable[tuple[Label, str]],
    palette: Palette,
) -> alt.LayerChart:
    """Draws each model by its price and score, and a line through the best models: no other
    model is both better and cheaper.

    Args:
        frame: name, score, low, high (points of 100), usd (of 1,000 answers), standing, line
            (whether the model is on the line).
        standings: labels and shapes.
    """
    present = set(frame["standing"])
    states = {
        label.words: (label, shape) for label, shape in standings if label.words in present
    }
    colour, shape = _tell_apart("standing:N", states, palette)
    x = alt.X(
        "usd:Q",
        title="US dollars for 1,000 answers",
        scale=alt.Scale(domain=[0, float(frame["usd"].max() or 1.0) * 1.2], nice=False),
        axis=alt.Axis(tickCount=7),
    )
    y = alt.Y("score:Q", title="score, points of 100", scale=alt.Scale(zero=False))
    base = alt.Chart(frame)
    line = (
        base.transform_filter("datum.line")
        .mark_line(
            color=palette.neutral,
            strokeDash=[4, 4],
            interpolate="step-after",
        )
        .encode(x=x, y=y)
    )
    whisker = (
        base.transform_filter("isValid(datum.low)")
        .mark_rule(size=2, aria=bool(frame["low"].notna().any()))
        .encode(
            x=x,
            y=alt.Y("low:Q"),
            y2="high:Q",
            color=colour,
        )
    )
    point = base.mark_point(size=110, filled=True, opacity=1).encode(
        x=x,
        y=y,
        color=colour,
        shape=shape,
    )
    name_labels = base.mark_text(
        dx=8,
        dy=-10,
        align="left",
        fontSize=12,
        color=palette.text,
    ).encode(x=x, y=y, text="name:N")
    return dressed(alt.layer(line, whisker, point, name_labels), palette, COST_HEIGHT_PX)


def top_legend(**options: Any) -> alt.Legend:
    """Builds a legend above the chart, without a title."""
    return alt.Legend(
        title=None,
        orient="top",
        columns=2,
        **options,
    )


def named(
    channel: type[Channel],
    field: str,
    values: Mapping[str, Any],
    legend: alt.Legend,
) -> Channel:
    """Encodes a field of names.

    Args:
        values: the colour, shape or dashes for each name.
    """
    scale = alt.Scale(domain=list(values), range=list(values.values()))
    return channel(field, scale=scale, legend=legend)


def panel(
    title: str,
    palette: Palette,
    *layers: Any,
) -> alt.LayerChart:
    """Joins layers below a heading, as one of several panels of a page."""
    heading = alt.TitleParams(
        title,
        anchor="start",
        fontSize=13,
        fontWeight=600,
        color=palette.text,
        offset=6,
    )
    return alt.LayerChart(layer=list(layers), title=heading)


def narrow_axis(expression: str = "datum.label + ' %'", **options: Any) -> alt.Axis:
    """Builds an axis of fixed width, so that stacked panels align.

    Args:
        expression: Vega's, for labels.
    """
    return alt.Axis(
        labelExpr=expression,
        tickCount=3,
        minExtent=LABELS_WIDTH_PX,
        maxExtent=LABELS_WIDTH_PX,
        **options,
    )


def time_axis(
    field: str,
    begin: datetime,
    end: datetime,
    **options: Any,
) -> alt.X:
    """Builds an axis of times in milliseconds, with labels at the reader's round times."""
    patterns = {timedelta(days=2): "%H:%M", timedelta(days=300): "%d %b"}
    pattern = next(
        (text for longest, text in patterns.items() if end - begin <= longest),
        "%b %Y",
    )
    hours = (end - begin).total_seconds() / 3600
    step_h = next(
        (tick_h for tick_h in TICKS_H if hours <= MOST_TICKS * tick_h), hours / MOST_TICKS
    )
    step_ms = step_h * 3_600_000.0
    begin_ms = to_ms(begin)
    end_ms = to_ms(end)
    offset_ms = 1000.0 * (labels.to_local(end).utcoffset() or timedelta()).total_seconds()
    first_tick_ms = -(-(begin_ms + offset_ms) // step_ms) * step_ms - offset_ms
    axis = alt.Axis(
        labelExpr=label_time(pattern),
        values=[
            first_tick_ms + n * step_ms
            for n in range(int((end_ms - first_tick_ms) // step_ms) + 1)
        ],
        labelOverlap=True,
        **options,
    )
    # A scale of numbers: with a scale of times, Vega-Lite warns about the domain.
    scale = alt.Scale(domain=[begin_ms, end_ms], nice=False)
    return alt.X(
        f"{field}:Q",
        title=None,
        scale=scale,
        axis=axis,
    )


def time_scale() -> Literal["utc", "time"]:
    """Returns Vega's kind of scale: `time` has the zone of the browser."""
    return "utc" if labels.reader_zone() is UTC else "time"


def label_time(pattern: str) -> str:
    """Writes Vega's expression of a time label in the reader's zone."""
    return f"{time_scale()}Format(datum.value, '{pattern}')"


def to_ms(at: datetime) -> float:
    # Not a timestamp, because pandas would give it its own unit and zone. Not an integer,
    # because browsers would read one of this size as a BigInt.
    return at.timestamp() * 1000.0


def _build_scale(frame: pd.DataFrame) -> alt.Scale:
    """Builds the scale of a forest plot, which always shows 0 and some room on both sides."""
    ends = [frame[name].where(frame[name].abs() < OPEN_END) for name in ("low", "high")]
    values = pd.concat([*ends, frame["delta"], frame["limit"]]).dropna()
    largest = max(1.0, float(values.abs().max()) * 1.08)
    low = min(0.0, float(values.min()))
    high = max(0.0, float(values.max()))
    return alt.Scale(
        domain=[
            min(low * 1.08, -0.12 * largest),
            max(high * 1.08, 0.12 * largest),
        ],
        nice=True,
    )


def dressed(
    figure: Any,
    palette: Palette,
    height: int,
) -> alt.LayerChart:
    """Sets a chart's height in pixels, its fonts and the palette's colours."""
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


FIGURES = ("delta", "low", "high", "limit")


def suite_frame(
    reports: Sequence[SuiteReport],
    titles: Mapping[str, str],
    basis: VerdictBasis,
    intervals: Mapping[str, DecisionInterval],
) -> pd.DataFrame:
    """Builds one row per measured suite, in points. The columns low and high are the ends of
    the interval that decides; NaN if the suite counts only in the mean.
    """
    rows = []
    for report in reports:
        if report.is_unscored:
            continue
        decides = basis.decides(report)
        interval = intervals.get(report.suite)
        low, high = (interval.low, interval.high) if interval else (None, None)
        rows.append(
            _build_row(
                [titles.get(report.suite, report.suite)],
                report.outcome if decides else "member",
                (report.delta, low, high, report.limit if decides else None),
            )
        )
    return _build_frame(rows)


def _build_row(
    name: Sequence[str],
    outcome: str,
    figures: Sequence[float | None],
) -> dict[str, Any]:
    """Builds a row of a forest plot.

    Args:
        name: lines of its label.
        figures: shares.
    """
    return {
        "row": "|".join([*textwrap.wrap(name[0], 18), *name[1:]]),
        "outcome": outcome,
        "verdict": _write_state(LABELS[outcome]),
        "label": labels.points(figures[0]),
        **{
            field: None if figure is None else figure * 100
            for field, figure in zip(FIGURES, figures, strict=True)
        },
    }


def _build_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Builds a frame with the forest plot's columns, even without rows."""
    columns = ["row", "outcome", "verdict", "label", *FIGURES]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(FIGURES, "float64"))


def slice_frames(report: SuiteReport) -> Mapping[str, pd.DataFrame]:
    """Builds a frame for each slice field of a suite, with a row per slice, in points. The rows
    have no limit, because any proven loss of a slice fails the candidate.
    """
    rows_by_field: dict[str, list[dict[str, Any]]] = {}
    for slice_report in report.figures.slices or ():
        if slice_report.n_used == 0:
            continue
        outcome = (
            "worse" if slice_report.worse else "untested" if slice_report.p is None else "kept"
        )
        item_count = labels.plural(slice_report.n_used, report.figures.unit)
        figures = (slice_report.delta, slice_report.ci_low, slice_report.ci_high, None)
        row = _build_row([slice_report.value, item_count], outcome, figures)
        rows_by_field.setdefault(slice_report.field, []).append(row)
    return {name: _build_frame(rows) for name, rows in rows_by_field.items()}
