"""Answer validity checks an answer's JSON against a schema (`matches_schema`), and its tool
calls against the tools that were offered (`are_calls_valid`), once it was sent. `prepare` loads
the library beforehand.

On the event loop, so within limits: what is too large or takes too many steps counts as valid,
in both arms alike. A regular expression of a client's could hold up all requests: `pattern` and
its like are not looked at. No schema is fetched.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final

from jiter import from_json

# Keywords looked at for one value: about 2 ms.
MAX_STEPS: Final = 1000
# Of keywords within keywords: far from the interpreter's limit, past which the library's Rust
# part panics, and that is no Exception.
MAX_DEPTH: Final = 32
NOT_LOOKED_AT: Final = frozenset(
    {
        "format",
        "pattern",
        "patternProperties",
        "unevaluatedItems",
        "unevaluatedProperties",
        "uniqueItems",
    }
)
NO_JSON: Final = object()
_Keyword = Callable[[Any, Any, Any, Any], Iterable[Any] | None]


class ValidationTooLarge(Exception):
    """A schema takes more than MAX_STEPS, or is nested deeper than MAX_DEPTH."""


class _Steps:
    """One for all: there is one event loop."""

    left = 0
    depth = 0

    def begin(self) -> None:
        self.left, self.depth = MAX_STEPS, 0

    def go_in(self) -> None:
        self.left -= 1
        self.depth += 1
        if self.left < 0 or self.depth > MAX_DEPTH:
            raise ValidationTooLarge

    def come_out(self) -> None:
        self.depth -= 1


_STEPS: Final = _Steps()


def prepare() -> None:
    """Load the library, a tenth of a second: beforehand, and not on the event loop."""
    _validator()


def parse_json(text: str) -> object:
    """NO_JSON for what is none."""
    try:
        return from_json(text.encode(), allow_inf_nan=False)
    except (ValueError, RecursionError):
        return NO_JSON


def matches_schema(value: object, schema: Mapping[str, object]) -> bool:
    """Whether it is as the JSON schema says; also where that cannot be told."""
    if not schema:
        return True
    _STEPS.begin()
    try:
        return bool(_validator()(schema).is_valid(value))
    except Exception:  # noqa: BLE001 - too much, or no schema: of that its provider tells the client
        return True


def are_calls_valid(calls: Iterable[tuple[str, object]], offered: Mapping[str, object]) -> bool:
    """Whether each call is of an offered tool, and its arguments fit.

    calls: names with arguments, parsed or as text. offered: schemas by name, None for any text.
    """
    for name, given in calls:
        if name not in offered:
            return False
        schema = offered[name]
        if schema is None:
            continue
        arguments = parse_json(given) if isinstance(given, str) else given
        if not isinstance(arguments, Mapping):
            return False
        if isinstance(schema, Mapping) and not matches_schema(arguments, schema):
            return False
    return True


@cache
def _validator() -> Callable[[Mapping[str, object]], Any]:
    # For those alone who need it.
    from jsonschema import Draft202012Validator  # noqa: PLC0415
    from jsonschema.validators import extend  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415

    known: Mapping[str, _Keyword] = dict(Draft202012Validator.VALIDATORS)
    keywords = {name: _counted(name, check) for name, check in known.items()}
    made: Any = extend(Draft202012Validator, keywords)  # type: ignore[no-untyped-call]  # theirs
    nothing_to_fetch: Any = Registry()
    return lambda schema: made(schema, registry=nothing_to_fetch)


def _counted(name: str, check: _Keyword) -> _Keyword:
    def step(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        _STEPS.go_in()
        try:
            by_pattern = name == "additionalProperties" and "patternProperties" in schema
            if name not in NOT_LOOKED_AT and not by_pattern:
                yield from check(validator, value, instance, schema) or ()
        finally:
            _STEPS.come_out()

    return step
