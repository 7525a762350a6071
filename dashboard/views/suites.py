"""The Suites page answers: do my suites load, what do they decide about, and what runs? It runs
a suite on a model, adds one by its data file, labels captured requests for one, and shows which
requests are captured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import streamlit as st

from dashboard import current_user, downloads, page_frame
from dashboard.data import queries
from dashboard.data.suites import (
    UNDER_WAY,
    RunView,
    SuitesPage,
    SuiteView,
    load_suites,
    run_cells,
    suite_cells,
    title,
)
from dashboard.dialog_forms import Form, dialog, show_openers
from dashboard.dialogs import suite_fields
from dashboard.sections import captures as captures_section
from dashboard.text import html, labels
from dashboard.text.html import escape, strong
from harness.app import suite_import
from harness.app.suite_import import SuiteUpload
from harness.control.context import Context
from harness.control.evals import worker_supervision
from harness.control.privacy import captures
from harness.domain.evals.run import EvalRun, RunBudget
from harness.domain.operations.access import Actor, Role
from harness.domain.privacy.capture import answer_text, user_text

# With more suites than these, the page has a search.
MOST_ROWS: Final = 20


def show() -> None:
    with page_frame.loading("the suites"):
        page = load_suites(page_frame.context())
    heading = title(page.suites, page.runs)
    st.html(html.title(heading, escape(labels.date_time(page.now))))
    page_frame.show_done_message()
    nothing = st.session_state.pop("nothing-captured", None)
    if nothing:
        how = f"Let it capture a share of its requests, in its settings on {nothing}'s page."
        st.html(html.banner(f"Nothing is captured of {nothing}.", how))
    _buttons(page)
    if page.suites:
        _suites(page)
    else:
        command = "swapgate suite import FILE --suite NAME --scorer exact"
        page_frame.show_empty("Add a suite above, or by this command:", command)
    _runs(page)
    captures_section.show()
    page_frame.copy_as_cli(["suite", "list"], ["capture", "list"])


def _buttons(page: SuitesPage) -> None:
    able = {v.summary.name: v.summary.items or 0 for v in page.suites if not v.summary.error}
    none = "" if able else "There is no suite to run."
    run = run_suite.opener(able, page.targets, missing=none)
    show_openers([run, add_suite.opener(), label_captures.opener()])


def _suites(page: SuitesPage) -> None:
    found: Sequence[SuiteView] = page.suites
    if len(found) > MOST_ROWS:
        wanted = page_frame.search("Find a suite", "Part of its name, title or of a route")
        found = [
            view
            for view in found
            if wanted(" ".join((view.summary.name, view.summary.title, *view.routes)))
        ]
        st.html(html.note(f"{len(found):,} of {len(page.suites):,} suites"))
    ordered = sorted(found, key=lambda view: (not view.summary.error, not view.routes))
    rows = [suite_cells(view, page.now) for view in ordered]
    page_frame.show_html(html.table(rows, stacked=True))


def _runs(page: SuitesPage) -> None:
    nothing = "Nothing has run yet. A proposal runs its suites by itself."
    titles = {view.summary.name: view.summary.title for view in page.suites}
    rows = [run_cells(view, titles, page.now) for view in page.runs]
    st.html(
        html.listing("Newest runs", "Of proposals, of schedules and by hand.", rows, nothing)
    )
    _cancel([v for v in page.runs if v.run.state in UNDER_WAY])


def _cancel(under_way: Sequence[RunView]) -> None:
    if not under_way:
        return
    runs: dict[str, EvalRun] = {view.run.id: view.run for view in under_way}
    names = {view.run.id: f"{view.run.suite} of {view.target}" for view in under_way}
    chosen = st.selectbox(
        "Cancel a run", list(runs), index=0 if len(runs) == 1 else None,
        placeholder="Choose a run that is under way",
        format_func=lambda id_: f"{names[id_]} ({id_})",
        key="chosen-run",
    )  # fmt: skip
    run = runs.get(chosen or "")
    show_openers([cancel.opener(run, missing="" if run else "Choose a run first.")])


CAPTURES: Final = "captures-to-label"
ROW_HEIGHT_PX: Final = 88  # three lines of a request
LABEL_PX: Final = 110
KNOWN: Final = "Every process here knows it at its next look; routes can use it now."
RUN_NOTE: Final = (
    "The provider charges for it. It decides nothing about a route; a suite with a judge "
    "compares the judge with people first."
)
FILE_NOTE: Final = (
    "JSONL or CSV with input and target, one item a line; also id, choices and metadata. "
    "Labelled captures are taken too."
)
LABEL_NOTE: Final = (
    "Write what a right answer is. A line without a label is left out. Labels are kept until "
    "you leave: download them to go on later."
)


@dialog("Run a suite", Role.PROPOSER, "run", "play_arrow", width="medium")
def run_suite(form: Form, suites: Mapping[str, int], targets: Sequence[str]) -> None:
    """Asks for suite, model and limits. suites: how many items each has."""
    suite = form.choose("suite", "Suite", suites, placeholder="Choose a suite")
    target = form.choose("target", "Model", targets, placeholder="Choose a model")
    form.need(suite and target, "Choose a suite and a model first.")
    all_items = suites.get(suite or "", 0)
    items = st.number_input(
        "Items", min_value=1, max_value=max(1, all_items), value=None, key=f"items-{suite}",
        placeholder=f"All {all_items:,}" if all_items else "All",
    )  # fmt: skip
    most = st.number_input(
        "End it at this cost, US dollars", min_value=0.01, value=1.0, key=form.key("cost")
    )
    st.html(html.note(RUN_NOTE))
    page_frame.warn_without_control()
    form.says = f"{suite} on {target} is queued; the control process works on it."
    form.submit(
        "Run it now", "", worker_supervision.start_run, suite or "", target or "", items=items,
        budget=RunBudget(max_cost_usd=most),
    )  # fmt: skip


@dialog("Cancel the run", Role.PROPOSER, "run-end", "block", label="Cancel it")
def cancel(form: Form, run: EvalRun) -> None:
    """Asks for the reason; a proposal that waits for the run is cancelled with it."""
    form.say(
        f"The run {strong(run.id)} of {strong(run.suite)} ends for good, and so does an open "
        "proposal that waits for it. What it measured is kept."
    )
    done = f"ended the run {run.id}."
    form.submit("End the run", done, worker_supervision.cancel_run, run.id, form.reason())


@dialog("Add a suite", Role.ADMIN, "upload", "upload_file", width="medium")
def add_suite(form: Form) -> None:
    """Takes a data file, and says what it must hold."""
    wanted = suite_fields.ask(form)
    file = st.file_uploader(
        "Data file", type=["jsonl", "csv"], key="suite-file", max_upload_size=50
    )
    st.html(html.note(FILE_NOTE))
    content = file.getvalue() if file is not None else b""
    form.need(content, "A data file is needed.")
    upload = replace(wanted, file_name=file.name if file else "", content=content)
    form.submit("Add the suite", f"added the suite {wanted.name}. {KNOWN}", add, upload)


def add(_ctx: Context, actor: Actor, upload: SuiteUpload) -> None:
    suite_import.add_suite(page_frame.installation(), actor, upload)
    page_frame.reopen()


@dialog("Label captured requests", Role.APPROVER, "read-captures", "label", width="large")
def label_captures(reading: Form) -> None:
    """Shows the requests captured of a route, takes labels, and makes a suite of them."""
    actor = current_user.signed_in()
    reader, lines = st.session_state.get(CAPTURES, ("", ()))
    if actor is None or actor.principal != reader:
        # What one person read is not shown to the next one.
        st.session_state.pop(CAPTURES, None)
        _load_captures(reading)
        return
    st.html(html.note(LABEL_NOTE))
    edited = st.data_editor(
        list_rows(lines),
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
    given = {row["id"]: str(row["Label"] or "") for row in edited}
    form = Form(Role.ADMIN, "label")
    upload = suite_fields.ask(form)
    count = sum(1 for label in given.values() if label.strip())
    form.need(count, "At least one label is needed.")
    st.download_button(
        "Download the labels", write_labelled(lines, given, actor.name), "labelled.jsonl",
        "application/jsonl", icon=":material/download:", key="download-labels",
    )  # fmt: skip
    done = f"made the suite {upload.name}. {KNOWN}"
    label = f"Make a suite of {count} labelled requests"
    form.submit(label, done, _add_labelled, lines, given, upload)


def list_rows(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    return [
        {"id": line["id"], "Label": "", "Request": user_text(line), "Answer": answer_text(line)}
        for line in lines
    ]


def _load_captures(form: Form) -> None:
    """Asks for the route, and reads its captures once that is clicked: reading is audited."""
    route = form.choose(
        "route", "Route", queries.route_names(page_frame.context()),
        need="Choose a route first.", placeholder="Choose a route",
    )  # fmt: skip
    st.html(html.note("Who read captured requests stands in the audit log."))
    done = f"read the captured requests of {route}."
    form.submit("Show its captured requests", done, _read_captures, route or "")


def _read_captures(ctx: Context, actor: Actor, route: str) -> None:
    found = captures.export_captures(ctx, actor, route=route)
    if found.lines:
        st.session_state[CAPTURES] = (actor.principal, found.lines)
        label_captures.reopen()
    else:
        st.session_state["nothing-captured"] = route


def write_labelled(
    lines: Sequence[Mapping[str, Any]], given: Mapping[str, str], author: str
) -> bytes:
    now = page_frame.context().clock.now()
    return downloads.to_jsonl(captures.label_lines(lines, given, author, now))


def _add_labelled(
    ctx: Context,
    actor: Actor,
    lines: Sequence[Mapping[str, Any]],
    given: Mapping[str, str],
    upload: SuiteUpload,
) -> None:
    content = write_labelled(lines, given, actor.name)
    add(ctx, actor, replace(upload, file_name="labelled.jsonl", content=content))
    st.session_state.pop(CAPTURES, None)


if __name__ == "__main__":
    page_frame.show_page("The suites", show)
