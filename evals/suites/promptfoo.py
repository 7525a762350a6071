"""Converts promptfoo's configuration into suites: one per prompt, with the tests as items.

Tests may be inline or in files. The report has a line for each key: taken, changed, or not
taken.

Source: promptfoo's documentation, "Configuration reference", "Test cases" and "Prompts".
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from evals.scorers.assertions import NOT, RUBRIC, SET, check_assertion, list_single
from evals.suites.items import DECODER
from harness.frame.config_conversion import ConfigPath, SourceConfig
from harness.frame.errors import InputError
from harness.frame.text_files import csv_records, text_lines

_FILE: Final = "file://"
_SCRIPTS: Final = (".js", ".cjs", ".mjs", ".ts", ".py", ".rb")
_VARIABLE: Final = re.compile(r"\{\{-?\s*([\w.]+)\s*-?\}\}")
_TEMPLATE: Final = re.compile(r"\{\{|\{%|\{#")
_EXPECTED: Final = re.compile(
    r"(?P<type>(?:not-)?[a-z][a-z-]*)(?:\((?P<threshold>[\d.]+)\))?:\s*(?P<value>.*)", re.DOTALL
)
_PROGRAMS: Final = ("javascript", "python", "ruby", "webhook")
_MOST_ITEMS: Final = 100_000  # lists of values multiply
_MOST_SHOWN: Final = 5  # reasons shown for the tests of a file
_ELSEWHERE: Final = "a suite has no models: `swapgate proposal create ROUTE MODEL`"
# Keys that Swapgate has in another place, and that place.
_CHANGED: Final[Mapping[str, str]] = {
    "providers": _ELSEWHERE,
    "targets": _ELSEWHERE,
    "evaluateOptions": "promptfoo's speed; the setting here is `eval_connections`",
}
# Keys that the conversion does not take, and why.
_LEFT: Final[Mapping[str, str]] = {
    "scenarios": "write its tests out under `tests`",
    "outputPath": "results are stored: `swapgate eval show RUN --samples`",
    "env": "put keys into the environment or .env",
    "extensions": "they run your code",
    "nunjucksFilters": "they run your code",
    "derivedMetrics": "a verdict depends on the score of each item",
    "transform": "it runs your code on each answer",
}
_WHY_TEST: Final[Mapping[str, str]] = {
    "transform": "runs your code on the answer",
    "postprocess": "runs your code on the answer",
    "transformVars": "runs your code",
    "assertScoringFunction": "runs your code",
    "provider": "selects a single model",
    "prompts": "selects some of the prompts",
    "providerOutput": "already contains an answer",
}
Test = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ConvertedSuite:
    items: Sequence[Mapping[str, Any]]  # lines of its data file
    judged: bool


class _Unfit(InputError): ...


def is_promptfoo(values: object) -> bool:
    return isinstance(values, Mapping) and (
        "prompts" in values or ("tests" in values and "providers" in values)
    )


def convert(
    source: SourceConfig, read: Callable[[str], str], *, judged: bool
) -> Sequence[ConvertedSuite]:
    """Converts a configuration; `source` gets the notes. Raises InputError without any item.

    read: returns a file's text, by its path in the configuration.
    judged: a judge can score `llm-rubric`.
    """
    reader = _Reader(source, read, judged)
    default = reader.read_default()
    tests = [*reader.list_tests()]
    suites = [reader.make_suite(prompt, tests, default) for prompt in reader.list_prompts()]
    reader.note_files()
    _note_others(source)
    if found := [suite for suite in suites if suite.items]:
        return found
    raise InputError("no prompt has a usable test; the report gives the reason for each test")


def _note_others(source: SourceConfig) -> None:
    if source.value(("description",)):
        source.take(("description",), "the suites' title")
    if source.value(("assertionTemplates",)):
        source.take(("assertionTemplates",), "copied into the tests that name them")
    for key, where in _CHANGED.items():
        if source.value((key,)):
            source.take((key,), where, changed=True)
    if repeat := source.value(("evaluateOptions", "repeat")):
        source.take(
            ("evaluateOptions", "repeat"),
            f"set `epochs: {repeat}` under `gate:` in the route's policy instead: it repeats "
            "each item and adds no items",
            changed=True,
        )
    for key, why in _LEFT.items():
        if source.value((key,)) is not None:
            source.leave((key,), why)


@dataclass
class _Reader:
    source: SourceConfig
    read: Callable[[str], str]
    judged: bool
    # Number of tests, and reasons for those not taken, by the place of their file.
    counts: dict[ConfigPath, int] = field(default_factory=dict)
    lost: dict[ConfigPath, dict[int, str]] = field(default_factory=dict)

    @property
    def _templates(self) -> Mapping[str, object]:
        given = self.source.value(("assertionTemplates",))
        return given if isinstance(given, Mapping) else {}

    def list_prompts(self) -> Iterator[str]:
        given = self.source.value(("prompts",))
        alone = isinstance(given, str)
        for number, entry in enumerate([given] if alone else given or ["{{prompt}}"]):
            path: ConfigPath = ("prompts",) if alone or not given else ("prompts", number)
            raw = entry.get("raw") or entry.get("id") if isinstance(entry, Mapping) else entry
            try:
                yield from self._read_prompt(raw)
                self.source.take(path, "the text of each item of a suite", changed=True)
            except InputError as error:
                self.source.leave(path, str(error))

    def _read_prompt(self, raw: object) -> list[str]:
        if not isinstance(raw, str):
            raise InputError("is not a text")
        name = raw.removeprefix(_FILE)
        if _is_script(name):
            raise InputError("is your code, which Swapgate does not run")
        is_file = raw.startswith(_FILE) or name.endswith((".txt", ".json", ".yaml", ".md"))
        parts = re.split(r"(?m)^---\s*$", self.read(name)) if is_file else [raw]
        if any(_TEMPLATE.search(_VARIABLE.sub("", part)) for part in parts):
            raise InputError("has a filter or block of Nunjucks, which Swapgate cannot run")
        return [part.strip() for part in parts if part.strip()]

    def read_default(self) -> Test:
        path: ConfigPath = ("defaultTest",)
        given = self.load(self.source.value(path) or {})
        if not isinstance(given, Mapping):
            raise InputError("`defaultTest` is not a mapping")
        if given:
            self.source.take(path, "part of each item")
        return self._read_test(given, path)

    def list_tests(self) -> Iterator[Test]:
        given = self.source.value(("tests",)) or ()
        entries: Iterator[tuple[ConfigPath, Any]] = (
            iter([(("tests",), given)])
            if isinstance(given, str)
            else ((("tests", number), entry) for number, entry in enumerate(given))
        )
        for path, entry in entries:
            if isinstance(entry, str):
                yield from self._list_file_tests(path, entry.removeprefix(_FILE))
                continue
            self.source.take(path, "an item of each suite")
            try:
                yield self._read_test(entry, path)
            except InputError as error:
                self.source.leave(path, str(error))

    def _list_file_tests(self, path: ConfigPath, name: str) -> Iterator[Test]:
        if _is_script(name) or "://" in name:
            self.source.leave(path, f"Swapgate cannot read tests from {name}")
            return
        for line, test in _file_records(self.read(name), name):
            self.counts[path] = self.counts.get(path, 0) + 1
            try:
                yield {**self._read_test(test, (*path, name, line)), "place": (path, line)}
            except InputError as error:
                self.lose((path, line), error)

    def lose(self, place: tuple[ConfigPath, int], why: InputError) -> None:
        """Notes a test that is not taken. place: its path, and its line in a file or 0."""
        path, line = place
        if line:
            self.lost.setdefault(path, {}).setdefault(line, f"{line}: {why}")
        else:
            self.source.leave(path, str(why))

    def note_files(self) -> None:
        for path, count in self.counts.items():
            lost = [*self.lost.get(path, {}).values()]
            note = f"{count - len(lost)} of {count} tests became items of each suite"
            shown, more = "; ".join(lost[:_MOST_SHOWN]), len(lost) - _MOST_SHOWN
            shown += f" and {more} more" if more > 0 else ""
            self.source.take(
                path, f"{note}; not taken: {shown}" if lost else note, changed=bool(lost)
            )

    def _read_test(self, test: object, path: ConfigPath) -> Test:
        if not isinstance(test, Mapping):
            raise InputError("it is not a test")
        given = test.get("options")
        options: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
        for name, why in _WHY_TEST.items():
            if test.get(name) or options.get(name):
                raise InputError(f"its `{name}` {why}")
        given, values = test.get("assert") or [], self.load(test.get("vars") or {})
        if not isinstance(given, list):
            raise InputError("its `assert` is not a list")
        if not isinstance(values, Mapping):
            raise InputError("its `vars` is not a mapping")
        return {
            "vars": {str(name): self.load(value) for name, value in values.items()},
            "assert": self._list_assertions(given, path),
            "threshold": test.get("threshold"),
            "description": test.get("description") or "",
            "metadata": test.get("metadata") or {},
            "options": options,
            "place": (path, 0),
        }

    def load(self, value: Any) -> Any:
        """Returns a value, or the content of the file that it names."""
        if not (isinstance(value, str) and value.startswith(_FILE)):
            return value
        name = value.removeprefix(_FILE)
        if _is_script(name):
            raise InputError(f"{name} is your code, which Swapgate does not run")
        text = self.read(name)
        if name.lower().endswith((".yaml", ".yml", ".json")):
            return _parse_yaml(text, name)
        return text.strip()

    def _list_assertions(self, given: Sequence[object], path: ConfigPath) -> list[Test]:
        taken = []
        for number, entry in enumerate(given):
            place = (*path, "assert", number)
            try:
                taken.append(self._read_assertion(entry, place))
            except InputError as error:
                self.source.leave(place, str(error))
        return taken

    def _read_assertion(self, entry: object, path: ConfigPath) -> Test:
        if isinstance(entry, str):
            entry = parse_expected(entry)
        if isinstance(entry, Mapping) and isinstance(named := entry.get("$ref"), str):
            entry = self._templates.get(named.rpartition("/")[2])
        if not isinstance(entry, Mapping):
            raise InputError("it is not an assertion")
        kind = str(entry.get("type"))
        base = kind.removeprefix(NOT)
        if base in _PROGRAMS:
            raise InputError(f"`{kind}` is your code, which Swapgate does not run")
        if kind in ("cost", "latency"):
            raise InputError(
                f"`{kind}` does not score an answer: the gate compares cost and time of both "
                "models, and the canary has limits for them"
            )
        if base == RUBRIC and not self.judged:
            raise InputError("`llm-rubric` needs a judge: --judge provider/model")
        if entry.get("transform") or entry.get("contextTransform"):
            raise InputError("its `transform` runs your code on the answer")
        kept = {name: entry[name] for name in ("type", "weight", "threshold") if name in entry}
        if kind == SET:
            kept["assert"] = self._list_assertions(entry.get("assert") or [], path)
        elif "value" in entry:
            kept["value"] = self.load(entry["value"])
        check_assertion(kept, judged=self.judged)
        return kept

    def make_suite(self, prompt: str, tests: Sequence[Test], default: Test) -> ConvertedSuite:
        items: list[Mapping[str, Any]] = []
        for number, own in enumerate(tests, start=1):
            test = _merge(default, own)
            try:
                for part, values in enumerate(_combinations(test["vars"])):
                    id_ = f"test-{number:04}" + (f"-{part + 1}" if part else "")
                    items.append(_item(id_, prompt, values, test))
                    if len(items) > _MOST_ITEMS:
                        raise InputError(f"its tests make more than {_MOST_ITEMS:,} items")
            except _Unfit as error:
                self.lose(test["place"], error)
        checks = (check for item in items for check in list_single(item["metadata"]["assert"]))
        kinds = {str(check["type"]).removeprefix(NOT) for check in checks}
        return ConvertedSuite(items, RUBRIC in kinds)


def _is_script(name: str) -> bool:
    return name.lower().partition(":")[0].endswith(_SCRIPTS)


def parse_expected(text: str) -> Mapping[str, Any]:
    """Reads an assertion in promptfoo's short form. Another text becomes an `equals`."""
    stripped = text.strip()
    if stripped.startswith(("fn:", "eval:")):
        return {"type": "javascript", "value": stripped}
    if stripped.startswith("grade:"):
        return {"type": RUBRIC, "value": stripped.removeprefix("grade:").strip()}
    if stripped.removeprefix(NOT) in ("is-json", "contains-json"):
        return {"type": stripped}
    if not (found := _EXPECTED.fullmatch(stripped)):
        return {"type": "equals", "value": text}
    if found["type"] not in (*_PROGRAMS, "cost", "latency", "similar"):
        try:
            check_assertion({"type": found["type"], "value": "0"}, judged=True)
        except InputError:
            return {"type": "equals", "value": text}
    limit = {"threshold": float(found["threshold"])} if found["threshold"] else {}
    return {"type": found["type"], "value": found["value"], **limit}


