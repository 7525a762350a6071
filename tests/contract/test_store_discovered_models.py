"""The models that providers listed, in every store, through the port."""

from dataclasses import replace

import pytest

from harness.domain.errors import InputError
from harness.domain.providers.discovered_model import DiscoveredModel
from harness.domain.routing.target import Price
from harness.store.store import Store
from tests.support.store.records import LATER, NOW, PROVIDER

pytestmark = pytest.mark.req("C2")
SMALL = DiscoveredModel("sim", "llama-4-scout", PROVIDER.api_base, NOW)
LARGE = replace(
    SMALL, model="vendor/llama:free", context_window=131072, price=Price(0.1, 0.2, 0.05)
)


@pytest.fixture
def stored(store: Store) -> Store:
    with store.write() as tx:
        tx.providers.put(PROVIDER)
        tx.discovered_models.replace("sim", [LARGE, SMALL])
    return store


def test_a_list_comes_back_as_it_was_and_no_router_hears_of_it(stored: Store) -> None:
    etag = stored.etag()
    with stored.read() as tx:
        assert tx.discovered_models.all() == [SMALL, LARGE]

    again = replace(SMALL, found_at=LATER)
    with stored.write() as tx:
        tx.discovered_models.replace("sim", [again])

    with stored.read() as tx:
        assert tx.discovered_models.all() == [again]
    assert stored.etag() == etag


def test_an_empty_list_takes_the_one_before_away(stored: Store) -> None:
    with stored.write() as tx:
        tx.discovered_models.replace("sim", [])
    with stored.read() as tx:
        assert tx.discovered_models.all() == []


def test_a_provider_that_is_removed_lists_nothing(stored: Store) -> None:
    with stored.write() as tx:
        tx.providers.remove("sim")
    with stored.read() as tx:
        assert tx.discovered_models.all() == []


def test_a_list_of_an_unknown_provider_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match="no provider 'sim'"), store.write() as tx:
        tx.discovered_models.replace("sim", [SMALL])
