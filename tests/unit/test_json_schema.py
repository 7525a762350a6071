import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from harness.frame import matching
from harness.frame.errors import PatternTooSlow, SchemaTooLarge
from harness.frame.matching import (
    REQUEST_LIMITS,
    SUITE_LIMITS,
    THREAD_LIMITS,
    SchemaLimits,
    is_valid,
    matches_schema,
    schema_fault,
)

pytestmark = pytest.mark.req("A8", "F3", "F8")
ALL_LIMITS = [REQUEST_LIMITS, THREAD_LIMITS, SUITE_LIMITS]
# Each keyword needs the one below twice: 2^40 steps.
DOUBLING: dict[str, object] = {
    "$defs": {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(40)}
    | {"a40": {"type": "string"}},
    "$ref": "#/$defs/a0",
}
SLOW = r"(\w|\w\w)+[yz]$"
HOSTILE = "x" * 60 + "!"
NAMES = st.sampled_from("abc")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2, width=16) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


def schemas(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    types = st.sampled_from(
        ["object", "array", "string", "number", "integer", "boolean", "null"]
    )
    some = st.lists(inner, min_size=1, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": types
            | st.lists(
                types,
                min_size=1,
                max_size=2,
                unique=True,
            ),
            "properties": st.dictionaries(NAMES, inner, max_size=3),
            "required": st.lists(NAMES, max_size=2, unique=True),
            "additionalProperties": inner,
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$"]), inner),
            "pattern": st.sampled_from(["^a", "[bc]"]),
            "items": inner,
            "uniqueItems": st.booleans(),
            "enum": st.lists(VALUES, min_size=1, max_size=3),
            "const": VALUES,
            "minimum": st.integers(-2, 2),
            "maxLength": st.integers(0, 1),
            "anyOf": some,
            "oneOf": some,
            "not": inner,
        },
    )


SCHEMAS = st.recursive(st.booleans(), schemas, max_leaves=6)


@given(VALUES, SCHEMAS)
def test_within_its_limits_it_judges_as_the_standard_says(value: object, schema: Any) -> None:
    assert is_valid(value, schema, SUITE_LIMITS) is Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize("limits", ALL_LIMITS)
def test_types_and_members_are_held_against_a_schema(limits: SchemaLimits) -> None:
    assert is_valid(3.0, {"type": "integer"}, limits)
    assert not is_valid(True, {"type": "integer"}, limits)  # noqa: FBT003
    assert not is_valid(3, {"type": ["string", "null"]}, limits)
    assert is_valid(None, {"type": ["string", "null"]}, limits)
    assert not is_valid("c", {"enum": ["a", "b"]}, limits)
    assert not is_valid(True, {"enum": [1]}, limits)  # noqa: FBT003
    assert not is_valid(2, {"const": 1}, limits)
    assert not is_valid(["a", 1], {"items": {"type": "string"}}, limits)
    assert not is_valid({"a": 1}, {"additionalProperties": False}, limits)
    assert not is_valid(3, {"anyOf": [{"type": "string"}, {"minimum": 4}]}, limits)
    reference = {
        "$defs": {"text": {"type": "string"}},
        "items": {"$ref": "#/$defs/text"},
    }
    assert not is_valid([1], reference, limits)


@pytest.mark.parametrize("limits", ALL_LIMITS)
@pytest.mark.parametrize("schema", [DOUBLING, {"$ref": "#"}])
def test_too_many_steps_and_too_deep_a_schema_are_stopped(
    schema: dict[str, object], limits: SchemaLimits
) -> None:
    small = SchemaLimits(min(limits.steps, 5_000), limits.depth, limits.patterns)

    with pytest.raises(SchemaTooLarge):
        is_valid("x", schema, small)
    # What stopped one judgement is no burden of the next.
    assert is_valid("x", {"type": "string"}, small)


@pytest.mark.parametrize(
    "schema",
    [{"pattern": SLOW}, {"items": {"patternProperties": {SLOW: {}}}}],
)
def test_a_pattern_is_timed_or_not_looked_at(
    schema: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A tenth of the time that a text has, which is all spent.
    monkeypatch.setattr(matching, "MATCH_TIMEOUT_S", matching.MATCH_TIMEOUT_S / 10)
    value = [{HOSTILE: 1}] if "items" in schema else HOSTILE

    assert is_valid(value, schema, REQUEST_LIMITS)
    with pytest.raises(PatternTooSlow):
        is_valid(value, schema, SUITE_LIMITS)


def test_threads_count_their_own_steps() -> None:
    schema = {
        "items": {
            "type": "integer",
            "minimum": 0,
            "maximum": 9,
        }
    }
    values = [[random.Random(seed).randrange(9)] * 300 for seed in range(64)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda value: is_valid(value, schema, REQUEST_LIMITS), values))

    assert all(found)


def test_a_schema_that_would_take_long_or_cannot_be_read_refuses_nothing() -> None:
    assert matches_schema("x", DOUBLING)
    assert matches_schema(1, {"$ref": "#"})
    assert matches_schema(1, {"$ref": "http://127.0.0.1:1/schema"})
    assert matches_schema("a" * 40, {"pattern": "^(a+)+$x"})
    assert matches_schema(
        {"k": 1},
        {"patternProperties": {"(a+)+$": {}}, "additionalProperties": False},
    )
    assert matches_schema(1, {"type": "no such type"})
    assert not matches_schema(1, {"type": "string"})
    assert not matches_schema({"a": 1}, {"additionalProperties": False})
    one_of = {"oneOf": [{"type": "string"}, *([{"type": "null"}] * 40)]}
    assert not matches_schema([1] * 9, {"items": one_of})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        st.lists,
        max_leaves=9,
    )
)
def test_whatever_stands_where_a_schema_should_is_survived(schema: object) -> None:
    assert matches_schema({"a": [1]}, schema) is (schema is not False)
    odd = {
        "type": schema,
        "properties": schema,
        "required": schema,
    }
    assert matches_schema(1, odd) in (True, False)
    deep: object = {}
    for _ in range(200):
        deep = {"items": deep}
    assert matches_schema([[[1]]], deep)


def test_what_is_no_schema_is_named() -> None:
    assert schema_fault({"type": "object"}) == ""
    assert schema_fault(True) == ""  # noqa: FBT003
    assert "7 is not valid" in schema_fault({"type": 7})
