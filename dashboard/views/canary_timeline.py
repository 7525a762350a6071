"""Draws a canary's timeline: share of the traffic, evidence of harm and both arms' failures, on
one axis of time. The ends of the axes are part of the data, because other changes of a live
chart make the browser redraw it visibly.

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

CANDIDATE = "candidate"
INCUMBENT = "incumbent"
SHARE = "Share of the traffic"
EVIDENCE = "Evidence of harm, in % of the rollback level"
FAILED = "Failed so far"
PANEL_HEIGHTS_PX: Final = (64, 88, 156)  # with titles and labels
_MOST_TICKS: Final = 8
_BY_SECOND_MS: Final = 5 * 60_000  # the labels of a shorter axis have seconds
_BY_DATE_MS: Final = 8 * 86_400_000  # the labels of a longer axis are dates
# The axis grows in about this many steps, so that the browser redraws it rarely.
_END_STEPS: Final = 40
# The panels refer to their data by these names.
_SHARES = alt.NamedData("shares")
_EVIDENCE = alt.NamedData("evidence")
_FAILURES = alt.NamedData("failures")
_CORNERS = alt.NamedData("corners")


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
    rollout: Rollout,
    points: Sequence[TimelinePoint],
    now: datetime,
) -> TimelineFrames:
    """Computes the data of the panels up to now, or up to the canary's end."""
    started_at = rollout.started_at
    last_at = points[-1].at if points else started_at
    has_ended = not rollout.live and not rollout.baking
    ends_at = max(
        last_at,
        rollout.updated_at if has_ended else _round_end(started_at, max(now, last_at)),
    )
    shares = _build_shares(rollout, points, ends_at)
    ends_at = max(ends_at, started_at + timedelta(minutes=1))
    failures = _build_failures(points)
    top = _find_top(failures)
    return TimelineFrames(
        shares=shares,
        evidence=_build_evidence(started_at, points),
        failures=_cut_failures(failures, top),
        corners=pd.DataFrame(
            {
                "at": [plots.to_ms(started_at), plots.to_ms(ends_at)],
                "top": [0.0, top],
            }
        ),
        ends=ends_at,
    )


