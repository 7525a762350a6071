"""Measures how often the first requests and windows of a route's callers fail at the incumbent,
from the days before a rollout. Errors roll a canary back only if it fails more than that
(statistics.md §2.20).
"""

from datetime import datetime, timedelta
from typing import Final

from harness.frame.records.transaction import Transaction
from harness.gate.online.guardrails import Guardrail
from harness.gate.online.usual_rate import (
    USUAL_DAYS,
    USUAL_WINDOW_S,
    DayCount,
    bound_usual_rate,
)
from harness.gate.policy import CanaryPolicy
from harness.routing.records.observations import Observations
from harness.routing.records.routes import Routing

_DAY: Final = timedelta(days=1)


def measure_usual_rates(
    tx: Transaction,
    route: str,
    incumbent: str,
    policy: CanaryPolicy,
    now: datetime,
) -> dict[Guardrail, float]:
    """Returns the usual rate of each stream of errors for a rollout that begins now. Leaves out
    a stream whose history is too short, and windows that are not as long as the history's.

    incumbent: a target id. Only whole days count on which it was the incumbent all the time.
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
