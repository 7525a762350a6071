"""Parses results of OpenAI's two eval tools: the Evals API, and the older `oaieval`.

The Evals API and its dashboard ended on 30 November 2026, so its answers are files now: pages
of output items, rows that an SDK wrote, or an export with the eval, its runs and their items.
Microsoft Foundry, which goes on, writes the same form.

Source: OpenAI's API reference, "Get eval run output items" and "Get an eval run".
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from harness.evals.scored_run import (
    ScoredRun,
    ScoredSample,
    as_mapping,
    numeric_score,
    numeric_scores,
    parse_json_rows,
    question_key,
    read_scores,
    single_value,
)
from harness.evals.tool_statements import (
    as_count,
    as_list,
    named_texts,
    openai_evals_statement,
    prompt_digests,
)
from harness.frame.errors import InputError
from harness.frame.plain_data import canonical_json

STATUS: Final = "status"  # the metric that all graders of an item give together
# The Evals API gives each grader an id: its name, `-` and a UUID.
_GRADER_ID: Final = re.compile(r"-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_FAILED_STATUSES: Final = frozenset({"error", "errored", "failed"})  # of a grader's result
_CALL_SETTINGS: Final = (
    "temperature",
    "top_p",
    "seed",
    "max_completion_tokens",
    "reasoning_effort",
)
_HIGHER_IS_BETTER: Final = frozenset({"string_check", "text_similarity", "label_model"})


@dataclass(frozen=True, slots=True)
class _RunExport:
    """The output items of one run, and what the file tells about the run.

    eval_, run: objects of the API; empty if the file lacks them.
    completion: by the pages; None if the file does not tell.
    """

    rows: Sequence[Mapping[str, object]]
    eval_: Mapping[str, object]
    run: Mapping[str, object]
    completion: RunCompletion | None


def parse_openai_evals(text: str) -> list[ScoredRun]:
    """Parses a log of `oaieval`, or output items. Raises InputError for any other file."""
    documents = parse_json_rows(text)
    exports = [*_list_exports(documents)]
    if exports:
        runs = [_parse_items(export) for export in exports]
        names = Counter(run.model for run in runs)
        return [
            run
            if names[run.model] == 1
            else replace(run, model=f"{run.model} {_name_run(export, '')}".rstrip())
            for run, export in zip(runs, exports, strict=True)
        ]
    if any("sample_id" in row and "type" in row for row in documents):
        return [_parse_events(documents)]
    raise InputError("contains neither events of oaieval nor output items of a run")


def is_output_items(documents: Iterable[Mapping[str, object]]) -> bool:
    """Tells whether the objects of a file are output items, pages of them, or exports."""
    return any(
        "output_items" in document
        or ("eval" in document and "runs" in document)
        or _is_item(document)
        or any(_is_item(as_mapping(row)) for row in as_list(document.get("data"))[:1])
        for document in documents
    )


def _list_exports(documents: Sequence[Mapping[str, object]]) -> Iterator[_RunExport]:
    """Yields a file's runs. The file is one document, a list, or JSON lines.

    A document is an output item, a page of items, or an object with `runs` or `output_items`,
    in which an SDK's pages are already joined.
    """
    # By run: its items by id, since pages may overlap, and whether each page had more pages.
    items: dict[str, dict[object, Mapping[str, object]]] = {}
    more: dict[str, list[object]] = {}
    for document in documents:
        eval_ = as_mapping(document.get("eval"))
        for part in (document, *map(as_mapping, as_list(document.get("runs")))):
            if rows := as_list(part.get("output_items")):
                run = as_mapping(part.get("run"))
                yield _RunExport([as_mapping(row) for row in rows], eval_, run, None)
        page = [row for row in map(as_mapping, as_list(document.get("data"))) if _is_item(row)]
        for row in [document] if _is_item(document) else page:
            own_items = items.setdefault(_name_own_run(row), {})
            own_items[row.get("id", len(own_items))] = row
        if page:
            more.setdefault(_name_own_run(page[0]), []).append(document.get("has_more"))
    for name, own_items in items.items():
        yield _RunExport(list(own_items.values()), {}, {}, _read_pages(more.get(name, ())))


def _is_item(row: Mapping[str, object]) -> bool:
    return "datasource_item_id" in row or "datasource_item" in row


def _name_own_run(row: Mapping[str, object]) -> str:
    """Names an item's run. The model is no name: an item whose sample failed may have none."""
    return str(row.get("run_id") or as_mapping(row.get("sample")).get("model") or "")


