"""Reads the statements of each tool's file about its run: `harness.evals.run_statement`.

The functions take parts of a parsed file. A field that a tool does not write stays None.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Final

from harness.evals.run_statement import (
    CallSettings,
    DataStatement,
    Direction,
    MetricStatement,
    RunCompletion,
    RunStatement,
    direction_of_successes,
)
from harness.evals.scored_run import ScoredRun, as_mapping, numeric_score


def text_of(value: object) -> str:
    """Returns a setting's value as text: a text as it is, another value as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def named_texts(values: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Returns settings that have a value, each with `prefix` before its name."""
    return {
        f"{prefix}{name}": text_of(value) for name, value in values.items() if is_set(value)
    }


def is_set(value: object) -> bool:
    return value not in (None, "", [], {})


def as_count(value: object) -> int | None:
    """Returns a whole number; None for any other value, also for true and false."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def as_list(value: object) -> Sequence[object]:
    """Returns a list as it is, and an empty one for any other value."""
    return value if isinstance(value, list) else ()


def promptfoo_statement(
    document: Mapping[str, object],
    rows: Sequence[Mapping[str, object]],
    provider: str,
) -> RunStatement:
    """Reads the statements about one provider's run.

    Args:
        rows: all rows of the file, for its number of results; the run's own for its metrics.
    """
    results = as_mapping(document.get("results"))
    metadata = as_mapping(document.get("metadata"))
    stats = as_mapping(results.get("stats"))
    counted = [as_count(stats.get(name)) for name in ("successes", "failures", "errors")]
    completion = None
    if counted[0] is not None and counted[1] is not None:
        total = sum(count or 0 for count in counted)
        partial = f"it has {len(rows)} of {total} results" if len(rows) < total else ""
        completion = RunCompletion(partial)
    config = as_mapping(document.get("config"))
    noted: dict[str, str] = {}
    for provider_config in map(as_mapping, as_list(config.get("providers"))):
        if provider in (provider_config.get("label"), provider_config.get("id")):
            noted = named_texts(as_mapping(provider_config.get("config")))
    version = metadata.get("promptfooVersion")
    return RunStatement(
        "promptfoo",
        str(version) if version else None,
        _read_promptfoo_metrics(rows),
        completion,
        CallSettings({}, noted) if "providers" in config else None,
        tells_grader_failures=True,
    )


def _read_promptfoo_metrics(rows: Iterable[Mapping[str, object]]) -> dict[str, MetricStatement]:
    """Returns directions: promptfoo's own scores are 1 for a passed test; a named score's
    direction is that of its assertions.
    """
    higher = MetricStatement(Direction.HIGHER, "promptfoo's score is 1 for a passed test")
    rows_by_metric: dict[str, list[tuple[float | None, float | None, bool | None]]] = {}
    for row in rows:
        for part in list_graded_parts(as_mapping(row.get("gradingResult"))):
            assertion = as_mapping(part.get("assertion"))
            passed = part.get("pass")
            if (name := assertion.get("metric")) and not is_grader_error(part):
                rows_by_metric.setdefault(str(name), []).append(
                    (
                        numeric_score(part.get("score")),
                        numeric_score(assertion.get("threshold")),
                        passed if isinstance(passed, bool) else None,
                    )
                )
    statements = {
        name: direction_of_successes(values, "`pass`")
        for name, values in rows_by_metric.items()
    }
    stated = {
        name: statement for name, statement in statements.items() if statement is not None
    }
    return {**stated, "score": higher, "pass": higher}


def list_graded_parts(result: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Returns the grade of each assertion, also within nested assertion sets."""
    parts: list[Mapping[str, object]] = []
    for part in map(as_mapping, as_list(result.get("componentResults"))):
        parts += [part, *list_graded_parts(part)]
    return parts


def is_grader_error(part: Mapping[str, object]) -> bool:
    """Tells whether promptfoo marked a grade as its grader's failure."""
    return as_mapping(part.get("metadata")).get("graderError") is True


