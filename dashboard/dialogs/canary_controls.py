"""The Canary page's buttons pause, resume, advance, promote or abort a canary."""

from collections.abc import Mapping

import streamlit as st

from dashboard import current_user, page_frame
from dashboard.dialog_forms import Form, dialog
from dashboard.text import html
from dashboard.text.html import escape, strong
from harness.control.canary import operations
from harness.control.canary.status import CanaryStatus
from harness.control.context import Context
from harness.control.routing import freezes
from harness.domain.canary.rollout import RolloutSignal, RolloutState
from harness.domain.operations.access import Actor, Role
from harness.domain.routing.freeze import OBSERVED_SIGNALS
from harness.gate.text.canary_state import OVERRULES, describe_effect

# In the order of the page: label and icon. What ends harm comes first.
BUTTONS: Mapping[RolloutSignal, tuple[str, str]] = {
    RolloutSignal.ABORT: ("Abort the canary", ":material/block:"),
    RolloutSignal.PAUSE: ("Pause", ":material/pause:"),
    RolloutSignal.RESUME: ("Resume", ":material/play_arrow:"),
    RolloutSignal.ADVANCE: ("Next step", ":material/skip_next:"),
    RolloutSignal.PROMOTE: ("Promote now", ":material/verified:"),
    RolloutSignal.FINISH: ("Finish the bake", ":material/flag:"),
}
TAKE_BACK = "Bring the old model back"
ENDED = "The canary has ended, so there is nothing to pause, resume or abort."
LAST = "There is no further step: the promotion comes next."
OBSERVED = (
    "Observe only: it does not go on before `control.observe_only` is taken out of the "
    "configuration; it can be aborted."
)
FROZEN = "The route is frozen: nothing goes on before that ends. The way back works."
HARM = "The evidence calls for a rollback, so it cannot advance."


def show_controls(status: CanaryStatus) -> None:
    """Show the buttons; a disabled one says why, and the one that ends the canary is disabled
    for nobody but who is signed in without the role for it.
    """
    ctx, route = page_frame.context(), status.rollout.route
    off = dict.fromkeys(freezes.list_frozen_signals(ctx, route), FROZEN)
    off |= dict.fromkeys(OBSERVED_SIGNALS if ctx.observe_only else (), OBSERVED)
    if current_user.signed_in() and (refusal := current_user.why_not(Role.APPROVER)):
        off = dict.fromkeys(BUTTONS, refusal)
    buttons = {signal: off.get(signal, why) for signal, why in list_buttons(status).items()}
    with st.container(horizontal=True, vertical_alignment="center"):
        for signal, why in buttons.items():
            label, icon = BUTTONS[signal]
            if signal is RolloutSignal.ABORT and status.rollout.baking:
                label = TAKE_BACK
            if st.button(label, icon=icon, disabled=bool(why), key=f"hand-{signal.value}"):
                ask(status, signal)
        if reasons := dict.fromkeys(filter(None, buttons.values())):
            st.html(html.note(" ".join(reasons)), width="content")
    if not buttons:
        st.html(html.note(ENDED))


def list_buttons(status: CanaryStatus) -> dict[RolloutSignal, str]:
    """Lists the signals that have a button in the rollout's state, each with the reason why it
    is off; empty where it is not.
    """
    rollout, why = status.rollout, dict[RolloutSignal, str]()
    if rollout.baking:
        shown = {RolloutSignal.ABORT, RolloutSignal.FINISH}
    elif rollout.live:
        paused = rollout.state is RolloutState.PAUSED
        shown = {RolloutSignal.ABORT, *OVERRULES}
        shown.add(RolloutSignal.RESUME if paused else RolloutSignal.PAUSE)
        if status.action.signal is RolloutSignal.HARM:
            why = dict.fromkeys(OVERRULES, HARM)
        elif rollout.last_step:
            why = {RolloutSignal.ADVANCE: LAST}
    else:
        return {}
    if status.faults:  # which `resume` acknowledges
        shown.add(RolloutSignal.RESUME)
    return {signal: why.get(signal, "") for signal in BUTTONS if signal in shown}


def ask(status: CanaryStatus, signal: RolloutSignal) -> None:
    """Opens the dialog that asks whether to send the signal: its title says what is about to
    happen, and to which route.
    """
    words = BUTTONS[signal][0]
    if signal is RolloutSignal.ABORT and status.rollout.baking:
        words = TAKE_BACK
    rollout = status.rollout
    title, about = f"{words}: route {rollout.route}", f"{rollout.id}-{rollout.version}"
    dialog(title, Role.APPROVER, signal.value)(confirm)(about, status, signal)


def confirm(form: Form, _about: str, status: CanaryStatus, signal: RolloutSignal) -> None:
    """Ask for the reason. The button works once one stands there: neither Enter nor a second
    click on what opened the dialog does anything.
    """
    rollout = status.rollout
    # A second click on the button comes when the first one's act is done.
    acted = form.key("acted")
    if st.session_state.get(acted):
        st.rerun()
    candidate, incumbent = status.candidate.name, status.incumbent.name
    form.say(
        f"{strong(candidate)} {escape(status.state.predicate)}.",
        escape(describe_effect(rollout, candidate, incumbent, signal)),
    )
    for warning in status.objections(signal):
        st.html(html.banner("▲ The data argue against it.", warning))

    def act(ctx: Context, actor: Actor, reason: str) -> None:
        operations.operate(
            ctx, actor, rollout.route, signal, reason, expected_version=rollout.version
        )
        st.session_state[acted] = True

    actor = current_user.signed_in()
    by = actor.name if actor else ""
    form.says = f"{signal.value.capitalize()} by {by} on route {rollout.route}."
    form.submit(f"Yes, {signal.value}", "", act, form.reason())
