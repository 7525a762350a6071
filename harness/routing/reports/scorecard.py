"""Summarises the measurements of each route's incumbent. Reads only.

A scorecard shows the newest eval of each suite, cost and failures of 30 days and latency of a
day. It compares nothing: candidates are in `harness.proposals.candidates.leaderboard`, costs in
`monthly_bill`, and traffic by minute in `traffic_report`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import fmean
from typing import Final

from harness.frame.errors import SignatureInvalid, SwapproofError
from harness.frame.formatting import (
    DASH,
    format_latency,
    format_percent,
    format_range,
    format_score,
    format_thousand_price,
)
from harness.frame.records.transaction import Transaction
from harness.gate.offline.intervals import mean_interval
from harness.gate.online.observation import TrafficTotal
from harness.gate.run import EvalRun, RunState, Sample
from harness.gate.suite_plan import SuiteRole
from harness.providers.records import Providers, Targets
from harness.providers.target import MeasuredScore, Target
from harness.providers.target_price import describe_missing
from harness.routing.context import RoutingContext
from harness.routing.control import routes
from harness.routing.records.observations import Observations
from harness.routing.records.preload import Preload
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns
from harness.routing.reliability.latency import quantile_ms
from harness.routing.reports.monthly_bill import MONTH, RouteBill, measure_bill
from harness.routing.route_settings import RouteSuite
from harness.routing.table import Arm, Route

DAY: Final = timedelta(days=1)
# Runs whose samples give a score. A run that ended early has measured a part of the items.
SCORED_STATES: Final = (
    RunState.DONE,
    RunState.STOPPED,
    RunState.OVER_BUDGET,
)


@dataclass(frozen=True)
class SuiteScore:
    """The incumbent's newest score on one of the route's suites. score, low, high:
    shares of 1.
    """

    suite: str
    role: SuiteRole
    score: float | None = None  # None without a run
    low: float | None = None  # low, high: 95 % interval over items; None below two items
    high: float | None = None
    items: int = 0
    run: str | None = None
    measured_at: datetime | None = None
    current: bool = True  # whether the run measured the present version of the suite
    hidden: str = ""  # why the score is hidden; empty if it is shown

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval; None without one."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class RouteScorecard:
    """Measurements of a route's incumbent. Costs are US dollars; latencies are milliseconds.

    usd_per_1000: cost of 1,000 requests; None if unknown. month_usd: as `RouteBill.month_usd`.
    """

    route: Route
    incumbent: Target
    scores: Sequence[SuiteScore]
    bill: RouteBill  # over 30 days
    usd_per_1000: float | None
    month_usd: float | None
    # Share of the route's requests whose caller got an error, over 30 days.
    failed: float | None
    # Share of the incumbent's requests that failed at the incumbent, over 30 days.
    charged: float | None
    # p50_ms, p95_ms: latency of the incumbent's `requests_day` answers in the last day; None
    # without answers.
    p50_ms: float | None
    p95_ms: float | None
    requests_day: int

    @property
    def price_text(self) -> str | None:
        """Price of 1,000 requests: None without traffic, "unknown" without a price."""
        return None if self.bill.tokens is None else format_thousand_price(self.usd_per_1000)

    @property
    def missing_price(self) -> str:
        """Names the incumbent's missing price and the command that sets it; else empty."""
        is_missing = self.bill.tokens is not None and self.usd_per_1000 is None
        return describe_missing(self.incumbent.name) if is_missing else ""


