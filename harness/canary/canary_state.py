"""Describes a canary's state, the effect of a person's action on it, and a change of its route.

States that need a person take precedence: an end, harm, a pause, a hold; then no harm. The API,
the command line and the dashboard show these texts, so they describe a canary alike.

Pure: the caller passes the rollout, its holds and its evidence. `harness.canary.status` reads
them from the store; `harness.canary.decision` decides, and never reads a text from here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.frame.formatting import format_bps, format_count
from harness.frame.people.access import SYSTEM
from harness.gate.canary_sentences import (
    HARM_NEXT,
    NEXT_STEPS,
    STATE_OF_END,
    STATE_WORDS,
    CanaryStateKind,
    StateWords,
    end_reason,
    end_words,
    ended_sentence,
    to_sentence,
    who_ended,
)
from harness.gate.explain import RolloutExplanation
from harness.gate.guardrail_rows import HALF_DISTANCE
from harness.gate.online.rollout import (
    CanaryEnd,
    CanaryEnding,
    Rollout,
    RolloutSignal,
    RolloutState,
)
from harness.gate.online.rollout_action import RolloutAction
from harness.gate.ramp import EstimateState
from harness.routing.table import RouteRecord

AFTER_PROMOTION: Final = "after its promotion"


_AFTER_PROMOTION: Final = frozenset(
    {
        CanaryStateKind.BAKING,
        CanaryStateKind.UNCOMPARED,
        CanaryStateKind.PROMOTED,
        CanaryStateKind.PROMOTION_ROLLED_BACK,
    }
)


@dataclass(frozen=True, slots=True)
class CanaryState:
    """A canary's state in words, ready to be shown.

    `reason` has whole sentences, or is empty. `next_step` names the next event, or a person's
    action.
    """

    kind: CanaryStateKind
    words: str  # `on hold at 5 %`
    predicate: str  # after the candidate's name: `is on hold at 5 %`
    reason: str
    next_step: str = ""
    of_route: str = ""  # for a list of routes: `canary on hold at 5 %`
    ended_by: str = ""  # `by ana: too slow`; empty if no person ended it


def describe_canary_state(  # noqa: PLR0913 - by name, and most have a default
    rollout: Rollout,
    holds: Sequence[str],
    action: RolloutAction | None = None,
    explanation: RolloutExplanation | None = None,
    *,
    pause_reason: str = "",
    incumbent: str = "the model before it",
    later_end: CanaryEnding | None = None,
    no_way_back: str = "",
) -> CanaryState:
    """Describes the state of a rollout, live or ended.

    Args:
        holds: reasons that block the rollout.
        action: from its evidence; None if the calling code did not read the evidence.
        explanation: from its evidence; None if the calling code did not read the evidence.
        pause_reason: empty if it is not paused.
        incumbent: the incumbent's name.
        later_end: how a person rolled the promotion back after the bake; else None.
        no_way_back: why the former incumbent cannot serve; empty if it can, or if that is
            unknown.
    """
    kind = STATE_OF_END[later_end.end] if later_end else _choose_kind(rollout, holds, action)
    if no_way_back and rollout.baking and kind is not CanaryStateKind.HARM:
        kind = CanaryStateKind.UNCOMPARED
    words = _fill_words(
        kind,
        rollout,
        held=bool(holds),
        action=action,
    )
    ending = later_end or rollout.ending
    if later_end is not None:
        reason = to_sentence(end_reason(later_end))
    elif kind is CanaryStateKind.UNCOMPARED:
        reason = to_sentence(no_way_back)
    else:
        reason = _explain_state(kind, rollout, holds, action, pause_reason)
    return CanaryState(
        kind=kind,
        words=words.words,
        predicate=words.predicate,
        of_route=words.of_route,
        reason=reason,
        next_step=_describe_next_step(kind, rollout, explanation, incumbent),
        ended_by=who_ended(ending) if ending else "",
    )


def _choose_kind(
    rollout: Rollout,
    holds: Sequence[str],
    action: RolloutAction | None,
) -> CanaryStateKind:
    """Chooses the first state that applies, in the order of the module's description.

    A healthy state needs evidence: without an action the kind is RUNNING, and without a block
    EMPTY.
    """
    if not rollout.live and not rollout.baking:
        return STATE_OF_END[rollout.end] if rollout.end else CanaryStateKind.PROMOTED
    if action is not None and action.signal is RolloutSignal.HARM:
        return CanaryStateKind.HARM
    if rollout.state is RolloutState.PAUSED:
        return CanaryStateKind.PAUSED
    if holds:
        return CanaryStateKind.HELD
    if action is not None and action.distance_to_trip >= HALF_DISTANCE:
        return CanaryStateKind.SUSPECT
    return _quiet_kind(rollout, action)


def _quiet_kind(rollout: Rollout, action: RolloutAction | None) -> CanaryStateKind:
    """Chooses among the states that need no person."""
    if rollout.baking:
        return CanaryStateKind.BAKING
    if action is None:
        return CanaryStateKind.RUNNING
    return CanaryStateKind.HEALTHY if action.figures.blocks else CanaryStateKind.EMPTY


def _fill_words(
    kind: CanaryStateKind,
    rollout: Rollout,
    *,
    held: bool,
    action: RolloutAction | None,
) -> StateWords:
    """Returns the state's words, with its share.

    Args:
        held: whether a reason to hold exists, also during a pause.
    """
    at = AFTER_PROMOTION if rollout.baking else f"at {format_bps(rollout.current.weight_bps)}"
    more = ", and on hold" if held and kind is CanaryStateKind.PAUSED else ""
    if action is not None and action.distance_to_trip >= HALF_DISTANCE:
        more += ", and may be harming callers"
    lead = "" if rollout.baking or kind in _AFTER_PROMOTION else "canary "
    return StateWords(*(text.format(at=at, more=more, lead=lead) for text in STATE_WORDS[kind]))


def _explain_state(
    kind: CanaryStateKind,
    rollout: Rollout,
    holds: Sequence[str],
    action: RolloutAction | None,
    pause_reason: str,
) -> str:
    """Explains the state. Prefers a stored reason to the evidence of now, because only the
    stored reason says why the state began.
    """
    reason = action.reason if action else ""
    hold_text = " ".join(to_sentence(hold) for hold in holds)
    match kind:
        case kind if kind is CanaryStateKind.PROMOTED or kind in STATE_OF_END.values():
            return ended_sentence(rollout) or reason
        case CanaryStateKind.PAUSED:
            pause_text = to_sentence(pause_reason) if pause_reason else reason
            return f"{pause_text} {hold_text}".strip()
        case CanaryStateKind.HELD:
            return hold_text
        case CanaryStateKind.EMPTY:
            wanted = format_count(max(1, rollout.current.min_exposures))
            return (
                f"This step needs {wanted} canary callers; Swapproof has counted no caller yet."
            )
        case _:
            return reason


def _describe_next_step(
    kind: CanaryStateKind,
    rollout: Rollout,
    explanation: RolloutExplanation | None,
    incumbent: str,
) -> str:
    """Describes the next event, or the action that a person must take.

    Args:
        explanation: None if the calling code did not read the evidence; then the text has no
            time.
    """
    if kind is CanaryStateKind.HELD and rollout.baking:
        return f"the bake continues until the hold ends. {HARM_NEXT}"
    if kind in NEXT_STEPS:
        few = _offer_ways_on(rollout, explanation) if kind is CanaryStateKind.PAUSED else ""
        share = format_bps(rollout.current.weight_bps)
        return NEXT_STEPS[kind].format(share=share, incumbent=incumbent, few=few)
    return (
        f"{_describe_next_share(rollout, explanation)} {HARM_NEXT}"
        if explanation
        else HARM_NEXT
    )


def _offer_ways_on(rollout: Rollout, explanation: RolloutExplanation | None) -> str:
    """Describes how a person continues a canary that lacks evidence; empty if the evidence
    suffices.
    """
    needs = explanation.needs if explanation else ()
    if all(need.done for need in needs if need.what in ("exposures", "certificate")):
        return ""
    onward = "promote" if rollout.last_step else "advance"
    return (
        f" `canary resume` restarts the step's time, `canary {onward}` continues without "
        "the missing evidence, and `shadow start` compares answers that no caller gets."
    )


def _describe_next_share(rollout: Rollout, explanation: RolloutExplanation) -> str:
    """Describes the next share and its estimated time, or why there is no estimate."""
    # The promotion and the end of a bake are no shares, so they need no `to`.
    to = "" if rollout.last_step or rollout.baking else "to "
    if explanation.estimate is EstimateState.KNOWN:
        return f"{to}{explanation.goes_to} {explanation.eta}."
    is_split_wrong = any(
        need.what == "sample ratio" and not need.done for need in explanation.needs
    )
    when = (
        "once callers are split as planned"
        if is_split_wrong
        else _NO_ESTIMATE.get(explanation.estimate, explanation.eta)
    )
    return f"{to}{explanation.goes_to}, {when}."


_NO_ESTIMATE: Final = {
    EstimateState.NO_TRAFFIC: "no estimate yet: too little traffic",
    EstimateState.HELD: "once the hold ends",
}


# A person's actions on a canary.
OPERATIONS: Final = {
    RolloutSignal.PAUSE: "Hold the canary at its share until a person resumes or aborts it.",
    RolloutSignal.RESUME: "Continue a canary that is paused, or on hold after a fault of a "
    "router.",
    RolloutSignal.ADVANCE: "Advance one step, even if evidence is missing.",
    RolloutSignal.PROMOTE: "Promote now, with a passed verdict; not by the proposer, "
    "except with `self_approval`.",
    RolloutSignal.ABORT: "End the canary, or the bake: the former incumbent serves again.",
    RolloutSignal.FINISH: "End the bake: the promotion stays.",
}
# Interfaces show the arguments against these actions first, because they ignore missing
# evidence.
OVERRULES: Final = frozenset({RolloutSignal.ADVANCE, RolloutSignal.PROMOTE})


def describe_effect(
    rollout: Rollout,
    new: str,
    old: str,
    signal: RolloutSignal,
) -> str:
    """Describes the effect of a person's action before the person confirms it.

    Args:
        new: the candidate's name.
        old: the incumbent's name.

    Shares are of the rollout's current step. Raises KeyError for a signal that no person can
    cause.
    """
    share = format_bps(rollout.current.weight_bps)
    control_share = format_bps(rollout.policy.bake_bps)
    bake = f" {old} keeps {control_share} during the bake." if rollout.policy.bake_s else ""
    abort_effect = (
        f"From 100 % to 0 % for {new}: {old} serves all callers again."
        if rollout.baking
        else f"From {share} to 0 %: all traffic goes back to {old}, and {new} needs a new "
        "proposal."
    )
    effects = {
        RolloutSignal.PAUSE: f"{share} of the traffic stays with {new}; it does not rise until "
        "a person resumes it.",
        RolloutSignal.RESUME: f"The step at {share} for {new} starts over, with its full time."
        if rollout.state is RolloutState.PAUSED
        else "You acknowledge the routers' faults: the canary continues, at the same step and "
        "time.",
        RolloutSignal.ADVANCE: f"From {share} to {_name_next_share(rollout)} for {new}, even "
        "though evidence is still missing.",
        RolloutSignal.PROMOTE: f"From {share} to 100 % for {new}, skipping the other "
        f"steps.{bake}",
        RolloutSignal.FINISH: f"From {control_share} to 0 % for {old}: {new} serves all "
        "callers, and Swapproof no longer detects harm.",
        RolloutSignal.ABORT: abort_effect,
    }
    return effects[signal]


def _name_next_share(rollout: Rollout) -> str:
    """Names the next step's share, or the promotion after the last step."""
    if rollout.last_step:
        return "the promotion"
    return format_bps(rollout.policy.steps[rollout.step + 1].weight_bps)


CHANGE_WORDS: Final[Mapping[str, str]] = {
    "baseline": "route created",
    "canary": "canary started",
    "weight": "share raised",
    "promotion": "candidate promoted",
    "abort": "canary {end}",
    "settings": "settings or fallbacks changed",
}


def describe_change(record: RouteRecord) -> str:
    """Describes a change of a route, also the end of a canary or of a break-glass."""
    by_person = record.actor != SYSTEM.name
    end = end_words(CanaryEnd.ABORTED if by_person else CanaryEnd.ROLLED_BACK)
    if record.kind == "restore":
        if record.route.break_glass is not None:
            return "served without proof from here"
        if record.ended_break_glass is not None:
            return "break-glass over: the former incumbent is back"
        return end_words(CanaryEnd.PROMOTION_ROLLED_BACK)
    return CHANGE_WORDS.get(record.kind, record.kind).format(end=end)
