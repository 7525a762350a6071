"""The dialogs of the Suites page.

Captured requests contain text of callers, so only an approver may read them. The audit log
records each reading, and only the reader's session holds the requests.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import streamlit as st

from dashboard import current_user, markup, page_frame
from dashboard.dialog_forms import REASON, Form, ask_object, dialog
from dashboard.markup import escape
from harness.app import suite_import
from harness.app.suite_import import JUDGED_SCORERS, UPLOAD_SCORERS
from harness.evals.settings import JudgeSettings, SuiteSettings
from harness.frame.people.access import Actor, Role
from harness.frame.plain_data import escape_surrogates
from harness.gate.run import RunBudget
from harness.operations import captures
from harness.operations.context import Context
from harness.proposals import eval_queue
from harness.providers.target import Target
from harness.routing.capture import answer_text, user_text

READ_CAPTURES: Final = "captures-to-label"
ROW_HEIGHT_PX: Final = 88  # shows three lines of a request
LABEL_PX: Final = 110
AVAILABILITY: Final = "Routes can use it now; each process loads it at its next check."
RUN_NOTE: Final = (
    "The provider charges for the run. The run decides nothing about a route. If a judge "
    "scores the suite, the run first compares the judge with people."
)
FILE_NOTE: Final = (
    "JSONL or CSV, one item a line, with input and target, and optionally id, choices and "
    "metadata. Labelled captures work too."
)
LABEL_NOTE: Final = (
    "Write a right answer as the label. Swapproof leaves out lines without a label. The page "
    "keeps labels until you leave it: download them to continue later. The file has users' "
    "text, redacted but not encrypted, and later deletions do not reach it."
)
ALL_ROUTES: Final = "all routes"
PERIODS: Final[Mapping[str, timedelta | None]] = {
    "all kept requests": None,
    "the last 24 hours": timedelta(days=1),
    "the last 7 days": timedelta(days=7),
}
OPTION_LABELS: Final[Mapping[str, str]] = {
    "ignore_case": "Upper and lower case count alike",
    "tolerance": "Numbers may differ by",
    "decimal_sign": "Decimal sign, if the targets do not show it",
    "final_line": "Start of the last line, such as ANSWER:",
    "labels": "Labels, separated by commas",
    "pattern": "Regular expression",
    "graded": "The score is the share that is right, not all or nothing",
    "schema": "JSON schema of an answer",
    "any_of": "Each argument of a target lists all right values",
    "timeout_s": "Seconds that an answer's code may run",
    "memory_mb": "Memory that it may use, MB",
    "rubric": "Rubric: when the judge gives each score",
    "show_target": "The judge reads the expected answer too",
    "criteria": "Criteria for the better answer",
    "seed": "Seed that draws which answer the judge reads first",
}
# Placeholders: the meaning of an empty field.
PLACEHOLDERS: Final[Mapping[str, str]] = {
    "final_line": "Any line",
    "labels": "All targets of the file",
    "pattern": "Each item's target",
    "schema": "Each item's own",
}
LONG_TEXTS: Final = frozenset({"rubric", "criteria"})
REQUIRED_OPTIONS: Final = frozenset({"rubric"})


@dialog("Run a suite", Role.PROPOSER, "run", "play_arrow", width="medium")
def run_suite(
    form: Form,
    suites: Mapping[str, int],
    targets: Sequence[str],
) -> None:
    """Asks for a run of a suite on a model.

    Args:
        suites: number of items by name.
    """
    suite = form.choose("suite", "Suite", suites, placeholder="Choose a suite")
    target = form.choose("target", "Model", targets, placeholder="Choose a model")
    form.need(suite and target, "Choose a suite and a model first.")
    all_items = suites.get(suite or "", 0)
    items = st.number_input(
        "Items",
        min_value=1,
        max_value=max(1, all_items),
        value=None,
        key=f"items-{suite}",
        placeholder=f"All {all_items:,}" if all_items else "All",
    )
    max_cost_usd = st.number_input(
        "Stop the run at this cost, US dollars",
        min_value=0.01,
        value=1.0,
        key=form.key("cost"),
    )
    st.html(markup.note(RUN_NOTE))
    page_frame.warn_without_control()
    form.success_message = f"Queued {suite} on {target}; the control process runs it."
    form.submit(
        "Run it now",
        "",
        eval_queue.start_run,
        suite or "",
        target or "",
        items=items,
        budget=RunBudget(max_cost_usd=max_cost_usd),
    )


@dialog("Add a suite", Role.ADMIN, "upload", "upload_file", width="medium")
def add_suite(form: Form) -> None:
    suite = ask_suite(form)
    file = st.file_uploader(
        "Data file",
        type=["jsonl", "csv"],
        key="suite-file",
        max_upload_size=50,
    )
    st.html(markup.note(FILE_NOTE))
    content = file.getvalue() if file is not None else b""
    form.need(content, "A data file is needed.")
    message = f"added the suite {suite.name}. {AVAILABILITY}"
    form.submit(
        "Add the suite", message, add_uploaded_suite, suite, file.name if file else "", content
    )


def add_uploaded_suite(
    _ctx: Context,
    actor: Actor,
    suite: SuiteSettings,
    file: str,
    content: bytes,
) -> None:
    """Adds an uploaded suite, and makes this process read the configuration again."""
    suite_import.add_suite(page_frame.installation(), actor, suite, file, content)
    page_frame.reopen()


@dialog(
    "Label or export captured requests",
    Role.APPROVER,
    "read-captures",
    "label",
    width="large",
)
def label_captures(reading_form: Form) -> None:
    """Reads captured requests, asks for labels, and makes a suite of the labelled requests."""
    actor = current_user.signed_in()
    reader, lines = st.session_state.get(READ_CAPTURES, ("", ()))
    if actor is None or actor.principal != reader:
        # Another person in this browser must not see these requests.
        st.session_state.pop(READ_CAPTURES, None)
        _ask_selection(reading_form)
        return
    st.html(markup.note(LABEL_NOTE))
    edited = st.data_editor(
        list_rows(lines),
        key="labels",
        disabled=["id", "Request", "Answer"],
        # Pinned: on a phone, the label stays visible beside the answer.
        column_config={
            "id": None,
            "Label": st.column_config.TextColumn(width=LABEL_PX, pinned=True),
            "Request": st.column_config.TextColumn(width="medium"),
        },
        hide_index=True,
        row_height=ROW_HEIGHT_PX,
    )
    labels_by_id = {row["id"]: str(row["Label"] or "") for row in edited}
    form = Form(Role.ADMIN, "label")
    suite = ask_suite(form)
    label_count = sum(1 for label in labels_by_id.values() if label.strip())
    form.need(label_count, "At least one label is needed.")
    st.download_button(
        "Download the labels",
        write_labelled(lines, labels_by_id, actor.name),
        "labelled.jsonl",
        "application/jsonl",
        icon=":material/download:",
        key="download-labels",
    )
    message = f"made the suite {suite.name}. {AVAILABILITY}"
    label = f"Make a suite of {label_count} labelled requests"
    form.submit(label, message, _add_labelled, lines, labels_by_id, suite)


def list_rows(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Builds the rows of the label table, with empty labels."""
    return [
        {
            "id": line["id"],
            "Label": "",
            "Request": user_text(line),
            "Answer": answer_text(line),
        }
        for line in lines
    ]


