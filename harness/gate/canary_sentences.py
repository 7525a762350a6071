"""The catalogue of a canary's sentences, for command line, API, dashboard, report and alerts.

Each function renders codes and figures; no function reads a sentence. The golden file
`tests/golden/canary_sentences.json` pins each sentence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from harness.frame.failures import ArmFailure, FailureClass
from harness.frame.formatting import (
    format_bps,
    format_estimate,
    format_harm,
    format_number,
    format_span,
)
from harness.gate.online.rollout import CanaryEnd, CanaryEnding, ReasonCode, Rollout
from harness.gate.online.worker_guard import GuardCount

_ENDS: Final[Mapping[CanaryEnd, str]] = {
    CanaryEnd.ABORTED: "aborted",
    CanaryEnd.PROMOTION_ROLLED_BACK: "promotion rolled back",
    CanaryEnd.ROLLED_BACK: "rolled back",
}


def end_words(end: CanaryEnd) -> str:
    """Returns the end's words beside the candidate's name: `promotion rolled back`."""
    return _ENDS[end]


def end_predicate(end: CanaryEnd) -> str:
    """Returns the end as a predicate of the candidate: `was aborted`."""
    verb = "had its" if end is CanaryEnd.PROMOTION_ROLLED_BACK else "was"
    return f"{verb} {_ENDS[end]}"


def end_sentence(end: CanaryEnd, route: str = "") -> str:
    """Describes the end: `canary of chat was aborted`.

    Args:
        route: empty for no route.
    """
    of_route = f" of {route}" if route else ""
    if end is CanaryEnd.PROMOTION_ROLLED_BACK:
        return f"promotion{of_route} was rolled back"
    return f"canary{of_route} was {_ENDS[end]}"


def end_clause(end: CanaryEnd) -> str:
    """Returns the end as a clause after `but`: `its canary was aborted`."""
    return f"its {end_sentence(end)}"


def who_ended(ending: CanaryEnding) -> str:
    """Returns who ended the canary, and why: `by ana: too slow`. Empty if no person did."""
    return f"by {ending.by}: {ending.why}" if ending.by else ""


def end_reason(ending: CanaryEnding) -> str:
    """Describes an end by a person: `aborted by ana: too slow`."""
    return f"{_ENDS[ending.end]} {who_ended(ending)}"


def ended_sentence(rollout: Rollout) -> str:
    """Describes why a canary ended; returns the stored text of a row of an older version."""
    if rollout.decided is not None and rollout.decided.guard is not None:
        return guard_sentence(rollout.decided.guard)
    if rollout.ending is not None and rollout.ending.by:
        return to_sentence(end_reason(rollout.ending))
    return to_sentence(rollout.ended_because) if rollout.ended_because else ""


def to_sentence(text: str) -> str:
    """Makes a reason a sentence: a capital letter, and an end mark."""
    text = f"{text[:1].upper()}{text[1:]}".strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def guard_sentence(count: GuardCount) -> str:
    """Describes the errors that made a worker's guard stop a canary.

    `3 of 8 callers of the candidate got an error (503 overloaded); none of the incumbent's
    did.`
    """
    within = f" within {format_span(count.window_s)}" if count.window_s else ""
    return (
        f"{count.canary_failures:,} of {count.exposures:,} callers of the candidate got an "
        f"error{within} ({_describe_error(count)}); {_describe_incumbent_errors(count)} did."
    )


def guard_details(count: GuardCount) -> str:
    """Describes the evidence of a worker's guard at its decision, for "How it decides"."""
    return (
        "A rule in the router decided without the control plane. Its evidence of harm reached "
        f"e = {format_number(count.e_value)}; it rolls back at {format_number(count.e_limit)}."
    )


def _describe_error(count: GuardCount) -> str:
    error = count.error
    if error is None:
        return "the kind of error is not known"
    if error.callers < count.canary_failures:
        return f"{error.callers:,} of them {error_words(error.failure, error.status)}"
    return error_words(error.failure, error.status)


def error_words(failure: str, status: int | None = None) -> str:
    """Names an error by its status and class: `503 overloaded`.

    Args:
        status: None for no reply.
    """
    words = _ERRORS.get(failure) or failure.replace("_", " ")
    return f"{status} {words}" if status else words


_ERRORS: Final[Mapping[str, str]] = {
    FailureClass.RATE_LIMITED: "rate limited",
    FailureClass.OUR_KEY: "key refused",
    FailureClass.SERVER: "server error",
    FailureClass.CONNECT: "no connection",
    FailureClass.TIMEOUT: "no answer in time",
    FailureClass.MALFORMED: "unreadable answer",
    FailureClass.ABORTED: "answer broken off",
    FailureClass.EMPTY: "empty answer",
    ArmFailure.CIRCUIT_OPEN: "not called, because it had just failed too often",
}


