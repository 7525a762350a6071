"""The circuit breaker of one target (docs/reference/router.md) is a state machine: a table of
transitions and their causes.

    closed ──tripped──▶ open ──waited, answered──▶ half open ──proven──▶ closed
                         ▲                             │
                         └────────probe failed─────────┘

An open breaker admits one request each `trickle_s`. If the target answers it, the breaker
becomes half open before `open_s` is over. Otherwise the breaker waits another `trickle_s`.

A breaker that opened because of our key closes when a person replaces the key (`renewed`).

Pure: callers pass the time in monotonic seconds. A request takes a ticket from `admit` and
returns it to `settle` at its end. An outcome counts only while its ticket is the breaker's
serial. The serial rises with every transition and probe, so a late answer to a request of an
earlier state cannot open or close the breaker.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from harness.frame.configuration.setting import COUNT, DAY_S, SHORTEST_S, WAIT_S, Range, number
from harness.frame.errors import IllegalTransition, InputError
from harness.frame.failures import FAILURE_RULES, BreakerEffect, FailureClass

Ticket = int

# The ticket of a request to an open breaker's target, whose outcome never counts.
LAST_RESORT_TICKET: Final[Ticket] = -1
BUCKETS: Final = 12
# The wait reported to callers while a probe of unknown duration runs.
PROBE_UNDER_WAY_S: Final = 1.0


class BreakerState(StrEnum):
    """The states of a breaker; an open breaker admits only single requests."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerEvent(StrEnum):
    TRIPPED = "tripped"  # failures reached both thresholds, or one failure opens at once
    WAITED = "waited"  # open_s is over and a request arrives
    ANSWERED = "answered"  # the target answered a request that an open breaker admitted
    PROVEN = "proven"  # enough good probes
    PROBE_FAILED = "probe_failed"
    RENEWED = "renewed"  # our key or account was renewed, or a person closed it


class WhenAllOpen(StrEnum):
    """The treatment of a request if every target's breaker is open."""

    TRY = "try"  # the router tries the target whose last failure is oldest
    FAIL_FAST = "fail_fast"


_S = BreakerState
TRANSITIONS: Final[Mapping[tuple[BreakerState, BreakerEvent], BreakerState]] = {
    (_S.CLOSED, BreakerEvent.TRIPPED): _S.OPEN,
    (_S.OPEN, BreakerEvent.WAITED): _S.HALF_OPEN,
    (_S.OPEN, BreakerEvent.ANSWERED): _S.HALF_OPEN,
    (_S.HALF_OPEN, BreakerEvent.PROVEN): _S.CLOSED,
    (_S.HALF_OPEN, BreakerEvent.PROBE_FAILED): _S.OPEN,
    (_S.OPEN, BreakerEvent.RENEWED): _S.CLOSED,
    (_S.HALF_OPEN, BreakerEvent.RENEWED): _S.CLOSED,
}


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """Decides when a breaker opens, and for how long. Raises InputError if open_max_s is below
    open_s; the configuration's reader checks the ranges.
    """

    failures: int = number(5, "Failures within window_s that open the target's circuit.", COUNT)
    window_s: float = number(60.0, "Time in which failures are counted.", WAIT_S)
    share: float = number(
        0.20,
        "The circuit opens only if this share of the window's requests failed, too.",
        Range(0, 1),
    )
    open_s: float = number(
        120.0,
        "First duration of an open circuit. Doubles, up to open_max_s, if a probe fails after "
        "this time or after another probe's success.",
        WAIT_S,
    )
    open_max_s: float = number(
        900.0,
        "Maximum duration of an open circuit.",
        Range(SHORTEST_S, 7 * DAY_S),
    )
    trickle_s: float = number(
        10.0,
        "Pause after the opening or a failed probe, before an open circuit lets one request "
        "pass. At open_max_s or more, the first request waits for open_s.",
        WAIT_S,
    )
    probe_successes: int = number(
        3,
        "Successful probes in a row that close the circuit again.",
        COUNT,
    )
    probe_lease_s: float = number(
        900.0,
        "A probe without an outcome is abandoned after this time.",
        WAIT_S,
    )
    # The treatment of a request when every target's circuit is open.
    when_all_open: WhenAllOpen = WhenAllOpen.TRY

    def __post_init__(self) -> None:
        if self.open_max_s < self.open_s:
            raise InputError(
                f"breaker: open_max_s ({self.open_max_s}) is below open_s ({self.open_s})"
            )


