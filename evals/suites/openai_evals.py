"""Converts an eval of OpenAI's Evals API into a suite: its items, prompt and graders.

The API ended on 30 November 2026, so its answers are files now. The eval has the graders, a
run the prompt, and the items are in the data file, the run or the run's output items. One
export may have all of them. Microsoft Foundry, which goes on, has the same form.

A grader becomes an assertion of `evals.scorers.assertions`, or a note that says why not.

Source: OpenAI's API reference, "Evals", and its guide "Graders".
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from evals.scorers.assertions import RUBRIC, check_assertion, text_of
from evals.suites.conversation import (
    FIELDS,
    check_fields,
    check_messages,
    find_input_text,
)
from evals.suites.items import UNLABELLED
from evals.suites.source_records import SourceFile
from harness.evals.openai_evals import read_item_data
from harness.evals.scored_run import as_mapping
from harness.frame.configuration.config_conversion import (
    ConversionNote,
    ConversionOutcome,
    NothingTaken,
)
from harness.frame.errors import InputError
from harness.frame.formatting import format_quantity
from harness.frame.plain_data import canonical_json

_VARIABLE: Final = re.compile(r"\{\{\s*(.+?)\s*\}\}", re.DOTALL)
_OUTPUT: Final = "sample.output_text"
_IS_OUTPUT: Final = re.compile(r"\s*\{\{\s*sample\.output_text\s*\}\}\s*")
# `string_check`: operation → assertion.
_OPERATIONS: Final[Mapping[object, str]] = {
    "eq": "equals",
    "ne": "not-equals",
    "like": "contains",
    "ilike": "icontains",
}
_SYMMETRIC: Final = ("eq", "ne")
_NO_COUNTERPART: Final[Mapping[object, str]] = {
    "python": "is your code, which Swapproof does not run",
    "text_similarity": "Swapproof does not compute `{evaluation_metric}`",
    "azure_ai_evaluator": "`{evaluator_name}` is an evaluator of Foundry",
}
_OLD_SCORES: Final = "; `swapproof try` compares the scores of your runs"
_MAX_SHOWN: Final = 5  # reasons shown for the items that are left out
# Keys of an item's metadata with a meaning of their own in Swapproof.
_RESERVED: Final = frozenset(
    {
        "messages",
        "production",
        "provenance",
        "assert",
        "threshold",
        "rubric",
        "rules",
        "schema",
        "vars",
        UNLABELLED,
        *FIELDS,
    }
)
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ConvertedEval:
    """The suite of an eval. judged: a grader needs a judge."""

    title: str
    items: Sequence[Fields]  # lines of its data file
    judged: bool
    items_left: int
    graders_left: int
    notes: Sequence[ConversionNote]


def is_eval(source: SourceFile) -> bool:
    """Tells whether a file has an eval's configuration."""
    return any(
        "testing_criteria" in part
        for document in _documents(source)
        for part in _parts(document)
    )


def is_eval_data(source: SourceFile) -> bool:
    """Tells whether a file has items for an eval: its data, a run, or a run's output items."""
    return any(
        "datasource_item" in part
        or ("data_source" in part and "eval_id" in part)
        or (isinstance(part.get("item"), Mapping) and part.keys() <= {"item", "sample"})
        for document in _documents(source)
        for part in _parts(document)
    )


def convert(files: Sequence[SourceFile], *, judged: bool) -> ConvertedEval:
    """Converts an eval with the items of all files.

    Args:
        files: the eval's file, and those with its runs and items.
        judged: a judge can score graders that ask a model.

    Raises NothingTaken without a usable grader or item, and InputError without an eval.
    """
    reader = _Reader(judged)
    for file in files:
        reader.read(file)
    return reader.convert()


@dataclass(frozen=True, slots=True)
class _Row:
    """An item's data, the messages that a run sent for it, and its place in a file."""

    item: Fields
    place: str
    run: str = ""  # id of the run whose messages these are
    messages: Sequence[Any] = ()


