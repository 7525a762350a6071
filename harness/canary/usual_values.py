"""Measures the incumbent's mean cost, times and tokens on the day before a rollout, for the
caps of the bets on means (statistics.md §2.21).
"""

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from harness.frame.records.transaction import Transaction
from harness.gate.online.capped_sums import CAP_TIMES
from harness.gate.online.guardrails import Guardrail
from harness.gate.online.waiting import MIN_ANSWERS, WaitKind, longest_in_bin
from harness.gate.policy import CanaryPolicy
from harness.routing.records.observations import Observations
from harness.routing.reliability.latency import LATENCY_BOUNDS_MS
from harness.routing.table import Arm

_SINCE: Final = timedelta(hours=24)


def measure_caps(
    tx: Transaction,
    route: str,
    incumbent: str,
    policy: CanaryPolicy,
    now: datetime,
) -> dict[Guardrail, float]:
    """Returns the caps for a rollout that begins now, in seconds, tokens and US dollars.

    incumbent: a target id. A guardrail without MIN_ANSWERS values has no cap. No traffic shows
    the mean time between tokens, so its guardrail has none.
    """
    found = {
        guardrail: CAP_TIMES * mean
        for guardrail, mean in _means(Observations(tx), route, incumbent, now - _SINCE).items()
        if mean > 0.0
    }
    return {guardrail: found[guardrail] for guardrail in policy.tolerated if guardrail in found}


def _means(
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
        Guardrail.LATENCY: _mean_of((_middle_s(bound), n) for bound, n in latencies.items()),
        Guardrail.TIME_TO_FIRST_TOKEN: _mean_of(
            (longest_in_bin(number), n) for number, n in waits.items()
        ),
    }


def _mean_of(counted: Iterable[tuple[float, int]]) -> float:
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