DEFAULT_BREAKER: Final = BreakerPolicy()


class Bucket(NamedTuple):
    """The outcomes of one twelfth of the window."""

    number: int  # monotonic time divided by the bucket's length, rounded down
    requests: int
    failures: int


class Breaker(NamedTuple):
    """The whole state of one target's breaker in one worker. Times are monotonic seconds."""

    state: BreakerState = BreakerState.CLOSED
    serial: Ticket = 0
    window: tuple[Bucket, ...] = ()  # closed only; at most BUCKETS entries, oldest first
    # When the breaker admits its first probe, and the wait until then (`open_s`).
    open_until: float = 0.0
    open_s: float = 0.0
    good_probes: int = 0
    probe_since: float | None = None  # None while no probe runs
    failed_at: float | None = None  # time of the last failure in any state
    because: FailureClass | None = None  # the failure that opened it
    trickle_at: float = 0.0  # open only: when it admits its next request


CLOSED_BREAKER: Final = Breaker()
_HARMFUL_EFFECTS: Final = (BreakerEffect.FAILURE, BreakerEffect.OPENS)


def retry_in_s(
    breaker: Breaker,
    now: float,
    policy: BreakerPolicy,
) -> float:
    """Returns the seconds until the breaker admits a request; 0 if it admits one now."""
    if breaker.probe_since is not None and now < breaker.probe_since + policy.probe_lease_s:
        return PROBE_UNDER_WAY_S
    if breaker.state is BreakerState.OPEN:
        return max(0.0, min(breaker.open_until, breaker.trickle_at) - now)
    return 0.0


def admit(
    breaker: Breaker,
    now: float,
    policy: BreakerPolicy,
) -> tuple[Breaker, Ticket | None]:
    """Returns a request's ticket; None if the breaker refuses the request. Unless the breaker
    is closed, the request is a probe.
    """
    if breaker.state is BreakerState.CLOSED:
        return breaker, breaker.serial
    if retry_in_s(breaker, now, policy) > 0.0:
        return breaker, None
    if breaker.state is BreakerState.OPEN and now >= breaker.open_until:
        breaker = _apply_event(breaker, BreakerEvent.WAITED)
    probing = breaker._replace(serial=breaker.serial + 1, probe_since=now)
    return probing, probing.serial


def settle(
    breaker: Breaker,
    ticket: Ticket,
    failure: FailureClass | None,
    now: float,
    policy: BreakerPolicy,
) -> Breaker:
    """Counts an outcome.

    Args:
        failure: None for a success. CANCELLED lets another probe run.

    For an old ticket, only the time of a failure counts, because the ticket's state has ended.
    """
    effect = None if failure is None else FAILURE_RULES[failure].breaker
    if effect in _HARMFUL_EFFECTS and (breaker.failed_at is None or breaker.failed_at < now):
        breaker = breaker._replace(failed_at=now)
    if ticket != breaker.serial:
        return breaker
    if breaker.state is BreakerState.CLOSED:
        return _count_outcome(breaker, failure, effect, now, policy)
    if breaker.probe_since is None:
        return breaker
    if breaker.state is BreakerState.OPEN:
        if effect in _HARMFUL_EFFECTS:
            return _allow_probe(breaker)._replace(trickle_at=now + policy.trickle_s)
        if effect is not None:
            return _allow_probe(breaker)
        breaker = _apply_event(breaker, BreakerEvent.ANSWERED)
    return _settle_probe(breaker, failure, effect, now, policy)


