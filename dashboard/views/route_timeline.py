"""Loads a route with its versions, and draws which model served it when."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import altair as alt
import pandas as pd

from dashboard import labels, plots
from dashboard.theme import Palette
from harness.control.context import Context
from harness.control.evals.drift_watches import DriftStatus, list_drift_status
from harness.control.operations import queries
from harness.control.routing import fallback_chain, routes, scorecard
from harness.control.routing.fallback_chain import ChainEntry
from harness.control.routing.scorecard import RouteScorecard
from harness.domain.pagination import Page, PageRequest
from harness.domain.routing.table import Route, RouteRecord
from harness.domain.routing.target import Target
from harness.gate.text.canary_state import describe_change
from harness.store.sql.observations import Observations
from harness.store.sql.routing import Routing

MOST_VERSIONS: Final = 200


@dataclass(frozen=True)
class RouteView:
    route: Route
    history: Page[RouteRecord]  # its newest versions
    targets: Mapping[str, Target]
    chain: Sequence[ChainEntry]
    drift: Sequence[DriftStatus]
    serving_revision: int | None  # of the newest recorded request
    measured: RouteScorecard
    now: datetime

    @property
    def id(self) -> str:
        return self.route.name

    @property
    def behind(self) -> bool:
        return self.serving_revision is not None and (
            self.serving_revision < self.history[0].revision
        )

    def name(self, target: str) -> str:
        found = self.targets.get(target)
        return found.name if found else target


def load_route(ctx: Context, name: str) -> RouteView:
    history = queries.list_route_versions(ctx, name, PageRequest(MOST_VERSIONS))
    chain = fallback_chain.list_fallbacks(ctx, name)
    figures = scorecard.build_scorecard(ctx, name)
    drift = list_drift_status(ctx, route=name)
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        recent = Observations(tx).traffic(since=now - timedelta(minutes=10), route=name)
        # The change's own minute may still hold requests from before it.
        after = [t for t in recent if t.minute > history[0].at]
        newest = max(after, key=lambda t: (t.minute, t.revision), default=None)
        return RouteView(
            route=routes.require_route(tx, name),
            history=history,
            targets=Routing(tx).targets(),
            chain=chain,
            drift=drift,
            serving_revision=newest.revision if newest else None,
            measured=figures,
            now=now,
        )


def former_versions(view: RouteView) -> Sequence[RouteRecord]:
    seen = {view.route.incumbent}
    former = []
    for record in view.history:
        if record.route.incumbent not in seen:
            seen.add(record.route.incumbent)
            former.append(record)
    return former


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
