"""The scorer `json_schema` accepts any JSON value that is valid against a schema.

The schema is the option `schema`, else `metadata.schema`, else the target.
"""

from typing import Any

from evals.scorers.interface import Options, Scorer, ScoreResult, right_or_wrong, unreadable
from evals.scorers.json_fields import relaxed, valid
from evals.scorers.json_repair import loads, repaired, unfenced
from evals.suites.items import Item
from harness.domain.errors import InputError, SchemaTooLarge
from harness.domain.json_schema import schema_fault

NOTHING = object()


def schema_of(item: Item, options: Options) -> Any:
    return options["schema"] or item.metadata.get("schema") or item.target


def json_schema(answer: str, item: Item, options: Options) -> ScoreResult:
    """Scores whether an answer is JSON that fits the schema. strict: the answer is one valid
    JSON value. lenient: it holds one, repaired as for `json_fields`, or has one whose numbers
    stand in texts.
    """
    try:
        return _json_schema(answer, schema_of(item, options))
    except (RecursionError, SchemaTooLarge):
        # As in json_fields.
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
        found, rule = mended
    else:
        found, rule = whole, ""
    if valid(found, schema):
        return right_or_wrong(strict=False, lenient=True, rule=rule)
    return right_or_wrong(
        strict=False, lenient=valid(retyped(found), schema), rule=rule or "value_type"
    )


def parsed(text: str) -> Any:
    """Parses JSON; NOTHING when it is none: null is a value."""
    return None if text == "null" else NOTHING if (found := loads(text)) is None else found


def retyped(value: Any) -> Any:
    """Numbers out of their texts; keys as they are."""
    match value:
        case dict():
            return {key: retyped(item) for key, item in value.items()}
        case list():
            return [retyped(item) for item in value]
        case _:
            return relaxed(value)


def check(item: Item, options: Options) -> str | None:
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


JSON_SCHEMA = Scorer("json_schema", json_schema, {"schema": {}}, check=check)
