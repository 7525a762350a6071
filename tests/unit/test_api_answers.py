import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from harness.frame.errors import InputError
from harness.frame.pagination import Page
from harness.frame.people.access import ApiKey, Role
from harness.interfaces.api.frame.error_status import JsonAnswer, json_answer
from harness.interfaces.api.frame.openapi import SchemaComponents
from harness.interfaces.api.frame.request_body import MAX_DEPTH, check_json
from harness.providers.target import Target

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.dictionaries(text, inner),
    max_leaves=20,
)


@given(values)
def test_a_body_is_taken_exactly_when_it_has_no_infinite_number(value: object) -> None:
    body = json.dumps(value).encode()
    if infinite(value):
        with pytest.raises(InputError):
            check_json(body)
    else:
        check_json(body)


def infinite(value: object) -> bool:
    match value:
        case float():
            return math.isinf(value)
        case list():
            return any(infinite(item) for item in value)
        case dict():
            return any(infinite(part) for part in value.values())
        case _:
            return False


@given(st.binary(max_size=200))
def test_bytes_that_are_no_json_are_refused_with_our_own_error(body: bytes) -> None:
    try:
        check_json(body)
    except InputError:
        return
    if body:
        json.loads(body)


def test_a_body_may_be_as_deep_as_the_limit_and_no_deeper() -> None:
    check_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(InputError, match="deep"):
        check_json(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))


@given(values)
def test_an_answer_is_strict_json_whatever_is_in_it(value: object) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    body = bytes(JsonAnswer(value).body)
    assert json.loads(body, parse_constant=refuse) == nulled(value)


def nulled(value: object) -> object:
    match value:
        case float() if math.isinf(value):
            return None
        case list():
            return [nulled(item) for item in value]
        case dict():
            return {key: nulled(part) for key, part in value.items()}
        case _:
            return value


def test_a_page_says_how_many_there_are_in_all() -> None:
    assert json_answer(list("abcde")) == Page(list("abcde"), 5, next=None)
    body = json.loads(bytes(JsonAnswer(json_answer([])).body))
    assert body == {
        "items": [],
        "total": 0,
        "next": None,
        "invalid": [],
    }


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Everything:
    flag: bool
    count: int
    share: float
    name: str | None
    at: datetime
    colour: Colour
    role: Role
    counts: tuple[int, ...]
    words: frozenset[str]
    figures: Mapping[str, float]
    anything: object
    target: Target


def test_the_schema_fits_the_answer_for_every_kind_of_value() -> None:
    value = Everything(
        flag=True,
        count=3,
        share=math.inf,
        name=None,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        colour=Colour.RED,
        role=Role.ADMIN,
        counts=(1, 2),
        words=frozenset({"a"}),
        figures={"x": 0.5},
        anything=[1, "a", None],
        target=Target("sim", "base"),
    )
    components = SchemaComponents()
    schema = components.schema_for(Page[Everything])
    root = {**schema, "components": {"schemas": components.schemas}}

    Draft202012Validator(root).validate(json.loads(bytes(JsonAnswer(Page([value], 1)).body)))
    assert components.schemas["Everything"]["properties"]["role"]["enum"][-1] == "admin"


@pytest.mark.parametrize("kind", [complex, tuple[complex, int]])
def test_a_type_without_a_form_is_an_error_and_not_an_empty_schema(kind: object) -> None:
    with pytest.raises(TypeError, match="no JSON Schema"):
        SchemaComponents().schema_for(kind)


def test_the_hash_of_a_key_is_in_no_schema() -> None:
    components = SchemaComponents()
    components.schema_for(ApiKey)
    assert "hash" not in components.schemas["ApiKey"]["properties"]
