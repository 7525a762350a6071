"""The Canary page answers: does the candidate harm callers now? It refreshes every 2 s.

Texts and figures are in `canary_text`, the chart in `canary_timeline`.
The page must not refresh an open dialog, because a person may be typing in it.
"""

from collections.abc import Mapping

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard import current_user, labels, markup, page_frame
from dashboard.dialog_forms import Form, dialog
from dashboard.markup import escape, strong
from dashboard.views import canary_text, canary_timeline
from dashboard.views.canary_text import CanaryView
from harness.canary import callers, operations
from harness.canary import status as canary_status
from harness.canary.canary_state import OVERRULES, describe_effect
from harness.canary.status import CanaryStatus
from harness.frame.people.access import Actor, Role
from harness.gate.online.rollout import Rollout, RolloutSignal, RolloutState
from harness.operations.context import Context
from harness.operations.route_queries import load_status
from harness.operations.route_status import RouteStatus
from harness.routing.control import freezes
from harness.routing.freeze import FROZEN_SIGNALS


def show() -> None:
    """Shows a route's canary, and its open proposal if no canary runs."""
    with page_frame.loading("the canary"):
        ctx = page_frame.context()
        routes = canary_text.list_canary_routes(ctx)
    if not routes:
        st.html(markup.title("There is no route yet, so no canary"))
        page_frame.show_no_route()
        return
    # State, next step and Abort come first; the choice of the route is below them. styles.css
    # selects this key, to prevent fading during refreshes.
    top = st.container(key="live-top")
    route = page_frame.choose_route(routes)
    if route is None:
        return
    view = canary_text.load_canary(ctx, route)
    state = top.empty()
    with top:
        page_frame.show_done_message()
        page_frame.show_freezes(route)
    route_status = None
    if view.status is None or not view.status.rollout.live:
        route_status = load_status(ctx, route)
    if view.status is None:
        state.html(canary_text.no_canary(view, route))
        if route_status is None or route_status.open_proposal is None:
            page_frame.show_empty(
                "This route has never had a canary. A canary opens when a proposal passes:",
                f"swapproof proposal create {route} PROVIDER/MODEL",
            )
    if route_status is not None:
        with top:
            show_proposed(route_status)
    if view.status is not None:
        rollout = view.status.rollout
        state.html(canary_text.headline(view, view.status))
        with top:
            show_controls(view.status)
        with st.container(key="live"):
            if rollout.live or rollout.baking:
                refresh_figures(route, rollout.version, state)
            else:
                show_figures(view, view.status)
        show_caller(ctx, route)
        show_history(ctx, rollout)
        with st.container(horizontal=True):
            page_frame.link("compare", "Comparison", "balance", id=rollout.proposal)
            page_frame.link("routes", "Kill switch and history", "history", route=route)
            page_frame.link("shadows", "Shadows", "contrast")
    page_frame.copy_as_cli(["canary", "explain", route])


def show_history(ctx: Context, rollout: Rollout) -> None:
    """Shows the canary's actions, folded. A new action raises the rollout's version, which
    reruns the page.
    """
    rows = canary_text.history_rows(rollout, canary_status.list_canary_moves(ctx, rollout))
    with st.expander(f"Actions: {len(rows)}", icon=":material/history:"):
        note = f"Rollout {rollout.id}. {canary_text.HISTORY_NOTE}"
        st.html(markup.note(note))
        st.html(markup.table(rows, stacked=True) or markup.note("No action since it started."))


def show_caller(ctx: Context, route: str) -> None:
    """Shows which model a caller gets, folded: a field for the caller, and the answer."""
    with st.expander("Who gets the candidate", icon=":material/person_search:"):
        user = st.text_input("User id, or a client key's name", key=f"who-{route}").strip()
        if user:
            st.html(canary_text.caller_answer(user, callers.find_arm(ctx, user, route=route)))


