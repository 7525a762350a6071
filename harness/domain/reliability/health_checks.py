"""Health checks decide when a target is probed by a cheap request of the router's own (B10).
Pure.

A target that answers its users proves itself. One that answered nobody for a while is checked,
so that a fallback's trouble is known before the fallback is needed; one whose circuit is not
closed is checked as soon as a probe may go, so that no user has to be the probe. Users know
better: a target that one of them waits for is not checked, and while they find it well a check
that fails opens no circuit. Times are monotonic seconds.
"""

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from harness.domain.reliability.breaker import BreakerState

# Between the good probes that close a circuit.
PROBE_EVERY_S: Final = 2.0
# After a check that failed: five of them within a minute open the circuit, and raise its alert.
SUSPECT_EVERY_S: Final = 10.0
# How long a user's good answer outweighs checks that fail, unless a user's request fails.
USER_EVIDENCE_S: Final = 300.0
# New targets come with a revision, and circuits open: nobody sleeps longer than this.
MAX_SLEEP_S: Final = 1.0


class HealthCheckState(NamedTuple):
    """A target as a worker knows it."""

    state: BreakerState
    retry_in_s: float  # until a request may go
    answered_at: float  # of the last good answer, whoever asked
    checked_at: float  # of the last check; both the worker's start where there was none
    well: bool = True  # the last check was answered, or there was none
    suspect: bool = False  # it met with a fault of the target's
    busy: bool = False  # a user's request is under way there


def check_due_in_s(state: HealthCheckState, now: float, interval_s: float) -> float:
    """Seconds until the next check, 0 for now; never with an interval of 0."""
    if interval_s <= 0:
        return math.inf
    if state.busy:
        return MAX_SLEEP_S
    if state.state is BreakerState.CLOSED:
        doubtful = state.suspect and state.answered_at <= state.checked_at
        every_s = min(SUSPECT_EVERY_S, interval_s) if doubtful else interval_s
        wait_s = max(state.answered_at, state.checked_at) + every_s - now
    else:
        # A probe that proved nothing, such as a refusal of the check itself, is not hurried.
        every_s = PROBE_EVERY_S if state.well else interval_s
        if state.suspect:
            every_s = SUSPECT_EVERY_S
        every_s = min(every_s, interval_s)
        wait_s = state.checked_at + every_s - now
    return max(0.0, wait_s, state.retry_in_s)


def due_targets(
    targets: Mapping[str, HealthCheckState], now: float, interval_s: float
) -> tuple[str, ...]:
    """The targets to check now, those first whose last check is longest ago."""
    able = [
        id_ for id_, target in targets.items() if check_due_in_s(target, now, interval_s) <= 0
    ]
    return tuple(sorted(able, key=lambda name: targets[name].checked_at))


def next_check_in_s(
    targets: Mapping[str, HealthCheckState], now: float, interval_s: float
) -> float:
    """Seconds until a target may be due, MAX_SLEEP_S at most."""
    waits = (check_due_in_s(target, now, interval_s) for target in targets.values())
    return min((*waits, MAX_SLEEP_S))


def is_outweighed(found_well_at: float | None, now: float) -> bool:
    """Whether a check's failure counts for nothing, since users find the target well.

    found_well_at: of the last request of a user's, None where that failed, or there was none.
    """
    return found_well_at is not None and now < found_well_at + USER_EVIDENCE_S
