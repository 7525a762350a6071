"""Converts promptfoo's configuration into suites: one for each prompt, whose items are the
tests with the prompt's text and the assertions. Every key is reported: taken, changed, or not
taken.

Source: promptfoo's documentation, "Configuration reference", "Test cases" and "Prompts".
"""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from evals.scorers.assertions import NOT, RUBRIC, SET
from evals.suites.promptfoo_tests import FILE, SCRIPTS, PromptfooTests, ReadFile, list_tests
from harness.domain.config_conversion import ConfigPath, SourceConfig
from harness.domain.errors import InputError

_VARIABLE: Final = re.compile(r"\{\{-?\s*([\w.]+)\s*-?\}\}")
_TEMPLATE: Final = re.compile(r"\{\{|\{%|\{#")
_MOST_ITEMS: Final = 100_000  # lists of values multiply
# Of a key that is not taken, why.
_LEFT: Final[Mapping[str, str]] = {
    "scenarios": "write its tests out under `tests`",
    "outputPath": "results are stored: `swapgate eval show RUN --samples`",
    "sharing": "nothing is shared",
    "env": "keys belong into the environment or .env",
    "commandLineOptions": "they are of promptfoo's command",
    "extensions": "they run code of yours",
    "redteam": "it is no eval of a model's answers to your tests",
    "nunjucksFilters": "they run code of yours",
    "derivedMetrics": "a verdict rests on the score of each item",
    "transform": "it runs code of yours on each answer",
    "writeLatestResults": "it is of promptfoo's command",
}


@dataclass(frozen=True, slots=True)
class ConvertedSuite:
    """A suite of one prompt. items: lines of its data file."""

    prompt: str
    items: Sequence[Mapping[str, Any]]
    judged: bool


def is_promptfoo(values: object) -> bool:
    return isinstance(values, Mapping) and (
        "prompts" in values or ("tests" in values and "providers" in values)
    )


def convert(source: SourceConfig, read: ReadFile, *, judged: bool) -> Sequence[ConvertedSuite]:
    """Converts; `source` has the notes. Raises InputError if no test is taken."""
    templates = source.value(("assertionTemplates",))
    reader = PromptfooTests(
        source, read, judged, templates if isinstance(templates, Mapping) else {}
    )
    if templates:
        source.take(("assertionTemplates",), "written out where a test names them")
    prompts = [*_prompts(source, read)]
    default = _default(source, reader)
    tests = [*list_tests(source, reader)]
    _note_others(source)
    suites = [_suite(text, tests, default, reader) for text in prompts]
    reader.note_files()
    found = [suite for suite in suites if suite.items]
    if not found:
        raise InputError(
            "no prompt has a test that could be taken: the report says why of each"
        )
    return found


def _default(source: SourceConfig, reader: PromptfooTests) -> Mapping[str, Any]:
    path: ConfigPath = ("defaultTest",)
    given = source.value(path)
    if given is None:
        return reader.read_test({}, path)
    source.take(path, "part of each item")
    given = reader.load(given)
    if not isinstance(given, Mapping):
        raise InputError("`defaultTest` is no mapping")
    return reader.read_test(given, path)


def _prompts(source: SourceConfig, read: ReadFile) -> Iterator[str]:
    given = source.value(("prompts",))
    alone = isinstance(given, str)
    for number, entry in enumerate([given] if alone else given or ["{{prompt}}"]):
        path: ConfigPath = ("prompts",) if alone or not given else ("prompts", number)
        raw = entry.get("raw") or entry.get("id") if isinstance(entry, Mapping) else entry
        if not isinstance(raw, str):
            source.leave(path, "is no text")
            continue
        name = raw.removeprefix(FILE)
        if name.lower().partition(":")[0].endswith(SCRIPTS):
            source.leave(path, "is code of yours, which is not run")
            continue
        is_file = raw.startswith(FILE) or name.endswith((".txt", ".json", ".yaml", ".md"))
        parts = re.split(r"(?m)^---\s*$", read(name)) if is_file else [raw]
        if any(_TEMPLATE.search(_VARIABLE.sub("", part)) for part in parts):
            source.leave(path, "has a filter or block of Nunjucks, which is not run")
            continue
        yield from (part.strip() for part in parts if part.strip())
        source.take(path, "the text of each item of a suite", changed=True)


