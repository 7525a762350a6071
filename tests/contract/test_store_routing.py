"""The routing table of every store, through the port."""

from dataclasses import replace
from datetime import timedelta

import pytest

from harness.domain.errors import (
    Conflict,
    IllegalTransition,
    NotFound,
    RevisionConflict,
)
from harness.domain.operations.access import SYSTEM, Role
from harness.domain.routing.overrides import RequestKind
from harness.domain.routing.route_changes import (
    AbortCanary,
    ChangeSettings,
    RaiseWeight,
    RestoreIncumbent,
    TableChange,
)
from harness.domain.routing.table import Canary, Route
from harness.domain.routing.target import Provider
from harness.store.store import Store
from harness.store.transaction import Transaction
from tests.support.store.records import (
    KEY,
    LATER,
    NEW,
    NOW,
    OLD,
    PROVIDER,
    ROUTE,
    RULE,
    SETTINGS,
    SPARE,
    create_route,
    promote,
    seeded,
    start_canary,
)


def commit(tx: Transaction, change: TableChange, version: int) -> int:
    return tx.routing.commit(
        change, expected_version=version, actor="bob", reason="why not", now=NOW
    )


def test_a_new_installation_has_the_empty_table(store: Store) -> None:
    with store.read() as tx:
        table = tx.routing.table()

        assert (table.revision, table.routes, table.targets) == (0, {}, {})
        assert tx.routing.route("nowhere") is None
        assert list(tx.routing.history("nowhere")) == []


def test_a_created_route_is_read_back_as_it_was(store: Store) -> None:
    with store.write() as tx:
        assert create_route(tx) == 1

    with store.read() as tx:
        route = tx.routing.route(ROUTE)
        assert route == Route(ROUTE, 1, OLD.id, None, (SPARE.id,), SETTINGS)
        table = tx.routing.table()
        assert table.revision == 1
        assert table.routes == {ROUTE: route}
        assert table.targets == {OLD.id: OLD, SPARE.id: SPARE}
        assert tx.routing.targets() == {t.id: t for t in (OLD, NEW, SPARE)}


@pytest.mark.req("D6")
def test_a_routes_overrides_are_stored_with_its_settings_and_served(store: Store) -> None:
    named = replace(SETTINGS, overrides={RequestKind.VISION: "photos"})
    with store.write() as tx:
        create_route(tx)
        commit(tx, ChangeSettings(ROUTE, named), 1)

    with store.read() as tx:
        newest, first = tx.routing.history(ROUTE)
    assert newest.route.settings == named
    assert first.route.settings.overrides == {}
    assert store.snapshot().table.routes[ROUTE].settings == named


@pytest.mark.req("F1", "A7")
def test_a_route_goes_from_baseline_over_its_canary_to_the_promotion(store: Store) -> None:
    seeded(store)
    with store.write() as tx:
        assert start_canary(tx) == 2
        assert commit(tx, RaiseWeight(ROUTE, "ro_1", 500), 2) == 3
        assert commit(tx, ChangeSettings(ROUTE, replace(SETTINGS, policy="fast")), 3) == 4
        during = tx.routing.route(ROUTE)
        assert promote(tx, version=4) == 5

    assert during is not None
    assert during.canary == Canary(NEW.id, 500, "salt", "ro_1", RULE)
    with store.read() as tx:
        after = tx.routing.route(ROUTE)
        history = tx.routing.history(ROUTE)
        swaps = tx.routing.last_swaps([ROUTE, "nowhere"])
        assert tx.routing.names() == [ROUTE]
    assert swaps.keys() == {ROUTE}
    swap = swaps[ROUTE]
    assert (swap.former, swap.incumbent, swap.kind) == (OLD.id, NEW.id, "promotion")
    assert after == Route(ROUTE, 5, NEW.id, None, (SPARE.id,), replace(SETTINGS, policy="fast"))
    assert [record.kind for record in history] == [
        "promotion",
        "settings",
        "weight",
        "canary",
        "baseline",
    ]
    assert [record.revision for record in history] == [5, 4, 3, 2, 1]
    assert [record.verdict for record in history] == ["v_1", None, None, "v_1", None]
    newest = history[0]
    assert (newest.route, newest.actor, newest.reason, newest.at) == (
        after,
        "bob",
        "why not",
        NOW,
    )


