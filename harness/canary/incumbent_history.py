"""Measures the incumbent's traffic before a rollout: the waits of its callers, the means of its
values, and how often it usually fails. The rollout stores these figures and never changes them.

The means of the day before give the caps of the bets on means (statistics.md §2.21). The usual
rates come from the days before: errors roll a canary back only if it fails more often
(statistics.md §2.20).
"""

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from harness.canary.patience import measure_limits
from harness.frame.records.transaction import Transaction
from harness.gate.online.capped_sums import CAP_TIMES
from harness.gate.online.guardrails import Guardrail
from harness.gate.online.rollout import IncumbentHistory
from harness.gate.online.usual_rate import (
    USUAL_DAYS,
    USUAL_WINDOW_S,
    DayCount,
    bound_usual_rate,
)
from harness.gate.online.waiting import MIN_ANSWERS, WaitKind, longest_in_bin
from harness.gate.policy import CanaryPolicy
from harness.routing.records.observations import Observations
from harness.routing.records.routes import Routing
from harness.routing.reliability.latency import LATENCY_BOUNDS_MS
from harness.routing.table import Arm, Route

_DAY: Final = timedelta(days=1)


def measure_history(
    tx: Transaction,
    route: Route,
    incumbent: str,
    policy: CanaryPolicy,
    now: datetime,
) -> IncumbentHistory:
    """Returns the incumbent's figures for a rollout that begins now.

    Args:
        incumbent: a target id.
    """
    return IncumbentHistory(
        waits=measure_limits(tx, route, incumbent, now),
        caps=_measure_caps(tx, route.name, incumbent, policy, now),
        usual_rates=_measure_usual_rates(tx, route.name, incumbent, policy, now),
    )


def _measure_usual_rates(
    tx: Transaction,
    route: str,
    incumbent: str,
    policy: CanaryPolicy,
    now: datetime,
) -> dict[Guardrail, float]:
    """Returns the usual rate of each stream of errors for a rollout that begins now. Leaves out
    a stream whose history is too short, and windows that are not as long as the history's.

    Args:
        incumbent: a target id.

    A day counts only if the target was the incumbent for all of it.
    """
    since = _incumbent_since(tx, route, incumbent, now)
    days: list[dict[Guardrail, DayCount]] = []
    for number in range(USUAL_DAYS):
        until = now - number * _DAY
        if until - _DAY < since:
            break
        days.append(Observations(tx).caller_counts(route, until - _DAY, until))
    streams = [Guardrail.ERRORS]
    if policy.window_s == USUAL_WINDOW_S:
        streams.append(Guardrail.CALLER_ERRORS)
    rates = {stream: bound_usual_rate([day[stream] for day in days]) for stream in streams}
    return {stream: rate for stream, rate in rates.items() if rate}


def _incumbent_since(
    tx: Transaction,
    route: str,
    incumbent: str,
    now: datetime,
) -> datetime:
    """Returns the time since which the target is the incumbent without a break."""
    since = now
    for version in Routing(tx).history(route):
        if version.route.incumbent != incumbent:
            break
        since = version.at
    return since


def _measure_caps(
    tx: Transaction,
    route: str,
    incumbent: str,
    policy: CanaryPolicy,
    now: datetime,
) -> dict[Guardrail, float]:
    """Returns the caps for a rollout that begins now, in seconds, tokens and US dollars.

    Args:
        incumbent: a target id.

    A guardrail without MIN_ANSWERS values has no cap. Traffic records no time between tokens,
    so that guardrail has no cap.
    """
    found = {
        guardrail: CAP_TIMES * mean
        for guardrail, mean in _measure_means(
            Observations(tx), route, incumbent, now - _DAY
        ).items()
        if mean > 0.0
    }
    return {guardrail: found[guardrail] for guardrail in policy.tolerated if guardrail in found}


def _measure_means(
    records: Observations,
    route: str,
    incumbent: str,
    since: datetime,
) -> dict[Guardrail, float]:
    totals = [
        total
        for total in records.totals(since=since, route=route)
        if total.arm == Arm.INCUMBENT and total.target == incumbent
    ]
    requests = sum(total.requests for total in totals)
    priced = requests - sum(total.unpriced for total in totals)
    cost_usd = math.fsum(total.cost_usd for total in totals)
    latencies = records.latencies(since=since, route=route).get((route, incumbent), {})
    waits = records.waits(route, incumbent, since).get(WaitKind.STREAM_FIRST, {})
    return {
        Guardrail.COST_PER_SUCCESS: _mean(cost_usd, priced),
        Guardrail.OUTPUT_TOKENS: _mean(sum(total.output_tokens for total in totals), requests),
        Guardrail.LATENCY: _weighted_mean(
            (_middle_s(bound), n) for bound, n in latencies.items()
        ),
        Guardrail.TIME_TO_FIRST_TOKEN: _weighted_mean(
            (longest_in_bin(number), n) for number, n in waits.items()
        ),
    }


def _weighted_mean(counted: Iterable[tuple[float, int]]) -> float:
    pairs = list(counted)
    return _mean(math.fsum(value * n for value, n in pairs), sum(n for _, n in pairs))


def _mean(total: float, number: int) -> float:
    """Returns the mean; 0 with fewer than MIN_ANSWERS values."""
    return total / number if number >= MIN_ANSWERS else 0.0


def _middle_s(bound_ms: int) -> float:
    """Returns the geometric middle of a histogram's bucket in seconds."""
    return _MIDDLES_S[bound_ms]


_ENDS_MS: Final = (LATENCY_BOUNDS_MS[0] / 2, *LATENCY_BOUNDS_MS, 2 * LATENCY_BOUNDS_MS[-1])
_MIDDLES_S: Final[Mapping[int, float]] = {
    bound: math.sqrt(low * high) / 1000.0
    for bound, low, high in zip(
        (*LATENCY_BOUNDS_MS, -1), _ENDS_MS[:-1], _ENDS_MS[1:], strict=True
    )
}