# Assertions that a second model or a service judges, and texts of its errors in older files.
_MODEL_GRADED: Final = re.compile(
    r"(not-)?(llm-rubric|g-eval|factuality|model-graded-.*|answer-relevance|context-.*|"
    r"closed-?qa|pi|classifier|moderation|similar.*|select-best|agent-rubric|webhook|"
    r"search-rubric|trajectory:.*|conversation-relevance|openai:moderation)"
)
_ERROR_TEXT: Final = re.compile(
    r"could not extract json|api (call |response )?error|rate.?limit|too many requests|"
    r"timed? ?out|failed to (parse|fetch|call|get)|no (valid )?json|invalid json|econn|"
    r"fetch failed|\b(429|500|502|503|504|529)\b|no output|unauthorized|overloaded|"
    r"network error|unexpected token|grader|grading (error|failed)|missing api key|quota",
    re.IGNORECASE,
)


_START_CHARACTERS: Final = 60  # characters; later on, a judge may quote an error
_ERROR_NAME: Final = re.compile(r"[\w. ]*(_error|Error|Exception)(:.*)?", re.DOTALL)


def reads_like_error(reason: str) -> bool:
    """Tells whether the reason for a score begins like an error, such as `gen_error`."""
    plain = reason.strip()
    return bool(_ERROR_TEXT.search(plain[:_START_CHARACTERS]) or _ERROR_NAME.fullmatch(plain))


def reads_like_grader_error(result: Mapping[str, object]) -> bool:
    """Tells whether a model-graded assertion's reason reads like an unmarked error."""
    return any(
        not is_grader_error(part)
        and _MODEL_GRADED.fullmatch(str(as_mapping(part.get("assertion")).get("type", "")))
        and reads_like_error(str(part.get("reason") or ""))
        for part in list_graded_parts(result)
    )


def lm_eval_statement(
    results: Mapping[str, object],
    task: str,
    run: ScoredRun,
) -> RunStatement:
    """Reads `results_….json` of lm-eval, which stands beside the samples of its tasks."""
    config = as_mapping(results.get("config"))
    task_config = as_mapping(as_mapping(results.get("configs")).get(task))
    counts = as_mapping(as_mapping(results.get("n-samples")).get(task))
    shots = as_mapping(results.get("n-shot")).get(task)
    planned = as_count(counts.get("effective"))
    limit = config.get("limit")
    documents = len(run.samples)
    is_partial = planned is not None and documents < planned
    fixed = {"shots": shots, "system_instruction": results.get("system_instruction")}
    fixed["description"] = task_config.get("description")
    chat = results.get("chat_template_sha") or results.get("chat_template")
    noted = {"chat_template": chat, "generation_kwargs": task_config.get("generation_kwargs")}
    version = results.get("lm_eval_version")
    data = str(task_config.get("dataset_path") or task)
    task_version = as_mapping(results.get("versions")).get(task)
    return RunStatement(
        "lm-eval",
        str(version) if version else None,
        _read_lm_eval_metrics(
            run, as_mapping(as_mapping(results.get("higher_is_better")).get(task))
        ),
        RunCompletion(
            f"it has {documents} of {planned} documents" if is_partial else "",
            planned,
            1,
            text_of(limit) if is_set(limit) else "",
        ),
        CallSettings(
            named_texts(fixed),
            named_texts(noted) | named_texts({"model_args": _drop_model_arguments(config)}),
        ),
        DataStatement(data, text_of(task_version) if is_set(task_version) else "", planned),
    )


def _drop_model_arguments(config: Mapping[str, object]) -> object:
    """Returns the model's arguments, except those that name the model itself."""
    model_arguments = config.get("model_args")
    names = ("pretrained=", "model=", "base_url=", "tokenizer=", "peft=", "revision=")
    if isinstance(model_arguments, str):
        return ",".join(
            part for part in model_arguments.split(",") if not part.startswith(names)
        )
    arguments = as_mapping(model_arguments)
    return {name: value for name, value in arguments.items() if f"{name}=" not in names}


def _read_lm_eval_metrics(
    run: ScoredRun,
    directions: Mapping[str, object],
) -> dict[str, MetricStatement]:
    """Returns a statement for each metric of a run, whose name may end with its filter."""
    source = "`higher_is_better` in its results"
    statements = dict(run.statement.metrics)
    for name in run.metrics:
        is_higher = directions.get(name.partition(",")[0])
        if isinstance(is_higher, bool):
            direction = Direction.HIGHER if is_higher else Direction.LOWER
            statements[name] = MetricStatement(direction, source)
    return statements


