"""Limits how long an attempt may wait.

`dispatch` asks `TimeLimits` before each attempt. This module makes no call and chooses no
target. The formulas of the limits are in `harness.routing.reliability.latency`.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from harness.providers.models.capabilities import Endpoint, OptionalFeature
from harness.routing.reliability.latency import (
    FIRST_TOKEN_S,
    MIN_ANSWERS,
    MIN_LIMIT_S,
    MOST_FACTOR,
    P99_FACTOR,
    AnswerTimes,
    add_waits,
    answer_class,
    first_byte_limit_s,
    first_token_limit_s,
    telling_wait_s,
    unmeasured_limit_s,
    usual_wait_s,
)
from harness.routing.settings import RouterSettings
from router.frame.limits import BoundedMap, Timer
from router.request.needs import read_output_limit, used_features
from router.request.request_state import Attempt, RoutedRequest
from router.snapshot.compiled import CompiledRoute, CompiledTarget

# How many combinations of target, endpoint and class of answers a worker keeps times for.
MAX_KINDS: Final = 2048
# The most answer times that wait to be added up.
MAX_NEW_WAITS: Final = 256
# How many answers of a target show whether it answers in its usual time.
LATEST_ANSWERS: Final = 64
# The least time for the first output of a request that probes an open circuit. Without
# measured times, it is `FIRST_TOKEN_S`.
PROBE_S: Final = 5.0
Kind = tuple[str, Endpoint, int]
# Seconds, and when the output came on the event loop's clock; None for a cut wait, minus
# infinity for a health check.
NewWait = tuple[float, float | None]
_ANSWERED_AT: Final = itemgetter(2)
# Replaces the class of answers for streams of any length.
STREAMED: Final = -1
# Parameters of a target that make its model think.
_THINKING: Final = frozenset({"reasoning_effort", "reasoning", "thinking"})


def first_token_s(
    route: CompiledRoute,
    upstream: CompiledTarget,
    settings: RouterSettings,
) -> float:
    """Returns the limit of a mirrored request in seconds: the route's, else the model's,
    else the router's.

    The limit is fixed, because a shadow's answers do not adapt `TimeLimits`.
    """
    route_limit_s = route.route.settings.first_token_timeout_s
    return (
        route_limit_s
        or upstream.can.first_token_timeout_s
        or settings.first_token_timeout_s
        or FIRST_TOKEN_S
    )


def _find_least_candidate_limit_s(job: RoutedRequest, attempt: Attempt) -> float:
    """Returns the least limit of a rollout's candidate in seconds; 0 for another target.

    It is three times the wait that is unusual for the incumbent. The incumbent may have no
    limit, because no target follows it. With a shorter limit, the candidate would fail in waits
    that its callers also have at the incumbent.
    """
    trial = job.route.route.experiment
    if trial is None or attempt.upstream.id != trial.target:
        return 0.0
    rule = trial.unit_rule
    return P99_FACTOR * (rule.stream_wait_s if job.request.stream else rule.first_wait_s)


class FirstByteTimer:
    """Once an answer begins, gives it the rest of the time.

    limit: the attempt's timer, which ends at the limit for the first byte. until: the end
    of the target's time. at: when the answer began; None before. Times are on the event
    loop's clock.
    """

    __slots__ = ("_limit", "_loop", "_until", "at")

    def __init__(
        self,
        limit: Timer,
        until: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.at: float | None = None
        self._limit = limit
        self._until = until
        self._loop = loop

    def __call__(self) -> None:
        self.at = self._loop.time()
        self._limit.when = self._until


# The router computes a limit again once the new waits are this part of the waits that it came
# from: 16 for a sixteenth.
NEW_PART: Final = 16


class _KnownLimit(NamedTuple):
    """A computed limit in seconds.

    move_count: `TimeLimits._move_count` when it was computed. most_new: how many waits outside
    `TimeLimits._times` make the router compute it again.
    """

    move_count: int
    most_new: int
    seconds: float


class TimeLimits:
    """The adaptive time limits of one worker's attempts.

    An instance belongs to one event loop, and knows only this worker's times. It keeps a
    histogram for each combination of target, endpoint and class of answers. `MAX_KINDS` bounds
    their number.
    """

    def __init__(self, settings: RouterSettings) -> None:
        self._settings = settings
        self._times: BoundedMap[Kind, AnswerTimes] = BoundedMap(MAX_KINDS)
        # Waits that are not in `_times` yet, by target, endpoint and output limit in tokens:
        # seconds, and when the output came; None for a cut wait. They are added together, when
        # a limit needs them, because that takes a tenth of the time.
        self._new_waits: dict[tuple[str, Endpoint, int], list[NewWait]] = {}
        self._new_count = 0
        # How often waits have moved to `_times`, and the limits that came from these times.
        self._move_count = 0
        self._limits: BoundedMap[tuple[Kind, tuple[float, ...]], _KnownLimit] = BoundedMap(
            MAX_KINDS
        )
        # By target: the kind, seconds and time of its latest answers to users.
        self._latest_answers: dict[str, list[tuple[Kind, float, float]]] = {}

    def first_s(self, job: RoutedRequest, attempt: Attempt) -> float:
        """Returns how many seconds an attempt may wait for its first output; infinite for
        no limit.

        A stream's first output is its first token, a plain answer's is its first byte. A
        configured limit always applies: the route's, then the model's; for a plain answer
        then the router's. Without one, the limit adapts to the target's times, so that a
        stalled target is left early. The last target and a health check then have no limit
        but the attempt's total time.
        """
        # The router waits longer for the last target, because no other target can answer.
        is_last = attempt.check or attempt.upstream.id == job.plan.targets[-1]
        if job.request.stream:
            limit_s = (
                job.route.route.settings.first_token_timeout_s
                or attempt.upstream.can.first_token_timeout_s
            )
            if limit_s is not None:
                return limit_s
            return math.inf if is_last else self._adapt_first_token_s(job, attempt)
        limit_s = (
            job.route.route.settings.first_byte_timeout_s
            or attempt.upstream.can.first_byte_timeout_s
            or self._settings.first_byte_timeout_s
        )
        if limit_s is not None:
            return limit_s
        if is_last:
            return math.inf
        thinks = bool(used_features(job.request, (OptionalFeature.REASONING,)))
        limit = read_output_limit(job.request)
        unmeasured_s = unmeasured_limit_s(limit, thinks=thinks)
        kind = attempt.upstream.id, attempt.endpoint, answer_class(limit)
        own_s = self._find_limit_s(kind, first_byte_limit_s, unmeasured_s)
        return max(own_s, _find_least_candidate_limit_s(job, attempt))

    def _adapt_first_token_s(self, job: RoutedRequest, attempt: Attempt) -> float:
        """Returns the adaptive limit of a stream: three times the 99 % quantile, in
        seconds.

        Without a setting, the least limit is `FIRST_TOKEN_S`, and `MIN_LIMIT_S` for a model
        that thinks, because it may be silent for longer. The router's setting is the limit
        until answers that took longer raise it, to `MOST_FACTOR` times its value at most.
        """
        upstream = attempt.upstream
        thinks = bool(
            used_features(job.request, (OptionalFeature.REASONING,))
        ) or not _THINKING.isdisjoint(upstream.sent.parameters)
        kind = upstream.id, attempt.endpoint, STREAMED
        set_s = self._settings.first_token_timeout_s
        if set_s is None:
            least_s = MIN_LIMIT_S if thinks else FIRST_TOKEN_S
            least_s = max(least_s, _find_least_candidate_limit_s(job, attempt))
            return self._find_limit_s(kind, first_token_limit_s, least_s)
        most_s = MOST_FACTOR * set_s
        most_s = max(most_s, MIN_LIMIT_S) if thinks else most_s
        return self._find_limit_s(kind, first_token_limit_s, set_s, most_s)

    def _find_limit_s(
        self,
        kind: Kind,
        compute: Callable[..., float],
        *bounds_s: float,
    ) -> float:
        """Returns the limit that `compute` finds from the times of a kind and its bounds.

        A known limit holds until a part of the waits is new (`NEW_PART`), or a wait was cut:
        one more answer among hundreds does not move the quantile.
        """
        key = kind, bounds_s
        known_limit = self._limits.get(key)
        if (
            known_limit is None
            or known_limit.move_count != self._move_count
            or self._new_count >= known_limit.most_new
        ):
            self._move_waits()
            times = self._times.get(kind)
            waits = 0 if times is None else times.waits
            most_new = waits // NEW_PART
            if waits < MIN_ANSWERS:
                # From MIN_ANSWERS waits on, another formula applies.
                most_new = min(most_new, MIN_ANSWERS - waits)
            known_limit = _KnownLimit(self._move_count, most_new, compute(times, *bounds_s))
            self._limits.put(key, known_limit)
        return known_limit.seconds

    def usual_s(self, job: RoutedRequest, target: str) -> float | None:
        """Returns how long a target's usual answers to such requests take at most, in seconds;
        None if too few are known.
        """
        return usual_wait_s(self._find_times(job, target))

    def telling_s(self, job: RoutedRequest, attempt: Attempt) -> float:
        """Returns the wait in seconds after which a caller who leaves is a sign of a slow
        target.
        """
        return telling_wait_s(self._find_times(job, attempt.upstream.id))

    def probe_s(self, job: RoutedRequest, attempt: Attempt) -> float:
        """Returns how long a user's request waits at an open circuit's target, in seconds.

        The request only probes the target, and another one can answer. Infinite for the last
        target, and for a canary, whose callers are its evidence. Without health checks, only
        such requests can close the circuit, so they have no limit either.
        """
        target = attempt.upstream.id
        is_alone = attempt.check or self._settings.health_check_interval_s <= 0
        if is_alone or target in {job.plan.targets[-1], job.plan.guest}:
            return math.inf
        times = self._find_times(job, target)
        if usual_wait_s(times) is None:
            return FIRST_TOKEN_S
        return first_token_limit_s(times, PROBE_S)

    def last_answers(self, target: str) -> tuple[float, int]:
        """Returns when a target last answered a user in its usual time, on the event loop's
        clock; minus infinity if never. Also returns the number of its slower answers since.
        """
        self._move_waits()
        late = 0
        for kind, seconds, at in reversed(self._latest_answers.get(target, [])):
            usual_s = usual_wait_s(self._times.get(kind))
            if usual_s is None or seconds <= usual_s:
                return at, late
            late += 1
        return -math.inf, late

    def note(
        self,
        job: RoutedRequest,
        attempt: Attempt,
        seconds: float,
        at: float | None,
    ) -> None:
        """Notes a wait for the first output, so that the limit adapts.

        Args:
            at: when the output came, on the event loop's clock; None if the router's limit
                ended the wait, so that its whole length is unknown.
        """
        limit = STREAMED if job.request.stream else read_output_limit(job.request)
        if attempt.check and at is not None:
            at = -math.inf  # a check is no user's answer
        place = attempt.upstream.id, attempt.endpoint, limit
        new_waits = self._new_waits.get(place)
        if new_waits is None:
            new_waits = self._new_waits[place] = []
        new_waits.append((seconds, at))
        self._new_count += 1
        if at is None or self._new_count >= MAX_NEW_WAITS:
            self._move_waits()

    def _find_times(self, job: RoutedRequest, target: str) -> AnswerTimes | None:
        """Returns a target's times for requests of the same kind; None if it has none."""
        self._move_waits()
        request = job.request
        length = STREAMED if request.stream else answer_class(read_output_limit(request))
        return self._times.get((target, request.endpoint, length))

    def _move_waits(self) -> None:
        """Moves the noted times into the histograms: streams by first token, others by
        class.
        """
        if not self._new_count:
            return
        new_waits = self._new_waits
        self._new_waits = {}
        self._new_count = 0
        self._move_count += 1
        for (target, endpoint, limit), waits in new_waits.items():
            kind = target, endpoint, STREAMED if limit == STREAMED else answer_class(limit)
            answered_s = [seconds for seconds, at in waits if at is not None]
            cut_s = [seconds for seconds, at in waits if at is None]
            self._times.put(kind, add_waits(self._times.get(kind), answered_s, cut_s))
            self._keep_latest(target, kind, waits)

    def _keep_latest(self, target: str, kind: Kind, waits: Sequence[NewWait]) -> None:
        """Adds answers to users to the target's latest ones, which stay in the order of their
        times.
        """
        answers = [
            (kind, seconds, at) for seconds, at in waits if at is not None and at > -math.inf
        ]
        latest = [*self._latest_answers.get(target, ()), *answers[-LATEST_ANSWERS:]]
        latest.sort(key=_ANSWERED_AT)
        self._latest_answers[target] = latest[-LATEST_ANSWERS:]
