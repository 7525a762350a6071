"""Fills promptfoo's variables into texts, as its Nunjucks does, without filters and blocks.

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
_MOST_DEEP: Final = 5  # promptfoo's limit for variables whose text names variables


class Unfit(InputError): ...


def fill_check(check: Test, values: Test) -> Test:
    """Fills in a text or a list of texts; promptfoo leaves a mapping as it is."""
    if check["type"] == SET:
        return {**check, "assert": [fill_check(one, values) for one in check["assert"]]}
    value = check.get("value")
    if isinstance(value, str):
        return {**check, "value": fill(value, values)}
    if isinstance(value, list):
        parts = [fill(part, values) if isinstance(part, str) else part for part in value]
        return {**check, "value": parts}
    return check


def fill(value: Any, values: Test) -> Any:
    """Fills in `{{name}}`. Raises Unfit for Nunjucks' filters and blocks."""
    match value:
        case str():
            if TEMPLATE.search(VARIABLE.sub("", value)):
                raise Unfit("it has a filter or block of Nunjucks, which Swapgate cannot run")
            return VARIABLE.sub(lambda variable: _written(variable[1], values), value)
        case Mapping():
            return {name: fill(inner, values) for name, inner in value.items()}
        case list():
            return [fill(inner, values) for inner in value]
        case _:
            return value


def _written(name: str, values: Test) -> str:
    """Returns a variable's text; empty for an unknown variable, as in promptfoo.

    Raises Unfit for an environment variable, a list and a mapping.
    """
    value: Any = values
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if value is None:
        if name.startswith("env."):
            raise Unfit(f"{{{{{name}}}}} is an environment variable")
        return ""
    if isinstance(value, Mapping | list):
        raise Unfit(f"{{{{{name}}}}} is a list or a mapping: write it as a text")
    return _resolved(value, values) if isinstance(value, str) else text_of(value)


def _resolved(text: str, values: Test) -> str:
    """Fills in variables that a variable's text names, unless one of them is unknown."""
    for _ in range(_MOST_DEEP):
        names = [variable[1].partition(".")[0] for variable in VARIABLE.finditer(text)]
        if not names or any(values.get(name) is None for name in names):
            break
        text = VARIABLE.sub(lambda variable: _plain(variable[1], values), text)
    if _BLOCK.search(VARIABLE.sub("", text)):
        raise Unfit("its variable has a filter or block of Nunjucks")
    return text


def _plain(name: str, values: Test) -> str:
    value: Any = values
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return "" if value is None else text_of(value)
