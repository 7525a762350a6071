"""The Suites page's dialogs run a suite on a model, cancel a run, add a suite by its data file,
and label captured requests, which then become a suite.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import streamlit as st

from dashboard import current_user, page_frame
from dashboard.dialogs import action_dialogs, suite_fields
from dashboard.text import html
from dashboard.text.html import strong
from harness.app import suite_import
from harness.app.suite_import import SuiteUpload
from harness.control.evals import worker_supervision
from harness.control.operations import queries
from harness.control.privacy import captures
from harness.control.serialize import escape_surrogates
from harness.domain.evals.run import EvalRun, RunBudget
from harness.domain.operations.access import Actor, Role
from harness.domain.privacy.capture import answer_text, user_text

CAPTURES: Final = "captures-to-label"
ROW_HEIGHT_PX: Final = 88  # three lines of a request
LABEL_PX: Final = 110
KNOWN: Final = "Every process here knows it at its next look; routes can use it now."


@action_dialogs.dialog("Run a suite", width="medium")
def run_suite(suites: Mapping[str, int], targets: Sequence[str]) -> None:
    """Asks for suite, model and limits. suites: how many items each has."""
    suite = st.selectbox("Suite", list(suites), index=None, key="run-suite",
                         placeholder="Choose a suite")  # fmt: skip
    target = st.selectbox("Model", targets, index=None, key="run-target",
                          placeholder="Choose a model")  # fmt: skip
    all_items = suites.get(suite or "", 0)
    items = st.number_input(
        "Items", min_value=1, max_value=max(1, all_items), value=None, key=f"items-{suite}",
        placeholder=f"All {all_items:,}" if all_items else "All",
    )  # fmt: skip
    most = st.number_input(
        "End it at this cost, US dollars", min_value=0.01, value=1.0, key="run-cost"
    )
    st.html(html.note("The provider charges for it. It decides nothing about a route; a suite "
                      "with a judge compares the judge with people first."))  # fmt: skip
    page_frame.warn_without_control()
    action_dialogs.submit(
        "Run it now",
        key="run-now",
        role=Role.PROPOSER,
        missing="" if suite and target else "Choose a suite and a model first.",
        act=lambda actor: worker_supervision.start_run(
            page_frame.context(), actor, suite or "", target or "", items=items,
            budget=RunBudget(max_cost_usd=most),
        ),
        done=lambda _: f"{suite} on {target} is queued; the control process works on it.",
    )  # fmt: skip


@action_dialogs.dialog("Cancel the run")
def cancel(run: EvalRun) -> None:
    """Asks for the reason; a proposal that waits for the run is cancelled with it."""
    st.html(
        html.block(
            f"<p>The run {strong(run.id)} of {strong(run.suite)} ends for good, and so does an "
            "open proposal that waits for it. What it measured is kept.</p>"
        )
    )
    reason = action_dialogs.ask_reason(f"why-{run.id}")
    action_dialogs.submit(
        "End the run",
        key=f"end-{run.id}",
        role=Role.PROPOSER,
        missing="" if reason else action_dialogs.REASON_MISSING,
        act=lambda actor: worker_supervision.cancel_run(
            page_frame.context(), actor, run.id, reason
        ),
        done=lambda actor: f"{actor.name} ended the run {run.id}.",
    )


@action_dialogs.dialog("Add a suite", width="medium")
def add_suite() -> None:
    """Takes a data file, and says what it must hold."""
    asked = suite_fields.ask("upload")
    file = st.file_uploader(
        "Data file", type=["jsonl", "csv"], key="suite-file", max_upload_size=50
    )
    st.html(html.note("JSONL or CSV with input and target, one item a line; also id, choices "
                      "and metadata. Labelled captures are taken too."))  # fmt: skip
    content = file.getvalue() if file is not None else b""
    missing = asked.missing or ("" if content else "A data file is needed.")
    name = asked.upload.name
    upload = replace(asked.upload, file_name=file.name if file else "", content=content)
    action_dialogs.submit(
        "Add the suite",
        key="add-suite-now",
        role=Role.ADMIN,
        missing=missing,
        act=lambda actor: _add(actor, upload),
        done=lambda actor: f"{actor.name} added the suite {name}. {KNOWN}",
    )


def _add(actor: Actor, upload: SuiteUpload) -> None:
    suite_import.add_suite(page_frame.installation(), actor, upload)
    page_frame.reopen()


@action_dialogs.dialog("Label captured requests", width="large")
def label_captures() -> None:
    """Shows the requests captured of a route, takes labels, and makes a suite of them."""
    actor = current_user.signed_in()
    reader, lines = st.session_state.get(CAPTURES, ("", ()))
    if actor is None or actor.principal != reader:
        # What one person read is not shown to the next one.
        st.session_state.pop(CAPTURES, None)
        _load_captures()
        return
    st.html(html.note("Write what a right answer is. A line without a label is left out. Labels"
                      " are kept until you leave: download them to go on later."))  # fmt: skip
    edited = st.data_editor(
        _rows(lines),
        key="labels",
        disabled=["id", "Request", "Answer"],
        # The label stays in sight on a phone, where the answer is reached sideways.
        column_config={
            "id": None,
            "Label": st.column_config.TextColumn(width=LABEL_PX, pinned=True),
            "Request": st.column_config.TextColumn(width="medium"),
        },
        hide_index=True,
        row_height=ROW_HEIGHT_PX,
    )
    labels = {row["id"]: str(row["Label"] or "") for row in edited}
    asked = suite_fields.ask("labels")
    name = asked.upload.name
    count = sum(1 for label in labels.values() if label.strip())
    content = _labelled(lines, labels, actor.name)
    st.download_button(
        "Download the labels", content, "labelled.jsonl", "application/jsonl",
        icon=":material/download:", key="download-labels",
    )  # fmt: skip
    action_dialogs.submit(
        f"Make a suite of {count} labelled requests",
        key="label-now",
        role=Role.ADMIN,
        missing=asked.missing or ("" if count else "At least one label is needed."),
        act=lambda who: _add_labelled(who, lines, labels, asked.upload),
        done=lambda who: f"{who.name} made the suite {name}. {KNOWN}",
    )  # fmt: skip


def _rows(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Lists what the table shows of each captured request, with an empty label."""
    return [
        {
            "id": line["id"],
            "Label": "",
            "Request": user_text(line),
            "Answer": answer_text(line),
        }
        for line in lines
    ]


