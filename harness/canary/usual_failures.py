"""Measures how often the first requests of a route's callers fail at the incumbent, from the
days before a rollout: a canary is rolled back by errors only if it fails more than that
(statistics.md §2.20).
"""

from datetime import datetime, timedelta
from typing import Final

from harness.frame.records.transaction import Transaction
from harness.gate.online.guardrails import Guardrail
from harness.gate.online.usual_rate import (
    USUAL_DAYS,
    DayCount,
    bound_usual_rate,
)
from harness.routing.records.observations import Observations
from harness.routing.records.routes import Routing

_DAY: Final = timedelta(days=1)


def measure_usual_rates(
    tx: Transaction,
    route: str,
    incumbent: str,
    now: datetime,
) -> dict[Guardrail, float]:
    """Returns the usual rate of each stream of errors for a rollout that begins now. Leaves out
    a stream whose history is too short.

    incumbent: a target id. Only whole days count on which it was the incumbent all the time.
    """
    since = _incumbent_since(tx, route, incumbent, now)
    days: list[DayCount] = []
    for number in range(USUAL_DAYS):
        until = now - number * _DAY
        if until - _DAY < since:
            break
        days.append(Observations(tx).first_requests(route, until - _DAY, until))
    rate = bound_usual_rate(days)
    return {Guardrail.ERRORS: rate} if rate else {}


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
