"""The Sessions page's cards of switches that wait for a person, with the dialogs in which one
approves or rejects them. What an agent wrote is shown as data.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import streamlit as st

from dashboard import current_user, page_frame
from dashboard.text import html, session_text
from harness.control.agents import switches
from harness.domain.agents.switch_request import ModelSwitchRequest
from harness.domain.operations.access import Actor, Role


def show_waiting(request: ModelSwitchRequest, agent: str, now: datetime) -> None:
    """Show one request with its buttons; disabled ones say why."""
    why = _why_not(request, current_user.signed_in(), now)
    with st.container(border=True, key=f"switch-{request.id}"):
        st.html(session_text.waiting_switch(request, agent, now))
        with st.container(horizontal=True, vertical_alignment="center"):
            if st.button(
                "Approve …", type="primary", key=f"approve-{request.id}", disabled=bool(why)
            ):
                approve(request, agent, now)
            if st.button("Reject …", key=f"reject-{request.id}", disabled=bool(why)):
                reject(request, agent, now)
            if why:
                st.html(html.note(why), width="content")


def _why_not(request: ModelSwitchRequest, actor: Actor | None, now: datetime) -> str:
    """Why this visitor decides nothing; empty where he may."""
    if now >= request.expires_at:
        return "Nobody decided in time: the session stays on its model."
    if actor is None:
        return current_user.SIGN_IN
    if actor.role < Role.APPROVER:
        return f"{actor.name} is {actor.role.name.lower()}; this needs approver."
    return ""


@st.dialog("Approve the switch?", width="medium")
def approve(request: ModelSwitchRequest, agent: str, now: datetime) -> None:
    _decide(request, agent, now, "approved", switches.approve_switch)


@st.dialog("Reject the switch?", width="medium")
def reject(request: ModelSwitchRequest, agent: str, now: datetime) -> None:
    _decide(request, agent, now, "rejected", switches.reject_switch)


def _decide(
    request: ModelSwitchRequest,
    agent: str,
    now: datetime,
    done: str,
    decide: Callable[..., Any],
) -> None:
    """Show what is asked for, a field for the person's reason, and the button. The decision is
    bound to what stands here: a request that has changed since is refused.
    """
    st.html(session_text.switch_details(request, agent, now))
    reason = st.text_input("Your reason", key=f"why-{done}-{request.id}")
    label = "Approve" if done == "approved" else "Reject"
    if st.button(f"{label} the switch", type="primary"):
        ctx = page_frame.context()
        current_user.attempt(
            lambda actor: decide(ctx, actor, request.id, reason, seen=request.hash),
            lambda actor: f"{actor.name} {done} the switch that {agent} asked for.",
        )
