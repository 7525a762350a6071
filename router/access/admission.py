"""Admission applies a key's budget and rate limits, and counts callers with unknown keys.

The formulas are in `harness.frame.people.limits`, the shared state in `rate_limits`. This
module identifies no caller (`front_door` does) and knows no route.
`router.request.model_endpoint` asks before a request, and
`router.observers.request_accounting` corrects the estimate after it.
"""

import math
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from enum import StrEnum
from hashlib import blake2b
from typing import Final, NamedTuple

from harness.frame.alerts.alert import Alert, AlertKind
from harness.frame.formatting import format_percent
from harness.frame.people.limits import (
    FINE,
    KeyLimits,
    LimitStatus,
    RateLimit,
    RateState,
    SpendBudget,
    SpendDecision,
    SpendLevel,
    SpendTotals,
    check_budget,
    limit_statuses,
    settle_request,
)
from harness.frame.ports import Clock, RateBook
from router.access import rate_limits
from router.frame.body import ClientRequest
from router.frame.replies import (
    DO_NOT_RETRY,
    JSON,
    Header,
    Reply,
    error_body,
    error_reply,
)
from router.protocols.answers import MOST_TOKENS

# Most tokenizers' value for English; the provider's count later corrects other text.
BYTES_PER_TOKEN: Final = 4
MAX_TOKENS: Final = (
    "max_completion_tokens",
    "max_tokens",
    "max_output_tokens",
)
# Requests with unknown keys from one address, as at the control plane: ten at once, then one a
# second. Requests with known keys are not limited, because the key is checked first.
UNKNOWN_KEY_LIMIT: Final = RateLimit(requests_per_min=60, burst_s=10)
# All addresses share this many counters, so that a guesser with many addresses cannot displace
# keys. A caller with an unknown key may share a guesser's counter, and gets 429 instead of 401.
UNKNOWN_KEY_BUCKETS: Final = 1024
UNKNOWN_KEY_PREFIX: Final = "nobody's "


class AsideKind(StrEnum):
    """Kinds of calls beside requests for a model. The value is a part of the refusal's
    message.
    """

    FEEDBACK = "feedback"
    COUNTS = "counting of tokens"
    FLAGS = "evaluation of flags"
    HISTORIES = "reading of kept answers"


# The most keys whose limits are kept ready for requests.
KEPT_KEYS: Final = 4096
_RATE_PARTS: Final = (b"limit", b"remaining", b"reset")
# The headers of each kind of limit, with OpenAI's names: the limit, the remaining amount, and
# the time until all of it is free again.
RATE_HEADERS: Final = {
    kind: tuple(b"x-ratelimit-%b-%b" % (part, kind.encode()) for part in _RATE_PARTS)
    for kind in ("requests", "tokens")
}
_LONGEST_IN_MS_S: Final = 0.999  # the longest time that a header gives in milliseconds
# A key's limits, and this router's part of its rate and its budget; None if it has no such
# limit.
ActiveLimits = tuple[KeyLimits, RateLimit | None, SpendBudget | None]
ONE_OF_SEVERAL: Final = " at this router, one of several that share the key's rate"


class RateReservation(NamedTuple):
    """The part of a key's rate that one request took, to be corrected by
    `Admission.settle`.

    input_tokens: estimated from the body's size. tokens: taken from the rate, which are
    input_tokens plus the client's limit for the answer.
    """

    key: str
    limit: RateLimit
    input_tokens: int
    tokens: int
    headers: tuple[Header, ...]  # for the answer's head


