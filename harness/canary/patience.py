"""Measures how long a route's callers wait for the incumbent's output, from the last 24 hours.
The waits give the limits after which a caller who leaves counts as harm (statistics.md §2.15),
until a rollout has blocks of its own.
"""

from datetime import datetime, timedelta
from typing import Final

from harness.frame.formatting import format_latency, format_percent
from harness.frame.records.transaction import Transaction
from harness.gate.online.outcome import WaitLimits
from harness.gate.online.waiting import (
    MIN_ANSWERS,
    WaitCounts,
    WaitKind,
    find_limit,
    leaving_share,
    limits_before,
)
from harness.routing.records.observations import Observations
from harness.routing.table import Route

_PERIOD: Final = timedelta(hours=24)
_NAMES: Final = {
    WaitKind.FIRST: "plain answers",
    WaitKind.STREAM_FIRST: "streams",
}


def measure_limits(
    tx: Transaction,
    route: Route,
    incumbent: str,
    now: datetime,
) -> WaitLimits:
    """Returns the limits for a rollout that begins now.

    Args:
        incumbent: a target id.
    """
    return _find_wait_limits(
        route, Observations(tx).waits(route.name, incumbent, now - _PERIOD)
    )


def describe_patience(
    tx: Transaction,
    route: Route,
    now: datetime,
) -> str:
    """Describes after which wait a caller who leaves counts as harm, and how many leave sooner.

    Callers who leave sooner do not show that a candidate hangs.
    """
    counts = Observations(tx).waits(route.name, route.incumbent, now - _PERIOD)
    limits = _find_wait_limits(route, counts)
    found = [
        _describe_wait(counts, kind, limit_s)
        for kind, limit_s in (
            (WaitKind.FIRST, limits.first_s),
            (WaitKind.STREAM_FIRST, limits.stream_first_s),
        )
        if find_limit(counts, kind) is not None
    ]
    if found:
        return " ".join(found)
    longest_s = max(limits.first_s, limits.stream_first_s)
    return (
        f"Fewer than {MIN_ANSWERS} answers of the incumbent were measured in 24 hours. Until "
        f"the canary has counted {MIN_ANSWERS}, only callers who leave after "
        f"{format_latency(longest_s)} without output show a candidate that hangs."
    )


def _find_wait_limits(route: Route, counts: WaitCounts) -> WaitLimits:
    settings = route.settings
    return limits_before(
        counts,
        first_byte_s=settings.first_byte_timeout_s,
        first_token_s=settings.first_token_timeout_s,
    )


def _describe_wait(
    counts: WaitCounts,
    kind: WaitKind,
    limit_s: float,
) -> str:
    sooner = leaving_share(counts, kind, limit_s) or 0.0
    text = (
        f"The incumbent begins 99 % of its {_NAMES[kind]} within {format_latency(limit_s)}, so "
        "a caller who leaves after a longer wait counts as harm."
    )
    if sooner < _LEAST_SHOWN_SHARE:
        return text
    return (
        f"{text} About {format_percent(sooner, significant=2)} of callers leave sooner if no "
        "output comes: to these callers, a candidate that hangs stays invisible."
    )


# The least share of impatient callers that a text names.
_LEAST_SHOWN_SHARE: Final = 0.005
