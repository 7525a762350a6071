"""Matches values against users' regular expressions and JSON schemas, within limits.

A regular expression of a few characters can run for years on a hostile text. `regex` accepts
the syntax of `re`, and supports a timeout. Schemas (Draft 2020-12) come from clients and suite
authors, values from models. If a schema refers to another schema, Swapproof does not fetch the
other one. `jsonschema` takes 0.1 s to import, so functions import it late.
"""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Final

from harness.frame.errors import InputError, PatternTooSlow, SchemaTooLarge

if TYPE_CHECKING:
    import regex


MATCH_TIMEOUT_S: Final = 1.0
MAX_PATTERN_LENGTH: Final = 1_000


@dataclass(frozen=True)
class BoundedPattern:
    """Matches a user's regular expression within a time limit. Its methods raise PatternTooSlow
    after MATCH_TIMEOUT_S.

    Raises InputError for an invalid expression, and above MAX_PATTERN_LENGTH.
    """

    pattern: str
    ignore_case: bool = False

    def __post_init__(self) -> None:
        if len(self.pattern) > MAX_PATTERN_LENGTH:
            raise InputError(
                f"a regular expression has at most {MAX_PATTERN_LENGTH} characters, not "
                f"{len(self.pattern)}"
            )
        _ = self._compiled

    @cached_property
    def _compiled(self) -> "regex.Pattern[str]":
        import regex  # noqa: PLC0415 - it takes 4 MiB, and few installations have a pattern

        try:
            return regex.compile(self.pattern, regex.IGNORECASE if self.ignore_case else 0)
        except regex.error as error:
            raise InputError(f"{self.pattern!r} is not a regular expression: {error}") from None

    def matches_whole(self, text: str) -> bool:
        return self._timed("fullmatch", text) is not None

    def matches_in(self, text: str) -> bool:
        return self._timed("search", text) is not None

    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Returns start and end of each match that is not empty."""
        return self._timed("finditer", text) or ()

    def _timed(self, method: str, text: str) -> Any:
        try:
            # concurrent: releases Python's lock, so that other threads can run.
            result = getattr(self._compiled, method)(
                text, timeout=MATCH_TIMEOUT_S, concurrent=True
            )
            if method == "finditer":
                return [match_.span() for match_ in result if match_.group()]
        except TimeoutError:
            raise PatternTooSlow(
                f"the regular expression {self.pattern!r} took more than "
                f"{MATCH_TIMEOUT_S:g} s for one "
                "text; write it without nested repetitions, such as (a+)+"
            ) from None
        return result


_Keyword = Callable[[Any, Any, Any, Any], Iterable[Any] | None]


@dataclass(frozen=True, slots=True)
class SchemaLimits:
    steps: int  # the greatest number of keyword checks
    depth: int  # the greatest nesting of keyword checks
    patterns: bool  # whether to check regular expressions, and to compare all members


# On an event loop: 1000 steps are about 2 ms.
REQUEST_LIMITS: Final = SchemaLimits(steps=1000, depth=32, patterns=False)

# In a thread beside an event loop.
THREAD_LIMITS: Final = SchemaLimits(steps=20_000, depth=32, patterns=False)

# In a separate worker. The depth stays far below the interpreter's recursion limit. Beyond that
# limit the library's Rust part panics, and `except Exception` does not catch a panic.
SUITE_LIMITS: Final = SchemaLimits(steps=1_000_000, depth=100, patterns=True)
_PATTERNS: Final = frozenset(
    {
        "format",
        "pattern",
        "patternProperties",
        "unevaluatedItems",
        "unevaluatedProperties",
        "uniqueItems",
    }
)


class _Steps(threading.local):
    left = 0
    depth = 0

    def begin(self, limits: SchemaLimits) -> None:
        self.left = limits.steps
        self.depth = limits.depth

    def enter(self) -> None:
        self.left -= 1
        self.depth -= 1
        if self.left < 0 or self.depth < 0:
            raise SchemaTooLarge("the schema takes too many steps for one value")

    def leave(self) -> None:
        self.depth += 1


_STEPS: Final = _Steps()


def load_validator() -> None:
    """Imports the library before the first use, because this takes 0.1 s of an event loop."""
    _build_validator_class(patterns=False)


def is_valid(
    value: object,
    schema: object,
    limits: SchemaLimits,
) -> bool:
    """Returns whether the value is valid.

    Raises SchemaTooLarge beyond the limits, PatternTooSlow, and the library's error for an
    invalid schema, or for a schema that refers to another schema.
    """
    _STEPS.begin(limits)
    return bool(_build_validator(schema, patterns=limits.patterns).is_valid(value))


def matches_schema(
    value: object,
    schema: object,
    limits: SchemaLimits = REQUEST_LIMITS,
) -> bool:
    """Returns whether the value is valid. Returns True, too, if there is no schema, or if the
    schema is invalid or too large.
    """
    if not isinstance(schema, Mapping):
        return schema is not False
    if not schema:
        return True
    try:
        return is_valid(value, schema, limits)
    except Exception:  # noqa: BLE001 - the provider reports an invalid schema to the client
        return True


def schema_fault(schema: object) -> str:
    """Returns why a schema is invalid; an empty text if it is valid."""
    return _find_fault(_SORTED.encode(schema))


# Built once, because `json.dumps` would build an encoder for each item of a suite.
_SORTED: Final = json.JSONEncoder(sort_keys=True)


@lru_cache(maxsize=256)
def _find_fault(schema: str) -> str:
    from jsonschema import Draft202012Validator, SchemaError  # noqa: PLC0415 - jsonschema is slow to import

    try:
        Draft202012Validator.check_schema(json.loads(schema))
    except SchemaError as error:
        return str(error.message)
    return ""


def _build_validator(schema: object, *, patterns: bool) -> Any:
    validator_class, registry = _build_validator_class(patterns=patterns)
    return validator_class(schema, registry=registry)


@cache
def _build_validator_class(*, patterns: bool) -> tuple[Any, Any]:
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - jsonschema is slow to import
    from jsonschema.validators import extend  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415

    checks: Mapping[str, _Keyword] = dict(Draft202012Validator.VALIDATORS)
    bounded_checks = {**checks, **(_TIMED if patterns else _disable_patterns(checks))}
    keywords = {name: _count_steps(check) for name, check in bounded_checks.items()}
    validator_class: Any = extend(Draft202012Validator, keywords)  # type: ignore[no-untyped-call]  # theirs
    return validator_class, Registry()


def _count_steps(check: _Keyword) -> _Keyword:
    def step(
        validator: Any,
        keyword_value: Any,
        value: Any,
        schema: Any,
    ) -> Iterator[Any]:
        _STEPS.enter()
        try:
            yield from check(validator, keyword_value, value, schema) or ()
        finally:
            _STEPS.leave()

    return step


def _disable_patterns(checks: Mapping[str, _Keyword]) -> Mapping[str, _Keyword]:
    def additional_properties(
        validator: Any,
        allowed: object,
        value: object,
        schema: Mapping[str, object],
    ) -> Iterable[Any] | None:
        if "patternProperties" in schema:
            return None
        return checks["additionalProperties"](validator, allowed, value, schema)

    def ignored(*_: object) -> None: ...

    return dict.fromkeys(_PATTERNS, ignored) | {"additionalProperties": additional_properties}


_timed = cache(BoundedPattern)


def _check_pattern(
    validator: Any,
    pattern: str,
    value: object,
    _schema: object,
) -> Iterator[Any]:
    if isinstance(value, str) and not _timed(pattern).matches_in(value):
        yield from validator.descend(value, schema=False)


def _check_pattern_properties(
    validator: Any,
    schemas: Mapping[str, object],
    value: object,
    _schema: object,
) -> Iterator[Any]:
    if not isinstance(value, dict):
        return
    for pattern, schema in schemas.items():
        for name, inner in value.items():
            if _timed(pattern).matches_in(name):
                yield from validator.descend(
                    inner,
                    schema,
                    path=name,
                    schema_path=pattern,
                )


def _check_additional_properties(
    validator: Any,
    allowed: object,
    value: object,
    schema: Mapping[str, Any],
) -> Iterator[Any]:
    if not isinstance(value, dict):
        return
    declared = schema.get("properties", {})
    patterns = [_timed(pattern) for pattern in schema.get("patternProperties", {})]
    for name, inner in value.items():
        if name not in declared and not any(pattern.matches_in(name) for pattern in patterns):
            yield from validator.descend(inner, allowed, path=name)


_TIMED: Final[Mapping[str, _Keyword]] = {
    "pattern": _check_pattern,
    "patternProperties": _check_pattern_properties,
    "additionalProperties": _check_additional_properties,
}
