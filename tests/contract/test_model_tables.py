"""What both tables of models promise: litellm's file, and the one that tests fill."""

from datetime import date

import pytest

from harness.domain.providers.catalogue import CatalogueEntry
from harness.domain.routing.target import Price
from harness.ports import ModelTable
from harness.runtime.model_catalogue import LitellmTable
from tests.support.providers.scripted_probe import FixedCatalogue

KNOWN = CatalogueEntry(
    "openai",
    "gpt-4o-mini",
    price=Price(0.15, 0.6, 0.075),
    context_window=128_000,
    has=frozenset({"chat", "tools", "parallel_tools", "json_schema", "vision", "caching"}),
    lacks=frozenset({"embeddings"}),
)
ENDING = CatalogueEntry("anthropic", "claude-sonnet-4-5", end_date=date(2026, 11, 30))


@pytest.fixture(params=["litellm", "fixed"])
def table(request: pytest.FixtureRequest) -> ModelTable:
    return LitellmTable() if request.param == "litellm" else FixedCatalogue(KNOWN, ENDING)


def test_a_model_is_found_by_its_kind_and_name(table: ModelTable) -> None:
    entry = table.catalogue().find("openai", "gpt-4o-mini")

    assert entry is not None
    assert entry == KNOWN
    assert entry.capabilities.tools
    assert not entry.capabilities.embeddings


def test_an_announced_end_is_a_day(table: ModelTable) -> None:
    entry = table.catalogue().find("anthropic", "claude-sonnet-4-5")

    assert entry is not None
    assert entry.end_date == date(2026, 11, 30)
    assert entry.ended(date(2026, 11, 30))
    assert not entry.ended(date(2026, 11, 29))


def test_an_unknown_model_is_none(table: ModelTable) -> None:
    assert table.catalogue().find("openai", "no-such-model") is None


def test_it_is_read_once(table: ModelTable) -> None:
    assert table.catalogue() is table.catalogue()