def _parse_yaml(text: str, name: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"cannot read {name}: {error}") from None


def _file_records(text: str, name: str) -> Iterator[tuple[int, object]]:
    if name.lower().endswith(".csv"):
        for line, row in csv_records(text, lambda at, what: InputError(f"{name}:{at}: {what}")):
            yield line, _csv_test(row)
        return
    if name.lower().endswith((".jsonl", ".ndjson")):
        try:
            yield from ((number, DECODER.decode(line)) for number, line in text_lines(text))
        except ValueError as error:
            raise InputError(f"{name}: not JSON lines: {error}") from None
        return
    listed = _parse_yaml(text, name)
    if not isinstance(listed, list):
        raise InputError(f"{name} does not contain a list of tests")
    yield from enumerate(listed, start=1)


def _csv_test(row: Mapping[str, str]) -> Test:
    named = {name[2:]: cell for name, cell in row.items() if name.startswith("__")}
    known = {name: cell for name, cell in named.items() if cell.strip()}
    threshold = known.get("threshold")
    return {
        "vars": {name: cell for name, cell in row.items() if not name.startswith("__")},
        "assert": [cell for name, cell in known.items() if re.fullmatch(r"expected\d*", name)],
        "description": known.get("description", ""),
        "metadata": {
            name.partition(":")[2]: cell
            for name, cell in known.items()
            if name.startswith("metadata:")
        },
        "options": {name: named[name] for name in ("prefix", "suffix") if named.get(name)},
        "threshold": float(threshold) if threshold else None,
    }


