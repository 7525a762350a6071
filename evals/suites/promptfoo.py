"""Converts promptfoo's configuration into suites: one per prompt, with the tests as items.

Tests may be inline or in files. The report has a line for each key: taken, changed, or not
taken.

Source: promptfoo's documentation, "Configuration reference", "Test cases" and "Prompts".

No code of the configuration runs here. `evals.scorers.assertions` scores the assertions.
"""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from evals.scorers.assertions import (
    NOT,
    RUBRIC,
    SET,
    check_assertion,
    list_single,
)
from evals.suites.promptfoo_templates import (
    TEMPLATE,
    VARIABLE,
    UnsupportedTest,
    fill,
    fill_check,
)
from evals.suites.promptfoo_tests import (
    PROGRAMS,
    file_records,
    parse_expected,
    parse_yaml,
)
from harness.frame.configuration.config_conversion import ConfigPath, NothingTaken, SourceConfig
from harness.frame.configuration.core_yaml import parse_core_yaml
from harness.frame.errors import InputError

_FILE: Final = "file://"
_SCRIPTS: Final = (".js", ".cjs", ".mjs", ".ts", ".py", ".rb")
_MAX_ITEMS: Final = 100_000  # a test with several lists makes an item for each combination
_MAX_SHOWN: Final = 5  # reasons shown for the tests of a file
_MODELS_ELSEWHERE: Final = "a suite has no models: `swapproof proposal create ROUTE MODEL`"
# Keys with a counterpart elsewhere in Swapproof, and the sentence that names it.
_KEYS_ELSEWHERE: Final[Mapping[str, str]] = {
    "providers": _MODELS_ELSEWHERE,
    "targets": _MODELS_ELSEWHERE,
    "evaluateOptions": "promptfoo's speed; the setting here is `eval_connections`",
}
# Keys that the conversion does not take, and why.
_UNSUPPORTED_KEYS: Final[Mapping[str, str]] = {
    "scenarios": "write its tests out under `tests`",
    "outputPath": "results are stored: `swapproof eval show RUN --samples`",
    "env": "put keys into the environment or .env",
    "extensions": "they run your code",
    "nunjucksFilters": "they run your code",
    "derivedMetrics": "a verdict depends on the score of each item",
    "transform": "it runs your code on each answer",
}
_TEST_REFUSALS: Final[Mapping[str, str]] = {
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
    """A suite of one prompt. judged: an assertion needs a judge."""

    items: Sequence[Mapping[str, Any]]  # lines of its data file
    judged: bool
    tests_left: int  # tests without an item
    assertions_left: int  # assertions of its items that the conversion did not take


def is_promptfoo(values: object) -> bool:
    """Returns whether a document is promptfoo's configuration."""
    return isinstance(values, Mapping) and (
        "prompts" in values or ("tests" in values and "providers" in values)
    )


def convert(
    source: SourceConfig,
    read: Callable[[str], str],
    *,
    judged: bool,
) -> Sequence[ConvertedSuite]:
    """Converts a configuration; `source` gets the notes. Raises NothingTaken without any item,
    and InputError for a file that cannot be read.

    Args:
        read: returns a file's text, by its path in the configuration.
        judged: a judge can score `llm-rubric`.
    """
    reader = _Reader(source, read, judged)
    default = reader.read_default()
    tests = [*reader.list_tests()]
    reader.tests += _count_scenarios(source.value(("scenarios",)))
    suites = [reader.make_suite(prompt, tests, default) for prompt in reader.list_prompts()]
    reader.note_files()
    _note_others(source)
    if suites_with_items := [suite for suite in suites if suite.items]:
        return suites_with_items
    raise NothingTaken(
        "no prompt has a usable test; the report gives the reason for each test",
        [*source.notes()],
    )


def _count_scenarios(scenarios: object) -> int:
    """Counts the tests that the scenarios would make, so that the report counts them as left
    out.
    """
    count = 0
    for scenario in scenarios if isinstance(scenarios, list) else ():
        if isinstance(scenario, Mapping):
            sizes = [
                len(part) if isinstance(part := scenario.get(name), list) else 1
                for name in ("config", "tests")
            ]
            count += math.prod(sizes)
    return count


def _note_others(source: SourceConfig) -> None:
    if source.value(("description",)):
        source.take(("description",), "the suites' title")
    if source.value(("assertionTemplates",)):
        source.take(("assertionTemplates",), "copied into the tests that name them")
    for key, counterpart in _KEYS_ELSEWHERE.items():
        if source.value((key,)):
            source.take((key,), counterpart, changed=True)
    if repeat := source.value(("evaluateOptions", "repeat")):
        source.take(
            ("evaluateOptions", "repeat"),
            f"set `epochs: {repeat}` under `gate:` in the route's policy instead: it repeats "
            "each item and adds no items",
            changed=True,
        )
    for key, reason in _UNSUPPORTED_KEYS.items():
        if source.value((key,)) is not None:
            source.leave((key,), reason)


@dataclass
class _Reader:
    """Reads one configuration, and notes how the conversion treats each key."""

    source: SourceConfig
    read: Callable[[str], str]
    judged: bool
    # By the place of a file: number of its tests, and why tests were not taken.
    counts: dict[ConfigPath, int] = field(default_factory=dict)
    lost: dict[ConfigPath, dict[int, str]] = field(default_factory=dict)
    tests: int = 0  # number of tests in the configuration

    @property
    def _templates(self) -> Mapping[str, object]:
        templates = self.source.value(("assertionTemplates",))
        return templates if isinstance(templates, Mapping) else {}

    def list_prompts(self) -> Iterator[str]:
        """Yields the texts of the prompts. A file may have several, separated by `---`."""
        prompts = self.source.value(("prompts",))
        is_single = isinstance(prompts, str)
        for number, entry in enumerate([prompts] if is_single else prompts or ["{{prompt}}"]):
            path: ConfigPath = ("prompts",) if is_single or not prompts else ("prompts", number)
            raw = entry.get("raw") or entry.get("id") if isinstance(entry, Mapping) else entry
            try:
                yield from self._read_prompt(raw)
                self.source.take(path, "the text of each item of a suite", changed=True)
            except InputError as error:
                self.source.leave(path, str(error))

    def _read_prompt(self, raw: object) -> list[str]:
        """Returns the texts of an entry. Raises InputError for code, and for filters of
        Nunjucks.
        """
        if not isinstance(raw, str):
            raise InputError("is not a text")
        name = raw.removeprefix(_FILE)
        if _is_script(name):
            raise InputError("is your code, which Swapproof does not run")
        is_file = raw.startswith(_FILE) or name.endswith((".txt", ".json", ".yaml", ".md"))
        parts = re.split(r"(?m)^---\s*$", self.read(name)) if is_file else [raw]
        if any(TEMPLATE.search(VARIABLE.sub("", part)) for part in parts):
            raise InputError("has a filter or block of Nunjucks, which Swapproof cannot run")
        return [part.strip() for part in parts if part.strip()]

    def read_default(self) -> Test:
        """Reads `defaultTest`, whose parts apply to all tests. Raises InputError."""
        path: ConfigPath = ("defaultTest",)
        default = self.load(self.source.value(path) or {})
        if not isinstance(default, Mapping):
            raise InputError("`defaultTest` is not a mapping")
        if default:
            self.source.take(path, "part of each item")
        return self._read_test(default, path)

    def list_tests(self) -> Iterator[Test]:
        """Yields the usable tests, inline and from files, and notes the others."""
        tests = self.source.value(("tests",)) or ()
        entries: Iterator[tuple[ConfigPath, Any]] = (
            iter([(("tests",), tests)])
            if isinstance(tests, str)
            else ((("tests", number), entry) for number, entry in enumerate(tests))
        )
        for path, entry in entries:
            if isinstance(entry, str):
                yield from self._list_file_tests(path, entry.removeprefix(_FILE))
                continue
            self.source.take(path, "an item of each suite")
            self.tests += 1
            try:
                yield self._read_test(entry, path)
            except InputError as error:
                self.source.leave(path, str(error))

    def _list_file_tests(self, path: ConfigPath, name: str) -> Iterator[Test]:
        if _is_script(name) or "://" in name:
            self.source.leave(path, f"Swapproof cannot read tests from {name}")
            return
        for line, test in file_records(self.read(name), name):
            self.counts[path] = self.counts.get(path, 0) + 1
            self.tests += 1
            try:
                yield {
                    **self._read_test(test, (*path, name, line)),
                    "place": (path, line),
                }
            except InputError as error:
                self.lose((path, line), error)

    def lose(self, place: tuple[ConfigPath, int], why: InputError) -> None:
        """Notes a test that was not taken.

        Args:
            place: its path, and its line in a file or 0.
        """
        path, line = place
        if line:
            self.lost.setdefault(path, {}).setdefault(line, f"{line}: {why}")
        else:
            self.source.leave(path, str(why))

    def note_files(self) -> None:
        for path, count in self.counts.items():
            reasons = [*self.lost.get(path, {}).values()]
            note = f"{count - len(reasons)} of {count} tests became items of each suite"
            shown_reasons = "; ".join(reasons[:_MAX_SHOWN])
            hidden_count = len(reasons) - _MAX_SHOWN
            shown_reasons += f" and {hidden_count} more" if hidden_count > 0 else ""
            self.source.take(
                path,
                f"{note}; not taken: {shown_reasons}" if reasons else note,
                changed=bool(reasons),
            )

    def _read_test(self, test: object, path: ConfigPath) -> Test:
        """Reads a test. Raises InputError if it runs code, or has no usable assertion."""
        if not isinstance(test, Mapping):
            raise InputError("it is not a test")
        stated = test.get("options")
        options: Mapping[str, Any] = stated if isinstance(stated, Mapping) else {}
        for name, reason in _TEST_REFUSALS.items():
            if test.get(name) or options.get(name):
                raise InputError(f"its `{name}` {reason}")
        assertions = test.get("assert") or []
        values = self.load(test.get("vars") or {})
        if not isinstance(assertions, list):
            raise InputError("its `assert` is not a list")
        if not isinstance(values, Mapping):
            raise InputError("its `vars` is not a mapping")
        return {
            "vars": {str(name): self._load_variable(value) for name, value in values.items()},
            "assert": (usable := self._list_assertions(assertions, path)),
            "lost": _count_assertions(assertions) - _count_assertions(usable),
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
            raise InputError(f"{name} is your code, which Swapproof does not run")
        text = self.read(name)
        if name.lower().endswith((".yaml", ".yml", ".json")):
            return parse_yaml(text, name)
        return text.strip()

    def _load_variable(self, value: Any) -> Any:
        """Returns a variable; a file gives its text, and a YAML file its content as JSON."""
        if not isinstance(value, str):
            return value
        if not value.startswith(_FILE):
            return value.removesuffix("\n")
        if value.lower().endswith(".json"):
            return self.read(value.removeprefix(_FILE)).strip()
        loaded = self.load(value)
        if isinstance(loaded, str) and not value.lower().endswith((".yaml", ".yml")):
            return loaded
        return json.dumps(
            loaded,
            ensure_ascii=False,
            separators=(",", ":"),
            default=str,
        )

    def _list_assertions(self, assertions: Sequence[object], path: ConfigPath) -> list[Test]:
        """Reads usable assertions, and notes the others. Raises InputError without any."""
        usable = []
        reasons = []
        for number, entry in enumerate(assertions):
            place = (*path, "assert", number)
            try:
                usable.append(self._read_assertion(entry, place))
            except InputError as error:
                self.source.leave(place, str(error))
                reasons.append(str(error))
        if reasons and not usable and path != ("defaultTest",):
            raise InputError(f"none of its assertions is taken: {reasons[0]}")
        return usable

    def _read_assertion(self, entry: object, path: ConfigPath) -> Test:
        """Reads an assertion, also in short form or by `$ref`. Raises InputError if no scorer
        can check it.
        """
        if isinstance(entry, str):
            entry = parse_expected(entry)
        if isinstance(entry, Mapping) and isinstance(reference := entry.get("$ref"), str):
            entry = self._templates.get(reference.rpartition("/")[2])
        if not isinstance(entry, Mapping):
            raise InputError("it is not an assertion")
        kind = str(entry.get("type"))
        base = kind.removeprefix(NOT)
        self._check_supported(kind, entry)
        assertion = {
            name: entry[name] for name in ("type", "weight", "threshold") if name in entry
        }
        if kind == SET:
            assertion["assert"] = self._list_assertions(entry.get("assert") or [], path)
        elif "value" in entry:
            assertion["value"] = self.load(entry["value"])
            if base in ("is-json", "contains-json") and isinstance(assertion["value"], str):
                assertion["value"] = self._read_schema(assertion["value"])
        check_assertion(assertion, judged=self.judged)
        return assertion

    def _check_supported(self, kind: str, entry: Test) -> None:
        """Raises InputError for assertions that run code, need a missing judge or score no
        answer.
        """
        base = kind.removeprefix(NOT)
        if base in PROGRAMS:
            raise InputError(f"`{kind}` is your code, which Swapproof does not run")
        if base in ("cost", "latency"):
            raise InputError(
                f"`{kind}` does not score an answer: the gate compares cost and time of both "
                "models, and the canary has limits for them"
            )
        if base == RUBRIC and not self.judged:
            raise InputError("`llm-rubric` needs a judge: --judge provider/model")
        if entry.get("transform") or entry.get("contextTransform"):
            raise InputError("its `transform` runs your code on the answer")

    def _read_schema(self, text: str) -> Any:
        if TEMPLATE.search(text):
            raise InputError("its schema has variables, which Swapproof does not fill in")
        return parse_yaml(text, "its schema")

    def make_suite(
        self,
        prompt: str,
        tests: Sequence[Test],
        default: Test,
    ) -> ConvertedSuite:
        """Builds the suite of one prompt. A test that does not fit this prompt is left out of
        it.
        """
        items: list[Mapping[str, Any]] = []
        tests_left = self.tests - len(tests)
        assertions_left = 0
        for number, own_test in enumerate(tests, start=1):
            test = _merge(default, own_test)
            try:
                for part, values in enumerate(_list_combinations(test["vars"])):
                    id_ = f"test-{number:04}" + (f"-{part + 1}" if part else "")
                    items.append(_build_item(id_, prompt, values, test))
                    if len(items) > _MAX_ITEMS:
                        raise InputError(f"its tests make more than {_MAX_ITEMS:,} items")
                assertions_left += test["lost"]
            except UnsupportedTest as error:
                tests_left += 1
                self.lose(test["place"], error)
        checks = (check for item in items for check in list_single(item["metadata"]["assert"]))
        kinds = {str(check["type"]).removeprefix(NOT) for check in checks}
        return ConvertedSuite(
            items, RUBRIC in kinds, tests_left, assertions_left + default["lost"]
        )


def _count_assertions(checks: Sequence[Any]) -> int:
    """Counts assertions, also those within sets."""
    return sum(
        _count_assertions(check.get("assert") or ())
        if isinstance(check, Mapping) and check.get("type") == SET
        else 1
        for check in checks
    )


def _is_script(name: str) -> bool:
    return name.lower().partition(":")[0].endswith(_SCRIPTS)


def _merge(default: Test, test: Test) -> Test:
    """Combines a test with the default test. The test's own values win; assertions add up."""
    parts = {name: {**default[name], **test[name]} for name in ("vars", "options", "metadata")}
    threshold = default["threshold"] if test["threshold"] is None else test["threshold"]
    inherited = (
        () if test["options"].get("disableDefaultAsserts") is True else default["assert"]
    )
    checks = [*inherited, *test["assert"]]
    return {
        **test,
        **parts,
        "assert": checks,
        "threshold": threshold,
    }


def _list_combinations(values: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields one set of values for each combination of the variables whose values are lists of
    texts.
    """
    lists = [
        value if isinstance(value, list) and value and isinstance(value[0], str) else [value]
        for value in values.values()
    ]
    for combination in itertools.product(*lists):
        yield dict(zip(values, combination, strict=True))


def _build_item(
    id_: str,
    prompt: str,
    values: Test,
    test: Test,
) -> Mapping[str, Any]:
    """Builds an item's line: the filled prompt, and the filled assertions as metadata. Raises
    UnsupportedTest.
    """
    if not test["assert"]:
        raise UnsupportedTest("it has no usable assertion")
    checks = [fill_check(check, values) for check in test["assert"]]
    own_metadata = {
        name: value for name, value in test["metadata"].items() if name not in _OWN_METADATA
    }
    metadata = {
        **own_metadata,
        "vars": values,
        "assert": checks,
    }
    metadata |= {
        name: test[name]
        for name in ("threshold", "description")
        if test[name] not in (None, "")
    }
    descriptions = [
        f"{check['type']}: {check.get('value', '')}".rstrip(": ") for check in checks
    ]
    item = {
        "id": id_,
        "target": descriptions,
        "metadata": metadata,
    }
    text = f"{test['options'].get('prefix', '')}{prompt}{test['options'].get('suffix', '')}"
    if (messages := _parse_chat(text)) is None:
        return {**item, "input": fill(text, values)}
    metadata["messages"] = fill(messages, values)
    return {**item, "input": str(metadata["messages"][-1].get("content"))}


_OWN_METADATA: Final = ("messages", "tools")  # in an item these keys mean something else


def _parse_chat(text: str) -> list[Any] | None:
    """Parses a prompt that is a list of messages, in JSON or YAML; None for a text."""
    if not text.lstrip().startswith(("[", "- role:")):
        return None
    try:
        messages = parse_core_yaml(text)
    except InputError:
        return None
    is_chat = isinstance(messages, list) and all(
        isinstance(turn, Mapping) and "role" in turn for turn in messages
    )
    return messages if is_chat and messages else None