def _read_pages(more: Sequence[object]) -> RunCompletion | None:
    """Reads `has_more` of a run's pages; None if no page tells. Only the last page has
    false.
    """
    if False in more:
        return RunCompletion()
    if True not in more:
        return None
    pages = "it is one page" if len(more) == 1 else f"its {len(more)} pages are not all"
    return RunCompletion(f"{pages}: `has_more` is true")


def _name_run(export: _RunExport, model: str) -> str:
    """Returns a run's model, or the id of the run."""
    return model or str(export.run.get("id") or export.rows[0].get("run_id") or "")


def _parse_items(export: _RunExport) -> ScoredRun:
    """Builds a run from its output items.

    A grader without a score counts by `passed`. A grader with an error has no score. An item
    whose sample has an error, or no output although other items have one, is a failed answer.
    """
    graders = _index_graders(export.eval_)
    names = _short_names(export.rows)
    wide = _find_wide_graders(export.rows, names)
    has_outputs = any(as_mapping(row.get("sample")).get("output") for row in export.rows)
    samples = [_build_sample(row, names, wide, needs_output=has_outputs) for row in export.rows]
    models = Counter(
        str(model)
        for row in export.rows
        if (model := as_mapping(row.get("sample")).get("model"))
    )
    model = models.most_common(1)[0][0] if models else str(export.run.get("model") or "")
    terms = {
        f"scorer {names.get(id_, id_)}": canonical_json(_without_id(grader))
        for id_, grader in graders.items()
    }
    return ScoredRun.from_samples(
        _name_run(export, model), samples, terms, statement=_read_statement(export, names)
    )


def _build_sample(
    row: Mapping[str, object],
    names: Mapping[str, str],
    wide: frozenset[str],
    *,
    needs_output: bool,
) -> ScoredSample:
    answer = as_mapping(row.get("sample"))
    values: dict[str, object] = {}
    ungraded: set[str] = set()
    for name, result in _name_results(row, names):
        score = numeric_score(result.get("score"))
        passed = numeric_score(result.get("passed"))
        values[name] = single_value(values, name, passed if score is None else score)
        if name in wide:
            values[f"{name} passed"] = passed
        if _is_grader_failure(result):
            ungraded |= {name, f"{name} passed"}
    if len(values) > 1 and row.get("status") in ("pass", "fail"):
        values[STATUS] = float(row["status"] == "pass")
        if ungraded or None in values.values():
            ungraded.add(STATUS)
    scores, unread = read_scores(values)
    failed = row.get("status") == "error" or bool(answer.get("error"))
    prompt, plain_prompt = prompt_digests(
        [
            json.dumps([as_mapping(message)], sort_keys=True)
            for message in as_list(answer.get("input"))
        ]
    )
    return ScoredSample(
        str(row.get("datasource_item_id")),
        scores,
        failed or (needs_output and not answer.get("output")),
        question_key(read_item_data(row)),
        unread=unread,
        ungraded=frozenset(ungraded),
        prompt=prompt,
        plain_prompt=plain_prompt,
    )


def read_item_data(row: Mapping[str, object]) -> dict[str, object]:
    """Returns the data of an output item, without the answer, which Foundry adds as fields such
    as `sample.output_text`.
    """
    return {
        name: value
        for name, value in as_mapping(row.get("datasource_item")).items()
        if not name.startswith("sample.") and name not in _ANSWER_FIELDS
    }


_ANSWER_FIELDS: Final = frozenset({"response_id", "trace_id", "agent_name", "agent_version"})