@dataclass
class _Reader:
    judged: bool
    evals: list[tuple[str, Fields]] = field(default_factory=list)  # with the file
    runs: dict[str, Fields] = field(default_factory=dict)
    rows: list[_Row] = field(default_factory=list)
    notes: list[ConversionNote] = field(default_factory=list)
    found: dict[str, int] = field(default_factory=dict)  # output items, by run
    last_pages: set[str] = field(default_factory=set)  # runs whose last page is there
    open_pages: dict[str, str] = field(default_factory=dict)  # run → file with `has_more`

    def read(self, file: SourceFile) -> None:
        """Collects the parts of a file: evals, runs and items."""
        path = str(file.path)
        for number, document in enumerate(_documents(file), start=1):
            for part in _parts(document):
                if "testing_criteria" in part:
                    if part not in [known for _, known in self.evals]:
                        self.evals.append((path, part))
                elif "data_source" in part:
                    self._read_run(part, path)
                elif "datasource_item" in part:
                    self._read_output_item(part, path)
                elif isinstance(part.get("item"), Mapping):
                    self.rows.append(_Row(part["item"], f"{path}:{number}"))
            if "eval" in document:
                self.rows += [
                    _Row(row, f"{path}: rows.{place}")
                    for place, row in enumerate(_objects(document.get("rows")))
                ]
            self._read_page(document, path)

    def _read_run(self, run: Fields, path: str) -> None:
        id_ = str(run.get("id") or len(self.runs))
        self.runs[id_] = run
        source = as_mapping(as_mapping(run["data_source"]).get("source"))
        for place, row in enumerate(_objects(source.get("content"))):
            if isinstance(row.get("item"), Mapping):
                self.rows.append(_Row(row["item"], f"{path}: content.{place}"))

    def _read_output_item(self, part: Fields, path: str) -> None:
        run = str(part.get("run_id") or "")
        self.found[run] = self.found.get(run, 0) + 1
        messages = as_mapping(part.get("sample")).get("input")
        place = f"{path}: output item {part.get('id') or part.get('datasource_item_id')}"
        sent = messages if isinstance(messages, list) else ()
        self.rows.append(_Row(read_item_data(part), place, run, sent))

    def _read_page(self, document: Fields, path: str) -> None:
        """Remembers whether a page of output items is the last one of its run."""
        rows = _objects(document.get("data"))
        if not rows or "datasource_item" not in rows[0]:
            return
        run = str(rows[0].get("run_id") or "")
        if document.get("has_more") is False:
            self.last_pages.add(run)
        elif document.get("has_more") is True:
            self.open_pages.setdefault(run, path)

    def convert(self) -> ConvertedEval:
        if len(self.evals) != 1:
            names = ", ".join(repr(eval_.get("name")) for _, eval_ in self.evals)
            raise InputError(
                f"has {len(self.evals)} evals ({names}): give one eval"
                if self.evals
                else "has no eval with testing_criteria"
            )
        path, eval_ = self.evals[0]
        graders = self._read_graders(path, eval_)
        items, left = self._build_items(path, graders)
        self._note_missing()
        criteria = _objects(eval_.get("testing_criteria"))
        if not (items and graders):
            raise NothingTaken(self._explain_empty(path, graders), self.notes)
        return ConvertedEval(
            str(eval_.get("name") or "OpenAI eval"),
            items,
            any(check["type"] == RUBRIC for check in graders),
            left,
            len(criteria) - len(graders),
            self.notes,
        )

    def _explain_empty(self, path: str, graders: Sequence[Fields]) -> str:
        if not self.rows:
            return (
                f"{path}: has the graders of an eval and no items: give its data file, run or "
                "output items by --items FILE"
            )
        if not graders:
            return f"{path}: no grader has a counterpart; the report gives the reason for each"
        return f"{path}: no item is usable; the report gives the reasons"

    def _note(self, place: str, key: str, outcome: ConversionOutcome, text: str) -> None:
        self.notes.append(ConversionNote(place, key, outcome, text))

    def _read_graders(self, path: str, eval_: Fields) -> Sequence[Fields]:
        """Returns the assertions of the eval's graders, and notes each grader."""
        assertions = []
        for number, grader in enumerate(_objects(eval_.get("testing_criteria"))):
            key = f"testing_criteria.{number} ({grader.get('name') or grader.get('type')})"
            try:
                assertion, text, outcome = self._read_grader(grader)
                assertions.append(assertion)
            except InputError as error:
                text = str(error)
                outcome = ConversionOutcome.LEFT
            self._note(path, key, outcome, text)
        return assertions

    def _read_grader(self, grader: Fields) -> tuple[Fields, str, ConversionOutcome]:
        """Returns a grader's assertion and its note. Raises InputError without a
        counterpart.
        """
        kind = grader.get("type")
        if kind == "string_check":
            return _read_string_check(grader)
        if kind in ("label_model", "score_model"):
            if not self.judged:
                raise InputError(f"a `{kind}` needs a judge: --judge provider/model")
            assertion = _read_label(grader) if kind == "label_model" else _read_score(grader)
            note = "a rubric for your judge: compare its scores with those of your old runs"
            return assertion, note, ConversionOutcome.CHANGED
        reason = _NO_COUNTERPART.get(kind)
        if reason is None:
            raise InputError(f"Swapproof knows no grader of type {kind!r}{_OLD_SCORES}")
        values = {name: grader.get(name) for name in ("evaluation_metric", "evaluator_name")}
        raise InputError(f"{reason.format(**values)}{_OLD_SCORES}")

    def _build_items(
        self, path: str, graders: Sequence[Fields]
    ) -> tuple[Sequence[Fields], int]:
        """Returns the items' lines, and the number of items that were left out."""
        prompt = self._choose_prompt()
        template = self._template(prompt)
        fields = self._read_fields(prompt)
        items: list[Fields] = []
        reasons: list[str] = []
        for row in self._distinct_rows(prompt):
            try:
                item = _build_item(f"item-{len(items) + 1:04}", row, template, graders)
            except InputError as error:
                reasons.append(f"{row.place}: {error}")
                continue
            items.append({**item, "metadata": {**item["metadata"], **fields}})
        if items:
            self._note(
                path,
                "items",
                ConversionOutcome.TAKEN,
                f"{format_quantity(len(items), 'item')} of the suite",
            )
        if reasons:
            shown = "; ".join(reasons[:_MAX_SHOWN])
            rest = len(reasons) - _MAX_SHOWN
            shown += f" and {rest} more" if rest > 0 else ""
            count = format_quantity(len(reasons), "item")
            self._note(path, "items", ConversionOutcome.LEFT, f"{count}: {shown}")
        return items, len(reasons)

    def _choose_prompt(self) -> str:
        """Returns the id of the newest run with a prompt; empty without one."""
        sent = {row.run for row in self.rows if row.messages}
        candidates = [id_ for id_ in (*self.runs, *sent) if id_ in sent or self._template(id_)]
        if not candidates:
            return ""

        def read_age(id_: str) -> float:
            created = self.runs.get(id_, {}).get("created_at")
            return float(created) if isinstance(created, int | float) else 0.0

        chosen = max(candidates, key=read_age)
        own = canonical_json(self._template(chosen) or None)
        others = [
            id_
            for id_ in self.runs
            if self._template(id_) and canonical_json(self._template(id_)) != own
        ]
        if others:
            self._note(
                "runs",
                "input_messages",
                ConversionOutcome.LEFT,
                f"the suite asks as run {chosen}; {', '.join(others[:_MAX_SHOWN])} asked with "
                "another prompt",
            )
        return chosen

    def _template(self, run: str) -> Fields:
        source = as_mapping(self.runs.get(run, {}).get("data_source"))
        return as_mapping(source.get("input_messages"))

    def _distinct_rows(self, prompt: str) -> Iterator[_Row]:
        """Yields each item once, with messages only if the run `prompt` sent them."""
        rows: dict[str, _Row] = {}
        for row in self.rows:
            key = canonical_json(row.item)
            if row.messages and row.run == prompt:
                rows[key] = row
            else:
                rows.setdefault(key, _Row(row.item, row.place))
        yield from rows.values()

    def _read_fields(self, prompt: str) -> Fields:
        """Returns the tools and the answer's form that the run asked with, and notes the other
        settings.
        """
        source = as_mapping(self.runs.get(prompt, {}).get("data_source"))
        fields: dict[str, Any] = {}
        for name, value in as_mapping(source.get("sampling_params")).items():
            key = f"sampling_params.{name}"
            if value in (None, "", [], {}):
                continue
            if name in FIELDS:
                try:
                    check_fields({name: value}, key)
                except InputError as error:
                    self._note(prompt, key, ConversionOutcome.LEFT, str(error))
                else:
                    fields[name] = value
                    self._note(prompt, key, ConversionOutcome.TAKEN, "part of each request")
                continue
            reason = "Swapproof asks each model with the settings of its target"
            self._note(prompt, key, ConversionOutcome.LEFT, reason)
        return fields

    def _note_missing(self) -> None:
        """Notes what the files lack: pages, output items, and uploaded data files."""
        for name, path in self.open_pages.items():
            if name not in self.last_pages:
                text = (
                    f"the output items of run {name or 'without id'} are not complete: "
                    "`has_more` is true, and the pages after it are missing"
                )
                self._note(path, "has_more", ConversionOutcome.LEFT, text)
        for id_, run in self.runs.items():
            total = as_mapping(run.get("result_counts")).get("total")
            found = self.found.get(id_, 0)
            if isinstance(total, int) and 0 < found < total:
                text = f"the files have {found} of {total} output items"
                self._note(id_, "result_counts", ConversionOutcome.LEFT, text)
            source = as_mapping(as_mapping(run["data_source"]).get("source"))
            if source.get("type") == "file_id" and not found:
                text = f"the items are in file {source.get('id')}: give it by --items"
                self._note(id_, "data_source.source", ConversionOutcome.LEFT, text)


