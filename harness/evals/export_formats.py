"""Parses result files of other eval tools; the functions match values of `gate decide --from`.

Each parser takes a file's whole text and returns its runs in the file's order. It raises
InputError, without the file's name, if the text has another format. A parser neither pairs runs
nor interprets missing scores: `harness.evals.scored_run` does. Tables are in
`harness.evals.table_formats`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Final

from harness.evals.run_statement import RunStatement
from harness.evals.scored_run import (
    ScoredRun,
    ScoredSample,
    as_mapping,
    numeric_score,
    parse_json,
    parse_json_lines,
    parse_json_rows,
    question_key,
    read_scores,
    single_value,
)
from harness.evals.tool_statements import (
    deepeval_graders,
    deepeval_statement,
    is_grader_error,
    list_graded_parts,
    page_completion,
    promptfoo_statement,
    reads_like_grader_error,
    shared_settings,
)
from harness.frame.canonical_text import canonical_value
from harness.frame.errors import InputError


def _read_document(text: str) -> Mapping[str, object]:
    """Returns the object around a file's rows; empty for rows without one."""
    try:
        return as_mapping(json.loads(text))
    except (ValueError, RecursionError):
        return {}


def parse_braintrust(text: str) -> list[ScoredRun]:
    """Parses an experiment's rows, as JSON or JSON lines; each experiment is a run.

    Leaves out spans within a test case. Raises InputError if no row has scores.
    """
    spans = parse_json_rows(text, "events", "rows", "data")
    rows = [row for row in spans if _is_root(row)]
    failed_scorers = _find_failed_scorers(spans)
    if not any("scores" in row for row in rows):
        raise InputError("has no rows with `scores`: export the experiment's rows as JSON")
    runs: dict[str, list[Mapping[str, object]]] = {}
    for row in rows:
        name = str(row.get("experiment_name") or row.get("experiment_id") or "")
        runs.setdefault(name, []).append(row)
    document = _read_document(text)
    shared_metadata = _read_metadata(as_mapping(document.get("experiment"))) or _read_metadata(
        document
    )
    return [
        ScoredRun.from_samples(
            name,
            [_build_braintrust_sample(row, failed_scorers) for row in run_rows],
            statement=RunStatement(
                "Braintrust",
                completion=page_completion(document, len(rows)),
                settings=shared_settings(
                    [{**shared_metadata, **_read_metadata(row)} for row in run_rows]
                ),
                tells_grader_failures=True,
            ),
        )
        for name, run_rows in runs.items()
    ]


def _build_braintrust_sample(
    row: Mapping[str, object],
    failed_scorers: Mapping[str, frozenset[str]],
) -> ScoredSample:
    """Builds a sample.

    Args:
        failed_scorers: names of scorers with an error, by the root's span.
    """
    scores, unread = read_scores(as_mapping(row.get("scores")))
    question = row.get("input")
    # The library gives 0 for a scorer that raised, and lists it here.
    scorer_errors = map(str, as_mapping(_read_metadata(row).get("scorer_errors")))
    ungraded = frozenset(scorer_errors) | failed_scorers.get(
        str(row.get("span_id")), frozenset()
    )
    return ScoredSample(
        _name_braintrust_item(row),
        {**dict.fromkeys(ungraded), **scores},
        bool(row.get("error")),
        question_key(question, row.get("expected")) if question else "",
        question_key(row.get("expected")),
        unread=unread,
        ungraded=ungraded,
    )


def _find_failed_scorers(spans: Sequence[Mapping[str, object]]) -> Mapping[str, frozenset[str]]:
    """Returns the names of scorers whose own span has an error, by the root's span."""
    failed_scorers: dict[str, frozenset[str]] = {}
    for span in spans:
        attributes = as_mapping(span.get("span_attributes"))
        if attributes.get("type") == "score" and span.get("error") and not _is_root(span):
            root = str(span.get("root_span_id"))
            failed_scorers[root] = failed_scorers.get(root, frozenset()) | {
                str(attributes.get("name"))
            }
    return failed_scorers


def _read_metadata(row: Mapping[str, object]) -> Mapping[str, object]:
    return as_mapping(row.get("metadata"))


def _is_root(row: Mapping[str, object]) -> bool:
    """Tells whether a row is a test case, not a span within a test case."""
    if isinstance(row.get("is_root"), bool):
        return bool(row["is_root"])
    parents = row.get("span_parents")
    return not parents and row.get("span_id") == row.get("root_span_id", row.get("span_id"))


def _name_braintrust_item(row: Mapping[str, object]) -> str:
    """Returns the dataset record's id, or the input, by which Braintrust matches rows."""
    origin = as_mapping(row.get("origin"))
    record = row.get("dataset_record_id") or origin.get("id")
    return str(record) if record else json.dumps(row.get("input"), sort_keys=True)


