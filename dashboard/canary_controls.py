"""The Canary page's buttons pause, resume, advance, promote or abort a canary."""

from collections.abc import Mapping, Sequence

import streamlit as st

from dashboard import current_user, page_frame
from dashboard.text import html, labels
from dashboard.text.html import escape, strong
from harness.control.canary import operations
from harness.control.canary.status import CanaryStatus
from harness.domain.canary.rollout import Rollout, RolloutSignal, RolloutState

# In the order of the page: label and icon.
BUTTONS: Mapping[RolloutSignal, tuple[str, str]] = {
    RolloutSignal.PAUSE: ("Pause", ":material/pause:"),
    RolloutSignal.RESUME: ("Resume", ":material/play_arrow:"),
    RolloutSignal.ADVANCE: ("Next step", ":material/skip_next:"),
    RolloutSignal.PROMOTE: ("Promote now", ":material/verified:"),
    RolloutSignal.FINISH: ("Finish the bake", ":material/flag:"),
    RolloutSignal.ABORT: ("Abort the canary", ":material/block:"),
}
ENDED = "The canary has ended, so there is nothing to pause, resume or abort."
BAKES = "It is promoted: you can only finish its bake or bring the old model back."
PAUSED = "It is paused: its share stays as it is. Harm still ends it."
NOT_PAUSED = "Resume is for a paused canary."
LAST = "There is no further step: the promotion comes next."
HARM = "The evidence calls for a rollback, so it cannot advance."


def show_controls(status: CanaryStatus) -> None:
    """Show the buttons; a disabled one says why, and the one that ends the canary never is."""
    why = disabled_reasons(status)
    with st.container(horizontal=True, vertical_alignment="center"):
        for signal in visible_signals(status.rollout, faults=bool(status.faults)):
            label, icon = BUTTONS[signal]
            if signal is RolloutSignal.ABORT and status.rollout.baking:
                label = "Bring the old model back"
            if st.button(label, icon=icon, disabled=signal in why, key=f"hand-{signal.value}"):
                confirm(status, signal)
        reasons = dict.fromkeys(why.values())
        if reasons:
            st.html(html.note(" ".join(reasons)), width="content")


def visible_signals(rollout: Rollout, *, faults: bool = False) -> list[RolloutSignal]:
    """Lists the signals that have a button in the rollout's state.

    faults: whether routers reported faults, which `resume` acknowledges.
    """
    if rollout.baking:
        return [
            *([RolloutSignal.RESUME] if faults else []),
            RolloutSignal.FINISH,
            RolloutSignal.ABORT,
        ]
    return [button for button in BUTTONS if button is not RolloutSignal.FINISH]


def disabled_reasons(status: CanaryStatus) -> dict[RolloutSignal, str]:
    """Map each signal whose button is disabled to the reason."""
    rollout = status.rollout
    if rollout.baking:
        able = visible_signals(rollout, faults=bool(status.faults))
        return {button: BAKES for button in BUTTONS if button not in able}
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
    """What the signal does, with the shares and the models."""
    rollout, new, old = status.rollout, status.candidate.name, status.incumbent.name
    share = labels.weight(rollout.current.weight_bps)
    kept = labels.weight(rollout.policy.bake_bps)
    bake = f" {old} keeps {kept} during the bake." if rollout.policy.bake_s else ""
    back = (
        f"From 100 % to 0 % for {new}: {old} serves everybody again."
        if rollout.baking
        else f"From {share} to 0 %: all traffic goes back to {old}, and {new} needs a new "
        "proposal."
    )
    effects = {
        RolloutSignal.PAUSE: f"{share} of the traffic stays with {new}; it does not rise until "
        "somebody resumes it.",
        RolloutSignal.RESUME: f"The step at {share} for {new} starts over, with its full time."
        if rollout.state is RolloutState.PAUSED
        else "You acknowledge the routers' faults: the canary continues, at the same step and "
        "time.",
        RolloutSignal.ADVANCE: f"From {share} to {_next(rollout)} for {new}, even though "
        "evidence is still missing.",
        RolloutSignal.PROMOTE: f"From {share} to 100 % for {new}, skipping the other "
        f"steps.{bake}",
        RolloutSignal.FINISH: f"From {kept} to 0 % for {old}: {new} serves everybody, and "
        "harm that shows later is no longer detected.",
        RolloutSignal.ABORT: back,
    }
    return effects[signal]


def objections(status: CanaryStatus, signal: RolloutSignal) -> Sequence[str]:
    """What the data say against the signal, for a person who overrules them."""
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
        st.html(html.banner("▲ The data argue against it.", warning))
    reason = st.text_input(
        "Reason (required; the audit log keeps it)", key=f"why-{signal.value}"
    )
    if st.button(f"Yes, {signal.value}", type="primary"):
        ctx = page_frame.context()
        current_user.attempt(
            lambda actor: operations.operate(
                ctx, actor, rollout.route, signal, reason, expected_version=rollout.version
            ),
            lambda actor: f"{signal.value} by {actor.name} on route {rollout.route}.",
        )
