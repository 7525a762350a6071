"""Lists of models as gateways and local servers write them, and what is taken of a hostile one
(C2).
"""

import json
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.control.providers.model_lookup import list_offers, match_among
from harness.domain.errors import InputError
from harness.domain.providers.catalogue import Catalogue
from harness.domain.providers.discovered_model import (
    MAX_MODELS,
    DiscoveredModel,
    parse_listed_models,
)
from harness.domain.providers.probe import MAX_REPLY_BYTES
from harness.domain.routing.target import Price, Provider

pytestmark = pytest.mark.req("C2", "C3")

NOW = datetime(2026, 11, 20, tzinfo=UTC)
PLACE = "http://127.0.0.1:9/v1"
ATTIC = Provider("attic", "vllm", PLACE)
TODAY = date(2026, 11, 20)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ("data", "models", "id", "name", "pricing", "prompt", "context_length", "x")
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


@pytest.mark.parametrize(
    ("document", "models"),
    [
        ({"data": [{"id": "b"}, {"id": "a"}]}, [("a", None, None), ("b", None, None)]),
        ({"data": [{"id": "q", "max_model_len": 32768}]}, [("q", 32768, None)]),
        ({"data": [{"id": "q", "max_context_length": 8192}]}, [("q", 8192, None)]),
        ({"models": [{"name": "models/g", "inputTokenLimit": 9}]}, [("g", 9, None)]),
        ([{"id": "t", "context_length": 7}], [("t", 7, None)]),
        (
            {
                "data": [
                    {
                        "id": "v/m:free",
                        "context_length": 131072,
                        "pricing": {
                            "prompt": "0.0000025",
                            "completion": "0.00001",
                            "input_cache_read": "0.00000025",
                        },
                    }
                ]
            },
            [("v/m:free", 131072, Price(2.5, 10.0, 0.25))],
        ),
        (
            {"data": [{"id": "r", "pricing": {"prompt": "-1", "completion": "-1"}}]},
            [("r", None, None)],
        ),
        (
            {"data": [{"id": "f", "pricing": {"prompt": "0", "completion": 0}}]},
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
        (b"", "no JSON"),
        (b"<html>", "no JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "no JSON"),
        (b'{"data": 7}', "no list of models"),
        (b'{"error": "no"}', "no list of models"),
        (b'"models"', "no list of models"),
        (b"[" + b" " * MAX_REPLY_BYTES, "larger than 4 MiB"),
        (json.dumps([{"id": f"m{n}"} for n in range(MAX_MODELS + 1)]).encode(), "5001 models"),
    ],
)
def test_what_is_no_list_or_too_long_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_listed_models(content, ATTIC, NOW)


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


PROVIDERS = {
    "router": Provider("router", "openrouter", PLACE),
    "attic": ATTIC,
}
LISTED = [
    DiscoveredModel(provider, name, PLACE, NOW)
    for provider, names in {
        "router": "meta-llama/llama-4-maverick meta-llama/llama-3.3-70b-instruct "
        "google/gemini-2.5-flash google/gemini-3-flash google/gemini-3-pro",
        "attic": "qwen3-32b",
    }.items()
    for name in names.split()
]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("llama-4", "router/meta-llama/llama-4-maverick"),
        ("llama 4 maverick", "router/meta-llama/llama-4-maverick"),
        ("gemini flash", "router/google/gemini-3-flash"),
        ("gemini 2.5 flash", "router/google/gemini-2.5-flash"),
        ("qwen", "attic/qwen3-32b"),
        ("attic qwen3", "attic/qwen3-32b"),
    ],
)
def test_a_loose_name_means_a_listed_model(name: str, found: str) -> None:
    offers = list_offers(PROVIDERS, Catalogue(), (), LISTED)
    match = match_among(name, offers, today=TODAY)
    assert match.found is not None, match
    assert match.found.name == found


def test_two_listed_families_that_fit_equally_come_back_as_a_question() -> None:
    more = [*LISTED, DiscoveredModel("router", "meta-llama/llama-4-scout", PLACE, NOW)]
    offers = list_offers(PROVIDERS, Catalogue(), (), more)
    match = match_among("llama-4", offers, today=TODAY)
    assert match.found is None
    assert [offer.name for offer in match.candidates] == [
        "router/meta-llama/llama-4-maverick",
        "router/meta-llama/llama-4-scout",
    ]
