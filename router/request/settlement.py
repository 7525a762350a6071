"""Records an attempt's end in health, keys, slowdowns and metrics, as far as it reaches.

`dispatch` asks `AttemptSettlement` after each attempt. Which failure reaches how far is decided
by `router.protocols.provider_refusals` and `harness.frame.failures`; here a refusal may turn
out to be narrower, because other requests succeed. This module makes no call and chooses no
target.
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
        self.users = TargetUsers(health.policy.window_s)

    def settle(self, attempt: Attempt, outcome: FailureClass | None) -> None:
        """Records the end of an attempt. A stream's attempt ends with the stream.

        outcome: the failure; None for an answer. The circuit breaker counts a failure as
        CANCELLED, which is neutral, in these cases:
        - the provider has another key that it may accept;
        - the failure could be one caller's alone, and too few callers met it;
        - the target fails one caller alone, and works for the others;
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
            self.users.answered_to[upstream.id] = attempt.caller
            self._health.answered(upstream.id, attempt.ticket, attempt.endpoint)
            self._metrics.attempt(upstream.name, None)
            return
        counts = outcome
        if attempt.failure is not None:
            self._health.failures[upstream.id] = attempt.failure.provider_words
        if outcome is None:
            self.accept(attempt)
            self.users.answered_to[upstream.id] = attempt.caller
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
            if self._health.slowdowns.end(attempt.upstream.id, attempt.probe_size):
                self._keys.wake(attempt.upstream)
            attempt.probe_size = None

    def _counts_not(self, attempt: Attempt, outcome: FailureClass) -> bool:
        """Returns whether a failure says nothing of the target, or not yet."""
        upstream = attempt.upstream
        reach = _reach(attempt, outcome)
        if self._keys.other_left(upstream, attempt.key, reach):
            return True
        if reach.is_of_key and self._keys.gone(upstream, attempt.key):
            return True  # the provider already uses a new key
        # Without a connection, no endpoint answers.
        if outcome is not FailureClass.CONNECT and self._is_of_endpoint(attempt, reach):
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

        If no worker knows an endpoint that the target serves, a refusal of embeddings says
        nothing of chats: a model seldom serves both.
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
        is_unusual = endpoint is Endpoint.EMBEDDINGS and upstream.can.chat
        return reach is not Reach.TARGET and (attempt.check or is_unusual)

    def _is_one_callers(self, attempt: Attempt, outcome: FailureClass, reach: Reach) -> bool:
        """Returns whether the failure does not count until other callers (for a slow start:
        other requests) meet it, too.
        """
        # If only the conversation or the request is known, the API key is the caller.
        sticky_key, api_key = attempt.caller
        name = "" if sticky_key.startswith(_UNNAMED) else sticky_key
        is_alone = self._fails_one(attempt, outcome, reach)
        caller: object
        if attempt.slow:
            caller = object()
        elif self._is_doubtful(attempt, outcome, reach):
            caller = name or api_key
        else:
            return is_alone
        return not self._health.counts_for_all(attempt.upstream.id, caller) or is_alone

    def _fails_one(self, attempt: Attempt, outcome: FailureClass, reach: Reach) -> bool:
        """Returns whether the target fails one client key alone, or one caller or conversation
        alone while it answers others. No request causes a missing connection or a refused
        account.
        """
        is_neutral = FAILURE_RULES[outcome].breaker is BreakerEffect.NEUTRAL
        key = attempt.caller[1]
        if is_neutral or outcome is FailureClass.CONNECT or reach.is_of_account or not key:
            return False
        target = attempt.upstream.id
        now = asyncio.get_running_loop().time()
        # Only requests that began with a slow one show that the target still works.
        is_slow = outcome is FailureClass.TIMEOUT
        recent_s = now - attempt.began if is_slow else self._health.policy.window_s
        is_alone = self.users.failed(target, now).keys() <= {attempt.caller}
        answers_others = (
            self._health.answered_lately(target, recent_s)
            and self.users.answered_to.get(target) != attempt.caller
        )
        is_one_keys = self.users.fails_one(target, attempt.caller, now - recent_s, now)
        return is_one_keys or (is_alone and answers_others)

    def _is_doubtful(self, attempt: Attempt, outcome: FailureClass, reach: Reach) -> bool:
        """Returns whether one caller's request alone may have caused a failure.

        So it is by its reach, or because other users get good answers: a client's field may
        make a provider say that our key may not use the model, or that there is no such model.
        """
        effect = FAILURE_RULES[outcome].breaker
        if reach is Reach.REQUEST:
            return effect is not BreakerEffect.NEUTRAL
        is_narrow = reach in (Reach.ENDPOINT, Reach.KEY_AND_MODEL)
        opens = effect is BreakerEffect.OPENS
        return is_narrow and opens and self._health.users_find_well(attempt.upstream.id)

    def note_retry_after_s(
        self,
        attempt: Attempt,
        failure: UpstreamFailed,
        now: datetime,
        size: RequestSize,
    ) -> float | None:
        """Returns the seconds that the provider asks to wait; None if its answer names no
        time.

        Lets the refused key rest. A rate limit that reaches beyond the request slows the
        target: if it names a time, or the request was the probe of a slowed target. With
        several keys, the target is slowed until the first of them is back.
        now: aware, to read an HTTP date. size: of the request.
        """
        told_s = retry_after_s(failure.headers, now) if failure.headers else None
        attempt.told_s = told_s
        upstream = attempt.upstream
        slowdowns = self._health.slowdowns
        exhausted = is_used_up(failure.headers)
        is_limit = failure.failure is FailureClass.RATE_LIMITED
        if is_limit and not exhausted and slowdowns.is_too_large(upstream.id, size):
            return told_s
        if failure.reach.is_of_key and (
            attempt.check or not self._is_one_callers(attempt, failure.failure, failure.reach)
        ):
            self._keys.rest(upstream, attempt.key, failure, told_s)
        if not is_limit or failure.reach is Reach.REQUEST:
            return told_s
        pause_s = told_s
        if told_s and len(upstream.keys) >= SEVERAL:
            pause_s = self._keys.back_in_s(upstream)
        if attempt.probe_size:
            slowdowns.note_refused_probe(upstream.id, size, pause_s, exhausted=exhausted)
        elif pause_s:
            slowdowns.note_refusal(upstream.id, size, pause_s, exhausted=exhausted)
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