# The value of `failureReason` for an error; 1 is a failed assertion, which counts as a score.
_ERROR_REASON: Final = 2


def parse_promptfoo(text: str) -> list[ScoredRun]:
    """Parses results of `promptfoo eval --output`; each provider with a prompt is a run.

    A provider with several prompts gives several runs, whose names contain the prompt's index.
    Raises InputError without results.
    """
    document, rows = _read_promptfoo_rows(text)
    runs: dict[tuple[str, str], list[ScoredSample]] = {}
    prompts: dict[tuple[str, str], str] = {}
    for row in rows:
        key = (_name_provider(row), str(row.get("promptIdx", 0)))
        runs.setdefault(key, []).append(_build_promptfoo_sample(row))
        label = as_mapping(row.get("prompt")).get("label")
        prompts.setdefault(key, str(row.get("promptId") or label or ""))
    providers = [provider for provider, _ in runs]
    return [
        ScoredRun.from_samples(
            provider if providers.count(provider) == 1 else f"{provider} prompt {prompt}",
            samples,
            prompt=prompts[provider, prompt],
            statement=promptfoo_statement(document, rows, provider),
        )
        for (provider, prompt), samples in runs.items()
    ]


def _read_promptfoo_rows(
    text: str,
) -> tuple[Mapping[str, object], Sequence[Mapping[str, object]]]:
    """Reads document and rows of JSON or YAML (`.yaml` and `.txt`), or rows of JSON lines."""
    first, _, other_lines = text.strip().partition("\n")
    if other_lines and first.startswith("{") and first.rstrip().endswith("}"):
        return {}, [row for _, row in parse_json_lines(text)]
    if first[:1] in "{[":
        document = as_mapping(parse_json(text))
    else:
        from harness.frame.configuration.core_yaml import parse_core_yaml  # noqa: PLC0415 - the first line of `try` waits for imports

        document = as_mapping(canonical_value(parse_core_yaml(text)))
    results = document.get("results", [document] if "testIdx" in document else None)
    rows = as_mapping(results).get("results") if isinstance(results, Mapping) else results
    if not isinstance(rows, list):
        raise InputError(
            "has no results.results: write the file with `promptfoo eval --output`"
        )
    return document, [as_mapping(row) for row in rows]


def _name_provider(row: Mapping[str, object]) -> str:
    """Returns the label that a person gave the provider, else its id."""
    provider = row.get("provider")
    if isinstance(provider, str):
        return provider
    fields = as_mapping(provider)
    return str(fields.get("label") or fields.get("id") or "provider")


def _build_promptfoo_sample(row: Mapping[str, object]) -> ScoredSample:
    """Builds a sample with the metrics `score`, `pass` and each named score.

    A cost of 0 counts as unknown.
    """
    reason = row.get("failureReason")
    # Older promptfoo versions have no `failureReason`; there, a missing grade marks an error.
    failed = reason == _ERROR_REASON or (
        reason is None and bool(row.get("error")) and not row.get("gradingResult")
    )
    values = {"score": row.get("score"), "pass": row.get("success")}
    scores, unread = read_scores(values | dict(as_mapping(row.get("namedScores"))))
    name, question = _read_promptfoo_question(row)
    if not name:
        raise InputError(
            "has rows with neither vars nor a prompt, so their questions are unknown"
        )
    cached = bool(as_mapping(row.get("response")).get("cached") or row.get("cached"))
    graded = as_mapping(row.get("gradingResult"))
    failed_parts = [
        part for part in (graded, *list_graded_parts(graded)) if is_grader_error(part)
    ]
    ungraded = {as_mapping(part.get("assertion")).get("metric") for part in failed_parts}
    if failed_parts:
        ungraded |= {"score", "pass"}
    return ScoredSample(
        name,
        scores,
        failed,
        question,
        unread=unread,
        cached=cached,
        ungraded=frozenset(str(name) for name in ungraded if name),
        doubtful=not failed and reads_like_grader_error(graded),
        usd=numeric_score(row.get("cost")) or None,  # 0 for a model of unknown price
        latency_ms=numeric_score(row.get("latencyMs")),
    )


_GRADING_OPTIONS: Final = (
    "provider",
    "rubricPrompt",
    "factuality",
    "transform",
    "postprocess",
)


def _read_promptfoo_question(row: Mapping[str, object]) -> tuple[str, str]:
    """Returns a readable question, and a key of the question and its assertions."""
    test = as_mapping(row.get("testCase"))
    all_variables = as_mapping(row.get("vars")) or as_mapping(test.get("vars"))
    # promptfoo ignores the same variables, because they belong to a run and not to a test.
    variables = {
        name: value
        for name, value in all_variables.items()
        if not name.startswith("_") and name != "sessionId"
    }
    prompt = row.get("prompt")
    raw = as_mapping(prompt).get("raw") if isinstance(prompt, Mapping) else prompt
    options = as_mapping(test.get("options"))
    grading = [test.get("assert") or [], test.get("threshold")]
    grading += [options.get(name) for name in _GRADING_OPTIONS]
    content: object = variables or raw
    name = json.dumps(content, sort_keys=True, ensure_ascii=False) if content else ""
    return name, question_key([content], grading) if content else ""


