"""Reads the tests of promptfoo's configuration, and of the files that it names: variables,
assertions and thresholds. `SourceConfig` gets a note of each key.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from evals.scorers.assertions import NOT, RUBRIC, SET, check_assertion
from evals.suites.items import DECODER
from harness.domain.config_conversion import ConfigPath, SourceConfig
from harness.domain.errors import InputError
from harness.domain.evals.text_files import csv_records, text_lines

FILE: Final = "file://"
SCRIPTS: Final = (".js", ".cjs", ".mjs", ".ts", ".py", ".rb")
_EXPECTED: Final = re.compile(
    r"(?P<type>(?:not-)?[a-z][a-z-]*)(?:\((?P<threshold>[\d.]+)\))?:\s*(?P<value>.*)", re.DOTALL
)
_PROGRAMS: Final = ("javascript", "python", "ruby", "webhook")
_WHY_TEST: Final[Mapping[str, str]] = {
    "transform": "runs code of yours on the answer",
    "postprocess": "runs code of yours on the answer",
    "transformVars": "runs code of yours",
    "assertScoringFunction": "runs code of yours",
    "provider": "is asked of one model alone",
    "prompts": "is for some of the prompts alone",
    "providerOutput": "has its answer already",
}
ReadFile = Callable[[str], str]  # a path as the configuration writes it


@dataclass
class PromptfooTests:
    """Reads tests. judged: whether a judge can score `llm-rubric`."""

    source: SourceConfig
    read: ReadFile
    judged: bool
    templates: Mapping[str, Any] = field(default_factory=dict)
    # By the place of a file of tests: how many there are, and why some are not taken.
    counts: dict[ConfigPath, int] = field(default_factory=dict)
    lost: dict[ConfigPath, list[str]] = field(default_factory=dict)

    def lose(self, path: ConfigPath, line: int, why: InputError) -> None:
        """Notes a test that is not taken. line: of a file; 0 for one in the configuration."""
        if not line:
            self.source.leave(path, str(why))
        elif (text := f"{line}: {why}") not in self.lost.setdefault(path, []):
            self.lost[path].append(text)

    def note_files(self) -> None:
        for path, count in self.counts.items():
            lost = self.lost.get(path, [])
            said = f"{count - len(lost)} of {count} tests, items of each suite"
            shown = "; ".join(lost[:5]) + (f" and {len(lost) - 5} more" if lost[5:] else "")
            self.source.take(
                path, f"{said}; not taken: {shown}" if lost else said, changed=bool(lost)
            )

    def read_test(self, test: Mapping[str, Any], path: ConfigPath) -> Mapping[str, Any]:
        options = test.get("options") or {}
        for name, why in _WHY_TEST.items():
            if test.get(name) or (isinstance(options, Mapping) and options.get(name)):
                raise InputError(f"its `{name}` {why}")
        given = test.get("assert") or []
        if not isinstance(given, list):
            raise InputError("its `assert` is no list")
        taken = [self._assertion(one, (*path, "assert", n)) for n, one in enumerate(given)]
        return {
            "vars": self._vars(test.get("vars") or {}),
            "assert": [one for one in taken if one is not None],
            "threshold": test.get("threshold"),
            "description": test.get("description") or "",
            "metadata": test.get("metadata") or {},
            "options": options if isinstance(options, Mapping) else {},
            "place": (path, 0),
        }

    def _vars(self, given: object) -> Mapping[str, Any]:
        if isinstance(given, str):
            given = self.load(given)
        if not isinstance(given, Mapping):
            raise InputError("its `vars` are no mapping")
        return {str(name): self.load(value) for name, value in given.items()}

    def load(self, value: Any) -> Any:
        """A value, or what is in the file that it names."""
        if not (isinstance(value, str) and value.startswith(FILE)):
            return value
        name = value.removeprefix(FILE)
        if name.lower().partition(":")[0].endswith(SCRIPTS):
            raise InputError(f"{name} is code of yours, which is not run")
        text = self.read(name)
        if name.lower().endswith((".yaml", ".yml", ".json")):
            return _parse_yaml(text, name)
        return text.strip()

    def _assertion(self, one: object, path: ConfigPath) -> Mapping[str, Any] | None:
        try:
            return self._taken(one, path)
        except InputError as error:
            self.source.leave(path, str(error))
            return None

    def _taken(self, one: object, path: ConfigPath) -> Mapping[str, Any]:
        if isinstance(one, str):
            one = parse_expected(one)
        if isinstance(one, Mapping) and isinstance(one.get("$ref"), str):
            one = self.templates.get(one["$ref"].rpartition("/")[2])
        if not isinstance(one, Mapping):
            raise InputError("it is no assertion")
        kind = str(one.get("type"))
        if kind.removeprefix(NOT) in _PROGRAMS:
            raise InputError(f"`{kind}` is code of yours, which is not run")
        if kind in ("cost", "latency"):
            raise InputError(
                f"`{kind}` is no score of an answer: the gate compares cost and time of both "
                "models, and the canary has limits for them"
            )
        if kind.removeprefix(NOT) == RUBRIC and not self.judged:
            raise InputError("`llm-rubric` needs a judge: --judge provider/model")
        if one.get("transform") or one.get("contextTransform"):
            raise InputError("its `transform` runs code of yours on the answer")
        kept = {name: one[name] for name in ("type", "weight", "threshold") if name in one}
        if kind == SET:
            inner = enumerate(one.get("assert") or [])
            parts = [self._assertion(part, (*path, "assert", n)) for n, part in inner]
            kept["assert"] = [part for part in parts if part is not None]
        elif "value" in one:
            kept["value"] = self.load(one["value"])
        check_assertion(kept, judged=self.judged)
        return kept


def parse_expected(text: str) -> Mapping[str, Any]:
    stripped = text.strip()
    if stripped.startswith(("fn:", "eval:")):
        return {"type": "javascript", "value": stripped}
    if stripped.startswith("grade:"):
        return {"type": RUBRIC, "value": stripped.removeprefix("grade:").strip()}
    if stripped.removeprefix(NOT) in ("is-json", "contains-json"):
        return {"type": stripped}
    found = _EXPECTED.fullmatch(stripped)
    try:
        check_assertion({"type": found["type"], "value": "0"} if found else None, judged=True)
    except InputError:
        if found is None or found["type"] not in (*_PROGRAMS, "cost", "latency", "similar"):
            return {"type": "equals", "value": text}
    assert found is not None  # noqa: S101 - the check above has refused None
    limit = {"threshold": float(found["threshold"])} if found["threshold"] else {}
    return {"type": found["type"], "value": found["value"], **limit}


def _parse_yaml(text: str, name: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{name} cannot be read: {error}") from None


def list_tests(source: SourceConfig, reader: PromptfooTests) -> Iterator[Mapping[str, Any]]:
    given = source.value(("tests",))
    entries = (
        [(("tests",), given)]
        if isinstance(given, str)
        else [(("tests", number), entry) for number, entry in enumerate(given or ())]
    )
    for path, entry in entries:
        if isinstance(entry, str):
            yield from _file_tests(source, reader, path, entry.removeprefix(FILE))
            continue
        source.take(path, "an item of each suite")
        try:
            if not isinstance(entry, Mapping):
                raise InputError("it is no test")  # noqa: TRY301 - told as the others
            yield reader.read_test(entry, path)
        except InputError as error:
            source.leave(path, str(error))


def _file_tests(
    source: SourceConfig, reader: PromptfooTests, path: ConfigPath, name: str
) -> Iterator[Mapping[str, Any]]:
    if name.lower().partition(":")[0].endswith(SCRIPTS) or "://" in name:
        source.leave(path, f"{name} is no file of tests that can be read here")
        return
    for line, test in _file_records(reader.read(name), name):
        reader.counts[path] = reader.counts.get(path, 0) + 1
        try:
            yield {**reader.read_test(test, (*path, name, line)), "place": (path, line)}
        except InputError as error:
            reader.lose(path, line, error)


def _file_records(text: str, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
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
        raise InputError(f"{name} holds no list of tests")
    yield from enumerate((one if isinstance(one, Mapping) else {} for one in listed), start=1)


def _csv_test(row: Mapping[str, str]) -> Mapping[str, Any]:
    expected = [
        cell
        for name, cell in row.items()
        if re.fullmatch(r"__expected\d*", name) and cell.strip()
    ]
    metadata = {
        name.partition(":")[2]: cell
        for name, cell in row.items()
        if name.startswith("__metadata:") and cell.strip()
    }
    options = {name: row[f"__{name}"] for name in ("prefix", "suffix") if row.get(f"__{name}")}
    threshold = row.get("__threshold", "").strip()
    return {
        "vars": {name: cell for name, cell in row.items() if not name.startswith("__")},
        "assert": expected,
        "description": row.get("__description", ""),
        "metadata": metadata,
        "options": options,
        **({"threshold": float(threshold)} if threshold else {}),
    }
