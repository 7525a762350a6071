"""The Sessions page's dialogs, in which a person approves or rejects the switch of a model that
an agent asked for, and revokes a grant.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import streamlit as st

from dashboard import page_frame
from dashboard.dialogs import action_dialogs
from dashboard.text import html, session_text
from harness.control.agents import agents, switches
from harness.domain.agents.grant import AgentGrant
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


@action_dialogs.dialog("Revoke a grant", width="medium")
def revoke_grant(grants: Sequence[AgentGrant]) -> None:
    """Asks which grant ends, and why. grants: those in force."""
    choices = {f"{grant.target_name} · {grant.agent} · {grant.id}": grant for grant in grants}
    choice = st.selectbox(
        "Which", list(choices), index=None, placeholder="Choose a grant", key="grant"
    )
    st.html(
        html.note(
            "Routers refuse the model within seconds. A session on it answers again once it is "
            "switched to another model."
        )
    )
    reason = action_dialogs.ask_reason("grant-why")
    grant = choices.get(choice or "")
    action_dialogs.submit(
        "Revoke it",
        key="revoke-now",
        role=Role.APPROVER,
        missing="" if grant is not None and reason else "Choose a grant and give a reason.",
        act=lambda actor: grant and agents.revoke_grant(
            page_frame.context(), actor, grant.id, reason
        ),
        done=lambda actor: f"{actor.name} revoked {grant.id if grant else ''}.",
    )  # fmt: skip
