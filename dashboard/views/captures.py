"""The Suites page's section of captures: which requests of users are kept, and until when?"""

from collections.abc import Sequence
from typing import Final

import streamlit as st

from dashboard import current_user, html, labels, page_frame
from dashboard.dialog_forms import REASON, Form, dialog, show_openers
from dashboard.html import escape, noted, strong
from harness.frame.pagination import PageRequest
from harness.frame.people.access import Actor, Role
from harness.operations import captures, user_deletion
from harness.operations.captures import CaptureSummary
from harness.operations.queries import list_captures
from harness.routing.capture import CapturedRequest, answer_text, message_text
from harness.routing.context import Context

MOST_ROWS: Final = 50
NOTHING: Final = "Nothing is captured yet."


def show() -> None:
    ctx = page_frame.context()
    page = list_captures(ctx, PageRequest(MOST_ROWS))
    count = labels.plural(page.total or 0, "request")
    found = f"{count} of users kept, redacted." if page.total else "No request is kept."
    st.html(html.section("Captured requests", found))
    page_frame.show_html(html.invalid(page.invalid))
    missing = "" if page.total else NOTHING
    show_openers(
        [
            show_one.opener([row.id for row in page], missing=missing),
            delete_user.opener(),
        ]
    )
    if page.items:
        st.html(html.table(map(_cells, page), stacked=True))
    else:
        page_frame.show_empty(
            "A route keeps none of its requests until its settings say what share. This "
            "sets it:",
            "swapgate route settings ROUTE --capture 1%",
        )
    page_frame.show_rest(page, "requests, newest first", "swapgate capture list")


def _cells(row: CaptureSummary) -> html.Row:
    redacted = ", ".join(f"{name} {count}" for name, count in row.redactions.items())
    tools = f", {labels.plural(row.tools, 'tool')}" if row.tools else ""
    return {
        "Captured": noted(escape(labels.date_time(row.at)), row.id),
        "Route": strong(row.route),
        "Model": escape(row.target),
        "Messages": escape("over the limit" if row.too_large else f"{row.messages:,}{tools}"),
        "Redacted": escape(redacted or "nothing"),
        "Asked": escape("once" if row.seen <= 1 else f"{row.seen:,} times"),
        "Kept until": escape(labels.date_time(row.expires_at)),
    }


READ: Final = "read-one-capture"
NO_TEXT: Final = "(no text)"


@dialog(
    "Show a captured request", Role.APPROVER, "read", "visibility",
    label="Show one …", width="large",
)  # fmt: skip
def show_one(form: Form, ids: Sequence[str]) -> None:
    principal, capture = st.session_state.pop(READ, ("", None))
    actor = current_user.signed_in()
    if capture and actor is not None and actor.principal == principal:
        # What one person read is not shown to another one in this browser.
        st.html(render(capture))
        return
    id_ = form.choose_or_type(
        "id", "Id, as the table names it", ids, need="Say which one first.",
        placeholder="Choose one, or write its id",
    )  # fmt: skip
    st.html(html.note("It is redacted. The audit log notes who read it."))
    form.submit("Read it", f"read the captured request {id_}.", _read, id_)


def _read(ctx: Context, actor: Actor, id_: str) -> None:
    st.session_state[READ] = (actor.principal, captures.read_capture(ctx, actor, id_))
    show_one.reopen()


def render(capture: CapturedRequest) -> str:
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


@dialog(
    "Delete what a user said and got", Role.ADMIN, "delete-user", "person_remove",
    label="Delete a user's content …", width="medium",
)  # fmt: skip
def delete_user(form: Form) -> None:
    lacks = "Give the id, and a reason that does not name it."
    user = form.text("id", "User's id, as clients send it", need=lacks)
    sentences = user_deletion.BEYOND
    beyond = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    form.say(
        "Their sessions with all messages and their captured requests go for good, and their "
        "marks in the failover log. The audit log keeps your reason and the counts, and not "
        "the id."
    )
    st.html(html.block(f"<details><summary>Not reached</summary><ul>{beyond}</ul></details>"))
    reason = form.text("why", REASON, need=lacks)
    form.submit(
        "Delete it", "deleted the content of a user; Audit has the counts.",
        user_deletion.delete_user, user, reason, secret=page_frame.installation().secret,
    )  # fmt: skip