def show_proposed(status: RouteStatus) -> None:
    """Shows the route's open proposal, if there is one."""
    proposal = status.open_proposal
    candidate = status.proposed
    if proposal is None or candidate is None:
        return
    st.html(markup.banner(f"{candidate.name}: {status.progress_text}.", status.reason))
    page_frame.link("compare", "Comparison", "balance", id=proposal.id)


@st.fragment(run_every="2s")
def refresh_figures(
    route: str,
    version: int,
    state: DeltaGenerator,
) -> None:
    """Refreshes the figures.

    Args:
        version: the rollout's version in the rest of the page.
    """
    with current_user.live_part("The figures"):
        view = canary_text.load_canary(page_frame.context(), route)
        if view.status is None or view.status.rollout.version != version:
            st.rerun()
        state.html(canary_text.headline(view, view.status))
        show_figures(view, view.status)


def show_figures(view: CanaryView, status: CanaryStatus) -> None:
    """Shows the steps, the guardrails, the conditions of the next step, and the timeline."""
    # The page never greys a state that needs a person.
    stale = view.quiet_since is not None and canary_text.is_calm(status)
    st.html(markup.steps(*canary_text.list_steps(view, status)))
    if status.shared_key:
        st.html(markup.note(status.shared_key))
    if status.accepted_cost:
        st.html(markup.note(f"{status.accepted_cost.text}."))
    if status.callers:
        st.html(markup.note(f"Callers: {status.callers}"))
    if status.audience:
        st.html(markup.note(f"Audience: {status.audience}"))
    st.html(canary_text.guardrails(view, status, stale=stale))
    if conditions := canary_text.needs(status):
        st.html(markup.checklist(conditions))
    show_timeline(view, status)
    show_rules(status)


def show_timeline(view: CanaryView, status: CanaryStatus) -> None:
    if not status.blocks:
        st.html(markup.note("No request has been counted yet."))
        return
    st.html(markup.section("Timeline", canary_text.TIMELINE_NOTE))
    frames = canary_timeline.build_frames(status.rollout, status.timeline, view.now)
    panels = canary_timeline.draw(frames, page_frame.palette())
    for number, panel in enumerate(panels):
        st.vega_lite_chart(
            panel,
            theme=None,
            width="stretch",
            key=f"timeline-{number}",
        )


def show_rules(status: CanaryStatus) -> None:
    """Shows how the canary decides, and the outcomes of all requests, folded."""
    with st.expander("How it decides", icon=":material/query_stats:"):
        st.html(canary_text.how_it_decides(status))
        if rows := canary_text.outcome_rows(status):
            st.html(markup.listing("Outcomes", canary_text.OUTCOMES_NOTE, rows, ""))


# Label and icon, in the page's order: actions that end harm come first.
BUTTONS: Mapping[RolloutSignal, tuple[str, str]] = {
    RolloutSignal.ABORT: ("Abort the canary", ":material/block:"),
    RolloutSignal.PAUSE: ("Pause", ":material/pause:"),
    RolloutSignal.RESUME: ("Resume", ":material/play_arrow:"),
    RolloutSignal.ADVANCE: ("Next step", ":material/skip_next:"),
    RolloutSignal.PROMOTE: ("Promote now", ":material/verified:"),
    RolloutSignal.FINISH: ("Finish the bake", ":material/flag:"),
}
RESTORE_LABEL = "Bring the old model back"
ENDED = "The canary has ended, so there is nothing to pause, resume or abort."
LAST = "There is no further step: the promotion comes next."
FROZEN = "The route is frozen: the canary continues after the freeze. You can abort it."
HARM = "The evidence calls for a rollback, so the canary cannot advance."