def _read_string_check(grader: Fields) -> tuple[Fields, str, ConversionOutcome]:
    operation = grader.get("operation")
    text = str(grader.get("input"))
    reference = str(grader.get("reference"))
    kind = _OPERATIONS.get(operation)
    if kind is None:
        raise InputError(f"has no known operation: {operation!r}{_OLD_SCORES}")
    if operation in _SYMMETRIC and _IS_OUTPUT.fullmatch(reference):
        text, reference = reference, text
    if not _IS_OUTPUT.fullmatch(text):
        raise InputError(f"compares {text!r}, which is not the whole answer{_OLD_SCORES}")
    _check_variables(reference, ())
    return {"type": kind, "value": reference}, f"assertion `{kind}`", ConversionOutcome.TAKEN


def _read_label(grader: Fields) -> Fields:
    labels = ", ".join(map(str, grader.get("labels") or ()))
    passing = ", ".join(map(str, grader.get("passing_labels") or ()))
    if not passing:
        raise InputError("has no passing_labels, so no answer can pass")
    rules = (
        f"Choose the answer's label, one of: {labels}. The score is 1 for the labels "
        f"{passing}, and 0 for each other label."
    )
    return {"type": RUBRIC, "value": f"{_read_instructions(grader)}\n\n{rules}"}