def _round_end(started_at: datetime, now: datetime) -> datetime:
    """Rounds the axis's end up, so that it moves rarely while the canary runs."""
    step_s = max(60.0, (now - started_at).total_seconds() / _END_STEPS)
    # Powers of two change rarely while the canary runs.
    step_s = 60.0 * 2 ** max(0, round(step_s / 60.0).bit_length() - 1)
    step_count = -(-(now - started_at).total_seconds() // step_s)
    return started_at + timedelta(seconds=step_count * step_s)


def _build_shares(
    rollout: Rollout,
    points: Sequence[TimelinePoint],
    ends_at: datetime,
) -> pd.DataFrame:
    """Builds the candidate's share over time, as steps. After the canary's end the share is 0
    if the canary was rolled back, else 100 %.
    """
    rows = [(rollout.started_at, rollout.policy.steps[0].weight_bps)]
    for point in points:
        if point.weight_bps != rows[-1][1]:
            # The last step began before its first block closed.
            last_step = point.weight_bps == rollout.current.weight_bps
            began_at = min(point.at, rollout.step_started_at) if last_step else point.at
            rows.append((max(rows[-1][0], began_at), point.weight_bps))
    # A canary may end before its last step has counted a request.
    if rollout.current.weight_bps != rows[-1][1]:
        rows.append((rollout.step_started_at, rollout.current.weight_bps))
    if not rollout.live:
        is_rolled_back = rollout.state is RolloutState.ROLLED_BACK
        rows.append((min(rollout.updated_at, ends_at), 0 if is_rolled_back else 10_000))
    rows.append((ends_at, rows[-1][1]))
    return pd.DataFrame(
        [
            {
                "at": plots.to_ms(at),
                "share": weight / 100,
                "text": f"{labels.weight(weight)} from {labels.time_of_day(at)}",
            }
            for at, weight in rows
        ]
    )


def _build_evidence(started_at: datetime, points: Sequence[TimelinePoint]) -> pd.DataFrame:
    rows = [
        {
            "at": plots.to_ms(started_at),
            "percent": 0.0,
            "text": "no request counted yet",
        }
    ]
    rows += [
        {
            "at": plots.to_ms(point.at),
            "percent": 100 * point.distance,
            "text": f"{labels.time_of_day(point.at)}: "
            f"{labels.percent(point.distance, 0)} of the rollback level",
        }
        for point in points
    ]
    return pd.DataFrame(rows)


def _build_failures(points: Sequence[TimelinePoint]) -> pd.DataFrame:
    """Builds the failures of both arms so far, with their intervals."""
    rows = [
        _build_failure_row(point.at, arm, failure_share)
        for point in points
        for arm, failure_share in (
            (CANDIDATE, point.candidate),
            (INCUMBENT, point.incumbent),
        )
        if failure_share.units
    ]
    frame = pd.DataFrame(rows, columns=["at", "arm", "rate", "low", "high", "text"])
    return frame.assign(latest=~frame["arm"].duplicated(keep="last"))


def _cut_failures(failures: pd.DataFrame, top: float) -> pd.DataFrame:
    """Cuts the failures at the top of the axis, because marks above it would leave the
    panel.
    """
    return failures.assign(
        rate=failures["rate"].where(failures["rate"] <= top),
        low=failures["low"].clip(upper=top),
        high=failures["high"].clip(upper=top),
    )


def _build_failure_row(
    at: datetime,
    arm: str,
    failure_share: FailureShare,
) -> dict[str, object]:
    low, high = failure_share.interval or (0.0, 1.0)
    return {
        "at": plots.to_ms(at),
        "arm": arm,
        "rate": 100 * (failure_share.share or 0.0),
        "low": 100 * low,
        "high": 100 * high,
        "text": f"{arm}: {labels.percent(failure_share.share)} failed "
        f"({failure_share.failures:,} of {failure_share.units:,}), 95 % CI "
        f"{labels.percent(low)} to {labels.percent(high)}; {labels.time_of_day(at)}",
    }


def draw(frames: TimelineFrames, palette: Palette) -> Sequence[Mapping[str, Any]]:
    """Builds the panels as Vega-Lite with their data."""
    steps = tuple(sorted({0.0, *frames.shares["share"]}))
    panels = _write_panels(steps, palette, plots.time_scale())
    frames_by_name = {
        "shares": frames.shares,
        "evidence": frames.evidence,
        "failures": frames.failures,
    }
    return [
        {**panel, "datasets": {name: frame, "corners": frames.corners}}
        for panel, (name, frame) in zip(panels, frames_by_name.items(), strict=True)
    ]


@lru_cache(maxsize=32)
def _write_panels(
    steps: Sequence[float],
    palette: Palette,
    time_scale: str,  # noqa: ARG001 - the cache's key, because the axes depend on it
) -> Sequence[Mapping[str, Any]]:
    """Renders the panels without data.

    Args:
        steps: the shares so far, in percent.
    """
    share_height, evidence_height, failure_height = PANEL_HEIGHTS_PX
    panels = (
        plots.dressed(_draw_shares(steps, palette), palette, share_height),
        plots.dressed(_draw_evidence(palette), palette, evidence_height),
        plots.dressed(_draw_failures(palette), palette, failure_height),
    )
    return [panel.to_dict() for panel in panels]


def _draw_shares(steps: Sequence[float], palette: Palette) -> alt.LayerChart:
    line = (
        alt.Chart(_SHARES)
        .mark_area(
            interpolate="step-after",
            line={"color": palette.better, "strokeWidth": 2},
            color=palette.better,
            opacity=0.16,
        )
        .encode(
            x=_build_time_axis(has_labels=False), y=_build_share_axis(steps), tooltip="text:N"
        )
    )
    return plots.panel(SHARE, palette, line, _draw_time_bounds())


def _draw_evidence(palette: Palette) -> alt.LayerChart:
    scale = alt.Scale(domain=[0, 115], nice=False)
    axis = plots.narrow_axis(values=[0, 50, 100])
    # One row of data, so that Vega-Lite draws the rule once.
    first_corner = alt.Chart(_CORNERS).transform_filter("datum.top == 0")
    level_base = first_corner.encode(y=alt.datum(100.0))
    rule = level_base.mark_rule(
        color=palette.worse,
        size=2,
        strokeDash=[6, 3],
        description="rollback level",
    )
    level_name = level_base.mark_text(
        text="rollback",
        x=4,
        align="left",
        dy=-7,
        fontSize=12,
        color=palette.worse,
    )
    line = (
        alt.Chart(_EVIDENCE)
        .mark_line(interpolate="step-after", strokeWidth=2, color=palette.undecided)
        .encode(
            x=_build_time_axis(has_labels=False),
            y=alt.Y(
                "percent:Q",
                title=None,
                scale=scale,
                axis=axis,
            ),
            tooltip="text:N",
        )
    )
    return plots.panel(EVIDENCE, palette, line, rule, level_name, _draw_time_bounds())


def _draw_failures(palette: Palette) -> alt.LayerChart:
    legend = plots.top_legend(symbolType="stroke", symbolStrokeWidth=3, symbolOpacity=1)

    def by_arm(
        channel: type[plots.Channel],
        candidate: Any,
        incumbent: Any,
    ) -> plots.Channel:
        values = {CANDIDATE: candidate, INCUMBENT: incumbent}
        return plots.named(channel, "arm:N", values, legend)

    colour = by_arm(alt.Color, palette.worse, palette.better)
    base = alt.Chart(_FAILURES)
    time = _build_time_axis(has_labels=True)
    band = base.mark_area(opacity=0.18).encode(
        x=time,
        y=_build_percent_axis("low:Q"),
        y2="high:Q",
        color=colour,
    )
    line = base.mark_line(strokeWidth=2).encode(
        x=time,
        y=_build_percent_axis("rate:Q"),
        color=colour,
        tooltip="text:N",
        strokeDash=by_arm(alt.StrokeDash, [1, 0], [5, 3]),
    )
    # A point for each arm's newest figures, because a single value draws no line.
    newest = base.transform_filter("datum.latest")
    newest_interval = newest.mark_rule(strokeWidth=2).encode(
        x=time,
        y=_build_percent_axis("low:Q"),
        y2="high:Q",
        color=colour,
    )
    point = newest.mark_point(filled=True, size=60, opacity=1).encode(
        x=time,
        y=_build_percent_axis("rate:Q"),
        color=colour,
        tooltip="text:N",
        shape=by_arm(alt.Shape, "square", "circle"),
    )
    corners = _draw_time_bounds(has_labels=True).encode(y=_build_percent_axis("top:Q"))
    return plots.panel(FAILED, palette, band, line, newest_interval, point, corners)


def _draw_time_bounds(*, has_labels: bool = False) -> alt.Chart:
    """Draws an invisible layer, whose data make all panels' axes of time equally long."""
    chart: alt.Chart = alt.Chart(_CORNERS).mark_point(opacity=0)
    return chart.encode(x=_build_time_axis(has_labels=has_labels))


def _find_top(failures: pd.DataFrame) -> float:
    """Returns the end of the axis of failures: 20 % above the newest intervals, or 50 % above
    the shares of the later half. The first blocks' intervals are far wider, and would flatten
    the chart.
    """
    if failures.empty:
        return 1.0
    newest = failures.groupby("arm").tail(1)["high"].max()
    recent = failures["rate"].tail(max(2, len(failures) // 2)).max()
    return float(min(100.0, max(1.2 * newest, 1.5 * recent, 0.1)))


def _build_percent_axis(field: str) -> alt.Y:
    return alt.Y(
        field,
        title=None,
        scale=alt.Scale(zero=True, nice=False),
        axis=plots.narrow_axis(),
    )


def _build_share_axis(steps: Sequence[float]) -> alt.Y:
    top = steps[-1]
    return alt.Y(
        "share:Q",
        title=None,
        scale=alt.Scale(domain=[0.0, 1.15 * max(top, 0.1)], nice=False),
        axis=plots.narrow_axis(
            values=[0.0, top] if len(steps) > 4 else list(steps),
            labelOverlap=True,
        ),
    )


def _build_time_axis(*, has_labels: bool) -> alt.X:
    """Builds the axis of time. Its labels depend on its length, which the browser knows."""
    # The browser computes the axis's length from its data.
    length_ms = "domain('x')[1] - domain('x')[0]"
    by_date = f"{length_ms} > {_BY_DATE_MS}"
    by_second = f"{length_ms} < {_BY_SECOND_MS}"
    patterns = ("%d %b", "%H:%M", "%H:%M:%S")
    date_label, clock_label, second_label = (plots.label_time(pattern) for pattern in patterns)
    axis = alt.Axis(
        tickCount=_MOST_TICKS,
        labelExpr=f"{by_date} ? {date_label} : {by_second} ? {second_label} : {clock_label}",
        labels=has_labels,
        ticks=has_labels,
        labelOverlap=True,
        grid=True,
    )
    return alt.X(
        "at:T",
        title=None,
        scale=alt.Scale(type=plots.time_scale(), nice=False),
        axis=axis,
    )
