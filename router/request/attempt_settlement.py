"""Enters an attempt's end with its target's breaker, its provider key and the metrics."""

from datetime import datetime
from typing import Final

from harness.domain.reliability.failures import FAILURE_RULES, FailureClass
from harness.domain.reliability.retry import retry_after_s
from router.frame.failure import UpstreamFailed
from router.health.provider_keys import SEVERAL, ProviderKeys
from router.health.target_health import TargetHealth
from router.recording.metrics import RouterMetrics
from router.request.request_state import Attempt

# What a health check may meet with because it asked for the wrong thing, such as a chat with a
# model for embeddings. It counts only where that endpoint is known to be there.
GUESSED: Final = (
    FailureClass.MODEL_UNKNOWN,
    FailureClass.QUOTA,
    FailureClass.BLOCKED,
    FailureClass.MALFORMED,
)

_UNNAMED: Final = ("opening:", "req_")


class AttemptSettlement:
    def __init__(
        self, health: TargetHealth, keys: ProviderKeys, metrics: RouterMetrics
    ) -> None:
        self._health = health
        self._keys = keys
        self._metrics = metrics

    def settle(self, made: Attempt, outcome: FailureClass | None) -> None:
        upstream, counts = made.upstream, outcome
        if outcome is None and not made.check and not self._keys.refused:
            self._health.answered(upstream.id, made.ticket, made.endpoint)
            self._metrics.attempt(upstream.name, None)
            return
        if made.failure is not None:
            self._health.failures[upstream.id] = made.failure.provider_words
        if not made.check:
            self._health.end(upstream.id)  # first: whatever fails here, it is over
        if outcome is None:
            self._keys.accepted(upstream, made.key)
            self._health.spoken[upstream.id] = made.endpoint
        elif self._keys.other_left(upstream, made.key, outcome):
            # One key's trouble is not the target's: neutral, and a probe is free again.
            counts = FailureClass.CANCELLED
        elif not made.check and self._is_one_callers(made, outcome):
            counts = FailureClass.CANCELLED
        elif FAILURE_RULES[outcome].other_key and self._keys.gone(upstream, made.key):
            counts = FailureClass.CANCELLED  # a new key serves already
        elif made.check and (
            (outcome in GUESSED and upstream.id not in self._health.spoken)
            or self._health.users_find_well(upstream.id)
        ):
            counts = FailureClass.CANCELLED
        if not made.check:
            self._health.judge(upstream.id, counts, made.endpoint)
        self._health.settle(upstream.id, made.ticket, counts)
        self._metrics.attempt(upstream.name, outcome)

    def _is_one_callers(self, made: Attempt, outcome: FailureClass) -> bool:
        """Whether another caller (of a slow start: another request) must meet it first."""
        caller: object
        if made.slow:
            caller = object()
        elif FAILURE_RULES[outcome].several_callers:
            sticky_key, api_key = made.caller
            # Of whom only a conversation or a request is known, the API key is the caller.
            caller = api_key if sticky_key.startswith(_UNNAMED) else sticky_key
        else:
            return False
        return not self._health.counts_for_all(made.upstream.id, caller)

    def note_retry_after_s(
        self, made: Attempt, failure: UpstreamFailed, now: datetime
    ) -> float | None:
        told_s = retry_after_s(failure.headers, now) if failure.headers else None
        upstream = made.upstream
        self._keys.rest(upstream, made.key, failure, told_s)
        if failure.failure is FailureClass.RATE_LIMITED and told_s:
            several = len(upstream.keys) >= SEVERAL
            pause_s = self._keys.back_in_s(upstream) if several else told_s
            if pause_s > 0:
                self._health.pause(upstream.id, pause_s)
        return told_s
