"""Forecasts a route's requests, and the callers that a canary counts among them.

A canary counts a caller once in a period of a day, so its callers come ever slower while the
callers return. `CallerCurve` gives the callers among so many requests; the routers' counts of
first requests, or a rollout's own blocks, fit it. `TrafficForecast` continues the last hour's
pace over the hours of a day, as the day before had them.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from harness.gate.arrays import np

DAY_S: Final = 86_400.0
HOUR_S: Final = 3_600.0
PACE_PERIOD: Final = timedelta(hours=1)
# A pace is measured over at least this time.
SHORTEST_PACE_S: Final = 60.0
# So many requests weaken a comparison of the last hour with the same hour of the day before.
_LEVEL_PRIOR: Final = 10.0
# A route that grew more since the day before has other hours than that day.
_MOST_GROWTH: Final = 5.0
# The grid of the curve: requests of a visit, and callers as a multiple of the counted ones.
_TURNS: Final = (1.0, 50.0, 80)
_POOLS: Final = (1.01, 100.0, 80)
_MOST_POINTS: Final = 200
# Before its counts show a route's pool, it is so many times the counted callers.
_USUAL_POOL: Final = 8.0
_POOL_PRIOR: Final = 3.0
# So long is a part of the traffic at most.
PART: Final = timedelta(minutes=10)
_BISECTIONS: Final = 50


@dataclass(frozen=True, slots=True)
class TrafficPart:
    """A short time of one process's traffic on a route.

    callers: those of its requests that were the first of their caller, of the UTC day or of the
    rollout. began: its first minute.
    """

    worker: str
    began: datetime
    requests: int
    callers: int


@dataclass(frozen=True, slots=True)
class CallerCurve:
    """The expected number of different callers among so many requests in a row.

    pool: the callers of the route. turns: requests of a caller's visit. The callers' rates are
    exponentially distributed, so n visits have pool · n / (pool + n) callers. Infinite `pool`:
    no caller returns.
    """

    pool: float = math.inf
    turns: float = 1.0

    def count(self, requests: float) -> float:
        visits = requests / self.turns
        return visits / (1.0 + visits / self.pool)


EACH_REQUEST: Final = CallerCurve()


def fit_curve(parts: Iterable[TrafficPart]) -> CallerCurve | None:
    """Fits the curve to the counts of each process since midnight (UTC), when a process forgets
    its callers. Returns None if no process counted a caller.

    Minimizes the squares of the logarithms, weighted by the number of callers, over a grid.
    """
    points = _sum_up(parts)
    if not points:
        return None
    requests, callers = np.array(points[:: math.ceil(len(points) / _MOST_POINTS)]).T
    turns = np.geomspace(*_TURNS)[:, None, None]
    pools = (callers.max() * np.geomspace(*_POOLS))[:, None]
    visits = requests / turns
    errors = np.log(visits / (1.0 + visits / pools)) - np.log(callers)
    losses = (errors**2 * callers).sum(axis=2)
    # The first hours of a route hardly show its pool.
    losses += _POOL_PRIOR * np.log(pools[:, 0] / callers.max() / _USUAL_POOL) ** 2
    turn, pool = np.unravel_index(losses.argmin(), losses.shape)
    return CallerCurve(float(pools[pool, 0]), float(turns[turn, 0, 0]))


def _sum_up(parts: Iterable[TrafficPart]) -> list[tuple[float, float]]:
    """Returns the requests and callers of each process and day, summed up since midnight."""
    sums: dict[tuple[str, object], tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    points = []
    for part in sorted(parts, key=lambda part: (part.worker, part.began)):
        key = (part.worker, part.began.date())
        requests, callers = sums[key]
        sums[key] = (requests + part.requests, callers + part.callers)
        if sums[key][1]:
            points.append(sums[key])
    return points


@dataclass(frozen=True, slots=True)
class TrafficForecast:
    """A route's expected traffic from `now` on.

    hourly: requests an hour, by the hour of the day (UTC). began: the start of the rollout,
    from which its periods of a day count; `now` for a canary that has not begun. counted: the
    callers that it has counted in the running period. all_counted: those of all periods.
    """

    now: datetime
    hourly: tuple[float, ...]
    curve: CallerCurve
    began: datetime
    counted: float = 0.0
    all_counted: float = 0.0

    @property
    def requests_per_day(self) -> float:
        return math.fsum(self.hourly)

    def requests_until(self, seconds: float) -> float:
        """Returns the requests between now and `seconds` from now."""
        now_s = self.now.timestamp() % DAY_S
        return self._since_midnight(now_s + seconds) - self._since_midnight(now_s)

    def _since_midnight(self, seconds: float) -> float:
        days, rest = divmod(seconds, DAY_S)
        hour = int(rest // HOUR_S)
        part = rest / HOUR_S - hour
        whole = math.fsum(self.hourly[:hour])
        return days * self.requests_per_day + whole + part * self.hourly[min(hour, 23)]

    def callers_until(self, seconds: float) -> float:
        """Returns the callers that count between now and `seconds` from now, once a period."""
        curve = self.curve
        period_left_s = self._period_left_s()
        before = self._requests_behind(self.counted)
        first = curve.count(before + self.requests_until(min(seconds, period_left_s)))
        callers = first - curve.count(before)
        if seconds <= period_left_s:
            return callers
        periods, rest_s = divmod(seconds - period_left_s, DAY_S)
        callers += periods * curve.count(self.requests_per_day)
        rest = self.requests_until(seconds) - self.requests_until(seconds - rest_s)
        return callers + curve.count(rest)

    def period_callers(self, since_s: float, until_s: float) -> float:
        """Returns the callers that count after `since_s` in the period of `until_s`."""
        begin_s = self._period_left_s()
        if until_s > begin_s:
            begin_s += (until_s - begin_s) // DAY_S * DAY_S
            since_s = max(since_s, begin_s)
        return self.callers_until(until_s) - self.callers_until(since_s)

    def new_callers_until(self, seconds: float) -> float:
        """Returns the callers who have not counted before in any period of the rollout."""
        before = self._requests_behind(self.all_counted)
        return self.curve.count(before + self.requests_until(seconds)) - self.curve.count(
            before
        )

    def period(self, seconds: float) -> int:
        """Returns the number of the rollout's period at `seconds` from now; 1 is the first."""
        age_s = (self.now - self.began).total_seconds() + seconds
        return 1 + max(0, int(age_s // DAY_S))

    def period_ends_s(self, since_s: float, number: int) -> float:
        """Returns the end of the period that contains `since_s`, or of the number-th after."""
        left_s = self._period_left_s()
        return left_s + (max(0.0, (since_s - left_s) // DAY_S + 1.0) + number) * DAY_S - 1.0

    def _period_left_s(self) -> float:
        return DAY_S - max(0.0, (self.now - self.began).total_seconds()) % DAY_S

    def _requests_behind(self, callers: float) -> float:
        """Returns after how many requests so many callers have counted."""
        curve = self.curve
        share = min(callers / curve.pool, 0.999)
        return callers * curve.turns / (1.0 - share)


def find_time(reached: Callable[[float], bool], from_s: float, most_s: float) -> float:
    """Returns the first moment from `from_s` on at which `reached` holds, in seconds; infinite
    if it does not hold at `most_s`.

    Args:
        reached: never ends once it holds.
    """
    if not reached(most_s):
        return math.inf
    if reached(from_s):
        return from_s
    low, high = from_s, most_s
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        if reached(middle):
            high = middle
        else:
            low = middle
    return round(high, 3)


def measure_pace(parts: Sequence[TrafficPart], now: datetime) -> float | None:
    """Returns the requests an hour of the last hour; None without a request in it.

    A route whose first request is younger has the pace since then.
    """
    since = now - PACE_PERIOD
    last = [part for part in parts if part.began >= since]
    requests = sum(part.requests for part in last)
    if not requests:
        return None
    is_young = all(part.began >= since for part in parts)
    begins = min(part.began for part in last) if is_young else since
    seconds = max(SHORTEST_PACE_S, (now - begins).total_seconds())
    return requests * HOUR_S / seconds


def count_since(parts: Iterable[TrafficPart], begin: datetime, now: datetime) -> float:
    """Returns the requests since `begin`; of a part around it, the share of its time."""
    requests = 0.0
    for part in parts:
        # The clock ends a part at a multiple of PART, even if its first minute came later.
        past = timedelta(seconds=part.began.timestamp() % PART.total_seconds())
        seconds = max(1.0, (min(part.began - past + PART, now) - part.began).total_seconds())
        before = max(0.0, (begin - part.began).total_seconds())
        requests += part.requests * max(0.0, 1.0 - before / seconds)
    return requests


def forecast_hours(
    parts: Sequence[TrafficPart], pace: float, now: datetime
) -> tuple[float, ...]:
    """Returns the expected requests an hour, by the hour of the day (UTC).

    An hour has the mean of its earlier days, times the ratio of `pace` to the last hour's mean
    of earlier days. An hour without an earlier day has the pace.

    Args:
        pace: of the last hour.
    """
    last_hour = now - PACE_PERIOD
    sums = [0.0] * 24
    for part in parts:
        if part.began < last_hour:
            sums[part.began.hour] += part.requests
    lasted_s = _observed_seconds(min(part.began for part in parts), last_hour)
    means = [
        total * HOUR_S / seconds if seconds >= HOUR_S / 2.0 else None
        for total, seconds in zip(sums, lasted_s, strict=True)
    ]
    earlier = means[last_hour.hour]
    later = means[now.hour]
    level = 1.0
    if earlier is not None and later is not None:
        past = (now.minute * 60.0 + now.second) / HOUR_S  # of the last hour, in `later`
        usual = earlier * (1.0 - past) + later * past
        level = (pace + _LEVEL_PRIOR) / (usual + _LEVEL_PRIOR)
    known = [mean for mean in means if mean is not None]
    is_new = bool(known) and pace > _MOST_GROWTH * math.fsum(known) / len(known)
    if level > _MOST_GROWTH or is_new:
        return (pace,) * 24
    return tuple(pace if mean is None else mean * level for mean in means)


def _observed_seconds(first: datetime, until: datetime) -> list[float]:
    """Returns how long each hour of the day was observed between two moments, in seconds."""
    seconds = [0.0] * 24
    at = first
    while at < until:
        end = at.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        seconds[at.hour] += (min(end, until) - at).total_seconds()
        at = end
    return seconds