def _note_others(source: SourceConfig) -> None:
    if source.value(("description",)):
        source.take(("description",), "the suites' title")
    if source.value(("providers",)) or source.value(("targets",)):
        for key in ("providers", "targets"):
            if source.value((key,)):
                source.take(
                    (key,),
                    "models are no part of a suite: `swapgate proposal create ROUTE MODEL`",
                    changed=True,
                )
    repeat = source.value(("evaluateOptions", "repeat"))
    if source.value(("evaluateOptions",)):
        source.take(
            ("evaluateOptions",), "how fast promptfoo asks; `eval_connections` says it here",
            changed=True,
        )  # fmt: skip
    if repeat:
        source.take(
            ("evaluateOptions", "repeat"),
            f"`epochs: {repeat}` in `gate:` of the route's policy: repeats of an item, and no "
            "further items",
            changed=True,
        )
    for key, why in _LEFT.items():
        if source.value((key,)) is not None:
            source.leave((key,), why)


def _suite(
    prompt: str,
    tests: Sequence[Mapping[str, Any]],
    default: Mapping[str, Any],
    reader: PromptfooTests,
) -> ConvertedSuite:
    items: list[Mapping[str, Any]] = []
    for number, test in enumerate(tests, start=1):
        try:
            for part, values in enumerate(_combinations({**default["vars"], **test["vars"]})):
                id_ = f"test-{number:04}" + (f"-{part + 1}" if part else "")
                items.append(_item(id_, prompt, values, test, default))
                if len(items) > _MOST_ITEMS:
                    raise InputError(f"its tests make more than {_MOST_ITEMS:,} items")
        except _Unfit as error:
            path, line = test["place"]
            reader.lose(path, line, error)
    judged = any(
        str(one.get("type")).removeprefix(NOT) == RUBRIC
        for item in items
        for one in _all(item["metadata"]["assert"])
    )
    return ConvertedSuite(prompt, items, judged)


class _Unfit(InputError):
    """A test that this prompt cannot be filled in with."""


def _all(given: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for one in given:
        yield from _all(one["assert"]) if one.get("type") == SET else [one]


def _combinations(values: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A variable that is a list stands for one test for each of its values."""
    lists = [value if isinstance(value, list) else [value] for value in values.values()]
    for chosen in itertools.product(*lists):
        yield dict(zip(values, chosen, strict=True))


def _item(
    id_: str,
    prompt: str,
    values: Mapping[str, Any],
    test: Mapping[str, Any],
    default: Mapping[str, Any],
) -> Mapping[str, Any]:
    checks = [_filled(one, values) for one in (*default["assert"], *test["assert"])]
    if not checks:
        raise _Unfit("it has no assertion that could be taken")
    options = {**default["options"], **test["options"]}
    text = f"{options.get('prefix', '')}{prompt}{options.get('suffix', '')}"
    threshold = test["threshold"] if test["threshold"] is not None else default["threshold"]
    known = {**default["metadata"], **test["metadata"]}
    metadata = {
        **{name: value for name, value in known.items() if name not in ("messages", "tools")},
        "vars": values,
        "assert": checks,
        **({"threshold": threshold} if threshold else {}),
        **({"description": test["description"]} if test["description"] else {}),
    }
    asked = {"id": id_, "target": [*map(_describe, checks)], "metadata": metadata}
    if (messages := _chat(text)) is None:
        return {**asked, "input": fill(text, values)}
    filled = _filled(messages, values)
    metadata["messages"] = filled
    return {**asked, "input": str(filled[-1].get("content"))}


def _describe(one: Mapping[str, Any]) -> str:
    return f"{one['type']}: {one.get('value', '')}".rstrip(": ")


def _chat(text: str) -> list[Any] | None:
    if not text.lstrip().startswith(("[", "- role:")):
        return None
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    is_chat = isinstance(found, list) and all(
        isinstance(one, Mapping) and "role" in one for one in found
    )
    return found if is_chat and found else None


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    match value:
        case str():
            return fill(value, values)
        case Mapping():
            return {name: _filled(inner, values) for name, inner in value.items()}
        case list():
            return [_filled(inner, values) for inner in value]
        case _:
            return value


def fill(text: str, values: Mapping[str, Any]) -> str:
    """Fills in `{{name}}`. Raises InputError for what else Nunjucks knows: filters, blocks."""
    rest = _VARIABLE.sub("", text)
    if _TEMPLATE.search(rest):
        raise _Unfit("it has a filter or block of Nunjucks, which is not run")
    return _VARIABLE.sub(lambda variable: _written(variable[1], values), text)


def _written(name: str, values: Mapping[str, Any]) -> str:
    value: Any = values
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if value is None:
        if name.startswith("env."):
            raise _Unfit(f"{{{{{name}}}}} is a variable of the environment")
        return ""
    if isinstance(value, str):
        # A value may name other variables, once.
        return _VARIABLE.sub(lambda variable: str(values.get(variable[1], "")), value)
    return json.dumps(value, ensure_ascii=False)