def _describe_incumbent_errors(count: GuardCount) -> str:
    if not count.control_failures:
        return "none of the incumbent's"
    if count.control_exposures is None:
        return f"{count.control_failures:,} of the incumbent's"
    return f"{count.control_failures:,} of {count.control_exposures:,} of the incumbent's"


class FailedCallers(Protocol):
    """The callers and the failed callers of both arms, as in `RolloutFigures`."""

    @property
    def canary_units(self) -> int: ...
    @property
    def canary_failures(self) -> int: ...
    @property
    def control_units(self) -> int: ...
    @property
    def control_failures(self) -> int: ...


@dataclass(frozen=True, slots=True)
class StepFigures:
    """The figures in the sentence of a decision about a step, or about a bake.

    callers: of the candidate that count in this step, of `wanted` callers. lasts_s: seconds
    since the step began. left_s: seconds until the end of the step's time, or of the bake.
    distance: the evidence of harm as a share of the rollback level.
    """

    callers: int
    wanted: int
    weight_bps: int
    lasts_s: float
    left_s: float
    distance: float
    kept_bps: int = 0  # the former incumbent's share during the bake
    certified: bool = False
    # Whether `distance` is of new callers over all days; else it is of the callers of `day`.
    carried: bool = True
    day: int = 1


# `step_sentence` replaces the words in braces.
_REASON_SENTENCES: Final[Mapping[ReasonCode, str]] = {
    ReasonCode.ENDED: "The canary has ended: {more}.",
    ReasonCode.HARM: "The candidate {more}. Evidence of harm: {full}, {whose}.",
    ReasonCode.PAUSED: "Paused: a person resumes or aborts it. {harm}",
    ReasonCode.BAKING: (
        "Promoted: the former incumbent keeps {kept} of the callers as a control for {left} "
        "more. {harm}"
    ),
    ReasonCode.BAKE_OVER: "The bake is over. {harm}",
    ReasonCode.COUNTING: "{counted}{note}, {left} left. {harm}",
    ReasonCode.ENOUGH: "{counted}{note}: enough. {harm}",
    ReasonCode.TOO_FEW: (
        "{counted}{note} when the step's time was up{pace}. Too few callers are no evidence of "
        "health: a person decides."
    ),
    ReasonCode.OPEN: "{more}, {left} left. {harm}",
    ReasonCode.LATE: "{more} when the step's time was up: a person decides. {harm}",
    ReasonCode.PASSED: "The step passed: {callers} callers at {share}, {shown}. {harm}{end}",
}


def step_sentence(code: ReasonCode, figures: StepFigures, more: str = "") -> str:
    """Writes the reason of a decision.

    Args:
        more: depends on the code. HARM: the guardrail's predicate. OPEN, LATE: the condition.
            ENDED: the state. Other codes: a remark about the callers.

    Raises KeyError for a code that is not about a step.
    """
    share = format_bps(figures.weight_bps)
    whose = f"in the callers of day {figures.day} alone"
    if figures.carried:
        whose = "in callers that were new to this canary, over all its days"
    return _REASON_SENTENCES[code].format(
        more=more,
        note=f". {more}" if more else "",
        end=f" {more}." if more else "",
        callers=f"{figures.callers:,}",
        share=share,
        counted=f"{figures.callers:,} of {figures.wanted:,} callers counted at {share}",
        kept=format_bps(figures.kept_bps),
        left=format_span(figures.left_s),
        pace=_pace(figures),
        shown="certified" if figures.certified else "no evidence of harm beyond tolerance",
        harm=f"Evidence of harm: {format_harm(figures.distance)}.",
        full=format_harm(1.0),
        whose=whose,
    )


def _pace(figures: StepFigures) -> str:
    """Estimates how long the wanted callers take at the pace so far; empty without a caller."""
    if not figures.callers:
        return ""
    needed_s = figures.lasts_s * figures.wanted / figures.callers
    return f": at this pace they take {format_estimate(needed_s)}"


class CanaryStateKind(StrEnum):
    """The states that people see. A rollout's stored `RolloutState` is coarser."""

    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"  # ended by a person
    # A person rolled the promotion back, in the bake or later. The code is in stored answers.
    PROMOTION_ROLLED_BACK = "taken_back"
    PROMOTED = "promoted"
    HARM = "harm"  # the evidence asks for a rollback
    PAUSED = "paused"  # until a person acts
    HELD = "held"  # its data cannot be trusted
    SUSPECT = "suspect"  # half of the rollback level
    EMPTY = "empty"  # no caller counted yet
    HEALTHY = "healthy"
    BAKING = "baking"  # promoted, and still compared
    UNCOMPARED = "uncompared"  # promoted and baking, but its control cannot serve
    RUNNING = "running"  # live, but the calling code did not read the evidence


