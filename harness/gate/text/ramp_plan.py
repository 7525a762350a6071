"""Describes in plain words how long a canary takes, and what helps a step that is late."""

import math
from collections.abc import Sequence
from typing import Final

from harness.domain.formatting import format_bps, format_estimate, format_percent, format_rate
from harness.domain.proposals.policy import CanaryPolicy
from harness.gate.planning.ramp import StepPlan, TrafficPace

TOO_SLOW: Final = "Give such a step a larger share or a longer `deadline_s`."
SHADOW_FIRST: Final = (
    "`swapgate shadow start ROUTE TARGET` shows great harm before any user meets it, and "
    "shortens no step."
)


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


def ramp_options(steps: Sequence[StepPlan], *, may_mirror: bool) -> tuple[str, ...]:
    """Says what would help a step that is late; empty where none is. may_mirror: whether the
    route may have a shadow.
    """
    if all(step.in_time for step in steps):
        return ()
    return (TOO_SLOW, SHADOW_FIRST) if may_mirror else (TOO_SLOW,)
