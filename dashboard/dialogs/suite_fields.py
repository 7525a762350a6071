"""The fields that describe a new suite, which the dialogs of the Suites page share: its name,
its scorer with the options that this one takes, and the model that judges where one does.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import streamlit as st

from dashboard import page_frame
from dashboard.data import queries
from dashboard.text import html
from harness.app.suite_import import JUDGED_SCORERS, UPLOAD_SCORERS, SuiteUpload

HEIGHT_PX: Final = 72


def ask_object(label: str, *, key: str, example: str = "") -> tuple[dict[str, object], str]:
    """Shows a field for a JSON object; returns what stands in it, and what is wrong with it."""
    typed = (st.text_area(label, key=key, placeholder=example, height=HEIGHT_PX) or "").strip()
    try:
        found = json.loads(typed or "{}")
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found, ""
    return {}, f"{label}: this is no JSON object{f', such as {example}' if example else ''}."


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


@dataclass(frozen=True, slots=True)
class SuiteFields:
    """Holds what was typed about a new suite. missing: what it still lacks, in words."""

    upload: SuiteUpload
    missing: str


def ask(key: str) -> SuiteFields:
    """Asks for a new suite, its data aside. key: sets apart the fields of the dialogs."""
    name = st.text_input("Name: a-z, 0-9, - and _", key=f"suite-name-{key}", live=True) or ""
    title = st.text_input("Title, for people (optional)", key=f"suite-title-{key}") or ""
    scorer = st.selectbox(
        "How an answer is compared with its target", list(UPLOAD_SCORERS),
        key=f"suite-scorer-{key}",
        format_func=lambda name: f"{name}, by a judge" if name in JUDGED_SCORERS else name,
    )  # fmt: skip
    missing = "" if name.strip() else "A name is needed."
    options: dict[str, object] = {}
    for option, default in UPLOAD_SCORERS[scorer].items():
        value, wrong = _ask_option(option, default, f"{option}-{scorer}-{key}")
        missing = missing or wrong
        if option in NEEDED and not value:
            missing = missing or f"Write the {option} first."
        if value != default:
            options[option] = value
    judge, most = _ask_judge(key) if scorer in JUDGED_SCORERS else ("", None)
    if scorer in JUDGED_SCORERS and not judge:
        missing = missing or "Choose the model that judges first."
    upload = SuiteUpload(name.strip(), "", b"", scorer, title.strip(), options, judge, most)
    return SuiteFields(upload, missing)


def _ask_option(option: str, default: Any, key: str) -> tuple[object, str]:
    """Asks for one option by the kind of its default; and says what is wrong with it."""
    words, empty = OPTION_WORDS[option], EMPTY_WORDS.get(option, "")
    if isinstance(default, bool):
        return st.checkbox(words, default, key=key), ""
    if isinstance(default, int | float):
        found = st.number_input(
            words, min_value=0.0, value=float(default), format="%g", key=key
        )
        return int(found) if found.is_integer() else found, ""
    if isinstance(default, dict):
        return ask_object(f"{words} (empty: {empty.lower()})", key=key)
    ask_text = st.text_area if option in LONG_TEXTS else st.text_input
    typed = (ask_text(words, key=key, placeholder=empty) or "").strip()
    if isinstance(default, list):
        return [label.strip() for label in typed.split(",") if label.strip()], ""
    return typed, ""


def _ask_judge(key: str) -> tuple[str, float | None]:
    """Asks for the model that judges, and for what it may cost in a run."""
    # A judge is a plain model: those with parameters of their own have a mark in their names.
    plain = [name for name in queries.model_names(page_frame.context()) if "#" not in name]
    judge = st.selectbox(
        "Model that judges", plain, index=None,
        accept_new_options=True, placeholder="Choose one, or write PROVIDER/MODEL",
        key=f"judge-{key}",
    )  # fmt: skip
    most = st.number_input(
        "End a run when the judge has cost, US dollars", min_value=0.01, value=None,
        key=f"judge-cost-{key}", placeholder="No limit",
    )  # fmt: skip
    words = (
        "It is asked about every answer, at its provider's price. `references` under "
        "`judge` in swapgate.yaml compares it with people at each run."
    )
    st.html(html.block(f'<p class="note">{html.rich(words)}</p>'))
    return (judge or "").strip(), most
