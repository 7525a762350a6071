"""The Suites page answers: do my suites load, what do they decide about, and what runs? It runs
a suite on a model, adds one by its data file, and labels captured requests for one.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final

import streamlit as st

from dashboard import page_frame
from dashboard.data.suites import RunView, SuitesPage, SuiteView, load_suites
from dashboard.dialogs import action_dialogs, suite_dialogs
from dashboard.dialogs.action_dialogs import Opener
from dashboard.text import html, labels
from dashboard.text.html import escape
from dashboard.text.suite_text import (
    RUN_HEADS,
    SUITE_HEADS,
    UNDER_WAY,
    run_cells,
    suite_cells,
    title,
)
from harness.domain.evals.run import EvalRun
from harness.domain.operations.access import Role

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
        st.html(html.empty("Add a suite above, or by this command:", command))
    _runs(page)
    page_frame.copy_as_cli("suite", "list")


def _buttons(page: SuitesPage) -> None:
    dialogs = suite_dialogs
    able = {v.summary.name: v.summary.items or 0 for v in page.suites if not v.summary.error}
    openers = [
        Opener(
            "Run a suite", ":material/play_arrow:",
            partial(dialogs.run_suite, able, page.targets), "run", Role.PROPOSER,
            "" if able else "There is no suite to run.",
        ),
        Opener("Add a suite", ":material/upload_file:", dialogs.add_suite, "add-suite"),
        Opener(
            "Label captured requests", ":material/label:", dialogs.label_captures, "label",
            Role.APPROVER,
        ),
    ]  # fmt: skip
    action_dialogs.show_openers(openers)


def _suites(page: SuitesPage) -> None:
    found: Sequence[SuiteView] = page.suites
    if len(found) > MOST_ROWS:
        wanted = st.text_input(
            "Find a suite", key="find", bind="query-params",
            placeholder="Part of its name, title or of a route",
        )  # fmt: skip
        words = (wanted or "").casefold().split()
        found = [view for view in found if all(word in _text(view) for word in words)]
        st.html(html.note(f"{len(found):,} of {len(page.suites):,} suites"))
    ordered = sorted(found, key=lambda view: (not view.summary.error, not view.routes))
    rows = [suite_cells(view, page.now) for view in ordered]
    if rows:
        st.html(html.table(SUITE_HEADS, rows, stacked=True))


def _text(view: SuiteView) -> str:
    return " ".join((view.summary.name, view.summary.title, *view.routes)).casefold()


def _runs(page: SuitesPage) -> None:
    st.html(html.section("Newest runs", "Of proposals, of schedules and by hand."))
    if not page.runs:
        st.html(html.note("Nothing has run yet. A proposal runs its suites by itself."))
        return
    titles = {view.summary.name: view.summary.title for view in page.suites}
    rows = [run_cells(view, titles, page.now) for view in page.runs]
    st.html(html.table(RUN_HEADS, rows, stacked=True))
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
    action_dialogs.show_openers(
        [
            Opener(
                "Cancel it", ":material/block:", partial(_cancel_run, run), "cancel-run",
                Role.PROPOSER, "" if run else "Choose a run first.",
            )
        ]
    )  # fmt: skip


def _cancel_run(run: EvalRun | None) -> None:
    if run is not None:
        suite_dialogs.cancel(run)


page_frame.show_page("The suites", show)