def _merge(default: Test, test: Test) -> Test:
    parts = {name: {**default[name], **test[name]} for name in ("vars", "options", "metadata")}
    threshold = default["threshold"] if test["threshold"] is None else test["threshold"]
    checks = [*default["assert"], *test["assert"]]
    return {**test, **parts, "assert": checks, "threshold": threshold}


def _combinations(values: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields one test for each combination of the values of list variables."""
    lists = [value if isinstance(value, list) else [value] for value in values.values()]
    for chosen in itertools.product(*lists):
        yield dict(zip(values, chosen, strict=True))


def _item(id_: str, prompt: str, values: Test, test: Test) -> Mapping[str, Any]:
    if not test["assert"]:
        raise _Unfit("it has no usable assertion")
    checks = _filled(test["assert"], values)
    known = {
        name: value for name, value in test["metadata"].items() if name not in _OWN_METADATA
    }
    metadata = {**known, "vars": values, "assert": checks}
    metadata |= {name: test[name] for name in ("threshold", "description") if test[name]}
    described = [f"{check['type']}: {check.get('value', '')}".rstrip(": ") for check in checks]
    item = {"id": id_, "target": described, "metadata": metadata}
    text = f"{test['options'].get('prefix', '')}{prompt}{test['options'].get('suffix', '')}"
    if (messages := _chat(text)) is None:
        return {**item, "input": _filled(text, values)}
    metadata["messages"] = _filled(messages, values)
    return {**item, "input": str(metadata["messages"][-1].get("content"))}


_OWN_METADATA: Final = ("messages", "tools")  # Swapgate's keys, with another meaning


def _chat(text: str) -> list[Any] | None:
    if not text.lstrip().startswith(("[", "- role:")):
        return None
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    is_chat = isinstance(found, list) and all(
        isinstance(turn, Mapping) and "role" in turn for turn in found
    )
    return found if is_chat and found else None


def _filled(value: Any, values: Test) -> Any:
    """Fills in `{{name}}`. Raises _Unfit for Nunjucks' filters and blocks."""
    match value:
        case str():
            if _TEMPLATE.search(_VARIABLE.sub("", value)):
                raise _Unfit("it has a filter or block of Nunjucks, which Swapgate cannot run")
            return _VARIABLE.sub(lambda variable: _written(variable[1], values), value)
        case Mapping():
            return {name: _filled(inner, values) for name, inner in value.items()}
        case list():
            return [_filled(inner, values) for inner in value]
        case _:
            return value


def _written(name: str, values: Test) -> str:
    value: Any = values
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if value is None:
        if name.startswith("env."):
            raise _Unfit(f"{{{{{name}}}}} is an environment variable")
        return ""
    if isinstance(value, str):
        # A value may name other variables, at one level.
        return _VARIABLE.sub(lambda variable: str(values.get(variable[1], "")), value)
    return json.dumps(value, ensure_ascii=False)
