"""Limits how long an attempt may wait, and records its end in health, keys and metrics.

`dispatch` asks `TimeLimits` before each attempt, and `AttemptSettlement` after it. This
module makes no call and chooses no target. The formulas of the limits are in
`harness.routing.reliability.latency`, the rules of failures in `harness.frame.failures`.
"""

import math
from datetime import datetime
from typing import Final

from harness.frame.failures import (
    FAILURE_RULES,
    BreakerEffect,
    FailureClass,
    FaultOwner,
    Reach,
)
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
from harness.routing.reliability.retry import is_used_up, retry_after_s
from harness.routing.settings import RouterSettings
from router.frame.failure import UpstreamFailed
from router.frame.limits import BoundedMap
from router.health.provider_keys import SEVERAL, ProviderKeys
from router.health.target_health import TargetHealth
from router.protocols.endpoints import DIALECTS
from router.recording.metrics import RouterMetrics
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


_UNNAMED: Final = ("opening:", "req_")


class AttemptSettlement:
    """Records the ends of attempts in the target's health, the provider's keys and the
    metrics.

    The metrics count the outcome as it was. The circuit breaker may count it as neutral,
    because a single failure need not be the target's fault.
    """

    def __init__(
        self,
        health: TargetHealth,
        keys: ProviderKeys,
        metrics: RouterMetrics,
    ) -> None:
        self._health = health
        self._keys = keys
        self._metrics = metrics

    def settle(self, attempt: Attempt, outcome: FailureClass | None) -> None:
        """Records the end of an attempt. A stream's attempt ends with the stream.

        outcome: the failure; None for an answer. The circuit breaker counts a failure as
        CANCELLED, which is neutral, in these cases:
        - the provider has another key that it may accept;
        - the failure could be one caller's alone, and too few callers met it;
        - the failure reaches only an endpoint that the target may not serve;
        - the snapshot no longer contains the refused key;
        - users get good answers while a health check fails.
        """
        upstream = attempt.upstream
        if (
            outcome is None
            and not attempt.check
            and not attempt.probe_size
            and not self._keys.refused
        ):
            self._health.answered(upstream.id, attempt.ticket, attempt.endpoint)
            self._metrics.attempt(upstream.name, None)
            return
        counts = outcome
        if attempt.failure is not None:
            self._health.failures[upstream.id] = attempt.failure.provider_words
        if not attempt.check:
            self._health.end(upstream.id)  # first: a later fault must not skip it
        if outcome is None:
            self.accept(attempt)
            self._health.note_served(upstream.id, attempt.endpoint)
        elif self._counts_not(attempt, outcome):
            counts = FailureClass.CANCELLED
        if not attempt.check:
            self._health.judge(upstream.id, counts, attempt.endpoint)
        self._health.settle(upstream.id, attempt.ticket, counts)
        self._metrics.attempt(upstream.name, outcome)

    def accept(self, attempt: Attempt) -> None:
        """Notes that the provider accepted a request: ends a slowdown and the key's rest.

        Called again, it does nothing, so that a stream's end ends no later slowdown.
        """
        self._keys.accepted(attempt.upstream, attempt.key)
        if attempt.probe_size:
            attempt.probe_size = 0
            self._health.slowdowns.end(attempt.upstream.id)

    def _counts_not(self, attempt: Attempt, outcome: FailureClass) -> bool:
        """Returns whether a failure says nothing of the target, or not yet."""
        upstream = attempt.upstream
        reach = _reach(attempt, outcome)
        if self._keys.other_left(upstream, attempt.key, reach):
            return True
        if reach.is_of_key and self._keys.gone(upstream, attempt.key):
            return True  # the provider already uses a new key
        if self._is_of_endpoint(attempt, reach):
            return True
        if attempt.check:
            return self._health.users_find_well(upstream.id)
        return self._is_one_callers(attempt, outcome, reach)

    def find_reach(self, attempt: Attempt, failure: UpstreamFailed) -> None:
        """Makes a refusal of our model or account one of the endpoint, if it may be that.

        A provider refuses embeddings of a chat model as if the model were unknown, or not
        allowed. So a refusal at an endpoint that the target has never served, while it serves
        another, is no fact about the model. A health check keeps the class, which it reports.
        """
        rule = FAILURE_RULES[failure.failure]
        is_ours = rule.fault is FaultOwner.OURS and rule.breaker is BreakerEffect.OPENS
        if is_ours and not attempt.check and self._is_of_endpoint(attempt, failure.reach):
            failure.failure = FailureClass.ENDPOINT_MISSING
            failure.reach = Reach.ENDPOINT

    def _is_of_endpoint(self, attempt: Attempt, reach: Reach) -> bool:
        """Returns whether a failure may concern only the attempt's endpoint.

        If no worker knows an endpoint that the target serves, the router expects that it
        serves chats, if its provider's kind does.
        """
        upstream = attempt.upstream
        if reach.is_of_account:
            return False
        served = {_called_at(upstream, name) for name in self._health.served(upstream.id)}
        endpoint = _called_at(upstream, attempt.endpoint)
        if endpoint in served:
            return False
        if served:
            return True
        is_unusual = endpoint is not Endpoint.CHAT and upstream.can.chat
        return reach is not Reach.TARGET and (attempt.check or is_unusual)

    def _is_one_callers(self, attempt: Attempt, outcome: FailureClass, reach: Reach) -> bool:
        """Returns whether the failure does not count until other callers (for a slow start:
        other requests) meet it, too.
        """
        caller: object
        if attempt.slow:
            caller = object()
        elif reach is Reach.REQUEST and (
            FAILURE_RULES[outcome].breaker is not BreakerEffect.NEUTRAL
        ):
            sticky_key, api_key = attempt.caller
            # If only the conversation or the request is known, the API key is the caller.
            caller = api_key if sticky_key.startswith(_UNNAMED) else sticky_key
        else:
            return False
        return not self._health.counts_for_all(attempt.upstream.id, caller)

    def note_retry_after_s(
        self,
        attempt: Attempt,
        failure: UpstreamFailed,
        now: datetime,
    ) -> float | None:
        """Returns the seconds that the provider asks to wait; None if its answer names no
        time.

        Lets the refused key rest. A rate limit that reaches beyond the request slows the
        target: if it names a time, or the request was the probe of a slowed target. With
        several keys, the target is slowed until the first of them is back.
        now: aware, to read an HTTP date.
        """
        told_s = retry_after_s(failure.headers, now) if failure.headers else None
        attempt.told_s = told_s
        upstream = attempt.upstream
        self._keys.rest(upstream, attempt.key, failure, told_s)
        if failure.failure is not FailureClass.RATE_LIMITED or failure.reach is Reach.REQUEST:
            return told_s
        pause_s = told_s
        if told_s and len(upstream.keys) >= SEVERAL:
            pause_s = self._keys.back_in_s(upstream)
        slowdowns = self._health.slowdowns
        exhausted = is_used_up(failure.headers)
        if attempt.probe_size:
            slowdowns.note_refused_probe(
                upstream.id, attempt.probe_size, pause_s, exhausted=exhausted
            )
        elif pause_s:
            slowdowns.note_refusal(upstream.id, pause_s, exhausted=exhausted)
        return told_s


def _reach(attempt: Attempt, outcome: FailureClass) -> Reach:
    """Returns how far an attempt's failure reaches. A stream's late failure has no details."""
    failure = attempt.failure
    if failure is not None and failure.failure is outcome:
        return failure.reach
    return FAILURE_RULES[outcome].reach


def _called_at(upstream: CompiledTarget, endpoint: Endpoint) -> Endpoint:
    """Returns the endpoint that the provider sees: a bridged request becomes a chat."""
    is_bridged = endpoint in upstream.adapted and DIALECTS[endpoint].path in upstream.bridged
    return Endpoint.CHAT if is_bridged else endpoint
