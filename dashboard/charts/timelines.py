"""Draws which model served a route when, and the course of the recorded traffic."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import altair as alt
import pandas as pd

from dashboard.charts import plots
from dashboard.data.queries import RouteView
from dashboard.text import labels
from dashboard.theme import Palette
from harness.control.routing.traffic_report import TrafficReport
from harness.domain.formatting import format_percent
from harness.gate.text.canary_state import describe_change

SERVES, SHARES = "serves", "has a share"
ROW_HEIGHT: Final = 34
EDGES: Final = 74
FEWEST_VERSIONS: Final = 2
_PATTERNS: Final = ((timedelta(days=2), "%H:%M"), (timedelta(days=300), "%d %b"))
_LONGEST: Final = "%b %Y"
_HOURS: Final = (1 / 60, 5 / 60, 0.25, 0.5, 1, 2, 4, 8, 24, 48, 168, 720)
_MOST_TICKS: Final = 8


@dataclass(frozen=True, slots=True)
class Stay:
    model: str
    part: str  # SERVES or SHARES
    weight_bps: int  # of the callers, where it has a share
    since: datetime
    until: datetime


def list_stays(view: RouteView) -> Sequence[Stay]:
    records = list(reversed(view.history.items))
    ends = [*(record.at for record in records[1:]), view.now]
    stays: list[Stay] = []
    for record, end in zip(records, ends, strict=True):
        parts = [(record.route.incumbent, SERVES, 10_000)]
        if share := record.route.experiment:
            parts.append((share.target, SHARES, share.weight_bps))
        for target, part, weight_bps in parts:
            stay = Stay(view.name(target), part, weight_bps, record.at, end)
            same = [
                place
                for place, old in enumerate(stays)
                if (old.model, old.part, old.weight_bps) == (stay.model, part, weight_bps)
                and old.until == stay.since
            ]
            if same:
                stays[same[-1]] = replace(stays[same[-1]], until=end)
            else:
                stays.append(stay)
    return stays


def _route_frames(view: RouteView) -> tuple[pd.DataFrame, pd.DataFrame]:
    bars = [
        {
            "model": stay.model,
            "part": stay.part,
            "since": plots.to_ms(stay.since),
            "until": plots.to_ms(stay.until),
            "text": _sentence(stay, view.now),
        }
        for stay in list_stays(view)
    ]
    marks = [
        {
            "at": plots.to_ms(record.at),
            "model": view.name(record.route.incumbent),
            "text": f"{describe_change(record)}: "
            f"{labels.date_time(record.at)}, by {record.actor}. {record.reason}",
        }
        for record in view.history
    ]
    return (
        pd.DataFrame(bars, columns=["model", "part", "since", "until", "text"]),
        pd.DataFrame(marks, columns=["at", "model", "text"]),
    )


def _sentence(stay: Stay, now: datetime) -> str:
    end = "now" if stay.until == now else labels.date_time(stay.until)
    what = "serves" if stay.part == SERVES else f"has {labels.weight(stay.weight_bps)}"
    lasted = labels.span((stay.until - stay.since).total_seconds())
    return f"{stay.model} {what} from {labels.date_time(stay.since)} to {end} ({lasted})"


def draw_route(view: RouteView, palette: Palette) -> alt.LayerChart | None:
    if len(view.history) < FEWEST_VERSIONS:
        return None
    bars, marks = _route_frames(view)
    models = list(dict.fromkeys(bars["model"]))
    rows = alt.Y(
        "model:N",
        sort=models,
        title=None,
        axis=alt.Axis(labelLimit=150, ticks=False, domain=False, labelPadding=8),
    )
    begin, end = view.history[-1].at, view.now
    end = max(end, begin + timedelta(minutes=1))
    pattern = next((p for most, p in _PATTERNS if end - begin <= most), _LONGEST)
    step_ms = find_step_h(begin, end) * 3_600_000.0
    across = plots.span_axis("since:Q", plots.to_ms(begin), plots.to_ms(end), pattern, step_ms)
    parts = {SERVES: palette.better, SHARES: palette.undecided}
    legend = plots.top_legend(symbolType="square", symbolSize=110)
    colour = plots.named(alt.Color, "part:N", parts, legend)
    # A layer for each part: Vega-Lite warns of a size that a named part decides.
    stays = [
        alt.Chart(bars[bars["part"] == part])
        .mark_bar(cornerRadius=2, size=height)
        .encode(x=across, x2="until:Q", y=rows, color=colour, tooltip="text:N")
        for part, height in zip(parts, (16, 6), strict=True)
    ]
    changes = (
        alt.Chart(marks)
        .mark_point(filled=True, shape="diamond", size=42, opacity=1, color=palette.text)
        .encode(x=alt.X("at:Q"), y=rows, tooltip="text:N")
    )
    figure = alt.layer(*stays, changes)
    return plots.dressed(figure, palette, ROW_HEIGHT * len(models) + EDGES)


def find_step_h(begin: datetime, end: datetime) -> float:
    hours = (end - begin).total_seconds() / 3600
    return next((h for h in _HOURS if hours <= _MOST_TICKS * h), hours / _MOST_TICKS)


FAILED, LEFT = "error to the caller", "own model failed"
HEIGHTS: Final = (130, 170)
COLUMNS: Final = ("at", "until", "requests", "text")
_DAY: Final = timedelta(days=1)


def _traffic_frames(report: TrafficReport) -> tuple[pd.DataFrame, pd.DataFrame]:
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


def draw_traffic(report: TrafficReport, palette: Palette) -> Sequence[alt.LayerChart]:
    counts, shares = _traffic_frames(report)
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