def test_a_change_of_a_stale_version_is_a_conflict(store: Store) -> None:
    with store.write() as tx:
        create_route(tx)
        with pytest.raises(RevisionConflict, match="version 1, not 0"):
            create_route(tx)
        with pytest.raises(RevisionConflict, match="version 1, not 7"):
            commit(tx, ChangeSettings(ROUTE, SETTINGS), 7)


def test_a_change_that_does_not_apply_is_illegal(store: Store) -> None:
    with store.write() as tx:
        create_route(tx)
        with pytest.raises(IllegalTransition, match="no canary"):
            commit(tx, AbortCanary(ROUTE, "ro_1"), 1)
        with pytest.raises(IllegalTransition, match="create it first"):
            commit(tx, RestoreIncumbent("nowhere", OLD.id), 0)


def test_a_provider_is_stored_and_replaced(store: Store) -> None:
    with store.write() as tx:
        tx.providers.put(PROVIDER)
        tx.providers.put(Provider("zeta", "openai", "http://127.0.0.1:1"))
        tx.providers.put(replace(PROVIDER, api_base="http://127.0.0.1:2"))

    with store.read() as tx:
        providers = tx.providers.all()
        assert list(providers) == ["sim", "zeta"]
        assert providers["sim"] == replace(PROVIDER, api_base="http://127.0.0.1:2")


@pytest.mark.req("D3")
def test_a_removed_provider_is_gone_until_it_is_put_again(store: Store) -> None:
    with store.write() as tx:
        tx.providers.put(PROVIDER)
    before = store.snapshot().etag
    with store.write() as tx:
        tx.providers.remove("sim")
        assert not tx.providers.all()
        with pytest.raises(NotFound):
            tx.providers.remove("sim")
    assert store.snapshot().etag != before
    assert not store.snapshot().providers

    again = replace(PROVIDER, extra_body={})
    with store.write() as tx:
        tx.providers.put(again)
    assert store.snapshot().providers == {"sim": again}


def test_a_snapshot_holds_what_a_router_needs(store: Store) -> None:
    revoked = replace(KEY, id="k_2", hash="b" * 64)
    manager = replace(KEY, id="k_3", hash="c" * 64, role=Role.ADMIN, principal="local")
    with store.write() as tx:
        create_route(tx)
        tx.providers.put(PROVIDER)
        for key in (KEY, revoked, manager):
            tx.keys.add(key)
        tx.keys.revoke("k_2", NOW)

    snapshot = store.snapshot()

    assert snapshot.table.revision == 1
    assert set(snapshot.table.routes) == {ROUTE}
    assert snapshot.providers == {"sim": PROVIDER}
    assert [(grant.id, grant.hash, grant.routes) for grant in snapshot.keys] == [
        (KEY.id, KEY.hash, KEY.routes)
    ]
    assert snapshot.etag == store.etag()


def test_the_etag_changes_with_all_that_is_served_and_with_nothing_else(store: Store) -> None:
    seen = [store.etag()]

    def changed() -> bool:
        seen.append(store.etag())
        return seen[-1] not in seen[:-1]

    with store.write() as tx:
        create_route(tx)
    assert changed()
    with store.write() as tx:
        tx.providers.put(PROVIDER)
    assert changed()
    with store.write() as tx:
        tx.keys.add(KEY)
    assert changed()
    with store.write() as tx:
        tx.keys.revoke(KEY.id, NOW + timedelta(days=1))
    assert changed()
    with store.write() as tx:
        tx.providers.put(PROVIDER)
        tx.routing.add_target(OLD)
        tx.audit.append(at=NOW, actor=SYSTEM, action="b", subject="c", details={})
    assert not changed()


def test_a_key_is_found_by_its_hash_also_when_it_is_revoked(store: Store) -> None:
    with store.write() as tx:
        tx.keys.add(KEY)
        with pytest.raises(Conflict):
            tx.keys.add(replace(KEY, id="k_9"))
        with pytest.raises(NotFound, match="k_unknown"):
            tx.keys.revoke("k_unknown", NOW)
        tx.keys.revoke(KEY.id, LATER)
        tx.keys.revoke(KEY.id, LATER + timedelta(days=1))

    with store.read() as tx:
        assert tx.keys.by_hash(KEY.hash) == replace(KEY, revoked_at=LATER)
        assert tx.keys.by_hash("0" * 64) is None
    with store.listings() as stored:
        assert list(stored.keys()) == [replace(KEY, revoked_at=LATER)]
