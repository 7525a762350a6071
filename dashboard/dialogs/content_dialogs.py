"""The dialogs of the page Captures: show one captured request, write captured requests into a
file, delete some of them, and delete all that a user of the clients said and got.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import streamlit as st

from dashboard import current_user, page_frame
from dashboard.dialogs import action_dialogs
from dashboard.text import html, labels
from dashboard.text.html import escape, strong
from harness.control.privacy import captures, user_deletion
from harness.control.serialize import escape_surrogates
from harness.domain.operations.access import Actor, Role
from harness.domain.privacy.capture import CapturedRequest, answer_text, message_text
from harness.domain.privacy.stored_content import BEYOND

EXPORT: Final = "exported-captures"
READ: Final = "read-one-capture"
NO_TEXT: Final = "(no text)"
ALL: Final = "All routes"
PERIODS: Final[Mapping[str, timedelta | None]] = {
    "all that is kept": None,
    "the last 24 hours": timedelta(days=1),
    "the last 7 days": timedelta(days=7),
}
IN_CLEAR: Final = (
    "The file has what users wrote: redacted, not encrypted, and no deletion reaches it. Fill "
    "in `label` and `label_author`, then add it on Suites or by `swapgate suite import`."
)
BY_ID: Final = "One, by its id"
BY_ROUTE: Final = "Of one route"
EVERYTHING: Final = "Of all routes"


@dataclass(frozen=True, slots=True)
class _Read:
    """Holds the request that somebody read, until it is shown."""

    principal: str  # nobody else sees it in this browser
    capture: CapturedRequest = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Export:
    """Holds what somebody exported, until he has downloaded it."""

    principal: str  # nobody else gets it in this browser
    content: bytes
    count: int
    left_out: int  # near-duplicates


@action_dialogs.dialog("Show a captured request", width="large")
def show_one(ids: Sequence[str]) -> None:
    """Asks for one, reads it, which is audited, and shows it, redacted as it is kept."""
    actor, read = current_user.signed_in(), st.session_state.pop(READ, None)
    if actor is not None and isinstance(read, _Read) and read.principal == actor.principal:
        st.html(_content(read.capture))
        return
    id_ = st.selectbox(
        "Id, as the table names it", ids, index=None, accept_new_options=True,
        placeholder="Choose one, or write its id", key="read-id",
    )  # fmt: skip
    st.html(html.note("It is redacted. The audit log notes who read it."))
    chosen = (id_ or "").strip()
    action_dialogs.submit(
        "Read it",
        key="read-now",
        role=Role.APPROVER,
        missing="" if chosen else "Say which one first.",
        act=lambda actor: _read(actor, chosen),
        done=lambda actor: f"{actor.name} read the captured request {chosen}.",
    )


def _content(capture: CapturedRequest) -> str:
    """Renders what was asked, message by message, and the answer, as HTML."""
    facts = (
        ("Route", strong(capture.route)),
        ("Model", escape(capture.target)),
        ("Captured", escape(labels.date_time(capture.at))),
    )
    messages = [
        (str(message.get("role")), message_text(message.get("content")))
        for message in capture.content.get("messages", ())
    ]
    said = [*messages, ("answer", answer_text(capture.content))]
    parts = "".join(
        f'<div class="part"><h3>{escape(role.capitalize())}</h3>'
        f"{html.scrolled_text(escape(words[: html.SHOWN_CHARACTERS] or NO_TEXT))}</div>"
        for role, words in said
    )
    return html.facts(facts) + html.block(parts, kind="sg-messages")


def _read(actor: Actor, id_: str) -> None:
    capture = captures.read_capture(page_frame.context(), actor, id_)
    st.session_state[READ] = _Read(actor.principal, capture)
    action_dialogs.reopen("read-capture")


@action_dialogs.dialog("Export captured requests", width="medium")
def export(routes: Sequence[str]) -> None:
    """Asks which requests, reads them, which is audited, and then offers the file."""
    actor, done = current_user.signed_in(), st.session_state.get(EXPORT)
    if actor is not None and isinstance(done, _Export) and done.principal == actor.principal:
        count = labels.plural(done.count, "request")
        left_out = f", without {done.left_out:,} that are much like others"
        st.html(html.note(f"{count}{left_out if done.left_out else ''}. {IN_CLEAR}"))
        st.download_button(
            f"Download {count}", done.content, "to-label.jsonl", "application/jsonl",
            icon=":material/download:", key="download-captures", type="primary",
            on_click=_forget,
        )  # fmt: skip
        return
    st.session_state.pop(EXPORT, None)
    route = st.selectbox("Of which route", [ALL, *routes], key="export-route")
    period = st.selectbox("Captured in", list(PERIODS), key="export-period")
    near = st.slider(
        "Leave out requests as similar as this to another one (1: only equal ones)",
        0.5, 1.0, captures.NEAR_DUPLICATE_SIMILARITY, 0.05, key="export-near",
    )  # fmt: skip
    st.html(html.note("The audit log notes who read captured requests."))
    action_dialogs.submit(
        "Read them",
        key="export-now",
        role=Role.APPROVER,
        missing="",
        act=lambda actor: _export(
            actor, None if route == ALL else route, PERIODS[period], near
        ),
        done=lambda actor: f"{actor.name} read the captured requests; download them now.",
    )


def _export(actor: Actor, route: str | None, since: timedelta | None, near: float) -> None:
    found = captures.export_captures(
        page_frame.context(), actor, route=route, since=since, near=near
    )
    lines = (json.dumps(line, ensure_ascii=False) + "\n" for line in found.lines)
    content = escape_surrogates("".join(lines)).encode()
    st.session_state[EXPORT] = _Export(
        actor.principal, content, len(found.lines), len(found.near)
    )
    action_dialogs.reopen("export-captures")


def _forget() -> None:
    st.session_state.pop(EXPORT, None)


@action_dialogs.dialog("Delete captured requests", width="medium")
def purge(routes: Sequence[str]) -> None:
    """Asks which captured requests go, for good."""
    ways = [BY_ROUTE, BY_ID, EVERYTHING]
    which = st.radio("Which", ways, key="purge-which")
    id_ = route = None
    if which == BY_ID:
        id_ = (st.text_input("Id, as the table names it", key="purge-id") or "").strip()
    elif which == BY_ROUTE:
        route = st.selectbox(
            "Route", routes, index=None, placeholder="Choose a route", key="purge-route"
        )
    sure = st.checkbox("They cannot be brought back", key="purge-sure")
    everything = which == EVERYTHING
    missing = "" if id_ or route or everything else "Say which ones first."
    action_dialogs.submit(
        "Delete them",
        key="purge-now",
        role=Role.ADMIN,
        missing=missing or ("" if sure else "Confirm that they cannot be brought back."),
        act=lambda actor: captures.purge_captures(
            page_frame.context(),
            actor,
            secret=page_frame.installation().secret,
            id_=id_,
            route=route,
            everything=everything,
        ),
        done=lambda actor: f"{actor.name} deleted captured requests: {id_ or route or ALL}.",
    )


@action_dialogs.dialog("Delete what a user said and got", width="medium")
def delete_user() -> None:
    """Asks whose content goes and why; says what a deletion cannot reach."""
    user = (st.text_input("User's id, as clients send it", key="delete-user") or "").strip()
    beyond = "".join(f"<li>{escape(sentence)}</li>" for sentence in BEYOND)
    st.html(
        html.block(
            "<p>Their sessions with all messages and their captured requests go for good, and "
            "their marks in the failover log. The audit log keeps your reason and the counts, "
            f"and not the id.</p><details><summary>Not reached</summary><ul>{beyond}</ul>"
            "</details>"
        )
    )
    reason = action_dialogs.ask_reason("delete-user-why")
    action_dialogs.submit(
        "Delete it",
        key="delete-user-now",
        role=Role.ADMIN,
        missing="" if user and reason else "Give the id, and a reason that does not name it.",
        act=lambda actor: user_deletion.delete_user(
            page_frame.context(),
            actor,
            user,
            reason,
            secret=page_frame.installation().secret,
        ),
        done=lambda actor: f"{actor.name} deleted the content of a user; Audit has the counts.",
    )
