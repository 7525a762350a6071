"""This JSON Schema validator limits the time of `pattern`, which suite authors write."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from harness.domain.bounded_regex import BoundedPattern

_timed = cache(BoundedPattern)


def _pattern(
    _validator: object, pattern: str, value: object, _schema: object
) -> Iterator[ValidationError]:
    if isinstance(value, str) and not _timed(pattern).matches_in(value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _pattern_properties(
    validator: Any,
    schemas: Mapping[str, object],
    value: object,
    _schema: object,
) -> Iterator[ValidationError]:
    if not isinstance(value, dict):
        return
    for pattern, schema in schemas.items():
        for name, inner in value.items():
            if _timed(pattern).matches_in(name):
                yield from validator.descend(inner, schema, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any,
    allowed: object,
    value: object,
    schema: Mapping[str, Any],
) -> Iterator[ValidationError]:
    if not isinstance(value, dict):
        return
    patterns = [_timed(each) for each in schema.get("patternProperties", {})]
    for name, inner in value.items():
        known = name in schema.get("properties", {})
        if known or any(each.matches_in(name) for each in patterns):
            continue
        if isinstance(allowed, dict):
            yield from validator.descend(inner, allowed, path=name)
        elif not allowed:
            yield ValidationError(f"{name!r} is not expected")


TimedValidator: Final = extend(  # type: ignore[no-untyped-call]  # as its stubs are
    Draft202012Validator,
    {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
    },
)
