"""A person's hand on a canary: its buttons, why one is disabled, the question before."""

from collections.abc import Mapping, Sequence

import streamlit as st

from dashboard import current_user, page_frame
from dashboard.text import html, labels
from dashboard.text.html import escape, strong
from harness.control.canary import operations
from harness.control.proposals.comparison import CanaryStatus
from harness.domain.canary.rollout import Rollout, RolloutSignal, RolloutState

# In the order of the page: label and icon.
BUTTONS: Mapping[RolloutSignal, tuple[str, str]] = {
    RolloutSignal.PAUSE: ("Pause", ":material/pause:"),
    RolloutSignal.RESUME: ("Resume", ":material/play_arrow:"),
    RolloutSignal.ADVANCE: ("One step on", ":material/skip_next:"),
    RolloutSignal.PROMOTE: ("Promote now", ":material/verified:"),
    RolloutSignal.FINISH: ("Finish the bake", ":material/flag:"),
    RolloutSignal.ABORT: ("Abort the canary", ":material/block:"),
}
ENDED = "It has ended, so there is nothing to pause, resume or abort."
BAKES = "It is promoted: only its bake can be finished, or the old model brought back."
PAUSED = "It is paused: the share stays, nothing goes up. Harm still ends it."
NOT_PAUSED = "Resume is for a paused canary."
LAST = "There is no further step: what comes next is the promotion."
HARM = "The evidence asks for the rollback, so it cannot go on."


def show_controls(status: CanaryStatus) -> None:
    """What ends it is always there; what cannot be done now says why."""
    why = disabled_reasons(status)
    with st.container(horizontal=True, vertical_alignment="center"):
        for signal in visible_signals(status.rollout, faults=bool(status.faults)):
            label, icon = BUTTONS[signal]
            if signal is RolloutSignal.ABORT and status.rollout.baking:
                label = "Bring the old model back"
            if st.button(label, icon=icon, disabled=signal in why, key=f"hand-{signal.value}"):
                confirm(status, signal)
        told = dict.fromkeys(why.values())
        if told:
            st.html(html.note(" ".join(told)), width="content")


def visible_signals(rollout: Rollout, *, faults: bool = False) -> list[RolloutSignal]:
    """The buttons of this state. faults: of a router, which `resume` acknowledges."""
    if rollout.baking:
        return [
            *([RolloutSignal.RESUME] if faults else []),
            RolloutSignal.FINISH,
            RolloutSignal.ABORT,
        ]
    return [each for each in BUTTONS if each is not RolloutSignal.FINISH]


def disabled_reasons(status: CanaryStatus) -> dict[RolloutSignal, str]:
    """Each move that cannot be made now, with its reason."""
    rollout = status.rollout
    if rollout.baking:
        able = visible_signals(rollout, faults=bool(status.faults))
        return {each: BAKES for each in BUTTONS if each not in able}
    if not rollout.live:
        return dict.fromkeys(BUTTONS, ENDED)
    found = {}
    if rollout.state is RolloutState.PAUSED:
        found[RolloutSignal.PAUSE] = PAUSED
    elif not status.faults:
        found[RolloutSignal.RESUME] = NOT_PAUSED
    if status.action.signal is RolloutSignal.HARM:
        found |= {RolloutSignal.ADVANCE: HARM, RolloutSignal.PROMOTE: HARM}
    elif rollout.last_step:
        found[RolloutSignal.ADVANCE] = LAST
    return found


def effect(status: CanaryStatus, signal: RolloutSignal) -> str:
    """What the move does, with the percents and the models."""
    rollout, new, old = status.rollout, status.candidate.name, status.incumbent.name
    share = labels.weight(rollout.current.weight_bps)
    kept = labels.weight(rollout.policy.bake_bps)
    bake = f" {old} keeps {kept} while it bakes." if rollout.policy.bake_s else ""
    back = (
        f"From 100 % to 0 % for {new}: {old} serves everybody again."
        if rollout.baking
        else f"From {share} to 0 %: all traffic goes back to {old}, and {new} needs a new "
        "proposal."
    )
    effects = {
        RolloutSignal.PAUSE: f"{share} of the traffic stays with {new}; it does not go up "
        "until "
        "somebody resumes.",
        RolloutSignal.RESUME: f"The step at {share} for {new} starts anew, with its whole time."
        if rollout.state is RolloutState.PAUSED
        else "You looked at the routers' faults: step and time stay, and it goes on.",
        RolloutSignal.ADVANCE: f"From {share} to {_next(rollout)} for {new}, whatever the "
        "evidence "
        "still lacks.",
        RolloutSignal.PROMOTE: (
            f"From {share} to 100 % for {new}, without the other steps.{bake}"
        ),
        RolloutSignal.FINISH: f"From {kept} to 0 % for {old}: {new} serves everybody, and "
        "late harm "
        "is not watched for any more.",
        RolloutSignal.ABORT: back,
    }
    return effects[signal]


def objections(status: CanaryStatus, signal: RolloutSignal) -> Sequence[str]:
    """What the data say against the move, for whoever overrules them."""
    overrules = signal in (RolloutSignal.ADVANCE, RolloutSignal.PROMOTE)
    return status.explanation.against if overrules else ()


def _next(rollout: Rollout) -> str:
    if rollout.last_step:
        return "the promotion"
    return labels.weight(rollout.policy.steps[rollout.step + 1].weight_bps)


@st.dialog("Are you sure?")
def confirm(status: CanaryStatus, signal: RolloutSignal) -> None:
    rollout = status.rollout
    words = f"<p>Route {strong(rollout.route)}. {escape(effect(status, signal))}</p>"
    st.html(html.block(words))
    for warning in objections(status, signal):
        st.html(html.banner("▲ The data speak against it.", warning))
    reason = st.text_input("Reason (needed; the audit log keeps it)", key=f"why-{signal.value}")
    if st.button(f"Yes, {signal.value}", type="primary"):
        ctx = page_frame.context()
        current_user.attempt(
            lambda actor: operations.operate(
                ctx, actor, rollout.route, signal, reason, seen=rollout.version
            ),
            lambda actor: f"{signal.value} by {actor.name} on route {rollout.route}.",
        )