def _ask_selection(form: Form) -> None:
    names = page_frame.route_names(page_frame.context())
    route = st.selectbox("Route", [ALL_ROUTES, *names], key=form.key("route"))
    period = form.pick("period", "Captured in", PERIODS)
    similarity = st.slider(
        "Leave out requests at least this similar to another (1: only equal requests)",
        0.5,
        1.0,
        captures.NEAR_DUPLICATE_SIMILARITY,
        0.05,
        key=form.key("near"),
    )
    st.html(markup.note("The audit log records who reads captured requests."))
    form.submit(
        "Read them",
        f"read the captured requests of {route}.",
        _read_captures,
        route=None if route == ALL_ROUTES else route,
        since=period,
        near=similarity,
    )


def _read_captures(
    ctx: Context,
    actor: Actor,
    /,
    **selection: Any,
) -> None:
    """Reads captured requests into the session of this person, and opens the dialog again."""
    capture_export = captures.export_captures(ctx, actor, **selection)
    if capture_export.lines:
        st.session_state[READ_CAPTURES] = (actor.principal, capture_export.lines)
        label_captures.reopen()
    else:
        st.session_state["nothing-captured"] = selection["route"] or ALL_ROUTES


def write_labelled(
    lines: Sequence[Mapping[str, Any]],
    labels_by_id: Mapping[str, str],
    author: str,
) -> bytes:
    """Writes labelled lines as JSON lines.

    Args:
        author: the person that the suite names as the labels' author.
    """
    now = page_frame.context().clock.now()
    labelled = captures.label_lines(lines, labels_by_id, author, now)
    json_lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in labelled)
    return escape_surrogates(json_lines).encode()


