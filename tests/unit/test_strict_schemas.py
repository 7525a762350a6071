import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.providers.models.capabilities import StrictSchema
from router.conversation.strict_schemas import meets_strict
from router.upstream.endpoint_translation import translate_message, translate_response
from tests.wire.openai import check_strict
from tests.wire.server import Json, Refused

TEXT: Final = {"type": "string"}
CLOSED: Final[Json] = {
    "type": "object",
    "properties": {"a": TEXT},
    "required": ["a"],
    "additionalProperties": False,
}
OPTIONAL: Final[Json] = {**CLOSED, "properties": {"a": TEXT, "b": TEXT}}
OPEN: Final[Json] = {"type": "object", "properties": {"a": TEXT}, "required": ["a"]}


def within(inner: Json) -> Json:
    return {**CLOSED, "properties": {"a": inner}}


@pytest.mark.parametrize(
    ("schema", "all_required", "closed"),
    [
        (CLOSED, True, True),
        (OPTIONAL, False, True),
        (OPEN, False, False),
        ({"type": "object"}, False, False),
        (None, False, False),
        ({"type": "string"}, False, False),
        (within(OPTIONAL), False, True),
        (within({"type": "array", "items": OPEN}), False, False),
        (within({"type": "array", "items": CLOSED}), True, True),
        (within({"anyOf": [CLOSED, {"type": "null"}]}), True, True),
        (within({"anyOf": [OPEN, {"type": "null"}]}), False, False),
        (within({"oneOf": [CLOSED]}), False, False),
        (within({"type": "integer", "minimum": 1}), True, False),
        (within({"type": "string", "default": "x"}), False, True),
        (within({"description": "anything"}), False, False),
        ({**within({"$ref": "#/$defs/c"}), "$defs": {"c": CLOSED}}, True, True),
        ({**within({"$ref": "#/$defs/c"}), "$defs": {"c": OPEN}}, False, False),
        ({**CLOSED, "anyOf": [CLOSED]}, False, False),
        (within({"type": ["object", "null"]}), False, False),
        (within({**CLOSED, "type": ["object", "null"]}), True, True),
        (within({"type": "array"}), False, True),
        (within({"type": ["array", "null"], "items": TEXT}), True, True),
        (within({"type": "array", "items": {}}), False, False),
        (within({"type": "array", "items": True}), False, False),
        (within({"type": "array", "items": TEXT, "uniqueItems": True}), False, False),
        ({**CLOSED, "properties": {"a": True}}, False, False),
        ({**CLOSED, "properties": {}, "required": []}, True, True),
        ({**CLOSED, "required": ["a", "b"]}, False, True),
        (
            {**within({"$ref": "#/$defs/c", "description": "c"}), "$defs": {"c": CLOSED}},
            False,
            True,
        ),
    ],
)
def test_a_schema_is_strict_only_where_it_meets_the_targets_demands(
    schema: Any, *, all_required: bool, closed: bool
) -> None:
    assert meets_strict(schema, StrictSchema.ALL_REQUIRED) is all_required
    assert meets_strict(schema, StrictSchema.UNKNOWN) is all_required
    assert meets_strict(schema, StrictSchema.CLOSED) is closed
    assert meets_strict(schema, StrictSchema.ANY)
    assert not meets_strict(schema, StrictSchema.NONE)


def objects(inner: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    properties = st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    return st.builds(
        lambda given, required, more: {
            "type": "object",
            "properties": given,
            "required": sorted(required),
            **more,
        },
        properties,
        st.sets(st.sampled_from("abc")),
        st.sampled_from([{}, {"additionalProperties": False}, {"additionalProperties": True}]),
    )


SCHEMAS: Final = objects(
    st.recursive(
        st.just(TEXT),
        lambda inner: objects(inner) | inner.map(lambda part: {"type": "array", "items": part}),
        max_leaves=6,
    )
)


@given(SCHEMAS)
def test_openai_takes_what_is_said_to_meet_its_demands(schema: Json) -> None:
    try:
        check_strict(schema, "f")
        taken = True
    except Refused:
        taken = False
    assert meets_strict(schema, StrictSchema.ALL_REQUIRED) is taken


@pytest.mark.parametrize(("schema", "strict"), [(CLOSED, True), (OPTIONAL, None)])
def test_only_a_schema_that_the_target_takes_becomes_strict(
    schema: Json, *, strict: bool | None
) -> None:
    message = translate_message(
        json.dumps(
            {
                "model": "m",
                "messages": [],
                "tools": [{"name": "f", "input_schema": schema, "strict": True}],
                "output_config": {"format": {"type": "json_schema", "schema": schema}},
            }
        ).encode(),
        "openai",
    )
    form = {"type": "json_schema", "name": "a", "schema": schema, "strict": True}
    response = translate_response(
        json.dumps(
            {
                "model": "m",
                "input": "hi",
                "tools": [
                    {"type": "function", "name": "f", "parameters": schema, "strict": True}
                ],
                "text": {"format": form},
            }
        ).encode(),
        "openai",
    )

    for translated in (message, response):
        chat = json.loads(translated.body)
        assert chat["tools"][0]["function"].get("strict") is strict
        assert chat["response_format"]["json_schema"].get("strict") is strict
    lost = [] if strict else ["tools.strict", "output_config.format"]
    assert list(message.dropped) == lost
    assert ("text.format.strict" in response.dropped) is (strict is None)