STATE_OF_END: Final[Mapping[CanaryEnd, CanaryStateKind]] = {
    CanaryEnd.ROLLED_BACK: CanaryStateKind.ROLLED_BACK,
    CanaryEnd.ABORTED: CanaryStateKind.ABORTED,
    CanaryEnd.PROMOTION_ROLLED_BACK: CanaryStateKind.PROMOTION_ROLLED_BACK,
}


class StateWords(NamedTuple):
    """A state's words beside a name, its predicate, and its words in a list of routes.

    The texts have placeholders. at: the share. more: further facts about a paused or held
    canary. lead: `canary `; empty after a promotion.
    """

    words: str
    predicate: str
    of_route: str


STATE_WORDS: Final[Mapping[CanaryStateKind, StateWords]] = {
    **{
        kind: StateWords(end_words(end), end_predicate(end), f"{{lead}}{end_words(end)}")
        for end, kind in STATE_OF_END.items()
    },
    CanaryStateKind.PROMOTED: StateWords("promoted", "was promoted", "promoted"),
    CanaryStateKind.BAKING: StateWords(
        "promoted and baking",
        "is promoted and baking",
        "promoted and baking",
    ),
    CanaryStateKind.UNCOMPARED: StateWords(
        "promoted and baking, control gone: nothing is compared",
        "is promoted and baking, but its control is gone and nothing is compared",
        "promoted and baking, but its control is gone and nothing is compared",
    ),
    CanaryStateKind.HARM: StateWords(
        "harm is shown, {at}",
        "harms callers, {at}, and is being rolled back",
        "{lead}harms callers, {at}, and is being rolled back",
    ),
    CanaryStateKind.PAUSED: StateWords(
        "paused {at}{more}", "is paused {at}{more}", "{lead}paused {at}{more}"
    ),
    CanaryStateKind.HELD: StateWords(
        "on hold {at}{more}", "is on hold {at}{more}", "{lead}on hold {at}{more}"
    ),
    CanaryStateKind.SUSPECT: StateWords(
        "may be harming callers, {at}",
        "may be harming callers, {at}",
        "{lead}may be harming callers, {at}",
    ),
    CanaryStateKind.EMPTY: StateWords(
        "no traffic counted yet, {at}",
        "has no traffic counted yet, {at}",
        "{lead}has no traffic counted yet, {at}",
    ),
    CanaryStateKind.HEALTHY: StateWords(
        "no harm so far, {at}",
        "shows no harm so far, {at}",
        "{lead}shows no harm so far, {at}",
    ),
    CanaryStateKind.RUNNING: StateWords(
        "running {at}", "is running {at}", "{lead}running {at}"
    ),
}

HARM_NEXT: Final = "If the data show harm, the incumbent serves all callers again at once."
# The next event, or a person's action.
_AFTER_END: Final = (
    "{incumbent} serves all callers; the candidate needs a new proposal to come back."
)
NEXT_STEPS: Final[Mapping[CanaryStateKind, str]] = {
    **dict.fromkeys(STATE_OF_END.values(), _AFTER_END),
    CanaryStateKind.PROMOTED: "none; the candidate became the route's model.",
    CanaryStateKind.HARM: (
        "it is rolled back within seconds: {incumbent} serves all callers again."
    ),
    CanaryStateKind.PAUSED: (
        f"a person must resume or abort it; until then its share stays at {{share}}.{{few}} "
        f"{HARM_NEXT}"
    ),
    CanaryStateKind.SUSPECT: (
        "at 100 % of the rollback level Swapproof rolls it back at once; abort it now if in "
        "doubt."
    ),
    CanaryStateKind.HELD: f"its share stays at {{share}} until the hold ends. {HARM_NEXT}",
    CanaryStateKind.UNCOMPARED: (
        "`canary finish` ends the bake. Until {incumbent} answers again, harm is not detected, "
        "and a rollback to it helps no caller."
    ),
}


def failed_callers(figures: FailedCallers) -> str:
    """Writes both arms' failed callers: `3 of 8 callers of the candidate, 0 of 24 of …`."""
    if not figures.canary_units and not figures.control_units:
        return "no caller is counted yet"
    return (
        f"{figures.canary_failures:,} of {figures.canary_units:,} callers of the candidate, "
        f"{figures.control_failures:,} of {figures.control_units:,} of the incumbent"
    )
