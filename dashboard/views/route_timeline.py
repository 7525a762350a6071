"""Loads a route with its versions, and draws the models that served it over time.

The Routes page and its dialogs share `RouteView`, so that all parts of a page show the same
moment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import altair as alt
import pandas as pd

from dashboard import labels, plots
from dashboard.theme import Palette
from harness.canary.canary_state import describe_change
from harness.evals.drift_watches import DriftStatus, list_drift_status
from harness.frame.pagination import Page, PageRequest
from harness.operations import queries
from harness.operations.context import Context
from harness.proposals import fallback_chain
from harness.proposals.candidates import spares
from harness.proposals.fallback_chain import ChainEntry
from harness.providers.records import Targets
from harness.providers.target import Target
from harness.routing.control import routes
from harness.routing.records.observations import Observations
from harness.routing.reports import scorecard
from harness.routing.reports.scorecard import RouteScorecard
from harness.routing.spare import Spare
from harness.routing.table import Route, RouteRecord

MOST_VERSIONS: Final = 200


@dataclass(frozen=True)
class RouteView:
    """A route with the data of its page."""

    route: Route
    history: Page[RouteRecord]  # the newest versions
    targets: Mapping[str, Target]
    chain: Sequence[ChainEntry]
    spares: Sequence[Spare]
    drift: Sequence[DriftStatus]
    serving_revision: int | None  # the newest recorded request's revision
    measured: RouteScorecard
    now: datetime

    @property
    def id(self) -> str:
        return self.route.name

    @property
    def behind(self) -> bool:
        """Tells whether routers still serve an older revision, by the newest recorded
        request.
        """
        return self.serving_revision is not None and (
            self.serving_revision < self.history[0].revision
        )

    def name(self, target: str) -> str:
        """Returns a target's name; for an unknown target, the value itself."""
        known_target = self.targets.get(target)
        return known_target.name if known_target else target


def load_route(ctx: Context, name: str) -> RouteView:
    """Loads a route. Raises NotFound."""
    history = queries.list_route_versions(ctx, name, PageRequest(MOST_VERSIONS))
    chain = fallback_chain.list_fallbacks(ctx, name)
    route_spares = spares.list_spares(ctx, name)
    route_scorecard = scorecard.build_scorecard(ctx, name)
    drift = list_drift_status(ctx, route=name)
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        traffic = Observations(tx).traffic(since=now - timedelta(minutes=10), route=name)
        # Minutes after the change alone: its own minute may contain earlier requests.
        later_minutes = [minute for minute in traffic if minute.minute > history[0].at]
        newest = max(
            later_minutes, key=lambda minute: (minute.minute, minute.revision), default=None
        )
        return RouteView(
            route=routes.require_route(tx, name),
            history=history,
            targets=Targets(tx).all(),
            chain=chain,
            spares=route_spares,
            drift=drift,
            serving_revision=newest.revision if newest else None,
            measured=route_scorecard,
            now=now,
        )


def former_versions(view: RouteView) -> Sequence[RouteRecord]:
    """Lists the newest version of each former incumbent, to which the route can go back."""
    incumbents = {view.route.incumbent}
    versions = []
    for record in view.history:
        if record.route.incumbent not in incumbents:
            incumbents.add(record.route.incumbent)
            versions.append(record)
    return versions


SERVES = "serves"
SHARES = "has a share"
ROW_HEIGHT_PX: Final = 34
EDGES_PX: Final = 74
FEWEST_VERSIONS: Final = 2


def list_stays(view: RouteView) -> Sequence[Mapping[str, Any]]:
    """Lists the periods in which a model served or had a share; each may span versions."""
    records = list(reversed(view.history.items))
    end_times = [*(record.at for record in records[1:]), view.now]
    stays: list[dict[str, Any]] = []
    open_stays: dict[tuple[str, str, int], dict[str, Any]] = {}
    for record, end in zip(records, end_times, strict=True):
        parts = [(view.name(record.route.incumbent), SERVES, 10_000)]
        if share := record.route.experiment:
            parts.append((view.name(share.target), SHARES, share.weight_bps))
        for model, part, weight_bps in parts:
            stay = open_stays.get((model, part, weight_bps))
            if stay is None or stay["until"] != record.at:
                stay = {
                    "model": model,
                    "part": part,
                    "weight_bps": weight_bps,
                    "since": record.at,
                }
                open_stays[model, part, weight_bps] = stay
                stays.append(stay)
            stay["until"] = end
    return stays


def _describe_stay(stay: Mapping[str, Any], now: datetime) -> str:
    """Describes a period for a tooltip: the model, its part, and the period's begin and end."""
    begin_text = labels.date_time(stay["since"])
    end_text = labels.date_time(stay["until"])
    predicate = (
        "serves" if stay["part"] == SERVES else f"has {labels.weight(stay['weight_bps'])}"
    )
    duration = labels.span((stay["until"] - stay["since"]).total_seconds())
    end_words = "now" if stay["until"] == now else end_text
    return f"{stay['model']} {predicate} from {begin_text} to {end_words} ({duration})"


def draw_route(view: RouteView, palette: Palette) -> alt.LayerChart | None:
    """Draws the models over time, and the changes; None for a route with a single version."""
    if len(view.history) < FEWEST_VERSIONS:
        return None
    stays = list_stays(view)
    bars = pd.DataFrame(stays).assign(
        since=[plots.to_ms(stay["since"]) for stay in stays],
        until=[plots.to_ms(stay["until"]) for stay in stays],
        text=[_describe_stay(stay, view.now) for stay in stays],
    )
    change_marks = [
        {
            "at": plots.to_ms(record.at),
            "model": view.name(record.route.incumbent),
            "text": f"{describe_change(record)}: "
            f"{labels.date_time(record.at)}, by {record.actor}. {record.reason}",
        }
        for record in view.history
    ]
    models = list(dict.fromkeys(bars["model"]))
    rows = alt.Y(
        "model:N",
        sort=models,
        title=None,
        axis=alt.Axis(
            labelLimit=150,
            ticks=False,
            domain=False,
            labelPadding=8,
        ),
    )
    begin = view.history[-1].at
    end = max(view.now, begin + timedelta(minutes=1))
    parts = {SERVES: palette.better, SHARES: palette.undecided}
    legend = plots.top_legend(symbolType="square", symbolSize=110)
    colour = plots.named(alt.Color, "part:N", parts, legend)
    # A layer for each part: Vega-Lite warns if a field decides the size.
    layers = [
        alt.Chart(bars[bars["part"] == part])
        .mark_bar(cornerRadius=2, size=bar_height_px)
        .encode(
            x=plots.time_axis("since", begin, end),
            x2="until:Q",
            y=rows,
            color=colour,
            tooltip="text:N",
        )
        for part, bar_height_px in zip(parts, (16, 6), strict=True)
    ]
    changes = (
        alt.Chart(pd.DataFrame(change_marks))
        .mark_point(
            filled=True,
            shape="diamond",
            size=42,
            opacity=1,
            color=palette.text,
        )
        .encode(x=plots.time_axis("at", begin, end), y=rows, tooltip="text:N")
    )
    figure = alt.layer(*layers, changes)
    return plots.dressed(figure, palette, ROW_HEIGHT_PX * len(models) + EDGES_PX)
