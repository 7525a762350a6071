"""The scorers of JSON answers.

`json_fields` compares an object's fields with the target's. `json_schema` accepts any value
that is valid against a schema: the option `schema`, else `metadata.schema`, else the target.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, cast

from evals.scorers.interface import (
    Options,
    Scorer,
    ScoreResult,
    right_or_wrong,
    score_result,
    unreadable,
    written,
)
from evals.scorers.typography import plain_typography
from evals.scorers.unwrap import json_object, loads, repaired, unfenced
from evals.suites.items import Item
from harness.frame.canonical_text import canonical_value
from harness.frame.errors import InputError, PatternTooSlow, SchemaTooLarge
from harness.frame.matching import SUITE_LIMITS, is_valid, schema_fault


def valid(value: Any, schema: object) -> bool:
    """Returns False if a pattern of the schema is too slow. Raises SchemaTooLarge."""
    if schema is None:
        return True
    try:
        return is_valid(value, schema, SUITE_LIMITS)
    except PatternTooSlow:
        return False


def same(one: object, other: object) -> bool:
    """Compares JSON values: 1 equals 1.0, true differs from 1, and objects have no order."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


def relaxed(value: object) -> object:
    """Folds keys' case and all typography, unescapes texts, and reads numbers from texts."""
    match value:
        case dict():
            return {fold_key(str(key)): relaxed(item) for key, item in value.items()}
        case list():
            return [relaxed(item) for item in value]
        case str():
            text = value.strip()
            inner = loads(f'"{text}"') if "\\" in text else text
            text = plain_typography(inner if isinstance(inner, str) else text)
            number = loads(text) if len(text) < 40 else None
            plain = isinstance(number, int | float) and not isinstance(number, bool)
            return number if plain else text
        case _:
            return value


def fold_key(key: str) -> str:
    return plain_typography(key).casefold()


def share(found: Mapping[str, Any], target: Mapping[str, Any]) -> float:
    if not target:
        return 1.0
    return sum(key in found and same(found[key], target[key]) for key in target) / len(target)


def relaxed_share(found: Mapping[str, Any], target: Mapping[str, Any]) -> float:
    answer = cast("dict[str, object]", relaxed(dict(found)))
    expected = cast("dict[str, object]", relaxed(dict(target)))
    nulls = {key: None for key, value in expected.items() if value is None}
    return share({**nulls, **answer}, expected)


def json_fields(answer: str, item: Item, options: Options) -> ScoreResult:
    """Scores 1 if all fields are right, else 0; with `graded` the share of right fields."""
    try:
        return _json_fields(answer, item, options)
    except (RecursionError, SchemaTooLarge):
        # Hundreds of nested brackets are JSON, but not an answer.
        return unreadable(answer, "no_json")


def _json_fields(answer: str, item: Item, options: Options) -> ScoreResult:
    target = cast("dict[str, object]", canonical_value(item.target))
    whole = canonical_value(json_object(answer.strip()))
    schema_kept = whole is not None and valid(
        whole, canonical_value(item.metadata.get("schema"))
    )

    def score(part: float) -> float:
        return part if options["graded"] else float(part == 1)

    strict = score(share(whole, target)) if whole is not None and schema_kept else 0.0
    mended = repaired(answer)
    if mended is None:
        return unreadable(answer, "no_json")
    found = canonical_value(mended[0])
    rule = mended[1]
    plain = score(share(found, target))
    forgiven = max(plain, score(relaxed_share(found, target)))
    if not rule:
        rule = value_rule(found, target) if forgiven > plain else "schema"
    return score_result(strict, forgiven, rule)


def value_rule(found: Mapping[str, Any], target: Mapping[str, Any]) -> str:
    if not found.keys() >= target.keys():
        folded = {fold_key(key) for key in found}
        return "key_case" if all(fold_key(key) in folded for key in target) else "missing_null"
    unlike = [key for key in target if not same(found[key], target[key])]
    if any(isinstance(found[key], str) and "\\" in found[key] for key in unlike):
        return "double_escaped"
    plain = all(same(plain_texts(found[key]), plain_texts(target[key])) for key in unlike)
    return "typography" if plain else "value_type"


def plain_texts(value: object) -> object:
    """Returns a JSON value with the typography of its texts folded."""
    match value:
        case dict():
            return {str(key): plain_texts(part) for key, part in value.items()}
        case list():
            return [plain_texts(part) for part in value]
        case str():
            return plain_typography(value)
        case _:
            return value


def check(item: Item, _options: Options) -> str | None:
    if not isinstance(item.target, dict):
        raise InputError(f"item {item.id!r}: scorer 'json_fields' needs an object as target")
    schema = item.metadata.get("schema")
    fault = "" if schema is None else schema_fault(schema)
    if fault:
        raise InputError(f"item {item.id!r}: metadata.schema is not a JSON Schema: {fault}")
    return None


def target_score(item: Item, options: Options) -> ScoreResult:
    return json_fields(written(item.target), item, options)


JSON_FIELDS = Scorer(
    "json_fields", json_fields, {"graded": False}, check=check, target_score=target_score
)


NOTHING = object()


def schema_of(item: Item, options: Options) -> Any:
    return options["schema"] or item.metadata.get("schema") or item.target


def json_schema(answer: str, item: Item, options: Options) -> ScoreResult:
    try:
        return _json_schema(answer, canonical_value(schema_of(item, options)))
    except (RecursionError, SchemaTooLarge):
        # The same as in `json_fields`: hundreds of nested brackets.
        return unreadable(answer, "no_json")


def _json_schema(answer: str, schema: object) -> ScoreResult:
    text = answer.strip()
    whole = parsed(text)
    if whole is not NOTHING and valid(whole, schema):
        return right_or_wrong(strict=True, lenient=True)
    fenced = parsed(unfenced(text))
    if whole is NOTHING and fenced is not NOTHING:
        found, rule = fenced, "code_fence"
    elif whole is NOTHING:
        mended = repaired(answer)
        if mended is None:
            return unreadable(answer, "no_json")
        found = canonical_value(mended[0])
        rule = mended[1]
    else:
        found, rule = whole, ""
    if valid(found, schema):
        return right_or_wrong(strict=False, lenient=True, rule=rule)
    if not rule:
        rule = "typography" if valid(plain_texts(found), schema) else "value_type"
    return right_or_wrong(strict=False, lenient=valid(retyped(found), schema), rule=rule)


def parsed(text: str) -> Any:
    """Parses JSON. Returns NOTHING for other text, because null is a value."""
    if text == "null":
        return None
    return NOTHING if (found := loads(text)) is None else canonical_value(found)


def retyped(value: Any) -> Any:
    match value:
        case dict():
            return {key: retyped(item) for key, item in value.items()}
        case list():
            return [retyped(item) for item in value]
        case _:
            return relaxed(value)


def check_schema(item: Item, options: Options) -> str | None:
    schema = schema_of(item, options)
    if not isinstance(schema, dict):
        raise InputError(
            f"item {item.id!r}: scorer 'json_schema' needs a schema: the option 'schema', "
            "metadata.schema or the target, an object"
        )
    fault = schema_fault(schema)
    if fault:
        raise InputError(f"item {item.id!r}: not a JSON Schema: {fault}")
    return None


def score_example(item: Item, options: Options) -> ScoreResult | None:
    """Scores the target, unless the target is the schema."""
    if not (options["schema"] or item.metadata.get("schema")):
        return None
    return json_schema(json.dumps(item.target), item, options)


JSON_SCHEMA = Scorer(
    "json_schema",
    json_schema,
    {"schema": {}},
    check=check_schema,
    target_score=score_example,
)
