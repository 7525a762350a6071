"""Lists of models as servers write them, and what is taken of a hostile one (C2)."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.errors import InputError
from harness.providers.calls.probe import MAX_REPLY_BYTES
from harness.providers.models.model_match import (
    MAX_MODELS,
    parse_listed_models,
)
from harness.providers.target import Price, Provider

pytestmark = pytest.mark.req("C2", "C3")

NOW = datetime(2026, 11, 20, tzinfo=UTC)
PLACE = "http://127.0.0.1:9/v1"
ATTIC = Provider("attic", "vllm", PLACE)

WRONG_TYPES = [
    None,
    7,
    "a-name",
    ["a-name"],
    {},
    {"id": None},
    {"id": 3.5},
    {"id": {"id": "x"}},
    {
        "id": "sound",
        "context_length": "much",
        "max_model_len": True,
        "context_window": -5,
        "max_context_length": 1e99,
        "pricing": {"prompt": "NaN", "completion": [1]},
    },
    {"id": "cheap", "pricing": {"prompt": "-0.1", "completion": "Infinity"}},
    {
        "id": "free",
        "context_length": 10**40,
        "pricing": {"prompt": 0, "completion": "0"},
    },
    {"id": "priced", "pricing": "0.1"},
]
# With control characters, and others that mislead.
ODD_NAMES = (
    "sound",
    "bell\a",
    "\x1b[2Jscreen",
    "line\nbreak",
    "nul\0",
    "right\u202eleft",
    "zero\u200bwidth",
    "cyrillic-\u0441laude",
    "two words",
    " blank ",
    "",
    "\ud800",
    "x" * 100_000,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                (
                    "data",
                    "models",
                    "id",
                    "name",
                    "pricing",
                    "prompt",
                    "context_length",
                    "x",
                )
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=30,
)


def listed(document: object) -> list[tuple[str, int | None, Price | None]]:
    found = parse_listed_models(json.dumps(document).encode(), ATTIC, NOW).models
    assert all(
        (model.provider, model.source, model.found_at) == ("attic", PLACE, NOW)
        for model in found
    )
    return [(model.model, model.context_window, model.price) for model in found]


def priced(prompt: str, completion: str | int) -> dict[str, str | int]:
    return {"prompt": prompt, "completion": completion}


PRICED = priced("0.0000025", "0.00001") | {"input_cache_read": "0.00000025"}


@pytest.mark.parametrize(
    ("document", "models"),
    [
        (
            {"data": [{"id": "b"}, {"id": "a"}]},
            [("a", None, None), ("b", None, None)],
        ),
        (
            {"data": [{"id": "q", "max_model_len": 32768}]},
            [("q", 32768, None)],
        ),
        (
            {"data": [{"id": "/m/q.gguf", "meta": {"n_ctx": 1024}}]},
            [("/m/q.gguf", 1024, None)],
        ),
        (
            {"data": [{"id": "q", "max_context_length": 8192}]},
            [("q", 8192, None)],
        ),
        (
            {"models": [{"name": "models/g", "inputTokenLimit": 9}]},
            [("g", 9, None)],
        ),
        (
            {"data": [{"id": "models/q.gguf"}]},
            [("models/q.gguf", None, None)],
        ),
        (
            {"data": [{"id": "models/g", "owned_by": "google"}]},
            [("g", None, None)],
        ),
        ({"data": [], "models": [{"name": "m"}]}, [("m", None, None)]),
        ([{"id": "t", "context_length": 7}], [("t", 7, None)]),
        (
            {
                "data": [
                    {
                        "id": "v/m:free",
                        "context_length": 131072,
                        "pricing": PRICED,
                    }
                ]
            },
            [("v/m:free", 131072, Price(2.5, 10.0, 0.25))],
        ),
        (
            {"data": [{"id": "r", "pricing": priced("-1", "-1")}]},
            [("r", None, None)],
        ),
        (
            {"data": [{"id": "f", "pricing": priced("0", 0)}]},
            [("f", None, Price(0, 0))],
        ),
        ({"data": []}, []),
    ],
)
def test_a_list_is_read_in_each_form(
    document: object, models: list[tuple[str, int | None, Price | None]]
) -> None:
    assert listed(document) == models


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "not JSON"),
        (b'{"data": 7}', "not a list of models"),
        (b'{"error": "no"}', "not a list of models"),
        (b'"models"', "not a list of models"),
        (b"[" + b" " * MAX_REPLY_BYTES, "larger than 4 MiB"),
        (
            json.dumps([{"id": f"m{n}"} for n in range(MAX_MODELS + 1)]).encode(),
            "5001 models",
        ),
    ],
)
def test_what_is_no_list_or_too_long_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_listed_models(content, ATTIC, NOW)


def test_of_wrong_types_and_misleading_names_only_the_sound_is_kept() -> None:
    assert listed({"data": WRONG_TYPES}) == [
        ("cheap", None, None),
        ("free", None, Price(0.0, 0.0)),
        ("priced", None, None),
        ("sound", None, None),
    ]
    named = {"data": [{"id": name} for name in ODD_NAMES]}
    assert listed(named) == [("sound", None, None)]
    found = parse_listed_models(json.dumps(named).encode(), ATTIC, NOW)
    assert found.left_out == len(ODD_NAMES) - 1


@given(json_values)
def test_whatever_comes_every_name_is_plain_and_every_figure_makes_sense(
    document: object,
) -> None:
    try:
        found = parse_listed_models(json.dumps(document).encode(), ATTIC, NOW)
    except InputError:
        return
    for model in found.models:
        assert model.model.isascii()
        assert model.model.isprintable()
        assert " " not in model.model
        assert model.context_window is None or model.context_window > 0
        assert model.price is None or 0 <= model.price.input_usd_per_mtok <= 1e6
