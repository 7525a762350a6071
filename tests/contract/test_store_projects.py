"""Projects keep apart what is called alike; who has none named works in the default one."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
import sqlalchemy as sa

from harness.domain.errors import NotFound, ProofRefused, SignatureInvalid
from harness.domain.reliability.spend import KeySpend
from harness.store.sql import SqlStore
from tests.contract.conftest import SECRET, FixedClock, open_store
from tests.support.site.signing_keys import CONTROL
from tests.support.store.records import (
    KEY,
    NEW,
    NOW,
    OLD,
    PIN,
    ROUTE,
    create_route,
    seeded,
    start_canary,
)
from tests.support.store.tampering import owned

pytestmark = pytest.mark.req("G3")

SPEND = KeySpend(KEY.id, NOW.date(), "w-1", 3, 400, 0.5, 0)


@pytest.fixture
def ours(database_url: str) -> Iterator[SqlStore]:
    with closing(open_store(database_url)) as store:
        yield store


@pytest.fixture
def theirs(database_url: str) -> Iterator[SqlStore]:
    store = SqlStore(
        database_url, secret=SECRET, clock=FixedClock(), signatures=CONTROL, project="theirs"
    )
    with closing(store):
        yield store


def test_routes_of_two_projects_may_be_called_alike(ours: SqlStore, theirs: SqlStore) -> None:
    seeded(ours)
    with theirs.write() as tx:
        create_route(tx)
        assert tx.proposals.list() == []
    with ours.write() as tx:
        start_canary(tx)

    with ours.read() as tx, theirs.read() as other:
        assert tx.routing.table().routes[ROUTE].canary is not None
        assert other.routing.table().routes[ROUTE].canary is None
        assert len(tx.routing.history(ROUTE)) == 2
        assert len(other.routing.history(ROUTE)) == 1
        assert other.rollouts.live() == []
        with pytest.raises(NotFound):
            other.proposals.get("p_1")
    assert ours.signature_faults() == []


def test_a_verdict_of_one_project_is_no_proof_in_another(
    ours: SqlStore, theirs: SqlStore
) -> None:
    seeded(ours)
    with theirs.write() as tx:
        create_route(tx)

    with pytest.raises(ProofRefused, match="proof_missing"), theirs.write() as tx:
        start_canary(tx)


def test_keys_suites_and_spend_are_seen_in_their_project_alone(
    ours: SqlStore, theirs: SqlStore
) -> None:
    with ours.write() as tx:
        tx.keys.add(KEY)
        tx.suites.put(PIN, NOW)
        tx.observations.append([], [], [SPEND])

    with theirs.write() as tx:
        assert tx.keys.get(KEY.id) is None
        assert tx.keys.by_hash(KEY.hash) is None
        assert tx.suites.all() == []
        assert tx.observations.spends(since=NOW.date()) == []
        tx.suites.put(PIN, NOW)
        tx.keys.add(replace(KEY, id="k_2", hash="b" * 64))
    with theirs.listings() as listings:
        page = listings.keys()
    assert [key.id for key in page] == ["k_2"]
    with ours.read() as tx:
        assert tx.keys.get(KEY.id) == KEY
        assert tx.suites.all() == [PIN]
        assert tx.observations.spends(since=NOW.date()) == [SPEND]


def test_a_row_that_is_moved_to_another_project_is_not_as_it_was_signed(
    ours: SqlStore, theirs: SqlStore
) -> None:
    with ours.write() as tx:
        for target in (OLD, NEW):
            tx.routing.add_target(target)
        tx.keys.add(KEY)
    with owned(ours) as db:
        db.execute(sa.text("UPDATE api_key SET project = 'theirs'"))

    with theirs.read() as tx, pytest.raises(SignatureInvalid):
        tx.keys.get(KEY.id)
    assert [fault.key for fault in ours.signature_faults() if fault.table == "api_key"] == [
        (KEY.id,)
    ]
