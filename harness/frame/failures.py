"""Classes of provider failures, the router's reaction to each (`FAILURE_RULES`), and how long
evals wait before they try again.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from harness.frame.errors import AWAY


class FailureClass(StrEnum):
    RATE_LIMITED = "rate_limited"  # 429 with a limit
    QUOTA = "quota"  # 402, 403, 429 insufficient_quota: our account has no quota left
    OUR_KEY = "our_key"  # 401: the provider refuses our key
    BLOCKED = "blocked"  # 401, 403 without the provider's error: the page of a firewall
    REGION = "region"  # the provider does not serve the region of the request
    OVERLOADED = "overloaded"  # 503, 529
    SERVER = "server"  # 500, 502, 504, HTML of a gateway
    CONNECT = "connect"  # DNS, refused, TLS, reset
    TIMEOUT = "timeout"  # connect, first token, between chunks, total
    MALFORMED = "malformed"  # 200 with a body that does not follow the protocol
    ABORTED = "aborted"  # 424, or 200 with an error finish reason: the provider gave up
    EMPTY = "empty"  # 200, a normal finish reason, but no text, tool call or refusal
    BAD_REQUEST = "bad_request"  # 400, 415, 422
    UNSUPPORTED = "unsupported"  # a field, a value or a limit that another target may take
    # The request names an item, file or signature of another provider, or a deleted one.
    FOREIGN_STATE = "foreign_state"
    ENDPOINT_MISSING = "endpoint_missing"  # 404, 405, 501: the target lacks this endpoint
    MODEL_UNKNOWN = "model_unknown"  # the provider does not know the target's model
    CONTEXT_WINDOW = "context_window"  # 400: the request is too long for the model
    CONTENT_POLICY = "content_policy"  # 400 or 403: the provider's policy forbids the content
    CANCELLED = "cancelled"  # the client left
    INTERNAL = "internal"  # a fault of the router's code for this target's call


class ArmFailure(StrEnum):
    CIRCUIT_OPEN = "circuit_open"  # the router skipped the arm: its circuit breaker was open
    NO_KEY = "no_key"  # the router skipped the arm: its provider has no key
    DATA_CLASS = "data_class"  # the arm's provider may not see the route's class of data
    UNABLE = "unable"  # the model lacks an ability that the request needs; the incumbent has it
    MISSING = "missing"  # no outcome came in time
    BAD_FEEDBACK = "bad_feedback"  # the client of a flag reported a bad outcome


ErrorClass = FailureClass | ArmFailure

# The greatest number of distinct causes in one count of failures.
MAX_CAUSES: Final = 8

# Separates a failure class from its cause: the provider's status, code and place.
_CAUSE_MARK: Final = ": "


def name_failure(failure: ErrorClass, cause: str) -> str:
    """Names a failure by class and cause, if known: `bad_request: 400 at tools[2]`."""
    return f"{failure.value}{_CAUSE_MARK}{cause}" if cause else failure.value


def class_of(name: str) -> str:
    """Returns the class of a failure that `name_failure` named."""
    return name.partition(_CAUSE_MARK)[0]


def keep_common_causes(names: Sequence[str]) -> Sequence[str]:
    """Keeps the most frequent causes, and removes all other causes from the names."""
    causes = Counter(name for name in names if _CAUSE_MARK in name).most_common(MAX_CAUSES)
    common_names = {name for name, _ in causes}
    return [name if name in common_names else class_of(name) for name in names]


def describe_failures(failures: Mapping[str, int]) -> str:
    """Lists failures, the most frequent first: `9 timeout, 3 bad request: 400 at tools[2]`."""
    by_frequency = sorted(failures.items(), key=lambda failure: (-failure[1], failure[0]))
    return ", ".join(f"{n:,} {_format_failure(name)}" for name, n in by_frequency if n)


def _format_failure(name: str) -> str:
    failure, mark, cause = name.partition(_CAUSE_MARK)
    return f"{failure.replace('_', ' ')}{mark}{cause}"


class Reach(StrEnum):
    """How far a failure reaches: which other requests would meet it. The router remembers a
    failure only for these requests.
    """

    # Only this request: its size, or its combination of fields. The circuit counts such a
    # failure only if several callers meet it in a row, and no request succeeds in between.
    REQUEST = "request"
    # This endpoint of the target, unless the target has answered at this endpoint before.
    ENDPOINT = "endpoint"
    KEY_AND_MODEL = "key_and_model"  # our key, for this model
    KEY = "key"  # our key, for all models
    ACCOUNT = "account"  # every request that our key's account pays for
    TARGET = "target"

    @property
    def is_of_key(self) -> bool:
        """Whether another key of the provider may succeed: it may be another account's."""
        return self in _OF_KEYS

    @property
    def is_of_account(self) -> bool:
        """Whether requests for all models of the provider meet the failure."""
        return self in _OF_ACCOUNT