def list_facts(
    scorecard: RouteScorecard,
    describe_time: Callable[[datetime], str],
    titles: Mapping[str, str] | None = None,
) -> Sequence[tuple[str, str | None]]:
    """Lists a scorecard's facts for people, as (name, text); a text of None is unknown.

    Args:
        describe_time: writes a time, such as an age.
        titles: suite titles by name.
    """
    bill = scorecard.bill
    names = titles or {}

    def seconds(ms: float | None) -> str:
        return format_latency(None if ms is None else ms / 1000, DASH)

    def share(value: float | None) -> str | None:
        return None if value is None else format_percent(value, 2)

    def describe_score(score: SuiteScore) -> str:
        if score.score is None or score.measured_at is None:
            return score.hidden or "never measured"
        interval = format_range(score.interval, format_score)
        interval_text = f" ({interval})" if score.interval else ""
        version_text = "" if score.current else ", on an older version of the suite"
        measured_text = f"{describe_time(score.measured_at)}{version_text}"
        figure = f"{format_score(score.score)}{interval_text}"
        return f"{figure} on {score.items:,} items, {measured_text}"

    price_text = scorecard.price_text
    if scorecard.missing_price:
        price_text = f"{price_text}: {scorecard.missing_price}"
    p50 = seconds(scorecard.p50_ms)
    p95 = seconds(scorecard.p95_ms)
    return (
        *(
            (f"score, {names.get(s.suite, s.suite)}", describe_score(s))
            for s in scorecard.scores
        ),
        ("cost per 1,000 requests", price_text),
        ("cost a month", bill.month_text if bill.requests else None),
        (
            "latency",
            None if p50 == DASH else f"median {p50}, 95th percentile {p95}",
        ),
        ("failed requests", share(scorecard.failed)),
        ("failures of the model", share(scorecard.charged)),
    )


def build_scorecard(ctx: RoutingContext, name: str) -> RouteScorecard:
    """Builds a scorecard: scores, cost and failures of 30 days, latency of a day."""
    with ctx.store.read() as tx:
        route = routes.require_route(tx, name)
        return _StoredFigures(ctx, tx, [route], named=[name]).build(route)


def build_scorecards(ctx: RoutingContext) -> Sequence[RouteScorecard]:
    """Builds the scorecards of all routes, sorted by name. Raises SignatureInvalid for a forged
    row.
    """
    with ctx.store.read() as tx:
        table = Routing(tx).table().routes
        figures = _StoredFigures(ctx, tx, table.values())
        return [figures.build(table[name]) for name in sorted(table)]


def build_sound_scorecards(
    ctx: RoutingContext, names: Sequence[str]
) -> Mapping[str, RouteScorecard]:
    """Builds the scorecards of named routes, without routes that have a forged row."""
    with ctx.store.read() as tx:
        sound_routes: list[Route] = []
        Preload(tx).routes(names)
        for name in names:
            with suppress(SignatureInvalid):
                sound_routes.append(routes.require_route(tx, name))
        try:
            figures_of_all = _StoredFigures(
                ctx, tx, sound_routes, named=[route.name for route in sound_routes]
            )
        except SignatureInvalid:
            # Reads each route alone, so that a forged row hides only its own route.
            figures_of_all = None
        scorecards = {}
        for route in sound_routes:
            with suppress(SignatureInvalid):
                figures = figures_of_all or _StoredFigures(ctx, tx, [route], named=[route.name])
                scorecards[route.name] = figures.build(route)
        return scorecards


def load_speeds(
    ctx: RoutingContext, table: Mapping[str, Route] | None = None
) -> Mapping[str, float]:
    """Maps targets to their median latencies of the last day in ms."""
    with ctx.store.read() as tx:
        histograms = Observations(tx).latencies(since=ctx.clock.now() - DAY)
        table = Routing(tx).table().routes if table is None else table
    speeds = {}
    for name in sorted(table):
        target = table[name].incumbent
        p50_ms = quantile_ms(histograms.get((name, target), {}), 0.5)
        if p50_ms is not None:
            speeds[target] = p50_ms
    return speeds


def load_target_scores(
    ctx: RoutingContext, tx: Transaction, target: str
) -> Sequence[MeasuredScore]:
    """Loads the newest score of a target on each suite, for the choice of a model. Leaves out
    hidden scores.
    """
    scores = []
    newest = EvalRuns(tx).newest_of_targets({target}, SCORED_STATES)
    shown = [run for run in newest if not ctx.why_hidden(tx, run)]
    for suite, run in sorted((run.suite, run) for run in shown):
        items = _mean_item_scores(EvalRuns(tx).samples(run.id))
        if items:
            low, high = _clipped_interval(items)
            scores.append(MeasuredScore(suite, fmean(items), low, high, len(items)))
    return scores


def _clipped_interval(items: Sequence[float]) -> tuple[float | None, float | None]:
    """Returns the 95 % interval, limited to 0 to 1; (None, None) below two items."""
    interval = mean_interval(items)
    return (max(0.0, interval[0]), min(1.0, interval[1])) if interval else (None, None)


