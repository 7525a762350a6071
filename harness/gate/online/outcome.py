"""An exposure ends in exactly one outcome, and `READINGS` tells each guardrail how to read it
(statistics.md §2.2).

The type is closed: a request that the router assigned to an arm of a rollout was answered, or
failed, or ended in one of the other kinds of `OutcomeKind`. An outcome that the router does not
know is `NOT_MEASURED`, never a success. In each arm, the outcomes sum to the requests assigned.

`READINGS` has one row per guardrail and one column per kind. A guardrail that reads an
exposure's outcome as unknown leaves the exposure out, in both arms alike.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum, StrEnum
from typing import Any, Final, NamedTuple, Self

from harness.gate.online.guardrails import Guardrail


class OutcomeKind(StrEnum):
    """How an assigned request ended. The values are stored in blocks."""

    ANSWERED = "answered"  # the arm's own target answered; a refusal in words is an answer
    FAILED = "failed"  # the arm's own target failed, even if another target answered
    REFUSED = "refused"  # a final 400, 413, 415 or 422 about the request itself
    CUT = "cut"  # the provider's stream broke off after output
    STOPPED = "stopped"  # the caller ended a stream while output flowed
    LEFT = "left"  # the caller ended the request in any other way, or its deadline did
    LIMITED = "limited"  # the provider's rate limit or quota refused a request that was sent
    NOT_SENT = (
        "not_sent"  # a pause, a limit or an open circuit kept the request from its target
    )
    NOT_MEASURED = "not_measured"  # the arm's own target was not measured


class OutcomeReason(StrEnum):
    """Why an outcome has its kind; the second half of `ExposureOutcome.key`."""

    # Of LEFT: whether new output took longer than the limit of `WaitLimits`, and whether the
    # caller or the caller's own deadline ended the request.
    WAITED = "waited"
    EARLY = "early"
    DEADLINE_WAITED = "deadline_waited"
    DEADLINE_EARLY = "deadline_early"
    # Of FAILED, REFUSED and CUT: the values of `FaultOwner`.
    PROVIDER = "provider"
    OURS = "ours"
    REGION = "region"
    ENDPOINT = "endpoint"
    CLIENT = "client"
    ROUTER = "router"
    # Of FAILED: the name of UNSUPPORTED in older blocks.
    UNABLE = "unable"
    # Of FAILED: the client of a feature flag reported a bad outcome.
    FEEDBACK = "feedback"
    # Of LIMITED.
    RATE = "rate"
    QUOTA = "quota"
    # Of NOT_SENT.
    PAUSE = "pause"  # the provider requested a pause
    LIMIT = "limit"  # the circuit is open because of a quota
    CIRCUIT_RACE = "circuit_race"  # the circuit or a pause closed the way after the plan
    # Of NOT_MEASURED.
    GATEWAY_FALLBACK = "gateway_fallback"  # a gateway marks the answer as its fallback's
    ROUTER_FAULT = "router_fault"  # the router's own fault; or the request was never served
    FOREIGN_STATE = "foreign_state"  # the request refers to another provider's state
    # The arm's own target lacks an ability that the request needs, and another target has it.
    UNSUPPORTED = "unsupported"
    OTHER_TARGET = "other_target"  # the plan or a switch left the arm's own target out
    OTHER_HELD = "other_held"  # a pause or a limit kept requests from the other arm's target
    LATE = "late"  # the exposure's row arrived after its block was sealed, or was lost
    MISSING = "missing"  # no outcome arrived in time


class ExposureOutcome(NamedTuple):
    """One exposure's outcome, as processes exchange it.

    name: class and cause of a failure (`name_failure`); empty if there was none.
    waited_s: of LEFT and STOPPED, seconds without new output before the end: since the last
    output, or since the request came if there was no output.
    sent: output had reached the caller.
    first_s: seconds to the first output; None if there was none, or it was not measured.
    gap_s: longest time between two outputs of a stream, in seconds.
    """

    kind: OutcomeKind
    reason: OutcomeReason | None = None
    name: str = ""
    waited_s: float = 0.0
    sent: bool = False
    first_s: float | None = None
    gap_s: float = 0.0

    @property
    def plain(self) -> tuple[object, ...]:
        """Returns the values for JSON, which `from_plain` reads."""
        kind, reason, *others = self
        return (kind, reason or "", *others)

    @classmethod
    def from_plain(cls, plain: Sequence[Any]) -> Self:
        """Reads the values of `plain`. Raises ValueError for an unknown kind or reason."""
        kind, reason, name, waited_s, sent, first_s, gap_s = plain
        return cls(
            OutcomeKind(kind),
            OutcomeReason(reason) if reason else None,
            name,
            waited_s,
            sent,
            first_s,
            gap_s,
        )

    @property
    def key(self) -> str:
        """Names kind and reason, as blocks count outcomes: `failed: provider`."""
        return outcome_key(self.kind, self.reason)


def outcome_key(kind: OutcomeKind, reason: OutcomeReason | None = None) -> str:
    """Joins kind and reason to the key under which blocks count an outcome."""
    return f"{kind.value}{_SEPARATOR}{reason.value}" if reason else kind.value


def split_key(key: str) -> tuple[OutcomeKind, OutcomeReason | None]:
    """Splits a key of `outcome_key`. Raises ValueError for an unknown kind or reason."""
    kind, _, reason = key.partition(_SEPARATOR)
    return OutcomeKind(kind), OutcomeReason(reason) if reason else None


_SEPARATOR: Final = ": "
ANSWERED: Final = ExposureOutcome(OutcomeKind.ANSWERED)
LATE: Final = ExposureOutcome(OutcomeKind.NOT_MEASURED, OutcomeReason.LATE)
MISSING: Final = ExposureOutcome(OutcomeKind.NOT_MEASURED, OutcomeReason.MISSING)
ROUTER_FAULT: Final = ExposureOutcome(OutcomeKind.NOT_MEASURED, OutcomeReason.ROUTER_FAULT)


class JudgeOutcome(IntEnum):
    """A judged answer's outcome, as routers store it.

    NO_VERDICT: the judge failed, was late or wrote something else. Blocks count these exposures
    separately, so that a silent judge is not evidence against an arm.
    """

    GOOD = 0
    BAD = 1
    NO_VERDICT = 2


class Reading(StrEnum):
    """What an outcome tells a guardrail about its exposure."""

    GOOD = "good"  # the exposure counts, and did not fail; or its answer's value counts
    BAD = "bad"  # the exposure counts, and failed; its value is worse than any other
    CENSORED = "censored"  # the exposure's value is at least the value that was measured
    UNKNOWN = "unknown"  # the guardrail leaves the exposure out, in both arms alike


_GOOD, _BAD, _CENSORED, _UNKNOWN = Reading

# The kinds of one row below, in this order.
_KINDS: Final = (
    OutcomeKind.ANSWERED,
    OutcomeKind.FAILED,
    OutcomeKind.REFUSED,
    OutcomeKind.CUT,
    OutcomeKind.STOPPED,
    OutcomeKind.LEFT,
    OutcomeKind.LIMITED,
    OutcomeKind.NOT_SENT,
    OutcomeKind.NOT_MEASURED,
)
# For guardrails that read the answer, which only an answered request has.
_OF_ANSWERS: Final = (_GOOD, *(_UNKNOWN,) * 8)
_OF_LENGTH: Final = (
    _GOOD,
    _UNKNOWN,
    _UNKNOWN,
    _CENSORED,
    _CENSORED,
    _CENSORED,
    _UNKNOWN,
    _UNKNOWN,
    _UNKNOWN,
)
# A caller who leaves shows no failure: the exposure stays in both arms, and did not fail.
_OF_ERRORS: Final = (
    _GOOD,
    _BAD,
    _GOOD,
    _BAD,
    _GOOD,
    _GOOD,
    _UNKNOWN,
    _UNKNOWN,
    _UNKNOWN,
)
_ROWS: Final[Mapping[Guardrail, tuple[Reading, ...]]] = {
    Guardrail.ERRORS: _OF_ERRORS,
    Guardrail.LATENCY: (
        _GOOD,
        _BAD,
        _UNKNOWN,
        _BAD,
        _CENSORED,
        _CENSORED,
        _UNKNOWN,
        _UNKNOWN,
        _UNKNOWN,
    ),
    Guardrail.TIME_TO_FIRST_TOKEN: (
        _GOOD,
        _BAD,
        _UNKNOWN,
        _GOOD,
        _GOOD,
        _CENSORED,
        _UNKNOWN,
        _UNKNOWN,
        _UNKNOWN,
    ),
    Guardrail.INTER_TOKEN_LATENCY: (
        _GOOD,
        _BAD,
        _UNKNOWN,
        _BAD,
        _GOOD,
        _CENSORED,
        _UNKNOWN,
        _UNKNOWN,
        _UNKNOWN,
    ),
    Guardrail.OUTPUT_TOKENS: _OF_LENGTH,
    Guardrail.TRUNCATION: _OF_ANSWERS,
    # A provider's policy refuses with an error: the answer's signals tell, as for an answer.
    Guardrail.REFUSALS: (_GOOD, _UNKNOWN, _GOOD, *(_UNKNOWN,) * 6),
    Guardrail.JSON_VALIDITY: _OF_ANSWERS,
    Guardrail.TOOL_VALIDITY: _OF_ANSWERS,
    # A failed request ranks worst: the guardrail compares the cost of a success.
    Guardrail.COST_PER_SUCCESS: (
        _GOOD,
        _BAD,
        _UNKNOWN,
        _CENSORED,
        _CENSORED,
        _CENSORED,
        _UNKNOWN,
        _UNKNOWN,
        _UNKNOWN,
    ),
    # The callers of these requests may like or dislike what they got.
    Guardrail.FEEDBACK: (
        _GOOD,
        _GOOD,
        _UNKNOWN,
        _GOOD,
        _GOOD,
        _UNKNOWN,
        _UNKNOWN,
        _UNKNOWN,
        _UNKNOWN,
    ),
    Guardrail.JUDGE: _OF_ANSWERS,
    # A caller who left before the time limit does not count as BAD, see `read`.
    Guardrail.LEAVING: (
        _GOOD,
        _GOOD,
        _GOOD,
        _GOOD,
        _GOOD,
        _BAD,
        _UNKNOWN,
        _UNKNOWN,
        _UNKNOWN,
    ),
    Guardrail.LIMITS: (
        _GOOD,
        _GOOD,
        _GOOD,
        _GOOD,
        _GOOD,
        _GOOD,
        _BAD,
        _UNKNOWN,
        _UNKNOWN,
    ),
    Guardrail.REPEATS: _OF_ANSWERS,
    Guardrail.CALLER_ERRORS: _OF_ERRORS,
}
READINGS: Final[Mapping[Guardrail, Mapping[OutcomeKind, Reading]]] = {
    guardrail: dict(zip(_KINDS, row, strict=True)) for guardrail, row in _ROWS.items()
}

_WAITED: Final = frozenset({OutcomeReason.WAITED, OutcomeReason.DEADLINE_WAITED})
_FIRST_OUTPUT_GUARDRAILS: Final = frozenset({Guardrail.TIME_TO_FIRST_TOKEN})


def read(guardrail: Guardrail, outcome: ExposureOutcome) -> Reading:
    """Reads a settled outcome for one guardrail.

    A row of `READINGS` decides, with three exceptions. A missing outcome counts as a failure
    here; `ObservationBlock.set_missing` then counts it for and against the canary. A caller who
    left within the time limit is GOOD for the guardrail of leaving. The time to the first
    output is known if output reached a caller who left.
    """
    if outcome.reason is OutcomeReason.MISSING:
        return Reading.BAD
    reading = READINGS[guardrail][outcome.kind]
    if outcome.kind is OutcomeKind.LEFT:
        if guardrail is Guardrail.LEAVING and outcome.reason not in _WAITED:
            return Reading.GOOD
        if guardrail in _FIRST_OUTPUT_GUARDRAILS and outcome.sent:
            return Reading.GOOD
    return reading


# Guardrails whose exposures depend on how the request ended. In a small block, the arms'
# exposures then do not have the planned shares.
BY_OUTCOME: Final = frozenset(
    guardrail
    for guardrail, row in READINGS.items()
    if row[OutcomeKind.FAILED] is Reading.UNKNOWN or row[OutcomeKind.LEFT] is Reading.UNKNOWN
)


class WaitLimits(NamedTuple):
    """How long a caller waits before leaving counts as harm, in seconds; 0 if unknown.

    The limits are equal for both arms and come from the control's earlier answers
    (statistics.md §2.1). first_s, stream_first_s: for the first output, of a plain request and
    of a stream. gap_s: between two outputs of a stream.
    """

    first_s: float = 0.0
    stream_first_s: float = 0.0
    gap_s: float = 0.0


UNKNOWN_LIMITS: Final = WaitLimits()


def settle_departure(
    outcome: ExposureOutcome,
    limits: WaitLimits,
    *,
    streamed: bool,
) -> ExposureOutcome:
    """Decides whether a caller stopped a stream, left early, or left after a long wait.

    Returns every other outcome unchanged.

    Args:
        streamed: whether the request asked for a stream.

    While a limit is unknown, no departure counts as waiting.
    """
    if outcome.kind is not OutcomeKind.LEFT:
        return outcome
    limit_s = limits.first_s
    if outcome.sent:
        limit_s = limits.gap_s
    elif streamed:
        limit_s = limits.stream_first_s
    waited = 0.0 < limit_s < outcome.waited_s
    if outcome.reason in _DEADLINES:
        reason = OutcomeReason.DEADLINE_WAITED if waited else OutcomeReason.DEADLINE_EARLY
        return outcome._replace(reason=reason)
    if outcome.sent and not waited:
        return outcome._replace(kind=OutcomeKind.STOPPED, reason=None)
    return outcome._replace(reason=OutcomeReason.WAITED if waited else OutcomeReason.EARLY)


_DEADLINES: Final = frozenset({OutcomeReason.DEADLINE_WAITED, OutcomeReason.DEADLINE_EARLY})


OUTCOME_NAMES: Final[Mapping[OutcomeKind, str]] = {
    OutcomeKind.ANSWERED: "Answered",
    OutcomeKind.FAILED: "Failed",
    OutcomeKind.REFUSED: "Refused the request",
    OutcomeKind.CUT: "Cut off by the provider",
    OutcomeKind.STOPPED: "Stopped by the caller",
    OutcomeKind.LEFT: "Caller left",
    OutcomeKind.LIMITED: "Limited by the provider",
    OutcomeKind.NOT_SENT: "Not sent",
    OutcomeKind.NOT_MEASURED: "Not measured",
}
REASON_WORDS: Final[Mapping[OutcomeReason, str]] = {
    OutcomeReason.WAITED: "after a long wait without output",
    OutcomeReason.EARLY: "before the wait was long",
    OutcomeReason.DEADLINE_WAITED: "at its own deadline, after a long wait without output",
    OutcomeReason.DEADLINE_EARLY: "at its own deadline, before the wait was long",
    OutcomeReason.PROVIDER: "the provider's fault",
    OutcomeReason.OURS: "our key, account or configuration",
    OutcomeReason.REGION: "the provider does not serve the region",
    OutcomeReason.ENDPOINT: "the target lacks the endpoint",
    OutcomeReason.CLIENT: "the request itself",
    OutcomeReason.ROUTER: "a fault of the router's code for this target",
    OutcomeReason.UNABLE: "the model lacks an ability that the request needs",
    OutcomeReason.FEEDBACK: "the client of a flag reported a bad outcome",
    OutcomeReason.RATE: "rate limit",
    OutcomeReason.QUOTA: "quota",
    OutcomeReason.PAUSE: "the provider requested a pause",
    OutcomeReason.LIMIT: "the quota is used up",
    OutcomeReason.CIRCUIT_RACE: "the circuit opened after the plan",
    OutcomeReason.GATEWAY_FALLBACK: "a gateway marks the answer as its fallback's",
    OutcomeReason.ROUTER_FAULT: "the router's own fault",
    OutcomeReason.FOREIGN_STATE: "the request refers to another provider's state",
    OutcomeReason.UNSUPPORTED: "the model lacks an ability that the request needs",
    OutcomeReason.OTHER_TARGET: "another target answered in its place",
    OutcomeReason.OTHER_HELD: "the other model was not called, by a pause or a limit",
    OutcomeReason.LATE: "the router reported the request too late, or never",
    OutcomeReason.MISSING: "no outcome arrived in time",
}


def outcome_name(key: str) -> str:
    """Writes the name of a block's key for people; an unknown key stands for itself."""
    try:
        kind, reason = split_key(key)
    except ValueError:
        return key
    name = OUTCOME_NAMES[kind]
    return f"{name}: {REASON_WORDS[reason]}" if reason else name