# lm-eval registers these metrics as better when lower, also without a results file.
LM_EVAL_LOWER: Final = frozenset(
    {"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "brier_score", "ter"}
)
# Marks that chat templates put around a text, with the role's name after an opening mark.
_TEMPLATE_MARKS: Final = re.compile(
    r"<\|(?:im_start|start_header_id|start)\|>\s*(?:system|user|assistant|developer|tool)?|"
    r"<start_of_turn>\s*(?:user|model)?|"
    r"<\|[a-z_0-9]+\|>|<｜[^｜>]{1,40}｜>|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS)\]|"
    r"<</?SYS>>|</?s>|<end_of_turn>|<bos>|<eos>|^(?:BOS|EOS)\b",
    re.IGNORECASE,
)
# System texts that templates add by themselves.
_TEMPLATE_TEXTS: Final = re.compile(
    r"You are Qwen, created by Alibaba Cloud\. You are a helpful assistant\.?|"
    r"You are a helpful assistant\.?|"
    r"Cutting Knowledge Date: \w+ \d{4}\s*Today Date: [\w ]+ \d{4}"
)


def prompt_digests(arguments: object) -> tuple[str, str]:
    """Returns digests of all texts that lm-eval sent for a document: exact, and without the
    marks of a chat template. Empty without texts.
    """
    texts = [_read_chat(text) for text in _list_texts(arguments)]
    if not texts:
        return "", ""
    marked = "\n".join(texts)
    plain = _TEMPLATE_TEXTS.sub(" ", _TEMPLATE_MARKS.sub(" ", marked))
    return _hash_text(marked), _hash_text(" ".join(plain.split()))


def _hash_text(text: str) -> str:
    return sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _list_texts(value: object) -> Iterable[str]:
    """Yields the texts of arguments. Leaves out the calls' settings, which are mappings with
    other keys than `arg_N`.
    """
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _list_texts(inner)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if str(name).startswith(("gen_args_", "arg_")):
                yield from _list_texts(inner)


def _read_chat(text: str) -> str:
    """Returns the contents of a chat that is written as JSON, or the text itself."""
    if not text.lstrip().startswith("[{"):
        return text
    try:
        messages = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return "\n".join(text_of(as_mapping(message).get("content")) for message in messages)


def deepeval_statement(
    document: Mapping[str, object],
    cases: Sequence[Mapping[str, object]],
) -> RunStatement:
    """Reads a test run of DeepEval. Its directions changed between versions, so they come from
    each row's `success` and `threshold`.
    """
    rows_by_metric: dict[str, list[tuple[float | None, float | None, bool | None]]] = {}
    for case in cases:
        for metric in map(as_mapping, as_list(case.get("metricsData"))):
            if metric.get("error"):
                continue
            success = metric.get("success")
            rows_by_metric.setdefault(str(metric.get("name")), []).append(
                (
                    numeric_score(metric.get("score")),
                    numeric_score(metric.get("threshold")),
                    success if isinstance(success, bool) else None,
                )
            )
    source = "its `success` and `threshold`"
    statements = {
        name: direction_of_successes(rows, source) for name, rows in rows_by_metric.items()
    }
    passed = as_count(document.get("testPassed"))
    failed = as_count(document.get("testFailed"))
    completion = None
    if passed is not None and failed is not None:
        total = passed + failed
        partial = f"it has {len(cases)} of {total} test cases" if len(cases) < total else ""
        completion = RunCompletion(partial, total or None)
    elif "testPassed" in document:
        completion = RunCompletion("it has no totals: the test run did not end")
    parameters = document.get("hyperparameters")
    name = document.get("datasetAlias")
    version = document.get("datasetVersion")
    return RunStatement(
        "DeepEval",
        metrics={name: stated for name, stated in statements.items() if stated is not None},
        completion=completion,
        settings=named_settings(parameters) if isinstance(parameters, Mapping) else None,
        data=DataStatement(str(name or ""), str(version or "")) if name or version else None,
        tells_grader_failures=True,
    )


def deepeval_graders(cases: Sequence[Mapping[str, object]]) -> dict[str, str]:
    """Returns the models that graded each metric, as terms of `ScoredRun`."""
    graders: dict[str, set[str]] = {}
    for case in cases:
        for metric in map(as_mapping, as_list(case.get("metricsData"))):
            if model := metric.get("evaluationModel"):
                graders.setdefault(f"scorer {metric.get('name')}", set()).add(str(model))
    return {term: f"graded by {', '.join(sorted(models))}" for term, models in graders.items()}


# Names of free parameters that must be equal in both runs, because they say how a tool asked.
_FIXED_NAME: Final = re.compile(
    r"shots?$|^(num|n)?few|few.?shot|examples?$|^solver|^task.?(args?|param)|"
    r"(max.?|^)(messages?|turns?)(.?limit)?$|message.?limit|turn.?limit|"
    r"(judge|grader|grading|evaluator|evaluation|scorer).?(model|llm)",
    re.IGNORECASE,
)
# Names of parameters that models may need for themselves.
_NOTED_NAME: Final = re.compile(
    r"prompt|template|instruction|system|temperature|^max|^top|penalty|seed|format|effort|think",
    re.IGNORECASE,
)
# Names of parameters that name the model or the run itself.
_OWN_NAME: Final = re.compile(
    r"model|provider|deployment|engine|^llm$|name$|(^|[_ -])id$|time|date|created|commit|"
    r"branch|git|sha|url|uri|host|tags?$|user|author|run|version|revision|experiment|duration|cost|"
    r"tokens_used|trace|span|session|api.?key|num_repetitions|example",
    re.IGNORECASE,
)


def is_setting(name: str) -> bool:
    """Tells whether a column's name is the name of a setting of the calls."""
    return bool(_FIXED_NAME.search(name) or _NOTED_NAME.search(name))


def named_settings(parameters: Mapping[str, object]) -> CallSettings:
    """Sorts parameters of free names, such as an experiment's metadata, by their names."""
    fixed: dict[str, object] = {}
    noted: dict[str, object] = {}
    for name, value in parameters.items():
        if _FIXED_NAME.search(str(name)):
            fixed[str(name)] = value
        elif _NOTED_NAME.search(str(name)) or not _OWN_NAME.search(str(name)):
            noted[str(name)] = value
    return CallSettings(named_texts(fixed), named_texts(noted))


def shared_settings(metadata: Sequence[Mapping[str, object]]) -> CallSettings | None:
    """Returns the settings in rows' metadata that are equal in all rows of a run."""
    first = next(iter(metadata), {})
    if not first:
        return None
    shared = {
        name: value
        for name, value in first.items()
        if all(name in row and row[name] == value for row in metadata)
    }
    return named_settings(shared)


def openai_evals_statement(
    rows: Sequence[Mapping[str, object]],
    spec: Mapping[str, object],
) -> RunStatement:
    """Reads an oaieval log: its `spec`, and its `final_report`, which ends a whole run."""
    config = as_mapping(spec.get("run_config"))
    eval_spec = as_mapping(config.get("eval_spec"))
    arguments = dict(as_mapping(eval_spec.get("args")))
    limit = config.get("max_samples")
    ended = any("final_report" in row for row in rows)
    name = str(spec.get("base_eval") or spec.get("eval_name") or "")
    fixed = named_texts(arguments, "task argument ")
    extra = as_mapping(config.get("completion_args") or config.get("extra_eval_params"))
    return RunStatement(
        "OpenAI evals",
        completion=RunCompletion(
            "" if ended else "it has no final_report: the run did not end",
            limit=text_of(limit) if is_set(limit) else "",
        ),
        settings=CallSettings(fixed, named_texts(extra)) if config else None,
        data=DataStatement(name, str(spec.get("split") or "")) if name else None,
        tells_grader_failures=True,
    )


def page_completion(document: Mapping[str, object], found: int) -> RunCompletion | None:
    """Reads whether an API's answer is one page of several; None if it does not tell."""
    if isinstance(document.get("has_more"), bool):
        more = document["has_more"]
        return RunCompletion("it is one page: `has_more` is true" if more else "")
    meta = as_mapping(document.get("meta"))
    total = as_count(meta.get("totalItems"))
    if total is None:
        return None
    return RunCompletion(
        f"it is one page: {found} of {total} rows" if found < total else "", total
    )