_OF_KEYS: Final = frozenset({Reach.KEY_AND_MODEL, Reach.KEY, Reach.ACCOUNT})
_OF_ACCOUNT: Final = frozenset({Reach.KEY, Reach.ACCOUNT})


class FaultOwner(StrEnum):
    CLIENT = "client"  # the client's request
    ENDPOINT = "endpoint"  # only this endpoint of this target
    OURS = "ours"  # our key, our account, or the model's name in our configuration
    REGION = "region"
    PROVIDER = "provider"
    ROUTER = "router"


class SameTarget(StrEnum):
    NEVER = "never"
    ONCE = "once"  # one more attempt, immediately
    BACKOFF = "backoff"  # after a pause that grows, with jitter
    RETRY_AFTER = "retry_after"  # after the provider's `Retry-After`, else like BACKOFF


class NextTarget(StrEnum):
    YES = "yes"
    NO = "no"
    LARGER_WINDOW = "larger_window"  # only a target with a larger context window
    IF_ROUTE_SAYS = "if_route_says"  # only if the route has `on_content_policy: fallback`


class BreakerEffect(StrEnum):
    NEUTRAL = "neutral"  # does not count: it shows nothing about the target's health
    FAILURE = "failure"  # counts as a failure
    OPENS = "opens"  # opens the breaker: the next request would fail as well


@dataclass(frozen=True, slots=True)
class FailureRule:
    """Holds one row of the table in docs/reference/router.md, "Whose fault it was"."""

    fault: FaultOwner
    same_target: SameTarget
    next_target: NextTarget
    breaker: BreakerEffect
    reach: Reach  # by default; a refusal's status, code or words may say otherwise
    alerts: bool = False  # a person must act: one alert, not one per request

    @property
    def needs_larger_window(self) -> bool:
        return self.next_target is NextTarget.LARGER_WINDOW


_F = FailureClass
_S = SameTarget
_N = NextTarget
_B = BreakerEffect
_W = FaultOwner
_R = Reach

FAILURE_RULES: Final[Mapping[FailureClass, FailureRule]] = {
    _F.RATE_LIMITED: FailureRule(_W.OURS, _S.RETRY_AFTER, _N.YES, _B.NEUTRAL, _R.KEY_AND_MODEL),
    _F.QUOTA: FailureRule(_W.OURS, _S.NEVER, _N.YES, _B.OPENS, _R.ACCOUNT, alerts=True),
    _F.OUR_KEY: FailureRule(_W.OURS, _S.NEVER, _N.YES, _B.OPENS, _R.KEY, alerts=True),
    _F.BLOCKED: FailureRule(_W.PROVIDER, _S.NEVER, _N.YES, _B.OPENS, _R.REQUEST),
    _F.REGION: FailureRule(_W.REGION, _S.NEVER, _N.YES, _B.OPENS, _R.TARGET),
    _F.OVERLOADED: FailureRule(_W.PROVIDER, _S.BACKOFF, _N.YES, _B.FAILURE, _R.TARGET),
    _F.SERVER: FailureRule(_W.PROVIDER, _S.ONCE, _N.YES, _B.FAILURE, _R.TARGET),
    _F.CONNECT: FailureRule(_W.PROVIDER, _S.ONCE, _N.YES, _B.FAILURE, _R.TARGET),
    _F.TIMEOUT: FailureRule(_W.PROVIDER, _S.NEVER, _N.YES, _B.FAILURE, _R.TARGET),
    _F.MALFORMED: FailureRule(_W.PROVIDER, _S.NEVER, _N.YES, _B.FAILURE, _R.ENDPOINT),
    _F.ABORTED: FailureRule(_W.PROVIDER, _S.ONCE, _N.YES, _B.FAILURE, _R.REQUEST),
    _F.EMPTY: FailureRule(_W.PROVIDER, _S.NEVER, _N.YES, _B.FAILURE, _R.TARGET),
    _F.BAD_REQUEST: FailureRule(_W.CLIENT, _S.NEVER, _N.NO, _B.NEUTRAL, _R.REQUEST),
    _F.UNSUPPORTED: FailureRule(_W.CLIENT, _S.NEVER, _N.YES, _B.NEUTRAL, _R.REQUEST),
    _F.FOREIGN_STATE: FailureRule(_W.CLIENT, _S.NEVER, _N.NO, _B.NEUTRAL, _R.REQUEST),
    _F.ENDPOINT_MISSING: FailureRule(_W.ENDPOINT, _S.NEVER, _N.YES, _B.NEUTRAL, _R.ENDPOINT),
    _F.MODEL_UNKNOWN: FailureRule(
        _W.OURS, _S.NEVER, _N.YES, _B.OPENS, _R.ENDPOINT, alerts=True
    ),
    _F.CONTEXT_WINDOW: FailureRule(
        _W.CLIENT, _S.NEVER, _N.LARGER_WINDOW, _B.NEUTRAL, _R.REQUEST
    ),
    _F.CONTENT_POLICY: FailureRule(
        _W.CLIENT, _S.NEVER, _N.IF_ROUTE_SAYS, _B.NEUTRAL, _R.REQUEST
    ),
    _F.CANCELLED: FailureRule(_W.CLIENT, _S.NEVER, _N.NO, _B.NEUTRAL, _R.REQUEST),
    _F.INTERNAL: FailureRule(_W.ROUTER, _S.NEVER, _N.YES, _B.NEUTRAL, _R.REQUEST),
}

