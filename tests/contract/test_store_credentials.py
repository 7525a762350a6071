"""Keys of providers in every store, through the port."""

from dataclasses import replace
from datetime import timedelta

import pytest

from harness.domain.errors import InputError
from harness.domain.providers.credentials import Credential, StoredKey
from harness.store.store import Store
from tests.contract.conftest import Opener
from tests.support.store.records import LATER, NOW, PROVIDER

KEY = Credential("sim", "default", "c1", 0, NOW, NOW, "ada")
OLD = replace(KEY, name="default.old", ciphertext="c0", position=1, expires_at=LATER)


@pytest.fixture
def stored(store: Store) -> Store:
    with store.write() as tx:
        tx.providers.put(PROVIDER)
        tx.credentials.put(OLD)
        tx.credentials.put(KEY)
    return store


@pytest.mark.req("D4")
def test_keys_come_back_as_they_were_in_the_order_of_their_places(stored: Store) -> None:
    with stored.read() as tx:
        assert tx.credentials.all() == [KEY, OLD]


@pytest.mark.req("D3", "D4")
def test_each_change_of_a_key_is_in_the_snapshot_under_another_etag(stored: Store) -> None:
    seen = [stored.snapshot()]
    with stored.write() as tx:
        tx.credentials.put(replace(KEY, ciphertext="c2", updated_at=LATER))
    seen.append(stored.snapshot())
    with stored.write() as tx:
        tx.credentials.put(replace(KEY, ciphertext=""))
    seen.append(stored.snapshot())

    firsts = [provider.stored_keys[0] for provider in seen]
    assert firsts == [StoredKey("sim", "default", text) for text in ("c1", "c2", "")]
    assert len({store.etag for store in seen}) == 3


def test_an_expired_key_is_in_no_new_snapshot_but_was_there(store: Store) -> None:
    with store.write() as tx:
        tx.providers.put(PROVIDER)
        tx.credentials.put(replace(KEY, expires_at=NOW - timedelta(seconds=1)))

    assert store.snapshot().stored_keys == (StoredKey("sim", "default", ""),)


def test_a_key_of_an_unknown_provider_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match="no provider 'sim'"), store.write() as tx:
        tx.credentials.put(KEY)


@pytest.mark.req("D3")
def test_a_waiter_on_another_connection_hears_of_a_key(sql_stores: Opener) -> None:
    ours, theirs = sql_stores(), sql_stores()
    with ours.write() as tx:
        tx.providers.put(PROVIDER)
    theirs.wait_for_change(0.1)
    while theirs.wait_for_change(0.1):
        pass

    with ours.write() as tx:
        tx.credentials.put(KEY)

    assert theirs.wait_for_change(5)