def parse_deepeval(text: str) -> list[ScoredRun]:
    """Parses a test run of DeepEval, either the exported file or `.latest_test_run.json`.

    Raises InputError without test cases.
    """
    document = as_mapping(parse_json(text))
    document = as_mapping(document.get("testRunData")) or document  # `.latest_test_run.json`
    cases = document.get("testCases")
    if not isinstance(cases, list) or not cases:
        raise InputError("has no testCases: give the file test_run_….json of a test run")
    samples = [_build_deepeval_sample(as_mapping(case)) for case in cases]
    model = as_mapping(document.get("hyperparameters")).get("model")
    statement = deepeval_statement(document, [as_mapping(case) for case in cases])
    terms = deepeval_graders([as_mapping(case) for case in cases])
    return [ScoredRun.from_samples(str(model or ""), samples, terms, statement=statement)]


def _build_deepeval_sample(case: Mapping[str, object]) -> ScoredSample:
    """Builds a sample; DeepEval's seconds become milliseconds."""
    metrics = case.get("metricsData")
    data = [as_mapping(metric) for metric in (metrics if isinstance(metrics, list) else ())]
    # A metric that failed has an error and no score.
    values: dict[str, object] = {}
    for metric in data:
        name = str(metric.get("name"))
        values[name] = single_value(
            values, name, None if metric.get("error") else metric.get("score")
        )
    ungraded = frozenset(str(metric.get("name")) for metric in data if metric.get("error"))
    scores, unread = read_scores(values)
    question = question_key(case.get("input"), case.get("expectedOutput"), case.get("context"))
    seconds = numeric_score(case.get("completionTime"))
    return ScoredSample(
        str(case.get("name")),
        scores,
        failed=case.get("actualOutput") is None,
        question=question,
        revision=question_key(case.get("expectedOutput")),
        unread=unread,
        ungraded=ungraded,
        usd=numeric_score(case.get("tokenCost")),
        latency_ms=None if seconds is None else seconds * 1000,
    )


def parse_langfuse(text: str) -> list[ScoredRun]:
    """Parses item results of Langfuse's experiments, or traces with scores; each dataset run is
    a run.

    Raises InputError if no row has a list of scores.
    """
    rows = parse_json_rows(text, "item_results", "itemResults", "data")
    if not any(isinstance(_read_langfuse_scores(row), list) for row in rows):
        raise InputError(
            "contains neither item_results with evaluations nor traces with scores"
        )
    document = _read_document(text)
    statement = RunStatement(
        "Langfuse",
        completion=page_completion(document, len(rows)),
        settings=shared_settings([_read_metadata(document)]),
    )
    runs: dict[str, list[ScoredSample]] = {}
    for row in rows:
        run_name = _find_first(row, "dataset_run_name", "datasetRunName", "run_name", "runName")
        runs.setdefault(str(run_name or ""), []).append(_build_langfuse_sample(row))
    return [
        ScoredRun.from_samples(name, samples, statement=statement)
        for name, samples in runs.items()
    ]


def _read_langfuse_scores(row: Mapping[str, object]) -> object:
    return row.get("evaluations") if "evaluations" in row else row.get("scores")


def _build_langfuse_sample(row: Mapping[str, object]) -> ScoredSample:
    """Builds a sample. A categorical score keeps its text, and counts as unreadable."""
    item = as_mapping(row.get("item")) or row
    item_scores = _read_langfuse_scores(row)
    values: dict[str, object] = {}
    for score in map(as_mapping, item_scores if isinstance(item_scores, list) else ()):
        kind = _find_first(score, "dataType", "data_type")
        text = _find_first(score, "stringValue", "string_value")
        name = str(score.get("name"))
        value = text if kind == "CATEGORICAL" else score.get("value")
        values[name] = single_value(values, name, value)
    scores, unread = read_scores(values)
    metadata = as_mapping(row.get("metadata"))
    id_ = _find_first(row, "dataset_item_id", "datasetItemId") or _find_first(
        metadata, "dataset_item_id", "datasetItemId"
    )
    expected = _find_first(item, "expected_output", "expectedOutput")
    question = question_key(item.get("input"), expected) if item.get("input") else ""
    failed = row.get("level") == "ERROR" or bool(row.get("error"))
    return ScoredSample(
        str(id_ or item.get("id")),
        scores,
        failed,
        question,
        question_key(expected),
        unread=unread,
    )


def _find_first(row: Mapping[str, object], *names: str) -> object:
    """Returns the first present value: the API and the SDK spell names differently."""
    return next((row[name] for name in names if row.get(name) is not None), None)