def _read_score(grader: Fields) -> Fields:
    low = 0.0
    high = 1.0
    match grader.get("range"):
        case [int() | float() as first, int() | float() as second] if first < second:
            low = float(first)
            high = float(second)
        case None:
            pass
        case other:
            raise InputError(f"has no readable range: {other!r}")
    value = _read_instructions(grader)
    if (low, high) != (0.0, 1.0):
        value += (
            f"\n\nThese instructions speak of scores from {low:g} to {high:g}. Give a score "
            f"from 0, which stands for {low:g}, to 1, which stands for {high:g}."
        )
    passed = grader.get("pass_threshold")
    if not isinstance(passed, int | float):
        raise InputError("has no pass_threshold, so the score of a passed answer is unknown")
    return {"type": RUBRIC, "value": value, "threshold": (passed - low) / (high - low)}


def _read_instructions(grader: Fields) -> str:
    """Returns the texts of a model's prompt, with the answer's place marked. Raises InputError
    for variables that Swapproof cannot fill in.
    """
    turns = grader.get("input")
    messages = turns if isinstance(turns, list) else [turns]
    texts = [_read_content(as_mapping(message).get("content", message)) for message in messages]
    text = "\n\n".join(texts)
    _check_variables(text, (_OUTPUT,))
    return _VARIABLE.sub(
        lambda variable: "(the answer)" if variable[1] == _OUTPUT else variable[0], text
    )


