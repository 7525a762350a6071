"""The routing table of every store, through the port."""

from dataclasses import replace
from datetime import timedelta

import pytest

from harness.domain.errors import (
    Conflict,
    IllegalTransition,
    InputError,
    NotFound,
    ProofRefused,
    RevisionConflict,
)
from harness.domain.evals.verdict import Passed
from harness.domain.operations.access import SYSTEM, Role
from harness.domain.reliability.rate_limits import KeyLimits
from harness.domain.routing.evidence import Waiver
from harness.domain.routing.overrides import RequestKind
from harness.domain.routing.route_changes import (
    AbortCanary,
    ChangeSettings,
    CreateRoute,
    RaiseWeight,
    RestoreIncumbent,
    TableChange,
)
from harness.domain.routing.table import Canary, Route
from harness.domain.routing.target import Provider
from harness.ports import Store, Transaction
from tests.support.store.records import (
    KEY,
    LATER,
    NEW,
    NOW,
    OLD,
    PASSED,
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


def promoted(store: Store) -> None:
    seeded(store)
    with store.write() as tx:
        start_canary(tx)
        promote(tx)


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


def test_reads_in_a_unit_of_work_see_its_own_writes(store: Store) -> None:
    with store.write() as tx:
        create_route(tx)
        start_of = tx.routing.route(ROUTE)

        assert start_of is not None
        assert start_of.version == 1
        assert tx.routing.table().revision == 1


def test_a_target_added_twice_is_stored_once(store: Store) -> None:
    with store.write() as tx:
        assert tx.routing.add_target(OLD) == tx.routing.add_target(OLD) == OLD.id
        assert tx.routing.targets() == {OLD.id: OLD}
        assert tx.routing.target(OLD.id) == OLD
        assert tx.routing.target(NEW.id) is None


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


def test_an_abort_needs_no_proof_and_leaves_the_incumbent(store: Store) -> None:
    seeded(store)
    with store.write() as tx:
        start_canary(tx)
        commit(tx, AbortCanary(ROUTE, "ro_1"), 2)

    with store.read() as tx:
        assert tx.routing.route(ROUTE) == Route(ROUTE, 3, OLD.id, None, (SPARE.id,), SETTINGS)


def test_a_former_incumbent_can_be_restored(store: Store) -> None:
    promoted(store)
    with store.write() as tx:
        commit(tx, RestoreIncumbent(ROUTE, OLD.id), 3)
        commit(tx, RestoreIncumbent(ROUTE, NEW.id), 4)
        route = tx.routing.route(ROUTE)

    assert route is not None
    assert (route.version, route.incumbent) == (5, NEW.id)


@pytest.mark.req("A7")
def test_a_target_that_never_was_the_incumbent_cannot_be_restored(store: Store) -> None:
    promoted(store)
    with store.write() as tx, pytest.raises(ProofRefused, match="never the incumbent"):
        commit(tx, RestoreIncumbent(ROUTE, SPARE.id), 3)


@pytest.mark.req("F1")
@pytest.mark.parametrize(
    "proof",
    [
        replace(PASSED, id="v_unknown"),
        replace(PASSED, candidate=SPARE.id),
    ],
)
def test_a_canary_with_a_verdict_that_is_not_stored_is_refused(
    store: Store, proof: Passed
) -> None:
    seeded(store)
    with store.write() as tx:
        with pytest.raises(ProofRefused):
            start_canary(tx, proof)
        # The refusal costs the unit of work nothing else.
        assert start_canary(tx) == 2


def test_a_proof_for_another_route_is_refused(store: Store) -> None:
    seeded(store)
    with store.write() as tx:
        create_route(tx, "other")
        with pytest.raises(ProofRefused):
            start_canary(tx, replace(PASSED, route="other"))


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


def test_a_route_of_an_unknown_target_is_refused(store: Store) -> None:
    with store.write() as tx, pytest.raises(NotFound, match="t_unknown"):
        commit(tx, CreateRoute("new", "t_unknown"), 0)


def test_a_route_that_names_a_target_twice_is_refused(store: Store) -> None:
    with store.write() as tx:
        tx.routing.add_target(OLD)
        with pytest.raises(InputError, match="twice"):
            commit(tx, CreateRoute("new", OLD.id, (OLD.id,)), 0)


def test_revisions_rise_by_one_over_all_routes(store: Store) -> None:
    with store.write() as tx:
        assert [create_route(tx, name) for name in ("a", "b", "c")] == [1, 2, 3]
        assert commit(tx, ChangeSettings("a", SETTINGS), 1) == 4
        assert tx.routing.table().revision == 4
        assert list(tx.routing.table().routes) == ["a", "b", "c"]


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


@pytest.mark.req("A7")
def test_a_waiver_needs_reason_and_author(store: Store) -> None:
    waiver = Waiver("w_1", ROUTE, SPARE.id, "no time to measure it", "ada", LATER)
    with store.write() as tx:
        create_route(tx)
        for bad in (replace(waiver, reason=" "), replace(waiver, author="")):
            with pytest.raises(InputError, match="reason and an author"):
                tx.waivers.add(bad)
        tx.waivers.add(waiver)

    with store.read() as tx:
        assert list(tx.waivers.list()) == list(tx.waivers.list(route=ROUTE)) == [waiver]
        assert list(tx.waivers.list(route="other")) == []


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


def test_a_keys_limits_are_kept_changed_and_served(store: Store) -> None:
    limits = KeyLimits(requests_per_min=60, budget_month_usd=20.5, warn_share=0.5)
    with store.write() as tx:
        create_route(tx)
        tx.keys.add(replace(KEY, limits=limits))
        with pytest.raises(NotFound, match="k_unknown"):
            tx.keys.limit("k_unknown", limits)
    assert [grant.limits for grant in store.snapshot().keys] == [limits]

    before = store.etag()
    with store.write() as tx:
        assert tx.keys.limit(KEY.id, KeyLimits(tokens_per_min=5)).limits == KeyLimits(None, 5)
    assert store.etag() != before
    with store.write() as tx:
        tx.keys.limit(KEY.id, KeyLimits())

    assert [grant.limits for grant in store.snapshot().keys] == [None]
    with store.listings() as stored:
        [key] = stored.keys()
    assert key.limits == KeyLimits()


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
