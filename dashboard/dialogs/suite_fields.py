"""The fields that describe a new suite, which the dialogs of the Suites page share: its name,
its scorer with the options that this one takes, and the model that judges where one does.
"""

from collections.abc import Mapping
from typing import Any, Final

import streamlit as st

from dashboard import page_frame
from dashboard.data import queries
from dashboard.dialog_forms import Form, ask_object
from harness.app.suite_import import JUDGED_SCORERS, UPLOAD_SCORERS, SuiteUpload

OPTION_WORDS: Final[Mapping[str, str]] = {
    "ignore_case": "Upper and lower case count alike",
    "tolerance": "Numbers may differ by",
    "final_line": "What the last line begins with, such as ANSWER:",
    "labels": "Labels, separated by commas",
    "pattern": "Regular expression",
    "graded": "The score is the share that is right, not all or nothing",
    "schema": "JSON schema of an answer",
    "any_of": "Each argument of a target lists all values that are right",
    "timeout_s": "Seconds that an answer's code may run",
    "memory_mb": "Memory that it may use, MB",
    "rubric": "Rubric: what the judge gives each score for",
    "show_target": "The judge reads the expected answer too",
    "criteria": "What makes an answer the better one",
    "seed": "Seed that draws which answer the judge reads first",
    "threshold": "Similarity from which an answer is right (0: the similarity is the score)",
}
# What holds where a field stays empty.
EMPTY_WORDS: Final[Mapping[str, str]] = {
    "final_line": "Any line",
    "labels": "All targets of the file",
    "pattern": "Each item's target",
    "schema": "Each item's own",
}
LONG_TEXTS: Final = frozenset({"rubric", "criteria"})
NEEDED: Final = frozenset({"rubric"})


def ask(form: Form) -> SuiteUpload:
    name = form.text("name", "Name: a-z, 0-9, - and _", need="A name is needed.")
    title = form.text("title", "Title, for people (optional)")
    scorer = st.selectbox(
        "How an answer is compared with its target", list(UPLOAD_SCORERS),
        key=form.key("scorer"),
        format_func=lambda name: f"{name}, by a judge" if name in JUDGED_SCORERS else name,
    )  # fmt: skip
    options: dict[str, object] = {}
    for option, default in UPLOAD_SCORERS[scorer].items():
        value = _ask_option(form, option, default, form.key(f"{option}-{scorer}"))
        form.need(value or option not in NEEDED, f"Write the {option} first.")
        if value != default:
            options[option] = value
    judge, most = "", None
    if scorer in JUDGED_SCORERS:
        judge, most = _ask_judge(form)
    return SuiteUpload(name, "", b"", scorer, title, options, judge, most)


def _ask_option(form: Form, option: str, default: Any, key: str) -> object:
    """Asks for one option by the kind of its default."""
    words, empty = OPTION_WORDS[option], EMPTY_WORDS.get(option, "")
    if isinstance(default, bool):
        return st.checkbox(words, default, key=key)
    if isinstance(default, int | float):
        found = st.number_input(
            words, min_value=0.0, value=float(default), format="%g", key=key
        )
        return int(found) if found.is_integer() else found
    if isinstance(default, dict):
        value, wrong = ask_object(f"{words} (empty: {empty.lower()})", key=key)
        form.need(not wrong, wrong)
        return value
    ask_text = st.text_area if option in LONG_TEXTS else st.text_input
    typed = (ask_text(words, key=key, placeholder=empty) or "").strip()
    if isinstance(default, list):
        return [label.strip() for label in typed.split(",") if label.strip()]
    return typed


def _ask_judge(form: Form) -> tuple[str, float | None]:
    """Asks for the model that judges, and for what it may cost in a run."""
    # A judge is a plain model: those with parameters of their own have a mark in their names.
    plain = [name for name in queries.model_names(page_frame.context()) if "#" not in name]
    judge = form.choose_or_type(
        "judge", "Model that judges", plain, need="Choose the model that judges first.",
        placeholder="Choose one, or write PROVIDER/MODEL",
    )  # fmt: skip
    most = st.number_input(
        "End a run when the judge has cost, US dollars", min_value=0.01, value=None,
        key=form.key("judge-cost"), placeholder="No limit",
    )  # fmt: skip
    form.say(
        note="It is asked about every answer, at its provider's price. `references` under "
        "`judge` in swapgate.yaml compares it with people at each run."
    )
    return judge, most
