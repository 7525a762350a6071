"""Replaces promptfoo's variables in texts by their values, as Nunjucks does in promptfoo.

The module does not support filters and blocks of Nunjucks.

Source: promptfoo 0.121.20, `src/evaluatorHelpers.ts` and `src/assertions/index.ts`. Pure.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from evals.scorers.assertions import SET, text_of
from harness.frame.errors import InputError

Test = Mapping[str, Any]
VARIABLE: Final = re.compile(r"\{\{-?\s*([\w.]+)\s*-?\}\}")
TEMPLATE: Final = re.compile(r"\{\{|\{%|\{#")
_BLOCK: Final = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_MAX_DEPTH: Final = 5  # promptfoo's limit for variables within the texts of variables


class UnsupportedTest(InputError): ...


def fill_check(check: Test, values: Test) -> Test:
    """Fills in the value of a check: a text or a list of texts. Like promptfoo, it leaves a
    mapping unchanged.
    """
    if check["type"] == SET:
        return {
            **check,
            "assert": [fill_check(part, values) for part in check["assert"]],
        }
    value = check.get("value")
    if isinstance(value, str):
        return {**check, "value": fill(value, values)}
    if isinstance(value, list):
        parts = [fill(part, values) if isinstance(part, str) else part for part in value]
        return {**check, "value": parts}
    return check


def fill(value: Any, values: Test) -> Any:
    """Fills in `{{name}}`. Raises UnsupportedTest for Nunjucks' filters and blocks."""
    match value:
        case str():
            if TEMPLATE.search(VARIABLE.sub("", value)):
                raise UnsupportedTest(
                    "the text has a filter or block of Nunjucks, which Swapproof cannot run"
                )
            return VARIABLE.sub(lambda variable: _read_variable(variable[1], values), value)
        case Mapping():
            return {name: fill(inner, values) for name, inner in value.items()}
        case list():
            return [fill(inner, values) for inner in value]
        case _:
            return value


def _read_variable(name: str, values: Test) -> str:
    """Returns a variable's text; empty for an unknown variable, as in promptfoo.

    Raises UnsupportedTest for an environment variable, a list and a mapping.
    """
    value: Any = values
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if value is None:
        if name.startswith("env."):
            raise UnsupportedTest(f"{{{{{name}}}}} is an environment variable")
        return ""
    if isinstance(value, Mapping | list):
        raise UnsupportedTest(f"{{{{{name}}}}} is a list or a mapping: write it as a text")
    return _fill_nested(value, values) if isinstance(value, str) else text_of(value)


def _fill_nested(text: str, values: Test) -> str:
    """Fills in the variables within a variable's text. Stops at an unknown variable."""
    for _ in range(_MAX_DEPTH):
        names = [variable[1].partition(".")[0] for variable in VARIABLE.finditer(text)]
        if not names or any(values.get(name) is None for name in names):
            break
        text = VARIABLE.sub(lambda variable: _read_nested(variable[1], values), text)
    if _BLOCK.search(VARIABLE.sub("", text)):
        raise UnsupportedTest(
            "a variable has a filter or block of Nunjucks, which Swapproof cannot run"
        )
    return text


def _read_nested(name: str, values: Test) -> str:
    value: Any = values
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return "" if value is None else text_of(value)
