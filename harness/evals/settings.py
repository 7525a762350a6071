"""Settings of suites and judges, as the configuration declares them.

The configuration's reader, its reference page and the runner use this one declaration.
`harness.app.configuration` checks the values when it reads them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from harness.frame.configuration.setting import (
    ANSWER_TOKENS,
    KEPT_DAYS,
    WAIT_S,
    YEAR_S,
    Range,
    number,
)
from harness.gate.policy import DriftPolicy
from harness.providers.target import Target


@dataclass(frozen=True, kw_only=True)
class JudgeFields:
    """The fields that a judge has in the configuration file and in a suite's settings."""

    max_calls: int = number(10_000, "Maximum calls per run of the suite.", Range(1, 1e15))
    max_cost_usd: float | None = number(
        None,
        "Maximum cost per run of the suite; null for no limit.",
        Range(0, 1e9, above=True),
    )
    attempts: int = number(
        3, "Maximum calls until an answer of the judge can be parsed.", Range(1, 10)
    )
    max_output_tokens: int = number(512, "Limit of one answer.", ANSWER_TOKENS)
    timeout_s: float = number(120.0, "Limit for one answer.", WAIT_S)
    # Data file of answers with human scores. Runs let the judge score them again. If the
    # judge's agreement with people is below `min_agreement`, the run measures nothing.
    references: str | Path | None = None
    min_agreement: float = number(0.6, "Minimum of Cohen's kappa.", Range(0, 1))
    levels: int = number(
        2,
        "The number of equal bands of scores by which Swapproof compares the judge with "
        "people.",
        Range(2, 10),
    )
    recheck_s: float = number(
        86_400.0, "How long a measured agreement is valid.", Range(0, 10 * YEAR_S)
    )


@dataclass(frozen=True)
class JudgeSettings(JudgeFields):
    """The model that scores a suite's answers, and the required agreement with people."""

    target: Target
    references: Path | None = field(default=None, kw_only=True)


@dataclass(frozen=True, kw_only=True)
class SuiteFields:
    # JSONL or CSV with `input`, `target` or `expected`; optional `id`, `choices`, `metadata`.
    path: str | Path | None = None
    task: str | None = None  # Inspect task instead of `path`: `file.py:name` or `file.py`
    scorer: str = "exact"  # scores an answer; docs/reference/suites.md lists scorers
    scorer_options: Mapping[str, object] = field(default_factory=dict)  # options of the scorer
    title: str = ""  # shown to people
    version: str = "1"  # your own version, shown beside the suite's name
    # The message of an item; contains `{input}`, and optionally `{choices}`.
    template: str = "{input}"
    system: str = ""  # system message of every item
    input_field: str = "input"  # field of an item with the question
    # Field of an item with the expected answer; empty for `target` or `expected`.
    target_field: str = ""
    max_output_tokens: int | Literal["auto"] = number(
        512,
        "Limit of one answer. auto: four times the longest of a run's first 10 answers, which "
        "have no limit.",
        ANSWER_TOKENS,
    )
    temperature: float = number(0.0, "Temperature of every request.", Range(0, 100))
    # tools, tool_choice and response_format of every item's request.
    request: Mapping[str, object] = field(default_factory=dict)
    every: str = ""  # cron expression in UTC: measures incumbents again; empty for never
    # Watches the incumbents of the suite's routes; see docs/explanation/drift.md.
    drift: DriftPolicy | None = None
    data_class: str = ""  # class of its data, one of `data_classes`
    # metadata field; items that share its value count as one unit
    cluster: str = ""
    # metadata fields; the candidate must not get worse for any of their values
    slices: tuple[str, ...] = ()
    # Slices that may get a route of their own, with the requests that belong to them, as an
    # override selects them: {"team = billing": "x-team: billing"}.
    split: Mapping[str, str] = field(default_factory=dict)
    texts_keep_days: float | None = number(
        None,
        "How long questions and answers of its runs are stored; null for as long as their "
        "scores.",
        KEPT_DAYS,
    )


@dataclass(frozen=True)
class SuiteSettings(SuiteFields):
    """A suite: its data file with a scorer, or a Python file with an Inspect `@task`."""

    name: str
    path: Path | None = field(default=None, kw_only=True)
    judge: JudgeSettings | None = None  # for scorers that use a model
    # Whether a model's code may run on a machine without a sandbox.
    code_uncontained: bool = False
    only_slice: str = ""  # the suite is this slice of the configured suite; empty for all items


_SLICE_SUITE: Final = re.compile(r"(?P<suite>.+)\[(?P<slice>[^=\[\]]+ = [^\[\]]+)\]")


def name_slice_suite(suite: str, slice_name: str) -> str:
    """Names the suite that has the items of one slice, such as `tickets[team = billing]`."""
    return f"{suite}[{slice_name}]"


def whole_suite(name: str) -> str:
    """Returns the configured suite behind the name of a slice's suite; else the name itself."""
    match_ = _SLICE_SUITE.fullmatch(name)
    return match_["suite"] if match_ else name


def find_suite(suites: Mapping[str, SuiteSettings], name: str) -> SuiteSettings | None:
    """Finds the settings of a suite, or of a slice that the suite's `split` declares."""
    if name in suites:
        return suites[name]
    whole = suites.get(whole_suite(name))
    slice_name = name[len(whole.name) + 1 : -1] if whole else ""
    if whole is None or slice_name not in whole.split:
        return None
    title = f"{whole.title} ({slice_name})" if whole.title else ""
    return replace(whole, name=name, title=title, only_slice=slice_name, split={})
