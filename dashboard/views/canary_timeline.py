"""Draws a canary's timeline: share of the traffic, evidence of harm and both arms' failures, on
one axis of time. The ends of the axes are part of the data, because a browser visibly redraws a
live chart if anything but its data changes.

`build_frames` computes the data, `draw` joins them with panels that are rendered once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import altair as alt
import pandas as pd

from dashboard import labels, plots
from dashboard.theme import Palette
from harness.canary.status import FailureShare, TimelinePoint
from harness.gate.online.rollout import Rollout, RolloutState

CANDIDATE, INCUMBENT = "candidate", "incumbent"
SHARE, EVIDENCE, FAILED = (
    "Share of the traffic",
    "Evidence of harm, in % of the rollback level",
    "Failed so far",
)
PANELS: Final = (110, 150, 240)  # heights in pixels, with titles and labels
_MOST_TICKS: Final = 8
_BY_SECOND_MS: Final = 5 * 60_000  # the labels of a shorter axis have seconds
_BY_DATE_MS: Final = 8 * 86_400_000  # the labels of a longer axis are dates
# The axis grows in this many steps, so that a browser draws only visible changes.
_END_STEPS: Final = 40
# The panels refer to their data by these names.
_SHARES, _EVIDENCE, _FAILURES, _CORNERS = (
    alt.NamedData(name) for name in ("shares", "evidence", "failures", "corners")
)


@dataclass(frozen=True)
class TimelineFrames:
    """The data of the three panels. at: milliseconds since 1970. Shares and rates are in
    percent.
    """

    shares: pd.DataFrame  # at, share
    evidence: pd.DataFrame  # at, percent, text
    failures: pd.DataFrame  # at, arm, rate, low, high, latest, text; cut at `top`
    corners: pd.DataFrame  # at, top: ends of the axes of time and of failures
    ends: datetime


def build_frames(
    rollout: Rollout, points: Sequence[TimelinePoint], now: datetime
) -> TimelineFrames:
    """Computes the data of the panels up to now, or up to the canary's end."""
    began = rollout.started_at
    last = points[-1].at if points else began
    ended = not rollout.live and not rollout.baking
    ends = max(last, rollout.updated_at if ended else _rounded(began, max(now, last)))
    shares = _shares(rollout, points, ends)
    ends = max(ends, began + timedelta(minutes=1))
    failures = _failures(points)
    top = _top(failures)
    return TimelineFrames(
        shares=shares,
        evidence=_evidence(began, points),
        failures=_below(failures, top),
        corners=pd.DataFrame(
            {"at": [plots.to_ms(began), plots.to_ms(ends)], "top": [0.0, top]}
        ),
        ends=ends,
    )


