"""Settings of suites and judges, as the configuration declares them.

The configuration's reader, its reference page and the runner use this one declaration. Values
are checked where they are read (`harness.app.configuration`), not here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from harness.gate.policy import DriftPolicy
from harness.providers.target import Target


@dataclass(frozen=True)
class JudgeSettings:
    """The model that scores a suite's answers, and the required agreement with people."""

    target: Target
    max_calls: int = 10_000  # max_calls, max_cost_usd: for each run of the suite
    max_cost_usd: float | None = None
    attempts: int = 3  # maximum number of calls for a readable answer
    max_output_tokens: int = 512
    timeout_s: float = 120.0
    # A file of answers with human scores. Runs let the judge score these again, at most once in
    # recheck_s. If its agreement (Cohen's kappa over `levels` equal bands of the score) is
    # below min_agreement, the run measures nothing.
    references: Path | None = None
    min_agreement: float = 0.6
    levels: int = 2
    recheck_s: float = 86_400.0


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
    # Limit of one answer. auto: four times the longest of a run's first 10 answers, which have
    # no limit.
    max_output_tokens: int | Literal["auto"] = 512
    temperature: float = 0.0  # temperature of every request
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
    # How long questions and answers of its runs are stored; null for as long as their scores.
    texts_keep_days: float | None = None


@dataclass(frozen=True)
class SuiteSettings(SuiteFields):
    """A suite: its data file with a scorer, or a Python file with an Inspect `@task`."""

    name: str
    path: Path | None = field(default=None, kw_only=True)
    judge: JudgeSettings | None = None  # for scorers that use a model
    code_uncontained: bool = (
        False  # whether a model's code may run on a machine without a sandbox
    )
