"""Describes a ramp plan in plain words: how long a canary takes, and what would make it
faster.
"""

import math
from collections.abc import Sequence
from typing import Final

from harness.domain.formatting import format_bps, format_estimate, format_percent, format_rate
from harness.domain.proposals.policy import CanaryPolicy, CanaryStep
from harness.gate.planning.ramp import StepPlan, TrafficPace, plan_step

NOTHING_HELPS: Final = (
    "No larger share or longer step helps: with so little traffic a canary shows great harm "
    "only, and the offline suites have to show the rest."
)
SHARES_BPS: Final = (200, 500, 1000, 2500, 5000)
# A canary of more days is not offered: until then a model is an old one.
LONGEST_S: Final = 90 * 86_400.0
# The pairs of a shadow that is offered to a route with little traffic.
SHADOW_PAIRS: Final = 200


def no_pace_text(route: str, requests: int) -> str:
    """Says why nobody can tell how long a canary takes. requests: those of 24 hours."""
    recorded = "no request was"
    if requests:
        recorded = f"only {requests:,} request{'s were' if requests > 1 else ' was'}"
    return f"How long a canary of {route} takes is unknown: {recorded} recorded in 24 hours."


def ramp_summary(pace: TrafficPace, steps: Sequence[StepPlan]) -> str:
    """The first line: how long in all, or which step does not come through in its time."""
    late = [step for step in steps if not step.in_time]
    basis = _basis(pace)
    if not late:
        total = math.fsum(step.typical_s or 0.0 for step in steps)
        cautious = math.fsum(step.cautious_s or 0.0 for step in steps)
        words = f"A healthy canary takes about {format_estimate(total)}"
        if cautious > 1.05 * total:
            words += f", four of five within {format_estimate(cautious)}"
        return f"{words}. {basis}"
    first = late[0]
    time = format_estimate(first.deadline_s)
    why = f"has not enough traffic for its certificate within {time}"
    if first.typical_s is not None:
        why = f"needs {format_estimate(first.typical_s)}, and its time is {time}"
    step = f"The step at {format_bps(first.weight_bps)}"
    return f"{step} {why}: it would pause for a person. {basis}"


def _basis(pace: TrafficPace) -> str:
    percent = format_percent(pace.failure_rate, significant=2)
    rate = f"{percent} of requests fail today"
    if not pace.rate_measured:
        rate = (
            f"that {percent} of requests fail is assumed (the policy's `p0`), since too few "
            "are recorded to tell"
        )
    requests = f"{format_rate(pace.requests_per_hour)} requests an hour"
    if pace.measured:
        return (
            f"Reckoned from {format_rate(pace.units_per_hour)} new callers an hour "
            f"({requests}); {rate}. A request that names no caller is a caller of its own."
        )
    return (
        f"Reckoned from {requests}; {rate}. Each caller counts once, by the first request; a "
        "request that names no caller is a caller of its own. How many of these requests come "
        "from new callers is not measured yet: it takes longer where callers come back."
    )


def describe_warm_up(policy: CanaryPolicy) -> str:
    """Says whose times do not count; empty where all do."""
    first = [format_estimate(policy.warm_up_s)] if policy.warm_up_s else []
    first += [f"{policy.cold_units:,} callers"] if policy.cold_units else []
    return f"times do not count in the canary's first {' and '.join(first)}" if first else ""


def ramp_options(
    policy: CanaryPolicy,
    pace: TrafficPace,
    steps: Sequence[StepPlan],
    *,
    may_mirror: bool = False,
) -> tuple[str, ...]:
    """What would bring a step that is late into its time; empty when none is.

    may_mirror: whether the route's requests may be asked twice: then a shadow is offered, which
    shortens no step and shows without a user what so few requests can.
    """
    late = [step for step in steps if not step.in_time]
    if not late:
        return ()
    found = [words for step in late for words in [_larger(policy, pace, step)] if words]
    found += [words for step in late for words in [_longer(step)] if words]
    shadow = _shadow_first(pace) if may_mirror else []
    return (*(found or [NOTHING_HELPS]), *shadow)


def _shadow_first(pace: TrafficPace) -> list[str]:
    if not pace.requests_per_hour > 0:
        return []
    needed_s = SHADOW_PAIRS / pace.requests_per_hour * 3600
    words = (
        "A shadow: `swapgate shadow start ROUTE TARGET --share 100` asks the candidate "
        f"what all callers ask, and no user gets its answers. {SHADOW_PAIRS} pairs take about "
        f"{format_estimate(needed_s)}. A shadow shows great harm before any user meets it, and "
        "shortens no step."
    )
    return [words]


def _larger(policy: CanaryPolicy, pace: TrafficPace, late: StepPlan) -> str:
    for bps in SHARES_BPS:
        if bps <= late.weight_bps:
            continue
        step = CanaryStep(
            weight_bps=bps,
            min_exposures=late.min_exposures,
            certify=late.certify,
            deadline_s=late.deadline_s,
            min_s=late.floor_s,
        )
        tried = plan_step(policy, step, pace, 0.0)
        if tried.in_time and tried.typical_s is not None:
            return (
                f"A larger share: at {format_bps(bps)} instead of "
                f"{format_bps(late.weight_bps)} this step takes about "
                f"{format_estimate(tried.typical_s)}; "
                f"{bps / late.weight_bps:g} times as many callers meet the candidate."
            )
    return ""


def _longer(late: StepPlan) -> str:
    needed = late.cautious_s if late.cautious_s is not None else late.typical_s
    if needed is None or needed > LONGEST_S:
        return ""
    deadline = f"`deadline_s: {math.ceil(needed / 3600) * 3600}` ({format_estimate(needed)})"
    return f"More time: {deadline} for the step at {format_bps(late.weight_bps)}."
