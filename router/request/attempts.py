"""Limits how long an attempt may wait.

`dispatch` asks `TimeLimits` before each attempt. This module makes no call and chooses no
target. The formulas of the limits are in `harness.routing.reliability.latency`.
"""

import math
from typing import Final

from harness.providers.models.capabilities import Endpoint, OptionalFeature
from harness.routing.reliability.latency import (
    ANSWER_BOUNDS_MS,
    FIRST_TOKEN_BOUNDS_MS,
    MIN_LIMIT_S,
    AnswerTimes,
    add_answers,
    answer_class,
    first_byte_limit_s,
    first_token_limit_s,
    unmeasured_limit_s,
)
from harness.routing.settings import RouterSettings
from router.frame.limits import BoundedMap
from router.request.needs import given_fields, output_limit
from router.request.request_state import Attempt, RoutedRequest
from router.snapshot.compiled import CompiledRoute, CompiledTarget

# How many combinations of target, endpoint and class of answers a worker keeps times for.
KEPT: Final = 2048
# The most answer times that wait to be added up.
MAX_NOTED: Final = 256
Kind = tuple[str, Endpoint, int]
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
    own = route.route.settings.first_token_timeout_s
    return own or upstream.can.first_token_timeout_s or settings.first_token_timeout_s


class TimeLimits:
    """The adaptive time limits of one worker's attempts.

    An instance belongs to one event loop, and knows only this worker's times. It keeps a
    histogram for each combination of target, endpoint and class of answers. `KEPT` bounds
    their number.
    """

    def __init__(self, settings: RouterSettings) -> None:
        self._settings = settings
        self._times: BoundedMap[Kind, AnswerTimes] = BoundedMap(KEPT)
        # Answers that are not in `_times` yet: target, endpoint, output limit in tokens,
        # seconds. They are added only when needed, which is seldom for a last target.
        self._noted: list[tuple[str, Endpoint, int, float]] = []

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
            return math.inf if is_last else self._first_token_s(job, attempt)
        limit_s = (
            job.route.route.settings.first_byte_timeout_s
            or attempt.upstream.can.first_byte_timeout_s
            or self._settings.first_byte_timeout_s
        )
        if limit_s is not None:
            return limit_s
        if is_last:
            return math.inf
        thinks = bool(given_fields(job.request, (OptionalFeature.REASONING,)))
        limit = output_limit(job.request)
        unmeasured_s = unmeasured_limit_s(limit, thinks=thinks)
        self._sum_up()
        kind = attempt.upstream.id, attempt.endpoint, answer_class(limit)
        return first_byte_limit_s(self._times.get(kind), unmeasured_s)

    def _first_token_s(self, job: RoutedRequest, attempt: Attempt) -> float:
        """Returns the adaptive limit of a stream: three times the 99 % quantile, in
        seconds.

        The router's setting is the least limit. A model that thinks may be silent for
        longer, so its least limit is at least `MIN_LIMIT_S`.
        """
        upstream = attempt.upstream
        least_s = self._settings.first_token_timeout_s
        if given_fields(job.request, (OptionalFeature.REASONING,)) or not _THINKING.isdisjoint(
            upstream.sent.parameters
        ):
            least_s = max(least_s, MIN_LIMIT_S)
        self._sum_up()
        return first_token_limit_s(
            self._times.get((upstream.id, attempt.endpoint, STREAMED)),
            least_s,
        )

    def note(
        self,
        job: RoutedRequest,
        attempt: Attempt,
        seconds: float,
    ) -> None:
        """Notes the time of an answer or of an aborted wait, so that the limit adapts.

        seconds: from the attempt's start to its first output, or the limit that ended the
        wait. An aborted wait counts as an answer of that length: without it, a limit that
        is too low would never rise.
        """
        limit = STREAMED if job.request.stream else output_limit(job.request)
        self._noted.append((attempt.upstream.id, attempt.endpoint, limit, seconds))
        if len(self._noted) >= MAX_NOTED:
            self._sum_up()

    def _sum_up(self) -> None:
        """Moves the noted times into the histograms: streams by first token, others by
        class.
        """
        noted = self._noted
        self._noted = []
        by_kind: dict[Kind, list[float]] = {}
        for target, endpoint, limit, seconds in noted:
            length = STREAMED if limit == STREAMED else answer_class(limit)
            by_kind.setdefault((target, endpoint, length), []).append(seconds)
        for kind, answers_s in by_kind.items():
            bounds_ms = FIRST_TOKEN_BOUNDS_MS if kind[2] == STREAMED else ANSWER_BOUNDS_MS
            self._times.put(
                kind,
                add_answers(self._times.get(kind), answers_s, bounds_ms),
            )
