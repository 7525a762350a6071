"""Reports the recorded traffic of a window. It reads only sums, to be fast.

The records are counts by minute, arm and target, without content. `outages` decides whether a
route is down now, and `monthly_bill` turns traffic into a cost.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from harness.frame.formatting import (
    format_age,
    format_date_time,
    format_percent,
    format_quantity,
    format_span,
    format_spent_usd,
    format_usd,
)
from harness.gate.online.observation import TrafficMinute, TrafficPoint, TrafficTotal
from harness.routing.context import RoutingContext
from harness.routing.records.observations import Observations
from harness.routing.reliability.failover import FailoverReason
from harness.routing.reliability.latency import merge_histograms, quantile_ms

# If the window has no request, the report looks this far back for the newest request.
LOOK_BACK: Final = timedelta(days=30)
# After this long without a request, a window's figures count as stale.
QUIET: Final = timedelta(minutes=5)
MOST_POINTS: Final = 96  # most points of a chart over time
_DAY: Final = timedelta(days=1)
_MINUTE: Final = timedelta(minutes=1)
_CHART_STEPS: Final = tuple(
    timedelta(minutes=n) for n in (1, 5, 15, 30, 60, 120, 240, 720, 1440)
)


@dataclass(frozen=True, slots=True)
class RouteTraffic:
    """The sums of a route's traffic in a window, or of all routes."""

    route: str  # empty for all routes
    requests: int
    failed: int  # requests whose caller got an error
    # Requests that their assigned model failed, even if another target answered
    # (`TrafficMinute.charged`). The assigned model is the incumbent or the candidate.
    left: int
    # Requests of `failed` for which the router called no target (`TrafficMinute.refused`)
    refused: int
    cost_usd: float  # cost of the requests with a known price
    unpriced: int
    bounded: int  # requests whose cost is a lower bound, because a provider's count is missing
    unanswered: int  # requests whose caller waited, and left before any output
    last: datetime | None  # the newest minute with a request

    @classmethod
    def from_totals(cls, route: str, totals: Sequence[TrafficTotal]) -> "RouteTraffic":
        return cls(
            route=route,
            requests=sum(total.requests for total in totals),
            failed=sum(total.failed for total in totals),
            left=sum(total.charged for total in totals),
            refused=sum(total.refused for total in totals),
            cost_usd=math.fsum(total.cost_usd for total in totals),
            unpriced=sum(total.unpriced for total in totals),
            bounded=sum(total.bounded for total in totals),
            unanswered=sum(total.unanswered for total in totals),
            last=max((total.last for total in totals), default=None),
        )

    @property
    def failed_share(self) -> float | None:
        """The share of requests whose caller got an error; None without a request."""
        return self.failed / self.requests if self.requests else None

    @property
    def known_cost_usd(self) -> float | None:
        """The cost of the priced requests, in US dollars; None if all requests lack a price."""
        has_no_price = self.requests and self.unpriced >= self.requests
        return None if has_no_price else self.cost_usd

    @property
    def cost_text(self) -> str:
        """Writes the cost, as a lower bound if a price or a count is missing."""
        if self.known_cost_usd is None:
            return format_usd(None)
        return format_spent_usd(self.cost_usd, self.unpriced, self.bounded)

    @property
    def bounds_text(self) -> str:
        """The number of requests whose cost is a lower bound, as text; empty without such
        requests.
        """
        if not self.bounded:
            return ""
        return (
            f"{format_quantity(self.bounded, 'request')} at least, without a provider's count"
        )

    @property
    def refused_text(self) -> str:
        """The number of refused requests among the errors, as text; empty without such
        requests.
        """
        if not self.refused:
            return ""
        return (
            f"{self.refused:,} of these errors: the router called no target, because a kill "
            "switch, a missing key or a data class left none"
        )

    @property
    def unanswered_text(self) -> str:
        """The number of callers who left without an answer, as text; empty without such
        callers.
        """
        return f"{self.unanswered:,} left without an answer" if self.unanswered else ""

    @property
    def left_share(self) -> float | None:
        """The share of requests that the assigned model failed; None without a request."""
        return self.left / self.requests if self.requests else None


@dataclass(frozen=True)
class TrafficReport:
    """The traffic of a window, by route and over time."""

    window: timedelta
    since: datetime  # beginning of the window, at a whole step
    now: datetime
    all: RouteTraffic
    routes: Sequence[RouteTraffic]  # by errors, then by requests, most first
    step: timedelta  # time between two points of `course`
    course: Sequence[TrafficPoint]  # a point for each step of the window
    last_request: datetime | None  # may precede the window; None without a request in 30 days
    totals: Sequence[TrafficTotal] = ()  # by route, arm and target

    @property
    def failing(self) -> Sequence[RouteTraffic]:
        """Lists the routes whose callers got errors or no answer, most of them first."""
        return [traffic for traffic in self.routes if traffic.failed or traffic.unanswered]

    @property
    def quiet_since(self) -> datetime | None:
        """The time of the last request, if it is more than QUIET ago; else None."""
        last = self.last_request
        return last if last is not None and self.now - last > QUIET else None


