"""What people's signing in left behind, in every store, through the port."""

from dataclasses import replace

import pytest

from harness.domain.errors import InputError, StaleWrite
from harness.domain.providers.oauth_tokens import SignIn
from harness.store.store import Store
from tests.support.store.records import LATER, NOW, PROVIDER

pytestmark = pytest.mark.req("D2", "D4")
FIRST = SignIn("sim", "si-1", "c1", NOW, "ada", renewed_at=NOW, account_due=LATER)


@pytest.fixture
def stored(store: Store) -> Store:
    with store.write() as tx:
        tx.providers.put(PROVIDER)
        tx.sign_ins.start(FIRST)
    return store


def test_a_sign_in_comes_back_as_it_was_and_no_router_hears_of_it(stored: Store) -> None:
    etag = stored.etag()
    changed = replace(
        FIRST,
        ciphertext="sealed-token-2",
        access_due=NOW,
        access_ends=LATER,
        attempts=2,
        refused="no",
    )
    with stored.write() as tx:
        tx.sign_ins.save(changed)

    with stored.read() as tx:
        assert tx.sign_ins.all() == [changed]
    assert stored.etag() == etag
    assert "sealed-token-2" not in repr(stored.snapshot())


def test_what_a_former_sign_in_gave_is_dropped(stored: Store) -> None:
    with stored.write() as tx:
        tx.sign_ins.start(replace(FIRST, id="si-2"))
    with pytest.raises(StaleWrite, match="somebody signed in anew"), stored.write() as tx:
        tx.sign_ins.save(replace(FIRST, ciphertext="late"))
    with stored.write() as tx:
        assert tx.sign_ins.end("sim")
        assert not tx.sign_ins.end("sim")
    with pytest.raises(StaleWrite), stored.write() as tx:
        tx.sign_ins.save(replace(FIRST, id="si-2"))

    with stored.read() as tx:
        assert tx.sign_ins.all() == []


def test_a_sign_in_for_an_unknown_provider_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match="no provider 'sim'"), store.write() as tx:
        tx.sign_ins.start(FIRST)