def show_controls(status: CanaryStatus) -> None:
    """Shows the buttons, and explains disabled buttons. Only a missing role disables Abort."""
    freeze_notices = freezes.list_freeze_notices(page_frame.context(), status.rollout.route)
    refusals = dict.fromkeys(FROZEN_SIGNALS if freeze_notices else (), FROZEN)
    if current_user.signed_in() and (refusal := current_user.why_not(Role.APPROVER)):
        refusals = dict.fromkeys(BUTTONS, refusal)
    obstacles = {
        signal: refusals.get(signal, obstacle)
        for signal, obstacle in list_buttons(status).items()
    }
    is_harm_visible = canary_text.harm_tone(status) is not labels.Tone.BETTER
    with st.container(
        horizontal=True,
        vertical_alignment="center",
        key="harmed" if is_harm_visible else "unharmed",  # styles.css selects this key
    ):
        for signal, obstacle in obstacles.items():
            if st.button(
                label_signal(status, signal),
                icon=BUTTONS[signal][1],
                disabled=bool(obstacle),
                key=f"hand-{signal.value}",
            ):
                ask(status, signal)
        if reasons := dict.fromkeys(filter(None, obstacles.values())):
            st.html(markup.note(" ".join(reasons)), width="content")
    if not obstacles:
        st.html(markup.note(ENDED))


def label_signal(status: CanaryStatus, signal: RolloutSignal) -> str:
    is_end_of_bake = signal is RolloutSignal.ABORT and status.rollout.baking
    return RESTORE_LABEL if is_end_of_bake else BUTTONS[signal][0]


def list_buttons(status: CanaryStatus) -> dict[RolloutSignal, str]:
    """Lists the signals of the present buttons. The value explains why a button is disabled; it
    is empty for an enabled one.
    """
    rollout = status.rollout
    obstacles = dict[RolloutSignal, str]()
    if rollout.baking:
        signals = {RolloutSignal.ABORT, RolloutSignal.FINISH}
    elif rollout.live:
        is_paused = rollout.state is RolloutState.PAUSED
        signals = {RolloutSignal.ABORT, *OVERRULES}
        signals.add(RolloutSignal.RESUME if is_paused else RolloutSignal.PAUSE)
        if status.action.signal is RolloutSignal.HARM:
            obstacles = dict.fromkeys(OVERRULES, HARM)
        elif rollout.last_step:
            obstacles = {RolloutSignal.ADVANCE: LAST}
    else:
        return {}
    if status.faults:  # Resume acknowledges faults
        signals.add(RolloutSignal.RESUME)
    return {signal: obstacles.get(signal, "") for signal in BUTTONS if signal in signals}


def ask(status: CanaryStatus, signal: RolloutSignal) -> None:
    """Opens the dialog that confirms a signal. Its keys contain the rollout's version, so that
    the dialog does not show a text that was typed for an earlier version.
    """
    rollout = status.rollout
    title = f"{label_signal(status, signal)}: route {rollout.route}"
    dialog_subject = f"{rollout.id}-{rollout.version}"
    dialog(title, Role.APPROVER, signal.value)(confirm)(dialog_subject, status, signal)


def confirm(
    form: Form,
    _dialog_subject: str,
    status: CanaryStatus,
    signal: RolloutSignal,
) -> None:
    """Asks a person to confirm a signal. Shows its effect and the objections of the data.

    The action names the version that the person saw, and fails after another action.
    """
    rollout = status.rollout
    # After the action, a second click on the page's button must not open the dialog again.
    acted_key = form.key("acted")
    if st.session_state.get(acted_key):
        st.rerun()
    candidate = status.candidate.name
    incumbent = status.incumbent.name
    form.say(
        f"{strong(candidate)} {escape(status.state.predicate)}.",
        escape(describe_effect(rollout, candidate, incumbent, signal)),
    )
    for warning in status.objections(signal):
        st.html(markup.banner("▲ The data speak against this.", warning))

    def act(
        ctx: Context,
        actor: Actor,
        reason: str,
    ) -> None:
        operations.operate(
            ctx,
            actor,
            rollout.route,
            signal,
            reason,
            expected_version=rollout.version,
        )
        st.session_state[acted_key] = True

    actor = current_user.signed_in()
    actor_name = actor.name if actor else ""
    form.success_message = (
        f"{signal.value.capitalize()} by {actor_name} on route {rollout.route}."
    )
    form.submit(f"Yes, {signal.value}", "", act, form.reason())


if __name__ == "__main__":
    page_frame.show_page("The canary", show)