class _StoredFigures:
    """The stored figures of several routes, loaded once for all their scorecards.

    named: the routes whose traffic to load; None for all.
    """

    def __init__(
        self,
        ctx: RoutingContext,
        tx: Transaction,
        routes_: Iterable[Route],
        named: Sequence[str] | None = None,
    ) -> None:
        self._ctx = ctx
        self._tx = tx
        self._now = ctx.clock.now()
        incumbents = {route.incumbent for route in routes_}
        self._runs = EvalRuns(tx).newest_of_targets(incumbents, SCORED_STATES)
        self._targets = Targets(tx).all()
        self._providers = Providers(tx).all()
        self._totals: dict[str, list[TrafficTotal]] = {}
        self._speeds: dict[tuple[str, str], Mapping[int, int]] = {}
        for name in [None] if named is None else named:
            for total in Observations(tx).totals(since=self._now - MONTH, route=name):
                self._totals.setdefault(total.route, []).append(total)
            self._speeds |= Observations(tx).latencies(since=self._now - DAY, route=name)
        self._measured: dict[str, list[float]] = {}  # by run
        self._digests: dict[str, str] = {}  # by suite

    def build(self, route: Route) -> RouteScorecard:
        """Builds one route's scorecard."""
        incumbent = self._targets[route.incumbent]
        provider = self._providers.get(incumbent.provider)
        price = provider.prices.get(incumbent.model) if provider else None
        totals = self._totals.get(route.name, [])
        bill = measure_bill(totals, incumbent.id, price, self._now)
        incumbent_totals = [total for total in totals if total.arm == Arm.INCUMBENT.value]
        speeds = self._speeds.get((route.name, route.incumbent), {})
        usd_per_request = bill.usd_per_request
        return RouteScorecard(
            route=route,
            incumbent=incumbent,
            scores=self._scores(route),
            bill=bill,
            usd_per_1000=None if usd_per_request is None else usd_per_request * 1000,
            month_usd=bill.month_usd,
            failed=_divide_sums([(t.failed, t.requests) for t in totals]),
            charged=_divide_sums([(t.charged, t.requests) for t in incumbent_totals]),
            p50_ms=quantile_ms(speeds, 0.5),
            p95_ms=quantile_ms(speeds, 0.95),
            requests_day=sum(speeds.values()),
        )

    def _scores(self, route: Route) -> Sequence[SuiteScore]:
        newest = {
            run.suite: run for run in reversed(self._runs) if run.target == route.incumbent
        }
        return [self._score(suite, newest.get(suite.suite)) for suite in route.settings.suites]

    def _score(self, suite: RouteSuite, run: EvalRun | None) -> SuiteScore:
        """Builds the score of one suite.

        Args:
            run: the incumbent's newest run; None without one.
        """
        if run is not None and (why := self._ctx.why_hidden(self._tx, run)):
            return SuiteScore(suite.suite, suite.role, run=run.id, hidden=why)
        items = self._items_of(run.id) if run else []
        if run is None or not items:
            return SuiteScore(suite.suite, suite.role)
        low, high = _clipped_interval(items)
        return SuiteScore(
            suite=suite.suite,
            role=suite.role,
            score=fmean(items),
            low=low,
            high=high,
            items=len(items),
            run=run.id,
            measured_at=run.created_at,
            current=self._digest(suite.suite) == run.suite_digest,
        )

    def _items_of(self, run: str) -> list[float]:
        if run not in self._measured:
            self._measured[run] = _mean_item_scores(EvalRuns(self._tx).samples(run))
        return self._measured[run]

    def _digest(self, suite: str) -> str:
        if suite not in self._digests:
            self._digests[suite] = ""
            with suppress(SwapproofError):
                self._digests[suite] = self._ctx.suites.pin(suite).digest
        return self._digests[suite]


def _divide_sums(parts: Sequence[tuple[int, int]]) -> float | None:
    """Divides the sum of the parts by the sum of the wholes; None for a sum of 0."""
    whole_sum = sum(total for _, total in parts)
    return sum(part for part, _ in parts) / whole_sum if whole_sum else None


def _mean_item_scores(samples: Sequence[Sample]) -> list[float]:
    """Returns the mean score of each item. An answer without a valid score counts 0; a missing
    answer does not count.
    """
    scores_by_item: dict[str, list[float]] = {}
    for sample in samples:
        if sample.is_own:
            scores_by_item.setdefault(sample.item, []).append(sample.strict or 0.0)
    return [fmean(scores) for scores in scores_by_item.values()]