def _rounded(began: datetime, now: datetime) -> datetime:
    """Rounds the axis's end up, so that it moves rarely while the canary runs."""
    step = max(60.0, (now - began).total_seconds() / _END_STEPS)
    # Powers of two, because the step must rarely change while the canary runs.
    step = 60.0 * 2 ** max(0, round(step / 60.0).bit_length() - 1)
    steps = -(-(now - began).total_seconds() // step)
    return began + timedelta(seconds=steps * step)


def _shares(rollout: Rollout, points: Sequence[TimelinePoint], ends: datetime) -> pd.DataFrame:
    """Builds the candidate's share over time, as steps. After the canary's end the share is 0
    if the canary was rolled back, else 100 %.
    """
    rows = [(rollout.started_at, rollout.policy.steps[0].weight_bps)]
    for point in points:
        if point.weight_bps != rows[-1][1]:
            # The last step began before its first block closed.
            last_step = point.weight_bps == rollout.current.weight_bps
            began = min(point.at, rollout.step_started_at) if last_step else point.at
            rows.append((max(rows[-1][0], began), point.weight_bps))
    # A canary may end before its last step has counted a request.
    if rollout.current.weight_bps != rows[-1][1]:
        rows.append((rollout.step_started_at, rollout.current.weight_bps))
    if not rollout.live:
        back = rollout.state is RolloutState.ROLLED_BACK
        rows.append((min(rollout.updated_at, ends), 0 if back else 10_000))
    rows.append((ends, rows[-1][1]))
    return pd.DataFrame(
        [
            {
                "at": plots.to_ms(at),
                "share": weight / 100,
                "text": f"{labels.weight(weight)} from {labels.time_of_day(at)} UTC",
            }
            for at, weight in rows
        ]
    )


def _evidence(began: datetime, points: Sequence[TimelinePoint]) -> pd.DataFrame:
    rows = [{"at": plots.to_ms(began), "percent": 0.0, "text": "no request counted yet"}]
    rows += [
        {
            "at": plots.to_ms(point.at),
            "percent": 100 * point.distance,
            "text": f"{labels.time_of_day(point.at)} UTC: "
            f"{labels.percent(point.distance, 0)} of the rollback level",
        }
        for point in points
    ]
    return pd.DataFrame(rows)


def _failures(points: Sequence[TimelinePoint]) -> pd.DataFrame:
    """Builds the failures of both arms so far, with their intervals."""
    rows = [
        _failure_row(point.at, arm, counted)
        for point in points
        for arm, counted in ((CANDIDATE, point.candidate), (INCUMBENT, point.incumbent))
        if counted.units
    ]
    found = pd.DataFrame(rows, columns=["at", "arm", "rate", "low", "high", "text"])
    return found.assign(latest=~found["arm"].duplicated(keep="last"))


def _below(failures: pd.DataFrame, top: float) -> pd.DataFrame:
    """Cuts the failures at the top of the axis, because marks above it would leave the
    panel.
    """
    return failures.assign(
        rate=failures["rate"].where(failures["rate"] <= top),
        low=failures["low"].clip(upper=top),
        high=failures["high"].clip(upper=top),
    )


def _failure_row(at: datetime, arm: str, counted: FailureShare) -> dict[str, object]:
    low, high = counted.interval or (0.0, 1.0)
    return {
        "at": plots.to_ms(at),
        "arm": arm,
        "rate": 100 * (counted.share or 0.0),
        "low": 100 * low,
        "high": 100 * high,
        "text": f"{arm}: {labels.percent(counted.share)} failed "
        f"({counted.failures:,} of {counted.units:,}), 95 % CI {labels.percent(low)} to "
        f"{labels.percent(high)}; {labels.time_of_day(at)} UTC",
    }


def draw(frames: TimelineFrames, palette: Palette) -> Sequence[Mapping[str, Any]]:
    """Builds the panels as Vega-Lite with their data."""
    panels = _write_panels(tuple(sorted({0.0, *frames.shares["share"]})), palette)
    own = {"shares": frames.shares, "evidence": frames.evidence, "failures": frames.failures}
    return [
        {**panel, "datasets": {name: frame, "corners": frames.corners}}
        for panel, (name, frame) in zip(panels, own.items(), strict=True)
    ]


@lru_cache(maxsize=32)
def _write_panels(steps: Sequence[float], palette: Palette) -> Sequence[Mapping[str, Any]]:
    """Renders the panels without data. steps: the shares so far, in percent."""
    share, evidence, failed = PANELS
    panels = (
        plots.dressed(_share_panel(steps, palette), palette, share),
        plots.dressed(_evidence_panel(palette), palette, evidence),
        plots.dressed(_failure_panel(palette), palette, failed),
    )
    return [panel.to_dict() for panel in panels]


def _share_panel(steps: Sequence[float], palette: Palette) -> alt.LayerChart:
    line = (
        alt.Chart(_SHARES)
        .mark_area(
            interpolate="step-after", line={"color": palette.better, "strokeWidth": 2},
            color=palette.better, opacity=0.16,
        )
        .encode(x=_time(shown=False), y=_shares_axis(steps), tooltip="text:N")
    )  # fmt: skip
    return plots.panel(SHARE, palette, line, _reach_of_time())


def _evidence_panel(palette: Palette) -> alt.LayerChart:
    scale = alt.Scale(domain=[0, 115], nice=False)
    axis = plots.narrow_axis(values=[0, 50, 100])
    # One row of data, so that Vega-Lite draws the rule once.
    first = alt.Chart(_CORNERS).transform_filter("datum.top == 0")
    level = first.encode(y=alt.datum(100.0))
    rule = level.mark_rule(
        color=palette.worse, size=2, strokeDash=[6, 3], description="rollback level"
    )
    name = level.mark_text(
        text="rollback", x=4, align="left", dy=-7, fontSize=12, color=palette.worse
    )
    line = (
        alt.Chart(_EVIDENCE)
        .mark_line(interpolate="step-after", strokeWidth=2, color=palette.undecided)
        .encode(
            x=_time(shown=False),
            y=alt.Y("percent:Q", title=None, scale=scale, axis=axis),
            tooltip="text:N",
        )
    )
    return plots.panel(EVIDENCE, palette, line, rule, name, _reach_of_time())


def _failure_panel(palette: Palette) -> alt.LayerChart:
    legend = plots.top_legend(symbolType="stroke", symbolStrokeWidth=3, symbolOpacity=1)

    def by_arm(channel: type[plots.Channel], candidate: Any, incumbent: Any) -> plots.Channel:
        values = {CANDIDATE: candidate, INCUMBENT: incumbent}
        return plots.named(channel, "arm:N", values, legend)

    colour = by_arm(alt.Color, palette.worse, palette.better)
    base = alt.Chart(_FAILURES)
    time = _time(shown=True)
    band = base.mark_area(opacity=0.18).encode(
        x=time, y=_percent("low:Q"), y2="high:Q", color=colour
    )
    line = base.mark_line(strokeWidth=2).encode(
        x=time, y=_percent("rate:Q"), color=colour, tooltip="text:N",
        strokeDash=by_arm(alt.StrokeDash, [1, 0], [5, 3]),
    )  # fmt: skip
    # A point for each arm's newest figures, because a single value draws no line.
    now = base.transform_filter("datum.latest")
    reach = now.mark_rule(strokeWidth=2).encode(
        x=time, y=_percent("low:Q"), y2="high:Q", color=colour
    )
    point = now.mark_point(filled=True, size=60, opacity=1).encode(
        x=time, y=_percent("rate:Q"), color=colour, tooltip="text:N",
        shape=by_arm(alt.Shape, "square", "circle"),
    )  # fmt: skip
    corners = _reach_of_time(shown=True).encode(y=_percent("top:Q"))
    return plots.panel(FAILED, palette, band, line, reach, point, corners)


def _reach_of_time(*, shown: bool = False) -> alt.Chart:
    """Builds an invisible layer, whose data make all panels' axes of time equally long."""
    chart: alt.Chart = alt.Chart(_CORNERS).mark_point(opacity=0)
    return chart.encode(x=_time(shown=shown))


def _top(failures: pd.DataFrame) -> float:
    """Ends the axis of failures 20 % above the newest intervals, or 50 % above the shares of
    the later half. The far wider intervals of the first blocks would flatten the chart.
    """
    if failures.empty:
        return 1.0
    today = failures.groupby("arm").tail(1)["high"].max()
    settled = failures["rate"].tail(max(2, len(failures) // 2)).max()
    return float(min(100.0, max(1.2 * today, 1.5 * settled, 0.1)))


def _percent(field: str) -> alt.Y:
    return alt.Y(
        field, title=None, scale=alt.Scale(zero=True, nice=False), axis=plots.narrow_axis()
    )


def _shares_axis(steps: Sequence[float]) -> alt.Y:
    top = steps[-1]
    return alt.Y(
        "share:Q",
        title=None,
        scale=alt.Scale(domain=[0.0, 1.15 * max(top, 0.1)], nice=False),
        axis=plots.narrow_axis(
            values=[0.0, top] if len(steps) > 4 else list(steps), labelOverlap=True
        ),
    )


def _time(*, shown: bool) -> alt.X:
    """Builds the axis of time. Its labels depend on its length, which the browser knows."""
    # The browser computes the axis's length from its data.
    length = "domain('x')[1] - domain('x')[0]"
    by_date, by_second = f"{length} > {_BY_DATE_MS}", f"{length} < {_BY_SECOND_MS}"
    patterns = ("%d %b", "%H:%M", "%H:%M:%S")
    date, clock, second = (f"utcFormat(datum.value, '{pattern}')" for pattern in patterns)
    axis = alt.Axis(
        tickCount=_MOST_TICKS,
        labelExpr=f"{by_date} ? {date} : {by_second} ? {second} : {clock}",
        labels=shown,
        ticks=shown,
        labelOverlap=True,
        grid=True,
    )
    return alt.X("at:T", title=None, scale=alt.Scale(type="utc", nice=False), axis=axis)
