"""Parses logs of Inspect, and the statements about their run."""

import json
import math
from collections.abc import Mapping
from typing import Final

from harness.evals.run_statement import CallSettings, DataStatement, RunCompletion, RunStatement
from harness.evals.scored_run import (
    ScoredRun,
    ScoredSample,
    as_mapping,
    numeric_score,
    parse_json,
    question_key,
    read_scores,
)
from harness.evals.tool_statements import as_count, as_list, is_set, named_texts, text_of
from harness.frame.errors import InputError

# Settings of Inspect's calls that change neither the question nor the answer.
_TRANSPORT: Final = frozenset(
    {
        "max_retries",
        "timeout",
        "attempt_timeout",
        "stream_idle_timeout",
        "max_connections",
        "adaptive_connections",
        "cache",
        "cache_prompt",
        "batch",
        "extra_headers",
    }
)
# Limits of a conversation, which decide how often a model may try, and limits of its spending.
_TURN_LIMITS: Final = ("message_limit", "turn_limit")
_SPENDING_LIMITS: Final = ("token_limit", "time_limit", "working_limit", "cost_limit")


# Inspect's own metrics convert the grades of a scorer in this way (`value_to_float`).
_GRADES: Final[Mapping[str, float]] = {
    "C": 1.0,
    "P": 0.5,
    "I": 0.0,
    "N": 0.0,
}
_WORDS: Final[Mapping[str, float]] = {
    "yes": 1.0,
    "true": 1.0,
    "no": 0.0,
    "false": 0.0,
}


def parse_inspect(text: str) -> list[ScoredRun]:
    """Parses a log of Inspect as JSON, with its samples. Letter grades become numbers.

    Raises InputError for a log without samples.
    """
    document = as_mapping(parse_json(text))
    rows = document.get("samples")
    if not isinstance(rows, list) or not rows:
        raise InputError("has no samples: give the log of an eval that ran with log_samples")
    spec = as_mapping(document.get("eval"))
    samples = [_read_sample(as_mapping(row)) for row in rows]
    model = str(spec.get("model", ""))
    statement = inspect_statement(document)
    return [ScoredRun.from_samples(model, samples, _read_terms(spec), statement=statement)]


def _read_terms(spec: Mapping[str, object]) -> dict[str, str]:
    """Returns task, version and scorers' options, which must be equal in both runs."""
    keys_by_term = {"task": "task", "task version": "task_version"}
    terms = {term: str(spec[key]) for term, key in keys_by_term.items() if key in spec}
    scorers = spec.get("scorers")
    roles = as_mapping(spec.get("model_roles"))
    for scorer in map(as_mapping, scorers if isinstance(scorers, list) else ()):
        options = as_mapping(scorer.get("options"))
        name = str(scorer.get("name"))
        terms[f"scorer {name}"] = json.dumps(options, sort_keys=True)
        # Without another grader, Inspect's model-graded scorers ask the measured model itself.
        is_bound = options.get("model") or options.get("model_role", "grader") in roles
        if "model_graded" in name and not is_bound:
            terms[f"scorer {name}"] += f", graded by {spec.get('model')}"
    if grader := roles.get("grader"):
        terms["grader model"] = str(as_mapping(grader).get("model") or grader)
    return terms


def _read_sample(row: Mapping[str, object]) -> ScoredSample:
    """Names a scorer's parts `SCORER.PART`, if its value has several."""
    values: dict[str, object] = {}
    ungraded: set[str] = set()
    for scorer, score in as_mapping(row.get("scores")).items():
        value = as_mapping(score).get("value")
        if isinstance(value, Mapping):
            parts = {f"{scorer}.{name}": part for name, part in value.items()}
        else:
            parts = {scorer: value}
        values |= parts
        if _is_grader_failure(as_mapping(score)):
            ungraded |= parts.keys()
    scores, unread = read_scores(values, _read_grade)
    id_ = str(row.get("id"))
    return ScoredSample(
        id_,
        scores,
        # A summary that is not completed belongs to a sample that the run did not finish.
        bool(row.get("error")) or (row.get("completed") is False and not scores),
        _build_question_key(row, id_),
        question_key(row.get("target")),
        unread=unread,
        ungraded=frozenset(ungraded),
        invalidated=bool(row.get("invalidation")),
    )


# Older versions write this in front of a grader's answer without a grade, and "I" as the value.
_NO_GRADE: Final = "Grade not found in model output"


def _is_grader_failure(score: Mapping[str, object]) -> bool:
    """Tells whether a scorer left a sample out and says why, as Inspect's graders do."""
    if str(score.get("explanation")).startswith(_NO_GRADE):
        return True
    value = score.get("value")
    is_missing = value is None or value != value  # noqa: PLR0124 - NaN marks an unscored sample
    reason = score.get("reason") or as_mapping(score.get("metadata")).get("unscored_reason")
    return is_missing and bool(reason)


_SUMMARY_CHARACTERS: Final = 5_120  # characters of a text in a log's summary