def _load_captures() -> None:
    """Asks for the route, and reads its captures once that is clicked: reading is audited."""
    records = list(queries.list_routes(page_frame.context()))
    route = st.selectbox("Route", [record.name for record in records], index=None,
                         key="label-route", placeholder="Choose a route")  # fmt: skip
    st.html(html.note("Who read captured requests stands in the audit log."))
    action_dialogs.submit(
        "Show its captured requests",
        key="read-captures",
        role=Role.APPROVER,
        missing="" if route else "Choose a route first.",
        act=lambda actor: _read_captures(actor, route or ""),
        done=lambda actor: f"{actor.name} read the captured requests of {route}.",
    )


def _read_captures(actor: Actor, route: str) -> None:
    found = captures.export_captures(page_frame.context(), actor, route=route)
    if found.lines:
        st.session_state[CAPTURES] = (actor.principal, found.lines)
        action_dialogs.reopen("label")
    else:
        st.session_state["nothing-captured"] = route


def _labelled(
    lines: Sequence[Mapping[str, Any]], labels: Mapping[str, str], author: str
) -> bytes:
    now = page_frame.context().clock.now()
    done = captures.label_lines(lines, labels, author, now)
    written = (json.dumps(line, ensure_ascii=False) + "\n" for line in done)
    return escape_surrogates("".join(written)).encode()


def _add_labelled(
    actor: Actor,
    lines: Sequence[Mapping[str, Any]],
    labels: Mapping[str, str],
    upload: SuiteUpload,
) -> None:
    content = _labelled(lines, labels, actor.name)
    _add(actor, replace(upload, file_name="labelled.jsonl", content=content))
    st.session_state.pop(CAPTURES, None)
