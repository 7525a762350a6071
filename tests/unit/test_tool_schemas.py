"""A tool's schema tells the model of another provider no less than it told the first."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.conversation.tool_schemas import SCHEMA_RULES, write_schema

pytestmark = pytest.mark.req("B7")
Json = dict[str, Any]
TREE: Json = {
    "type": "object",
    "properties": {"tree": {"$ref": "#/$defs/node"}},
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
        }
    },
}
KINDS = pytest.mark.parametrize("kind", SCHEMA_RULES)


def written(kind: str, schema: Json) -> tuple[Json, bool]:
    before = json.dumps(schema)
    found = write_schema(schema, SCHEMA_RULES[kind])
    assert json.dumps(schema) == before
    return found.schema, found.is_weaker


@KINDS
def test_alternatives_at_the_top_become_one_object_and_that_is_told(kind: str) -> None:
    branches = [
        {"properties": {"path": {"type": "string"}, "id": {}}, "required": ["id", "path"]},
        {"properties": {"url": {"type": "string"}, "id": {}}, "required": ["id", "url"]},
    ]
    for name in ("anyOf", "oneOf"):
        schema, weaker = written(kind, {name: branches})
        assert schema["type"] == "object"
        assert set(schema["properties"]) == {"path", "url", "id"}
        assert schema["required"] == ["id"]
        assert weaker

    schema, weaker = written(kind, {"allOf": branches, "additionalProperties": False})
    assert sorted(schema["required"]) == ["id", "path", "url"]
    assert schema["additionalProperties"] is False
    assert not weaker


@KINDS
def test_no_reference_points_nowhere(kind: str) -> None:
    schema, weaker = written(kind, TREE)
    keeps = SCHEMA_RULES[kind].keeps_definitions
    assert ("$defs" in schema) == keeps
    assert ("$ref" in json.dumps(schema)) == keeps
    assert weaker != keeps  # a recursion has no end

    repeated = {"properties": {"a": {"type": "integer"}, "b": {"$ref": "#/properties/a"}}}
    schema, weaker = written(kind, repeated)
    assert schema["properties"]["b"] == {"type": "integer"}
    assert not weaker
    _, weaker = written(kind, {"properties": {"a": {"$ref": "#/nowhere"}}})
    assert weaker


def test_google_gets_values_of_one_type_and_bounds_in_words() -> None:
    schema, weaker = written(
        "gemini",
        {
            "properties": {
                "level": {"enum": ["low", 1, None]},
                "kind": {"const": "a"},
                "n": {"type": "number", "exclusiveMinimum": 0, "description": "How many."},
            }
        },
    )
    level, kind, n = schema["properties"].values()
    assert {"type": "string", "enum": ["low"]} in level["anyOf"]
    assert {"type": "null"} in level["anyOf"]
    assert kind == {"type": "string", "enum": ["a"]}
    assert n["description"] == "How many. It is greater than 0."
    assert not weaker
    assert written("gemini", {"properties": {"a": {"patternProperties": {}}}})[1]


@KINDS
def test_what_every_kind_knows_stays(kind: str) -> None:
    plain = {
        "type": "object",
        "properties": {"a": {"type": ["string", "null"], "description": "d", "minLength": 1}},
        "required": ["a"],
        "additionalProperties": {"type": "string"},
        "description": "all",
    }
    assert written(kind, plain) == (plain, False)


SCHEMAS = st.recursive(
    st.sampled_from([{}, {"type": "string"}, {"$ref": "#"}, {"enum": [1, "a"]}, None, 3]),
    lambda inner: st.dictionaries(
        st.sampled_from(
            ["properties", "anyOf", "allOf", "items", "$defs", "$ref", "required", "enum"]
        ),
        inner | st.lists(inner, max_size=2) | st.dictionaries(st.just("a"), inner),
        max_size=3,
    ),
    max_leaves=12,
)


@KINDS
@given(schema=st.dictionaries(st.sampled_from(["properties", "anyOf", "$defs"]), SCHEMAS))
def test_any_schema_is_written(kind: str, schema: Json) -> None:
    found, _ = written(kind, schema)
    assert found["type"] == "object"
    assert isinstance(found["properties"], dict)