def load_traffic_report(
    ctx: RoutingContext,
    window: timedelta,
    route: str | None = None,
) -> TrafficReport:
    """Loads the traffic of a window that ends now.

    Args:
        route: None for all routes.

    The steps of the chart are whole minutes, hours or a day, so that it has at most MOST_POINTS
    points.
    """
    now = ctx.clock.now()
    step = next(
        (step_ for step_ in _CHART_STEPS if window <= MOST_POINTS * step_), _CHART_STEPS[-1]
    )
    since = _floor_to_step(now - window, step)
    with ctx.store.read() as tx:
        totals = Observations(tx).totals(since=since, route=route)
        points = Observations(tx).traffic_points(since=since, step=step, route=route)
        earlier = () if totals else Observations(tx).totals(since=now - LOOK_BACK, route=route)
    last = max((total.last for total in (*totals, *earlier)), default=None)
    return TrafficReport(
        window=window,
        since=since,
        now=now,
        all=RouteTraffic.from_totals("", totals),
        routes=_sum_by_route(totals),
        step=step,
        course=_build_course(points, since, now, step),
        last_request=None if last is None else last + _MINUTE,
        totals=totals,
    )


def name_period(window: timedelta) -> str:
    """Names a window that ends now: `the last hour`, `the last 24 hours`, `the last 7 days`."""
    hours, rest = divmod(window, timedelta(hours=1))
    if rest or not hours:
        return f"the last {format_span(window.total_seconds())}"
    if hours == 1:
        return "the last hour"
    days, odd_hours = divmod(hours, 24)
    return f"the last {hours} hours" if odd_hours or days == 1 else f"the last {days} days"


def describe_traffic(
    report: TrafficReport,
    period: str,
    route: str | None,
    *,
    mark: Callable[[str], str] = str,
) -> tuple[str, str]:
    """Returns a sentence about callers' errors and lost answers, and a note about the number
    of requests.

    Args:
        period: for people, such as `the last hour`.
    """
    totals = report.all
    failing = report.failing
    place = f" on {mark(route)}" if route else ""
    end_text = f"until {format_date_time(report.now)}"
    if not totals.requests:
        last = report.last_request
        last_text = f"; the last one came {format_age(last, report.now)}" if last else ""
        return f"No request{place} in {period}{last_text}", end_text
    requests = format_quantity(totals.requests, "request")
    if not failing:
        return (
            f"No caller got an error{place} in {period}",
            f"{requests} {end_text}",
        )
    share = format_percent(totals.failed_share, significant=2)
    note = f"{totals.failed:,} of {requests} ({share})"
    if totals.unanswered:
        share = format_percent(totals.unanswered / totals.requests, significant=2)
        left_text = f"{totals.unanswered:,} of {requests} ({share}) left without an answer"
        note = f"{note} failed, {left_text}" if totals.failed else left_text
    note = f"{note}, {end_text}"
    outcome = "errors" if totals.failed else "no answer"
    if route:
        return f"Callers of {mark(route)} got {outcome} in {period}", note
    routes = f"{len(failing):,} of {format_quantity(len(report.routes), 'route')}"
    return f"{mark(routes)} gave callers {outcome} in {period}", note


class RequestEnds(NamedTuple):
    """How a route's requests ended. unanswered: their callers left before an answer."""

    requests: int
    failed: int
    unanswered: int

    @property
    def failures(self) -> Sequence[str]:
        """Lists the requests without an answer: `3 failed`.

        Omits `0 failed` if callers left, because the route would then seem to work.
        """
        parts = [f"{self.failed:,} failed"] if self.failed or not self.unanswered else []
        if self.unanswered:
            parts.append(f"{self.unanswered:,} left without an answer")
        return parts


def sum_request_ends(traffic: Iterable[TrafficMinute]) -> RequestEnds:
    """Sums up the ends of the requests of all minutes."""
    requests = failed = unanswered = 0
    for minute in traffic:
        requests += minute.requests
        failed += minute.failed
        unanswered += minute.unanswered
    return RequestEnds(requests, failed, unanswered)


def format_request_ends(traffic: Iterable[TrafficMinute]) -> str:
    """Writes the number of requests and of those without an answer; empty without requests."""
    ends = sum_request_ends(traffic)
    if not ends.requests:
        return ""
    return ", ".join((format_quantity(ends.requests, "request"), *ends.failures))


