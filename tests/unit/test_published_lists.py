"""Loose names against the ids that providers really list (C3, D2): `tests/world/models`."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.providers.calls.probe import listed_name
from harness.providers.models.catalogue import CatalogueEntry, build_catalogue
from harness.providers.models.model_match import DiscoveredModel, list_offers
from harness.providers.models.name_resolution import ModelNameQuery
from harness.providers.target import Provider

pytestmark = pytest.mark.req("C3", "D2")

FILE = Path(__file__).parent.parent / "world/models/lists.yaml"
WORLD: Mapping[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
LISTS: Mapping[str, Mapping[str, Any]] = WORLD["lists"]
PLACE = "http://127.0.0.1:9/v1"
LISTED_AT = datetime(2026, 11, 20, tzinfo=UTC)
TODAY = date(2026, 11, 20)


def cases() -> Iterator[tuple[Sequence[str], str, object]]:
    for name, listed in LISTS.items():
        for words, meant in listed["names"].items():
            models = [meant] if isinstance(meant, str) else meant or []
            full = [f"{name}/{model}" for model in models]
            yield [name], words, full[0] if isinstance(meant, str) else full
    for several in WORLD["together"]:
        for words, meant in several["names"].items():
            yield several["lists"], words, meant


@pytest.mark.parametrize(("lists", "words", "meant"), list(cases()))
def test_a_loose_name_means_a_model_that_the_provider_lists(
    lists: Sequence[str], words: str, meant: object
) -> None:
    providers = {name: Provider(name, LISTS[name]["kind"], PLACE) for name in lists}
    catalogue = build_catalogue(
        CatalogueEntry(LISTS[name]["kind"], model)
        for name in lists
        for model in LISTS[name].get("catalogue", ())
    )
    listed = [
        DiscoveredModel(name, str(listed_name({"name": model})), PLACE, LISTED_AT)
        for name in lists
        for model in LISTS[name]["models"]
    ]
    offers = list_offers(providers, catalogue, (), listed)

    found = ModelNameQuery(words, providers, offers, TODAY, catalogue).resolve()

    assert (found.target or list(found.candidates)) == meant, found.reason


def test_every_list_names_its_source() -> None:
    assert len({listed["source"] for listed in LISTS.values()}) == len(LISTS) >= 10