def _build_question_key(row: Mapping[str, object], id_: str) -> str:
    """Returns the question key of a log's summary; adds the id if the summary truncates it."""
    messages = row.get("input")
    target = row.get("target")
    if not messages:
        return ""
    is_truncated = False
    texts = []
    for message in messages if isinstance(messages, list) else [{"content": messages}]:
        content = as_mapping(message).get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        for part in map(as_mapping, parts):
            text = part.get("text") if part.get("type") == "text" else None
            has_no_text = not isinstance(text, str) or (text.startswith("(") and len(parts) > 1)
            is_truncated = is_truncated or has_no_text or len(str(text)) > _SUMMARY_CHARACTERS
            texts.append("" if has_no_text else str(text)[:_SUMMARY_CHARACTERS])
        texts.append(str(as_mapping(message).get("role")))
    expected = [
        str(entry)[:_SUMMARY_CHARACTERS]
        for entry in (target if isinstance(target, list) else [target])
    ]
    return question_key(texts, expected, row.get("choices"), id_ if is_truncated else None)


def _read_grade(value: object) -> float | None:
    """Reads a grade as Inspect's own metrics do: a letter, a word, or a number.

    None for other values.
    """
    if not isinstance(value, str):
        return numeric_score(value)
    if value in _GRADES:
        return _GRADES[value]
    if value.lower() in _WORDS:
        return _WORDS[value.lower()]
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def inspect_statement(document: Mapping[str, object]) -> RunStatement:
    """Reads a log of Inspect: `status`, `eval`, `plan` and `results`."""
    spec = as_mapping(document.get("eval"))
    packages = as_mapping(spec.get("packages"))
    data = as_mapping(spec.get("dataset"))
    version = str(spec["task_version"]) if "task_version" in spec else ""
    return RunStatement(
        "Inspect",
        str(packages["inspect_ai"]) if "inspect_ai" in packages else None,
        completion=_read_completion(document, spec),
        settings=_read_settings(spec, as_mapping(document.get("plan"))) if spec else None,
        data=DataStatement(str(data.get("name") or ""), version, as_count(data.get("samples")))
        if data or version
        else None,
        tells_grader_failures=True,
    )


def _read_completion(
    document: Mapping[str, object],
    spec: Mapping[str, object],
) -> RunCompletion | None:
    config = as_mapping(spec.get("config"))
    data = as_mapping(spec.get("dataset"))
    status = document.get("status")
    limit = config.get("limit") or config.get("sample_id")
    planned = len(as_list(data.get("sample_ids"))) or as_count(data.get("samples"))
    epochs = as_count(config.get("epochs")) or 1
    if planned and isinstance(limit, int):
        planned = min(planned, limit)
    rows = [as_mapping(row) for row in as_list(document.get("samples"))]
    found_items = len({str(row.get("id")) for row in rows})
    total = as_count(as_mapping(document.get("results")).get("total_samples")) or 0
    answers = max(planned * epochs if planned else 0, total)
    partial = ""
    if status is not None and status != "success":
        partial = f"its status is {status!r}"
    elif len(rows) < answers:
        partial = f"it has {len(rows)} of {answers} planned answers"
    elif document.get("invalidated") and not any(row.get("invalidation") for row in rows):
        partial = "samples were invalidated, and the file does not tell which"
    if partial and planned:
        partial += f", with {found_items} of {planned} items"
    if status is None and not partial:
        return None
    return RunCompletion(partial, planned, epochs, text_of(limit) if is_set(limit) else "")


def _read_settings(spec: Mapping[str, object], plan: Mapping[str, object]) -> CallSettings:
    config = as_mapping(spec.get("config"))
    calls = {
        **as_mapping(plan.get("config")),
        **as_mapping(spec.get("model_generate_config")),
    }
    fixed = named_texts(as_mapping(spec.get("task_args")), "task argument ")
    steps = [as_mapping(step) for step in as_list(plan.get("steps"))]
    if steps:
        fixed["solvers"] = ", ".join(map(_describe_solver, steps))
    elif spec.get("solver"):
        fixed["solvers"] = text_of([spec["solver"], spec.get("solver_args")])
    fixed |= named_texts({name: config.get(name) for name in _TURN_LIMITS})
    fixed |= named_texts({"system_message": calls.pop("system_message", None)})
    noted = named_texts(
        {name: value for name, value in calls.items() if name not in _TRANSPORT}
    )
    noted |= named_texts({name: config.get(name) for name in _SPENDING_LIMITS})
    noted |= named_texts(as_mapping(spec.get("model_args")), "model argument ")
    reducers = as_list(config.get("epochs_reducer"))
    if reducers and reducers != ["mean"]:
        noted["epochs_reducer (Swapproof takes the mean)"] = text_of(reducers)
    return CallSettings(fixed, noted)


def _describe_solver(step: Mapping[str, object]) -> str:
    # Only newer versions also list the defaults.
    params = as_mapping(step.get("params_passed", step.get("params")))
    set_params = {name: value for name, value in params.items() if is_set(value)}
    return f"{step.get('solver')}{text_of(set_params) if set_params else ''}"