def _sum_by_route(totals: Iterable[TrafficTotal]) -> Sequence[RouteTraffic]:
    grouped: dict[str, list[TrafficTotal]] = {}
    for total in totals:
        grouped.setdefault(total.route, []).append(total)
    routes = [RouteTraffic.from_totals(name, group) for name, group in grouped.items()]
    return sorted(
        routes,
        key=lambda route: (-route.failed - route.unanswered, -route.requests, route.route),
    )


def _floor_to_step(at: datetime, step: timedelta) -> datetime:
    """Returns the beginning of the step that contains a time, counted from 1970 UTC."""
    seconds = step.total_seconds()
    return at - timedelta(seconds=at.timestamp() % seconds)


def _build_course(
    points: Iterable[TrafficPoint],
    since: datetime,
    now: datetime,
    step: timedelta,
) -> Sequence[TrafficPoint]:
    """Adds points up by step; a step without traffic has zeros."""
    sums = [[0, 0, 0] for _ in range(math.ceil((now - since) / step))]
    for point in points:
        place = (point.minute - since) // step
        if 0 <= place < len(sums):
            for field_index, count in enumerate((point.requests, point.failed, point.charged)):
                sums[place][field_index] += count
    return [TrafficPoint(since + number * step, *counts) for number, counts in enumerate(sums)]


@dataclass(frozen=True, slots=True)
class TargetTraffic:
    """The requests that one target, or all targets of a provider, answered in a window."""

    provider: str
    target: str  # its name; empty for the provider's sum
    requests: int  # requests that it answered
    left: int  # requests that went to another target, after a failure or at an open circuit
    p95_ms: float | None  # in the last day of the window; None without answers
    known_cost_usd: float | None  # None if no request has a known price
    is_least: bool = False  # the cost is a lower bound: a price or a count is missing

    @property
    def cost_text(self) -> str:
        """Writes the cost; see `RouteTraffic.cost_text`."""
        if self.known_cost_usd is None:
            return format_usd(None)
        return format_spent_usd(self.known_cost_usd, 0, int(self.is_least))


def sum_by_target(
    answered: Iterable[TrafficTotal],
    names: Mapping[str, str],
    latencies: Mapping[tuple[str, str], Mapping[int, int]],
    reasons: Iterable[FailoverReason],
) -> Sequence[TargetTraffic]:
    """Lists each provider's sum, then its targets, by requests, most first.

    Args:
        answered: totals by target.
        names: target names by id.
        latencies: histograms by (route, target).
        reasons: failovers, by the name of the target that was left.
    """
    left_counts: Counter[str] = Counter()
    for reason in reasons:
        left_counts[reason.target] += reason.times
    totals: dict[str, list[TrafficTotal]] = defaultdict(list)
    for total in answered:
        totals[names.get(total.target, total.target)].append(total)
    times: dict[str, Mapping[int, int]] = {}
    for (_, target), histogram in latencies.items():
        name = names.get(target, target)
        times[name] = merge_histograms((times.get(name, {}), histogram))
    names_by_provider: dict[str, list[str]] = defaultdict(list)
    for name in totals.keys() | left_counts.keys():
        names_by_provider[name.partition("/")[0]].append(name)
    rows: list[Sequence[TargetTraffic]] = []
    for provider, targets in names_by_provider.items():
        target_rows = [
            _build_row(provider, name, totals[name], left_counts[name], times.get(name, {}))
            for name in sorted(targets)
        ]
        provider_totals = [total for name in targets for total in totals[name]]
        histogram = merge_histograms(times.get(name, {}) for name in targets)
        provider_row = _build_row(
            provider,
            "",
            provider_totals,
            sum(left_counts[name] for name in targets),
            histogram,
        )
        rows.append([provider_row, *sorted(target_rows, key=lambda row: -row.requests)])
    rows.sort(key=lambda group: (-group[0].requests, group[0].provider))
    return [row for group in rows for row in group]


def hide_single_sums(rows: Sequence[TargetTraffic]) -> Sequence[TargetTraffic]:
    """Omits the sum of a provider with a single target, because it would repeat the target's
    row.
    """
    targets = Counter(row.provider for row in rows if row.target)
    return [row for row in rows if row.target or targets[row.provider] > 1]


def _build_row(
    provider: str,
    target: str,
    totals: Sequence[TrafficTotal],
    left: int,
    times: Mapping[int, int],
) -> TargetTraffic:
    """Builds the row of a target.

    Args:
        target: empty for the provider's sum.
    """
    sums = RouteTraffic.from_totals("", totals)
    p95_ms = quantile_ms(times, 0.95)
    is_least = bool(sums.unpriced or sums.bounded)
    return TargetTraffic(
        provider,
        target,
        sums.requests,
        left,
        p95_ms,
        sums.known_cost_usd,
        is_least,
    )