def bucket_number(now: float, policy: BreakerPolicy) -> int:
    """Returns the number of the bucket that a moment belongs to.

    Args:
        now: in monotonic seconds.
    """
    return int(now * BUCKETS // policy.window_s)


def count_successes(
    breaker: Breaker,
    number: int,
    successes: int,
) -> Breaker:
    """Counts several successes in one bucket. Their tickets must be a closed breaker's."""
    return breaker._replace(window=_add_to_window(breaker.window, number, successes, 0))


def trip(
    breaker: Breaker,
    failure: FailureClass,
    now: float,
    policy: BreakerPolicy,
) -> Breaker:
    """Opens a closed breaker because of requests without an outcome, such as callers who
    left.
    """
    if breaker.state is not BreakerState.CLOSED:
        return breaker
    return _open(breaker, BreakerEvent.TRIPPED, failure, policy.open_s, now, policy)


def reset_after_new_key(breaker: Breaker) -> Breaker:
    """Closes a breaker that a failure opened at once (`BreakerEffect.OPENS`), such as a refused
    key, a used-up quota or an unknown model. Other open breakers stay open.

    The router calls it after a change of a provider's keys or headers.
    """
    cause = breaker.because
    if breaker.state is BreakerState.CLOSED or cause is None:
        return breaker
    if FAILURE_RULES[cause].breaker is not BreakerEffect.OPENS:
        return breaker
    return _close(breaker, BreakerEvent.RENEWED)


def reset_breaker(breaker: Breaker) -> Breaker:
    """Closes a breaker on a person's request."""
    if breaker.state is BreakerState.CLOSED:
        return breaker
    return _close(breaker, BreakerEvent.RENEWED)


def _count_outcome(
    breaker: Breaker,
    failure: FailureClass | None,
    effect: BreakerEffect | None,
    now: float,
    policy: BreakerPolicy,
) -> Breaker:
    """Adds an outcome to a closed breaker's window; opens the breaker at both thresholds."""
    if effect is BreakerEffect.NEUTRAL:
        return breaker
    is_failure = effect is not None
    window = _add_to_window(breaker.window, bucket_number(now, policy), 1, int(is_failure))
    counted = breaker._replace(window=window)
    if effect is BreakerEffect.OPENS or (is_failure and _exceeds_thresholds(window, policy)):
        return _open(counted, BreakerEvent.TRIPPED, failure, policy.open_s, now, policy)
    return counted


def _settle_probe(
    breaker: Breaker,
    failure: FailureClass | None,
    effect: BreakerEffect | None,
    now: float,
    policy: BreakerPolicy,
) -> Breaker:
    """Moves a half-open breaker by a probe's outcome. A failed probe doubles the next wait."""
    if effect in _HARMFUL_EFFECTS:
        open_s = min(2 * breaker.open_s, policy.open_max_s)
        return _open(breaker, BreakerEvent.PROBE_FAILED, failure, open_s, now, policy)
    good_probes = breaker.good_probes + (effect is None)
    if good_probes >= policy.probe_successes:
        return _close(breaker, BreakerEvent.PROVEN)
    return _allow_probe(breaker)._replace(good_probes=good_probes)


def _allow_probe(breaker: Breaker) -> Breaker:
    """Allows another probe. Raises the serial, so that the old ticket no longer counts."""
    return breaker._replace(serial=breaker.serial + 1, probe_since=None)


def _open(
    breaker: Breaker,
    move: BreakerEvent,
    failure: FailureClass | None,
    open_s: float,
    now: float,
    policy: BreakerPolicy,
) -> Breaker:
    """Returns the breaker as opened now for `open_s` seconds."""
    return _apply_event(breaker, move)._replace(
        window=(),
        open_until=now + open_s,
        open_s=open_s,
        good_probes=0,
        probe_since=None,
        because=failure,
        trickle_at=now + policy.trickle_s,
    )


def _close(breaker: Breaker, move: BreakerEvent) -> Breaker:
    return _apply_event(breaker, move)._replace(
        open_until=0.0,
        open_s=0.0,
        good_probes=0,
        probe_since=None,
        because=None,
        trickle_at=0.0,
    )


def _apply_event(breaker: Breaker, move: BreakerEvent) -> Breaker:
    """Moves the breaker by the table. Raises IllegalTransition for a pair that is not in it."""
    state = TRANSITIONS.get((breaker.state, move))
    if state is None:
        raise IllegalTransition(
            f"the event {move.value} does not apply to a breaker that is {breaker.state.value}"
        )
    return breaker._replace(state=state, serial=breaker.serial + 1)


def _add_to_window(
    window: tuple[Bucket, ...],
    number: int,
    requests: int,
    failures: int,
) -> tuple[Bucket, ...]:
    """Adds outcomes to a window, which keeps at most 12 buckets."""
    if window and window[-1].number >= number:
        last_number, old_requests, old_failures = window[-1]
        last_bucket = Bucket(last_number, old_requests + requests, old_failures + failures)
        return (*window[:-1], last_bucket)
    kept = tuple(bucket for bucket in window if bucket.number > number - BUCKETS)
    return (*kept, Bucket(number, requests, failures))


def _exceeds_thresholds(window: tuple[Bucket, ...], policy: BreakerPolicy) -> bool:
    """Tells whether the window reaches both thresholds: number and share of failures."""
    failures = sum(bucket.failures for bucket in window)
    requests = sum(bucket.requests for bucket in window)
    return failures >= policy.failures and failures / requests >= policy.share
