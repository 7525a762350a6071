"""Describes before a canary which harm at later turns it can show.

A caller's requests within `window_s` of the first one form one window. Harm at a later turn
shows only in callers who reach this turn. `find_visible_share` computes the smallest share of
such callers at which the canary is rolled back, with the functions that decide.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from harness.frame.formatting import format_percent, format_quantity, format_span
from harness.gate.online.evidence_paths import counts_path, guardrail_weights
from harness.gate.online.guardrails import WINDOW_REQUESTS, FailureTally, Guardrail
from harness.gate.online.rollout_evidence import CARRIED_SHARE
from harness.gate.policy import CanaryPolicy
from harness.gate.ramp import LOWEST_RATE, TrafficPace, block_size
from harness.routing.table import BUCKETS

# Shares of callers who reach a later turn.
REACHING_SHARES: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
FEW_REACHING: Final = 0.2


def describe_later_turns(
    policy: CanaryPolicy,
    pace: TrafficPace,
    windows_s: float,
) -> str:
    """Describes which harm at later turns a canary shows, and how long its steps wait for it.

    Args:
        windows_s: how long after a caller's first request its window is known.

    Returns an empty text for a policy without windows.
    """
    if not policy.window_s:
        return ""
    span = format_span(policy.window_s)
    words = (
        f"The canary also counts later turns, for {span} after a caller's first request, and "
        f"each step waits {format_span(windows_s)} for the last turns of its callers."
    )
    rate = window_rate(pace)
    share = find_visible_share(policy, rate)
    if share is None:
        return f"{words} It is too short to show a candidate that always fails at a later turn."
    words += (
        " It shows a candidate that always fails at a later turn if at least "
        f"{format_percent(share)} of the callers reach this turn"
    )
    if_all_reach = count_callers_to_rollback(policy, 1.0, rate)
    if_few_reach = count_callers_to_rollback(policy, FEW_REACHING, rate)
    if if_all_reach is not None:
        words += (
            f": after about {format_quantity(if_all_reach, 'canary caller')} if all reach it"
        )
        words += (
            ""
            if if_few_reach is None
            else f", after {if_few_reach:,} if {format_percent(FEW_REACHING)} do"
        )
    return f"{words}."


def window_rate(pace: TrafficPace) -> float:
    """Returns the share of the incumbent's callers with a failure in their window, if a
    caller's requests fail independently.
    """
    requests = pace.requests_per_hour / pace.units_per_hour if pace.measured else 1.0
    number = min(float(WINDOW_REQUESTS), max(1.0, requests))
    return 1.0 - float((1.0 - max(pace.failure_rate, LOWEST_RATE)) ** number)


def find_visible_share(policy: CanaryPolicy, rate: float) -> float | None:
    """Finds the smallest share of callers at a later turn for which a failing candidate is
    rolled back. The candidate always fails at this turn. Returns one of REACHING_SHARES; None
    if no share is enough.

    Args:
        rate: see `window_rate`.
    """
    return next(
        (
            share
            for share in REACHING_SHARES
            if count_callers_to_rollback(policy, share, rate) is not None
        ),
        None,
    )


def count_callers_to_rollback(policy: CanaryPolicy, share: float, rate: float) -> int | None:
    """Counts the canary's callers until a rollback, if this share of them fails at a later
    turn; None if the steps end before a rollback.

    Assumes that each block has the expected number of failures.
    """
    steps = tuple((step.weight_bps, max(1, step.min_exposures)) for step in policy.steps)
    sizes = tuple((*block_size(policy, bps), bps, wanted) for bps, wanted in steps)
    weight = guardrail_weights(policy.tolerated)[Guardrail.CALLER_ERRORS]
    limit = -math.log(policy.alpha * CARRIED_SHARE * weight)
    return _count_until_rollback(sizes, policy.rho, limit, share, round(rate, 4))


@lru_cache(maxsize=256)
def _count_until_rollback(
    steps: tuple[tuple[int, int, int, int], ...],
    rho: float,
    limit: float,
    share: float,
    rate: float,
) -> int | None:
    """Counts as `count_callers_to_rollback` does.

    Args:
        steps: for each step, the exposures and canary exposures of a block, the canary's share
            in basis points, and the exposures of the step.
    """
    tallies = list(_expect_tallies(steps, rate, rate + share * (1.0 - rate)))
    shares = [bps / BUCKETS for _, bps in tallies]
    path = counts_path([tally for tally, _ in tallies], rho, shares=shares)
    over = path >= limit
    if not over.any():
        return None
    return sum(tally.canary for tally, _ in tallies[: int(over.argmax()) + 1])


def _expect_tallies(
    steps: tuple[tuple[int, int, int, int], ...],
    control_rate: float,
    canary_rate: float,
) -> Iterator[tuple[FailureTally, int]]:
    """Yields each block's expected failures, and the canary's share in basis points."""
    control = canary = 0.0
    for size, canary_units, bps, wanted in steps:
        for _ in range(math.ceil(wanted / canary_units)):
            control += (size - canary_units) * control_rate
            canary += canary_units * canary_rate
            # Tallies hold whole failures, so the rest of an expected number goes to the next
            # block.
            failed = int(control)
            harmed = int(canary + 1e-9)
            control -= failed
            canary -= harmed
            yield FailureTally(size, canary_units, failed + harmed, harmed), bps