def _is_grader_failure(result: Mapping[str, object]) -> bool:
    """Tells whether a grader gave an error instead of a score."""
    return bool(
        result.get("error")
        or any(as_mapping(result.get("errors")).values())
        or as_mapping(result.get("sample")).get("error")
        or result.get("status") in _FAILED_STATUSES
    )


def _name_results(
    row: Mapping[str, object], names: Mapping[str, str]
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yields the graders' results with their names.

    Foundry's evaluators may give several results of one name, which differ in `metric`.
    """
    results = [as_mapping(result) for result in as_list(row.get("results"))]
    counts = Counter(str(result.get("name")) for result in results)
    for result in results:
        id_ = str(result.get("name"))
        metric = result.get("metric")
        name = names.get(id_, id_)
        yield (f"{name}.{metric}" if counts[id_] > 1 and metric else name), result


def _short_names(rows: Iterable[Mapping[str, object]]) -> dict[str, str]:
    """Maps graders' ids to their names without UUID, unless two graders have one name."""
    ids = dict.fromkeys(
        str(as_mapping(result).get("name"))
        for row in rows
        for result in as_list(row.get("results"))
    )
    names = {id_: _GRADER_ID.sub("", id_) or id_ for id_ in ids}
    counts = Counter(names.values())
    return {id_: name if counts[name] == 1 else id_ for id_, name in names.items()}


def _find_wide_graders(
    rows: Iterable[Mapping[str, object]], names: Mapping[str, str]
) -> frozenset[str]:
    """Returns the graders with a score beyond 0 to 1, such as 4 of 5: for these `passed` is a
    metric, too.
    """
    return frozenset(
        name
        for row in rows
        for name, result in _name_results(row, names)
        if (score := numeric_score(result.get("score"))) is not None and not 0 <= score <= 1
    )


def _index_graders(eval_: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """Returns an eval's graders by the names that its runs' results have."""
    graders = [as_mapping(grader) for grader in as_list(eval_.get("testing_criteria"))]
    return {str(grader.get("id") or grader.get("name")): grader for grader in graders}


def _without_id(grader: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in grader.items() if name != "id" and value is not None}


def _read_statement(export: _RunExport, names: Mapping[str, str]) -> RunStatement:
    run = export.run
    settings = _read_settings(export)
    eval_id = export.eval_.get("id") or run.get("eval_id") or export.rows[0].get("eval_id")
    return RunStatement(
        "OpenAI evals",
        metrics=_read_metrics(export, names),
        completion=_read_completion(run, len(export.rows)) or export.completion,
        settings=settings,
        data=DataStatement(str(eval_id)) if eval_id else None,
        tells_grader_failures=True,
    )


def _read_completion(run: Mapping[str, object], found: int) -> RunCompletion | None:
    """Compares a run's own count with the number of its items; None without a run."""
    total = as_count(as_mapping(run.get("result_counts")).get("total"))
    status = run.get("status")
    if status not in (None, "completed"):
        return RunCompletion(f"its status is `{status}`", total or None)
    if total is None:
        return None
    missing = f"it has {found} of {total} output items" if found < total else ""
    return RunCompletion(missing, total)


def _read_settings(export: _RunExport) -> CallSettings | None:
    """Returns the settings that are equal in all answers of a run."""
    source = as_mapping(export.run.get("data_source"))
    stated = dict(as_mapping(source.get("sampling_params")))
    answers = [
        answer
        for row in export.rows
        if (answer := as_mapping(row.get("sample"))) and not answer.get("error")
    ]
    for name in _CALL_SETTINGS:
        values = [answer.get(name) for answer in answers]
        if values and values.count(values[0]) == len(values) and values[0] is not None:
            stated[name] = values[0]
    template = as_mapping(source.get("input_messages"))
    if not (stated or template):
        return None
    return CallSettings({}, named_texts(stated))


def _read_metrics(export: _RunExport, names: Mapping[str, str]) -> dict[str, MetricStatement]:
    """Returns each grader's direction, by the eval's configuration or by `passed`; and its
    range, which a `score_model` states.
    """
    values: dict[str, list[tuple[float | None, float | None, bool | None]]] = {}
    for row in export.rows:
        for name, result in _name_results(row, names):
            passed = result.get("passed")
            if not _is_grader_failure(result):
                values.setdefault(name, []).append(
                    (
                        numeric_score(result.get("score")),
                        numeric_score(result.get("threshold")),
                        passed if isinstance(passed, bool) else None,
                    )
                )
    metrics = {STATUS: MetricStatement(Direction.HIGHER, "`pass` is a passed item")}
    for name, votes in values.items():
        metrics[f"{name} passed"] = MetricStatement(Direction.HIGHER, "`passed`")
        if (statement := direction_of_successes(votes, "`passed`")) is not None:
            metrics[name] = statement
    for id_, grader in _index_graders(export.eval_).items():
        name = names.get(id_, id_)
        if grader.get("type") in _HIGHER_IS_BETTER:
            metrics[name] = MetricStatement(
                Direction.HIGHER, f"a `{grader['type']}` grader scores 1 for a pass"
            )
        span = [numeric_score(end) for end in as_list(grader.get("range"))]
        match span:
            case [float(low), float(high)] if low < high:
                told = metrics.get(name) or MetricStatement()
                metrics[name] = replace(told, span=(low, high))
            case _:
                pass
    return metrics


def _parse_events(rows: Sequence[Mapping[str, object]]) -> ScoredRun:
    """Builds one run from an oaieval log's events; a metric with two values has no score."""
    spec = as_mapping(next((row["spec"] for row in rows if "spec" in row), None))
    functions = spec.get("completion_fns")
    model = str(functions[0]) if isinstance(functions, list) and functions else ""
    values: dict[str, dict[str, object]] = {}
    questions: dict[str, object] = {}
    expected: dict[str, object] = {}
    failed: set[str] = set()
    ungraded: dict[str, frozenset[str]] = {}
    for row in rows:
        if "sample_id" not in row:
            continue
        item = str(row["sample_id"])
        data = as_mapping(row.get("data"))
        item_values = values.setdefault(item, {})  # an item of the run, perhaps without scores
        match row.get("type"):
            case "match":
                correct = numeric_score(data.get("correct"))
                item_values["match"] = single_value(item_values, "match", correct)
                expected.setdefault(item, data.get("expected"))
            case "metrics":
                for name, score in numeric_scores(data).items():
                    item_values[name] = single_value(item_values, name, score)
                # The grading model made no choice, so oaieval gives the lowest score.
                if data.get("choice") == "__invalid__":
                    ungraded[item] = frozenset(numeric_scores(data))
            case "sampling":  # the first one has the item's prompt
                questions.setdefault(item, data.get("prompt"))
            case "error":
                failed.add(item)
            case _:
                pass
    samples = []
    for item, item_values in values.items():
        scores, unread = read_scores(item_values)
        samples.append(
            ScoredSample(
                item,
                scores,
                item in failed,
                question_key(questions.get(item)),
                revision=question_key(expected.get(item)),
                unread=unread,
                ungraded=ungraded.get(item, frozenset()),
            )
        )
    return ScoredRun.from_samples(
        model,
        samples,
        _read_event_terms(spec),
        statement=openai_evals_statement(rows, spec),
    )


def _read_event_terms(spec: Mapping[str, object]) -> dict[str, str]:
    """Returns the eval, and the model that grades, which must be equal in both runs."""
    functions = spec.get("completion_fns")
    name = spec.get("eval_name")
    terms = {"eval": str(name)} if name else {}
    eval_spec = as_mapping(as_mapping(spec.get("run_config")).get("eval_spec"))
    # The last model grades: the measured model itself, if there is no other.
    if isinstance(functions, list) and functions and "ModelBased" in str(eval_spec.get("cls")):
        terms["grader model"] = str(functions[-1])
    return terms
