"""The Sessions page's dialog, in which a person approves or rejects the switch of a model that
an agent asked for.
"""

from collections.abc import Callable, Mapping
from typing import Final

import streamlit as st

from dashboard import action_dialogs, page_frame
from dashboard.text import session_text
from harness.control.agents import switches
from harness.domain.agents.switch_request import ModelSwitchRequest
from harness.domain.operations.access import Role

# Of each button: what it does, and how the line after it begins.
DECISIONS: Final[Mapping[str, tuple[Callable[..., ModelSwitchRequest], str]]] = {
    "Approve": (switches.approve_switch, "approved"),
    "Reject": (switches.reject_switch, "rejected"),
}


def decide(verb: str, request: ModelSwitchRequest, agent: str) -> None:
    """Opens the dialog for a decision, which is bound to what stands there: a request that has
    changed since is refused.
    """
    act, done = DECISIONS[verb]

    @action_dialogs.dialog(f"{verb} the switch?", width="medium")
    def ask() -> None:
        ctx = page_frame.context()
        st.html(session_text.switch_details(request, agent, ctx.clock.now()))
        label = "Your reason (optional; the agent is told)"
        reason = st.text_input(label, key=f"why-{verb}-{request.id}")
        action_dialogs.submit(
            f"{verb} the switch",
            key=f"now-{verb}-{request.id}",
            role=Role.APPROVER,
            missing="",
            act=lambda actor: act(ctx, actor, request.id, reason, fingerprint=request.hash),
            done=lambda actor: f"{actor.name} {done} the switch that {agent} asked for.",
        )

    ask()