def _add_labelled(
    ctx: Context,
    actor: Actor,
    lines: Sequence[Mapping[str, Any]],
    labels_by_id: Mapping[str, str],
    suite: SuiteSettings,
) -> None:
    add_uploaded_suite(
        ctx,
        actor,
        suite,
        "labelled.jsonl",
        write_labelled(lines, labels_by_id, actor.name),
    )
    st.session_state.pop(READ_CAPTURES, None)


def ask_suite(form: Form) -> SuiteSettings:
    """Asks for a suite's name, scorer, options and judge."""
    name = form.text("name", "Name: a-z, 0-9, - and _", need="A name is needed.")
    title = form.text("title", "Title, for people (optional)")
    scorer = st.selectbox(
        "How an answer is compared with its target",
        list(UPLOAD_SCORERS),
        key=form.key("scorer"),
        format_func=lambda name: f"{name}, by a judge" if name in JUDGED_SCORERS else name,
    )
    options: dict[str, object] = {}
    for option, default in UPLOAD_SCORERS[scorer].items():
        value = _ask_option(form, option, default, form.key(f"{option}-{scorer}"))
        form.need(value or option not in REQUIRED_OPTIONS, f"Write the {option} first.")
        if value != default:
            options[option] = value
    judge = _ask_judge(form) if scorer in JUDGED_SCORERS else None
    return SuiteSettings(
        name,
        scorer=scorer,
        title=title,
        scorer_options=options,
        judge=judge,
    )


def _ask_option(
    form: Form,
    option: str,
    default: Any,
    key: str,
) -> object:
    """Asks for an option of a scorer, by the type of its default."""
    label = OPTION_LABELS[option]
    placeholder = PLACEHOLDERS.get(option, "")
    if isinstance(default, bool):
        return st.checkbox(label, default, key=key)
    if isinstance(default, int | float):
        number = st.number_input(
            label,
            min_value=0.0,
            value=float(default),
            format="%g",
            key=key,
        )
        return int(number) if number.is_integer() else number
    if isinstance(default, dict):
        value, problem = ask_object(f"{label} (empty: {placeholder.lower()})", key=key)
        form.need(not problem, problem)
        return value
    ask_text = st.text_area if option in LONG_TEXTS else st.text_input
    text = (ask_text(label, key=key, placeholder=placeholder) or "").strip()
    if isinstance(default, list):
        return [label.strip() for label in text.split(",") if label.strip()]
    return text


def _ask_judge(form: Form) -> JudgeSettings | None:
    """Asks for the judge's model, and for the cost at which a run stops. Returns None until the
    visitor has named the model.
    """
    # A judge is a plain model; a `#` in a name marks a model with its own parameters.
    plain_models = [
        name for name in page_frame.model_names(page_frame.context()) if "#" not in name
    ]
    judge = form.choose_or_type(
        "judge",
        "Model that judges",
        plain_models,
        need="Choose the model that judges first.",
        placeholder="Choose one, or write PROVIDER/MODEL",
    )
    judge_cost_usd = st.number_input(
        "Stop a run at this cost of the judge, US dollars",
        min_value=0.01,
        value=None,
        key=form.key("judge-cost"),
        placeholder="No limit",
    )
    form.say(
        note="The judge scores every answer, at its provider's price. With `references` "
        "under `judge` in swapproof.yaml, each run compares the judge with people."
    )
    is_named = all(judge.partition("/"))
    form.need(is_named, "Write the model that judges as PROVIDER/MODEL.")
    return (
        JudgeSettings(Target.from_name(judge), max_cost_usd=judge_cost_usd)
        if is_named
        else None
    )


@dialog(
    "Delete a user's content",
    Role.ADMIN,
    "delete-user",
    "person_remove",
    label="Delete a user's content …",
    width="medium",
)
def delete_user(form: Form) -> None:
    """Deletes a user's content, and lists the copies that remain elsewhere."""
    missing_fields = "Give the id, and a reason that does not name it."
    user = form.text("id", "User's id, as clients send it", need=missing_fields)
    sentences = captures.REMAINING_COPIES
    copies = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    form.say(
        "This deletes for good the user's sessions with all messages, their captured "
        "requests, and their marks in the failover log. The audit log keeps your reason and "
        "the counts, but not the id."
    )
    st.html(markup.block(f"<details><summary>Not deleted</summary><ul>{copies}</ul></details>"))
    reason = form.text("why", REASON, need=missing_fields)
    form.submit(
        "Delete it",
        "deleted the content of a user; Audit has the counts.",
        captures.delete_user,
        user,
        reason,
        secret=page_frame.installation().secret,
    )