def _read_content(content: object) -> str:
    """Returns a message's text. Raises InputError for pictures and sound."""
    match content:
        case str():
            return content
        case {"text": str() as text}:
            return text
        case list():
            return "\n".join(map(_read_content, content))
        case _:
            raise InputError("has a message without a text, such as a picture")


def _check_variables(text: str, others: Sequence[str]) -> None:
    """Raises InputError for a variable that is neither of the item nor one of `others`."""
    for variable in _VARIABLE.finditer(text):
        if variable[1] not in others and not re.fullmatch(r"item(\.\w+)+", variable[1]):
            raise InputError(f"Swapproof cannot fill in {variable[0]!r}{_OLD_SCORES}")


def _fill(text: str, item: Fields) -> str:
    """Fills in `{{item.name}}`, once: an item's text may contain braces. Raises InputError for
    a value that the item lacks, and for one that is no text or number.
    """

    def read(variable: re.Match[str]) -> str:
        value: object = {"item": item}
        for part in variable[1].split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            raise InputError(f"the item has no {variable[1].removeprefix('item.')!r}")
        if isinstance(value, Mapping | list):
            raise InputError(f"{variable[0]} is a list or an object, not a text")
        return text_of(value)

    return _VARIABLE.sub(read, text)


def _fill_prompt(template: Fields, item: Fields) -> Sequence[Any]:
    """Returns the messages that a run's template gives for an item. Raises InputError if the
    item does not fit.
    """
    if reference := template.get("item_reference"):
        name = str(reference).removeprefix("item.")
        messages = item.get(name)
        if not isinstance(messages, list):
            raise InputError(f"the item has no list of messages {name!r}")
        return messages
    if not isinstance(template.get("template"), list):
        raise InputError("no run tells how the model was asked: give a run by --items")
    filled = []
    for turn in _objects(template["template"]):
        text = _read_content(turn.get("content"))
        _check_variables(text, ())
        filled.append({"role": turn.get("role"), "content": _fill(text, item)})
    return filled


def _build_item(id_: str, row: _Row, template: Fields, graders: Sequence[Fields]) -> Fields:
    """Builds an item's line. Raises InputError for an item that does not fit."""
    sent = row.messages or _fill_prompt(template, row.item)
    messages = [_read_message(message) for message in sent]
    checked = check_messages(messages, "its prompt")
    checks = [{**check, "value": _fill(str(check["value"]), row.item)} for check in graders]
    for check in checks:
        check_assertion(check, judged=True)
    own = {
        name: value
        for name, value in row.item.items()
        if name not in _RESERVED and isinstance(value, str | int | float)
    }
    return {
        "id": id_,
        "input": find_input_text(checked),
        "target": [f"{check['type']}: {check['value']}" for check in checks],
        "metadata": {**own, "messages": messages, "assert": checks},
    }


def _read_message(message: object) -> Fields:
    """Returns a message in the form of Chat Completions, without empty fields."""
    turn = as_mapping(message)
    kept = {
        name: turn[name]
        for name in ("role", "tool_calls", "tool_call_id")
        if turn.get(name) not in (None, [], "")
    }
    content = turn.get("content")
    return {**kept, "content": None if content is None else _read_content(content)}


def _documents(file: SourceFile) -> Sequence[Fields]:
    """Returns a file's objects: the one around its records, or the records."""
    return [file.document] if file.document else [record.fields for record in file.records]


def _parts(document: Fields) -> Iterator[Fields]:
    """Yields the objects in a document: itself, its eval, its runs, and their items."""
    yield document
    if isinstance(document.get("eval"), Mapping):
        yield document["eval"]
    for row in _objects(document.get("data")):
        yield from _parts(row)
    for part in (document, *_objects(document.get("runs"))):
        if isinstance(part.get("run"), Mapping):
            yield part["run"]
        yield from _objects(part.get("output_items"))


def _objects(value: object) -> Sequence[Fields]:
    return [as_mapping(part) for part in value] if isinstance(value, list) else []