class Admission:
    """Admits or refuses requests, for one process.

    spent: returns a key's spending, as far as this process knows it.
    tell: called when a budget is nearly or fully spent.
    rate_share: the part of each key's rate that this router may serve.
    secret: hides which addresses count together.
    """

    def __init__(  # noqa: PLR0913 - the class describes each
        self,
        book: RateBook,
        spent: Callable[[str, date], SpendTotals],
        counters: Counter[str],
        clock: Clock,
        tell: Callable[[Alert], None],
        *,
        worker: str,
        rate_share: float,
        secret: bytes,
    ) -> None:
        self._salt = blake2b(secret, person=b"strangers").digest()
        self._book = book
        self._spent = spent
        self._counters = counters
        self._clock = clock
        self._send_alert = tell
        self._worker = worker
        self._rate_share = rate_share
        self._last_alerts: dict[str, tuple[SpendLevel, date | None]] = {}
        self._active_limits: dict[str, ActiveLimits] = {}  # by key

    def admit(
        self,
        key: str,
        limits: KeyLimits,
        request: ClientRequest | None,
        size: int,
    ) -> RateReservation | Reply:
        """Reserves a request's part of the key's rate, or returns the refusal.

        Args:
            request: None for an invalid request, which counts.
            size: in bytes.

        The budget is checked before the rate, so that a stopped key takes nothing from its
        rate. Its refusal forbids clients to retry.
        """
        active = self._active_limits.get(key)
        if active is None or active[0] is not limits:
            active = self._read_limits(key, limits)
        _, limit, budget = active
        budget_headers: tuple[Header, ...] = ()
        if budget is not None:
            today = self._clock.now().date()
            decision = check_budget(budget, self._spent(key, today), today)
            if decision is not FINE:
                self._alert(key, decision)
                if not decision.allowed:
                    return self._refuse_spent_key(decision)
                budget_headers = ((b"x-swapproof-budget", b"%d%%" % (100 * decision.share)),)
        if limit is None:
            return RateReservation(key, RateLimit(), 0, 0, budget_headers)
        input_tokens = size // BYTES_PER_TOKEN if request is not None else 0
        tokens = input_tokens + (_read_max_output_tokens(request) if request is not None else 0)
        now = self._clock.monotonic()
        rate_decision = rate_limits.take_tokens(self._book, key, limit, tokens, now)
        rate_headers = _build_rate_headers(limit_statuses(rate_decision.state, limit, now))
        if not rate_decision.allowed:
            self._counters["rate_limited"] += 1
            reason = rate_decision.reason + (ONE_OF_SEVERAL if self._rate_share < 1 else "")
            return _refuse_rate(reason, rate_decision.retry_after_s, rate_headers)
        return RateReservation(
            key, limit, input_tokens, tokens, (*budget_headers, *rate_headers)
        )

    def admit_aside(
        self,
        aside: AsideKind,
        key: str,
        limits: KeyLimits | None,
    ) -> Reply | None:
        """Limits calls beside requests; each kind has the same allowance as requests."""
        if limits is None or limits.rate.requests_per_min is None:
            return None
        limit = RateLimit(requests_per_min=limits.rate.part(self._rate_share).requests_per_min)
        now = self._clock.monotonic()
        decision = rate_limits.take_tokens(self._book, f"{aside} of {key}", limit, 0, now)
        if decision.allowed:
            return None
        self._counters["rate_limited"] += 1
        reason = f"this key has sent as much {aside} as it may send requests in a minute"
        rate_headers = _build_rate_headers(limit_statuses(decision.state, limit, now))
        return _refuse_rate(reason, decision.retry_after_s, rate_headers)

    def settle(self, reservation: RateReservation, actual: int) -> None:
        """Corrects a reservation by the tokens that the request really took."""
        now = self._clock.monotonic()

        def change(state: RateState) -> RateState:
            return settle_request(
                state,
                reservation.limit,
                estimated=reservation.tokens,
                actual=actual,
                now=now,
            )

        self._book.change(reservation.key, change)

    def refuse_unknown_key(self, address: str) -> Reply:
        """Refuses an unknown key: 401, or 429 after too many.

        Args:
            address: the client's. Only a keyed digest of it is counted.
        """
        digest = blake2b(address.encode(), key=self._salt, digest_size=4).digest()
        count = f"{UNKNOWN_KEY_PREFIX}{int.from_bytes(digest) % UNKNOWN_KEY_BUCKETS}"
        decision = rate_limits.take_tokens(
            self._book, count, UNKNOWN_KEY_LIMIT, 0, self._clock.monotonic()
        )
        self._counters["unknown_keys"] += 1
        if decision.allowed:
            message = (
                "no valid key: send `Authorization: Bearer sk-sg-…`; on Swapproof's machine, "
                "`swapproof key create NAME` makes a key"
            )
            return error_reply(401, message, "invalid_api_key")
        reason = "too many requests came from your address with unknown keys; send a valid one"
        return _refuse_rate(reason, decision.retry_after_s, ())

    def _read_limits(self, key: str, limits: KeyLimits) -> ActiveLimits:
        """Returns the key's limits with this router's part of the rate, and keeps them.

        Rate or budget is None if it limits nothing, so that most requests skip the check.
        """
        if len(self._active_limits) >= KEPT_KEYS:
            self._active_limits.clear()
        rate = limits.rate.part(self._rate_share)
        budget = limits.budget
        active = self._active_limits[key] = (
            limits,
            None if rate == RateLimit() else rate,
            budget if limits.budgeted else None,
        )
        return active

    def _alert(self, key: str, decision: SpendDecision) -> None:
        """Alerts a budget once for each level and period, not once for each request."""
        if self._last_alerts.get(key) == (decision.level, decision.until):
            return
        self._last_alerts[key] = decision.level, decision.until
        kind = AlertKind.KEY_BUDGET
        level = decision.level.name.lower()
        state_text = (
            "is stopped: it spent" if not decision.allowed else "comes near its end: it spent"
        )
        self._send_alert(
            Alert(
                kind,
                subject=f"key {key}",
                # Two alerts: one near the end of the budget, one at its end.
                key=f"{kind.value}:{key}:{decision.until}:{level}",
                title=f"key {key} {state_text} {format_percent(decision.share, 0)} of a budget",
                text=decision.reason,
                at=self._clock.now(),
                source=self._worker,
            )
        )

    def _refuse_spent_key(self, decision: SpendDecision) -> Reply:
        """Refuses a key whose budget is spent, until the next period begins (UTC)."""
        self._counters["budget_stopped"] += 1
        begins = datetime.combine(decision.until or date.max, time(), UTC)
        wait_s = max(1, math.ceil((begins - self._clock.now()).total_seconds()))
        headers = ((b"retry-after", b"%d" % wait_s), DO_NOT_RETRY)
        code = "insufficient_quota"
        return Reply(429, (JSON, *headers), error_body(decision.reason, code, code))


