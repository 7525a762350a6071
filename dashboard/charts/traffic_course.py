"""Draws the course of the recorded traffic: requests, and below them the shares that failed."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import altair as alt
import pandas as pd

from dashboard.charts import plots
from dashboard.text import labels
from dashboard.theme import Palette
from harness.control.routing.traffic_report import TrafficReport
from harness.domain.formatting import format_percent

FAILED, LEFT = "error to the caller", "own model failed"
HEIGHTS: Final = (130, 170)
COLUMNS: Final = ("at", "until", "requests", "text")
_DAY: Final = timedelta(days=1)


def build_frames(report: TrafficReport) -> tuple[pd.DataFrame, pd.DataFrame]:
    counts, shares = [], []
    for point in report.course:
        at, until = plots.to_ms(point.minute), plots.to_ms(point.minute + report.step)
        moment = labels.date_time(point.minute)
        what = labels.plural(point.requests, "request")
        counts.append((at, until, point.requests, f"{moment}: {what}"))
        if not point.requests:
            continue
        for name, count in ((FAILED, point.failed), (LEFT, point.charged)):
            if not count:
                continue
            share = count / point.requests
            said = f"{moment}: {name} in {format_percent(share, significant=2)} of {what}"
            shares.append(
                {"at": (at + until) / 2, "share": 100 * share, "what": name, "text": said}
            )
    return (
        pd.DataFrame(counts, columns=list(COLUMNS)),
        pd.DataFrame(shares, columns=["at", "share", "what", "text"]),
    )


def draw(report: TrafficReport, palette: Palette) -> Sequence[alt.LayerChart]:
    """Draws both panels, the upper one first; the lower only where something failed."""
    counts, shares = build_frames(report)
    upper, lower = HEIGHTS
    alone = shares.empty
    panels = [plots.dressed(_requests(report, counts, palette, alone=alone), palette, upper)]
    if not alone:
        panels.append(plots.dressed(_shares(report, shares, palette), palette, lower))
    return panels


def _requests(
    report: TrafficReport, counts: pd.DataFrame, palette: Palette, *, alone: bool
) -> alt.LayerChart:
    bars = (
        alt.Chart(counts)
        .mark_rect(color=palette.neutral, opacity=0.75)
        .encode(
            x=_time(report, shown=alone),
            x2="until:Q",
            y=alt.Y(
                "requests:Q", title=None, axis=plots.narrow_axis("format(datum.value, ',')")
            ),
            y2=alt.datum(0),
            tooltip="text:N",
        )
    )
    minutes = report.step // timedelta(minutes=1)
    every = "minute" if minutes == 1 else labels.span(report.step.total_seconds())
    return plots.panel(f"Requests per {every}", palette, bars)


def _shares(report: TrafficReport, shares: pd.DataFrame, palette: Palette) -> alt.LayerChart:
    top = max(1.0, 1.15 * float(shares["share"].max() if len(shares) else 0.0))
    scale = alt.Scale(domain=[0, min(100.0, top)], nice=False)
    legend = plots.top_legend()
    colours = {FAILED: palette.worse, LEFT: palette.undecided}
    colour = plots.named(alt.Color, "what:N", colours, legend)
    shapes = {FAILED: "square", LEFT: "triangle-up"}
    shape = plots.named(alt.Shape, "what:N", shapes, legend)
    bars = (
        alt.Chart(shares)
        .mark_rule(strokeWidth=1.5, opacity=0.5)
        .encode(x=_time(report, shown=True), y=alt.Y("share:Q", scale=scale), color=colour)
    )
    points = (
        alt.Chart(shares)
        .mark_point(filled=True, size=34, opacity=0.9)
        .encode(
            x=_time(report, shown=True),
            y=alt.Y("share:Q", title=None, scale=scale, axis=plots.narrow_axis()),
            color=colour,
            shape=shape,
            tooltip="text:N",
        )
    )
    return plots.panel("Share of the requests", palette, bars, points)


def _time(report: TrafficReport, *, shown: bool) -> alt.X:
    begin = plots.to_ms(report.course[0].minute)
    end = plots.to_ms(report.course[-1].minute + report.step)
    pattern = "%H:%M" if report.window <= _DAY else "%d %b"
    steps = (timedelta(minutes=10), timedelta(hours=4), _DAY)
    step_ms = next(s for s in steps if report.window <= 8 * s).total_seconds() * 1000.0
    return plots.span_axis("at:Q", begin, end, pattern, step_ms, labels=shown, ticks=shown)
