"""Records an attempt's end in the target's health, the provider's keys and the metrics.

`dispatch` calls `AttemptSettlement` after each attempt. `router.protocols.provider_refusals`
and `harness.frame.failures` decide the reach of a failure. This module may narrow the reach of
a refusal, because other requests succeed. It makes no call and chooses no target.
"""

import asyncio
from datetime import datetime
from typing import Final

from harness.frame.failures import (
    FAILURE_RULES,
    BreakerEffect,
    FailureClass,
    FaultOwner,
    Reach,
)
from harness.providers.models.capabilities import Endpoint
from harness.routing.reliability.rate_headers import is_used_up
from harness.routing.reliability.retry import retry_after_s
from harness.routing.reliability.slowdown import RequestSize
from router.frame.failure import UpstreamFailed
from router.health.provider_keys import SEVERAL, ProviderKeys
from router.health.target_health import TargetHealth
from router.health.target_users import TargetUsers
from router.protocols.endpoints import DIALECTS
from router.recording.metrics import RouterMetrics
from router.request.request_state import Attempt
from router.snapshot.compiled import CompiledTarget

_ANONYMOUS_PREFIXES: Final = ("opening:", "req_")


class AttemptSettlement:
    """Records the ends of attempts in the target's health, the provider's keys and the
    metrics.

    The metrics always count the true outcome. The circuit breaker may count it as neutral,
    because a single failure may not be the target's fault.
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
        self.users = TargetUsers(health.policy.window_s)

    def settle(self, attempt: Attempt, outcome: FailureClass | None) -> None:
        """Records the end of an attempt. A stream's attempt ends with the stream.

        Args:
            outcome: the failure; None for an answer.

        The circuit breaker counts a failure as CANCELLED, which is neutral, in these cases:
        - the provider may accept another key;
        - one caller's request may have caused it, and too few callers got the same failure;
        - the target fails for one caller, and works for the other callers;
        - it concerns only an endpoint that the target may not serve;
        - the snapshot no longer contains the refused key;
        - a health check fails, while users get good answers.
        """
        upstream = attempt.upstream
        if (
            outcome is None
            and not attempt.check
            and not attempt.probe_size
            and not self._keys.refused
        ):
            self.users.last_answered[upstream.id] = attempt.caller
            self._health.answered(upstream.id, attempt.ticket, attempt.endpoint)
            self._metrics.attempt(upstream.name, None)
            return
        counted_outcome = outcome
        if attempt.failure is not None:
            self._health.failures[upstream.id] = attempt.failure.provider_words
        if outcome is None:
            self.accept(attempt)
            self.users.last_answered[upstream.id] = attempt.caller
            self._health.note_served(upstream.id, attempt.endpoint)
        elif self._is_neutral(attempt, outcome):
            counted_outcome = FailureClass.CANCELLED
        if not attempt.check:
            self._health.note_user_outcome(upstream.id, counted_outcome, attempt.endpoint)
        self._health.settle(upstream.id, attempt.ticket, counted_outcome)
        self._metrics.attempt(upstream.name, outcome)

    def accept(self, attempt: Attempt) -> None:
        """Notes that the provider accepted a request: ends a slowdown and the key's rest.

        A second call for the same attempt does nothing. Otherwise the end of a stream could
        end a slowdown that began after the stream did.
        """
        self._keys.note_accepted(attempt.upstream, attempt.key)
        if attempt.probe_size:
            if self._health.slowdowns.end(attempt.upstream.id, attempt.probe_size):
                self._keys.end_rests(attempt.upstream)
            attempt.probe_size = None

    def _is_neutral(self, attempt: Attempt, outcome: FailureClass) -> bool:
        """Returns whether a failure is no evidence against the target, or not yet enough."""
        upstream = attempt.upstream
        reach = _find_reach(attempt, outcome)
        if self._keys.has_other_key(upstream, attempt.key, reach):
            return True
        if reach.is_of_key and self._keys.is_removed(upstream, attempt.key):
            return True  # the provider already uses a new key
        # Without a connection, no endpoint answers.
        if outcome is not FailureClass.CONNECT and self._concerns_endpoint(attempt, reach):
            return True
        if attempt.check:
            return self._health.users_get_good_answers(upstream.id)
        return self._awaits_other_callers(attempt, outcome, reach)

    def narrow_to_endpoint(self, attempt: Attempt, failure: UpstreamFailed) -> None:
        """Changes a refusal of the model or account to ENDPOINT_MISSING, if only the endpoint
        may be missing.

        A provider that gets embeddings for a chat model may answer that the model is unknown
        or not allowed. So the refusal says nothing about the model, if the target has never
        served this endpoint and serves another one. A health check reports the failure's
        class, so its class does not change.
        """
        rule = FAILURE_RULES[failure.failure]
        opens_for_our_fault = (
            rule.fault is FaultOwner.OURS and rule.breaker is BreakerEffect.OPENS
        )
        if (
            opens_for_our_fault
            and not attempt.check
            and self._concerns_endpoint(attempt, failure.reach)
        ):
            failure.failure = FailureClass.ENDPOINT_MISSING
            failure.reach = Reach.ENDPOINT

    def _concerns_endpoint(self, attempt: Attempt, reach: Reach) -> bool:
        """Returns whether a failure may concern only the attempt's endpoint.

        Few models serve both chats and embeddings. So if no worker knows any endpoint that the
        target serves, a refusal of embeddings does not count against a chat model.
        """
        upstream = attempt.upstream
        if reach.is_of_account:
            return False
        served = {
            _find_provider_endpoint(upstream, name)
            for name in self._health.served_endpoints(upstream.id)
        }
        endpoint = _find_provider_endpoint(upstream, attempt.endpoint)
        if endpoint in served:
            return False
        if served:
            return True
        is_unusual = endpoint is Endpoint.EMBEDDINGS and upstream.can.chat
        return reach is not Reach.TARGET and (attempt.check or is_unusual)

    def _awaits_other_callers(
        self, attempt: Attempt, outcome: FailureClass, reach: Reach
    ) -> bool:
        """Returns whether the failure does not count until other callers get it, too. For a
        slow start, other requests of the same caller are enough.
        """
        # A sticky key of only the conversation or the request names no caller. The API key then
        # stands for the caller.
        sticky_key, api_key = attempt.caller
        caller_name = "" if sticky_key.startswith(_ANONYMOUS_PREFIXES) else sticky_key
        fails_one_caller = self._fails_one_caller(attempt, outcome, reach)
        caller: object
        if attempt.slow:
            caller = object()
        elif self._may_be_callers_fault(attempt, outcome, reach):
            caller = caller_name or api_key
        else:
            return fails_one_caller
        fails_several = self._health.fails_several_callers(attempt.upstream.id, caller)
        return not fails_several or fails_one_caller

    def _fails_one_caller(self, attempt: Attempt, outcome: FailureClass, reach: Reach) -> bool:
        """Returns whether the target fails for a single client key, caller or conversation,
        and answers the others. False for a missing connection or a refused account, because no
        request causes these.
        """
        is_neutral = FAILURE_RULES[outcome].breaker is BreakerEffect.NEUTRAL
        key = attempt.caller[1]
        if is_neutral or outcome is FailureClass.CONNECT or reach.is_of_account or not key:
            return False
        target = attempt.upstream.id
        now = asyncio.get_running_loop().time()
        # After a timeout, only answers since the slow attempt began show that the target works.
        is_slow = outcome is FailureClass.TIMEOUT
        recent_s = now - attempt.began if is_slow else self._health.policy.window_s
        is_only_failing_caller = self.users.find_failed_callers(target, now).keys() <= {
            attempt.caller
        }
        answers_others = (
            self._health.answered_lately(target, recent_s)
            and self.users.last_answered.get(target) != attempt.caller
        )
        fails_one_key = self.users.fails_one_key(target, attempt.caller, now - recent_s, now)
        return fails_one_key or (is_only_failing_caller and answers_others)

    def _may_be_callers_fault(
        self, attempt: Attempt, outcome: FailureClass, reach: Reach
    ) -> bool:
        """Returns whether one caller's request alone may have caused a failure.

        The failure's reach can show it. So can other users' good answers: because of a field in
        one client's request, a provider may answer that the model is unknown or that the key
        may not use it.
        """
        effect = FAILURE_RULES[outcome].breaker
        if reach is Reach.REQUEST:
            return effect is not BreakerEffect.NEUTRAL
        is_narrow = reach in (Reach.ENDPOINT, Reach.KEY_AND_MODEL)
        opens = effect is BreakerEffect.OPENS
        return is_narrow and opens and self._health.users_get_good_answers(attempt.upstream.id)

    def note_retry_after_s(
        self,
        attempt: Attempt,
        failure: UpstreamFailed,
        now: datetime,
        size: RequestSize,
    ) -> float | None:
        """Returns the seconds that the provider asks to wait; None if its answer names no
        time.

        Pauses the use of the refused key. Slows the target down after a rate limit that reaches
        beyond the request. The limit must name a time, or the request must be the probe of a
        slowed target. A target with several keys is slow only until its first key is usable
        again.

        Args:
            now: with a time zone, to read an HTTP date.
            size: the request's size.
        """
        requested_s = retry_after_s(failure.headers, now) if failure.headers else None
        attempt.retry_after_s = requested_s
        upstream = attempt.upstream
        slowdowns = self._health.slowdowns
        is_exhausted = is_used_up(failure.headers)
        is_limit = failure.failure is FailureClass.RATE_LIMITED
        if is_limit and not is_exhausted and slowdowns.is_too_large(upstream.id, size):
            return requested_s
        if failure.reach.is_of_key and (
            attempt.check
            or not self._awaits_other_callers(attempt, failure.failure, failure.reach)
        ):
            self._keys.rest(upstream, attempt.key, failure, requested_s)
        if not is_limit or failure.reach is Reach.REQUEST:
            return requested_s
        pause_s = requested_s
        if requested_s and len(upstream.keys) >= SEVERAL:
            pause_s = self._keys.back_in_s(upstream)
        if attempt.probe_size:
            slowdowns.note_refused_probe(upstream.id, size, pause_s, exhausted=is_exhausted)
        elif pause_s:
            slowdowns.note_refusal(upstream.id, size, pause_s, exhausted=is_exhausted)
        return requested_s


def _find_reach(attempt: Attempt, outcome: FailureClass) -> Reach:
    """Returns how far an attempt's failure reaches. A stream's late failure has no details."""
    failure = attempt.failure
    if failure is not None and failure.failure is outcome:
        return failure.reach
    return FAILURE_RULES[outcome].reach


def _find_provider_endpoint(upstream: CompiledTarget, endpoint: Endpoint) -> Endpoint:
    """Returns the endpoint that the provider sees: a bridged request becomes a chat."""
    is_bridged = endpoint in upstream.adapted and DIALECTS[endpoint].path in upstream.bridged
    return Endpoint.CHAT if is_bridged else endpoint