# The request or its endpoint caused these failures, not the target. If no other target accepts
# the request, the client gets the provider's error. If a candidate refuses a request, the
# router sends it once to the incumbent, which may accept it.
CLIENT_FAILURES: Final = frozenset(
    failure
    for failure, rule in FAILURE_RULES.items()
    if rule.fault in (FaultOwner.CLIENT, FaultOwner.ENDPOINT) and failure is not _F.CANCELLED
)

# These failures pass by themselves, so the same request may succeed later. The client gets the
# provider's status and its `Retry-After`.
PASSING: Final = frozenset({_F.RATE_LIMITED, _F.OVERLOADED})

# For these failures the client gets the provider's error.
PASSED_ON: Final = CLIENT_FAILURES | {_F.BLOCKED}

# These failures count against neither arm, because neither arm's model caused them.
UNCHARGED: Final = frozenset({_F.FOREIGN_STATE, _F.CANCELLED})

_A = ArmFailure

FAILURE_WORDS: Final[Mapping[ErrorClass, str]] = {
    _F.RATE_LIMITED: "the provider's rate limit",
    _F.QUOTA: "our account's quota at the provider is used up",
    _F.OUR_KEY: "the provider refuses our key",
    _F.BLOCKED: "a system in front of the provider refused the request",
    _F.REGION: "the provider does not serve this region",
    _F.OVERLOADED: "the provider is overloaded",
    _F.SERVER: "a server error of the provider",
    _F.CONNECT: "no connection to the provider",
    _F.TIMEOUT: "no answer in time",
    _F.MALFORMED: "the answer could not be read",
    _F.ABORTED: "the provider gave up in its answer",
    _F.EMPTY: "the answer was empty",
    _F.BAD_REQUEST: "the provider rejected the request",
    _F.UNSUPPORTED: "the target does not take a field or a value of the request",
    _F.FOREIGN_STATE: "the request refers to something that the provider does not have",
    _F.ENDPOINT_MISSING: "the target does not serve this endpoint",
    _F.MODEL_UNKNOWN: "the provider does not know the model",
    _F.CONTEXT_WINDOW: "the request is too long for the model",
    _F.CONTENT_POLICY: "the provider's content policy",
    _F.CANCELLED: "the client left",
    _F.INTERNAL: "a fault of the router",
    _A.CIRCUIT_OPEN: "its circuit was open: it had failed too often just before",
    _A.NO_KEY: "its provider has no key",
    _A.DATA_CLASS: "its provider may not see the route's class of data",
    _A.UNABLE: "the model cannot do what the request needs",
    _A.MISSING: "no outcome came in time",
}


def failure_words(failure: str) -> str:
    words_by_value = {
        str(failure_class.value): words for failure_class, words in FAILURE_WORDS.items()
    }
    return words_by_value.get(failure, failure.replace("_", " "))


FIRST_PAUSE_S: Final = 10.0
LONGEST_PAUSE_S: Final = 900.0
DEFAULT_PATIENCE_S: Final = 86_400.0

# Pauses before Swapproof repeats a comparison that failed although its providers answered, for
# example after a refused key or a dead worker. Few such failures end by themselves, and each
# attempt costs money.
RETRY_PAUSES_S: Final = (FIRST_PAUSE_S, 60.0, 600.0)


def next_pause_s(waited_s: float) -> float:
    """Returns a pause as long as the wait until now, so the total wait doubles each time."""
    return max(FIRST_PAUSE_S, waited_s)


def next_try(since: datetime, now: datetime) -> datetime:
    """Returns when to call an unavailable provider again, at most 15 minutes from now."""
    pause_s = min(LONGEST_PAUSE_S, next_pause_s((now - since).total_seconds()))
    return now + timedelta(seconds=pause_s)


def describe_absence(
    absence_text: str,
    since: datetime,
    now: datetime,
) -> str:
    """Returns `gemma since 19:37 UTC: connection refused`.

    Args:
        absence_text: the text of a ProviderAway.
    """
    provider, _, reason = absence_text.partition(AWAY)
    reason = reason.removeprefix("the call failed: ").replace(
        "ConnectionRefusedError", "connection refused"
    )
    day = "" if since.date() == now.date() else "%Y-%m-%d "
    return f"{provider} since {since:{day}%H:%M} UTC: {reason}"