def _read_max_output_tokens(request: ClientRequest) -> int:
    """Returns the largest limit that the client gives for the answer, at most MOST_TOKENS;
    0 without one.
    """
    get = request.members.get
    largest = 0
    for name in MAX_TOKENS:
        allowed = get(name)
        if isinstance(allowed, int) and allowed > largest:
            largest = allowed
    return min(largest, MOST_TOKENS)


def _refuse_rate(
    reason: str,
    wait_s: float,
    headers: tuple[Header, ...],
) -> Reply:
    retry_headers: tuple[Header, ...] = (
        (b"retry-after", b"%d" % max(1, math.ceil(wait_s))),
        (b"retry-after-ms", b"%d" % max(1, math.ceil(wait_s * 1000))),
    )
    body = error_body(reason, "rate_limit_error", "rate_limit_exceeded")
    return Reply(429, (JSON, *retry_headers, *headers), body)


def _build_rate_headers(limits: tuple[LimitStatus, ...]) -> tuple[Header, ...]:
    headers: list[Header] = []
    for kind, per_minute, remaining, reset_s in limits:
        limit_name, remaining_name, reset_name = RATE_HEADERS[kind]
        is_soon = reset_s <= _LONGEST_IN_MS_S
        headers += (
            (limit_name, b"%d" % per_minute),
            (remaining_name, b"%d" % remaining),
            (
                reset_name,
                b"%dms" % math.ceil(reset_s * 1000) if is_soon else _format_duration(reset_s),
            ),
        )
    return tuple(headers)


def _format_duration(seconds: float) -> bytes:
    """Formats longer times as OpenAI does: 6s, 1m30s."""
    minutes, rest_s = divmod(math.ceil(seconds), 60)
    return b"%dm%ds" % (minutes, rest_s) if minutes else b"%ds" % rest_s
