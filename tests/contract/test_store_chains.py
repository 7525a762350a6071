"""Who may come into a route's chain, and with which evidence: the same in all stores."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from harness.domain.errors import InputError, NotFound, ProofRefused
from harness.domain.routing.evidence import (
    ChainProof,
    FormerTarget,
    RouteEvidence,
    Waiver,
    baseline_evidence,
    verdict_evidence,
    waiver_evidence,
)
from harness.domain.routing.route_changes import AbortCanary, ChangeSettings, SetChain
from harness.ports import Store, Transaction
from tests.support.store.records import (
    LATER,
    NEW,
    NOW,
    OLD,
    PASSED,
    ROUTE,
    SETTINGS,
    SPARE,
    create_route,
    promote,
    seeded,
    start_canary,
)

pytestmark = pytest.mark.req("A7", "F1")
WAIVER = Waiver("w_1", ROUTE, NEW.id, "no time to measure it", "ada", LATER)
NOTHING: Mapping[str, ChainProof] = {}


def commit(tx: Transaction, change: object, version: int, now: datetime = NOW) -> int:
    return tx.routing.commit(
        change,  # type: ignore[arg-type]  # any Change
        expected_version=version,
        actor="ada",
        reason="why not",
        now=now,
    )


def chain(
    *targets: str, proofs: Mapping[str, ChainProof] = NOTHING, capable: tuple[str, ...] = ()
) -> SetChain:
    return SetChain(ROUTE, targets, capable, proofs)


def evidence(store: Store) -> RouteEvidence:
    with store.read() as tx:
        found = tx.routing.evidence(ROUTE)
    assert found is not None
    return found


def test_a_new_routes_targets_are_its_baseline(store: Store) -> None:
    with store.write() as tx:
        create_route(tx)
        assert tx.routing.evidence("nowhere") is None

    assert evidence(store) == RouteEvidence(
        baseline_evidence(ROUTE, OLD.id), None, (baseline_evidence(ROUTE, SPARE.id),)
    )


def test_a_verdict_opens_the_chain_and_stays_with_its_target(store: Store) -> None:
    seeded(store)
    with store.write() as tx:
        first = chain(NEW.id, SPARE.id, proofs={NEW.id: PASSED}, capable=(NEW.id,))
        assert commit(tx, first, 1) == 2
        route = tx.routing.route(ROUTE)
        commit(tx, chain(SPARE.id, NEW.id), 2)

    assert route is not None
    assert route.fallbacks == (NEW.id, SPARE.id)
    assert route.settings == replace(SETTINGS, capable=(NEW.id,))
    assert evidence(store).fallbacks == (
        baseline_evidence(ROUTE, SPARE.id),
        verdict_evidence(PASSED),
    )


def test_a_waiver_opens_the_chain_and_stays_while_others_change(store: Store) -> None:
    seeded(store)
    with store.write() as tx:
        tx.waivers.add(WAIVER)
        commit(tx, chain(NEW.id, proofs={NEW.id: WAIVER}), 1)

    assert evidence(store).fallbacks == (waiver_evidence(WAIVER),)


UNPROVEN: Mapping[str, Mapping[str, ChainProof]] = {
    "nothing": {},
    "a verdict that is not stored": {NEW.id: replace(PASSED, id="v_unknown")},
    "a verdict for another target": {NEW.id: replace(PASSED, candidate=SPARE.id)},
    "a verdict against another incumbent": {NEW.id: replace(PASSED, incumbent=SPARE.id)},
    "a verdict for another route": {NEW.id: replace(PASSED, route="other")},
    "a waiver that is not stored": {NEW.id: WAIVER},
    "a waiver for another target": {NEW.id: replace(WAIVER, target=SPARE.id)},
    "a past that it does not have": {NEW.id: FormerTarget(NEW.id)},
    "another target's past": {NEW.id: FormerTarget(SPARE.id)},
}


@pytest.mark.parametrize("proofs", UNPROVEN.values(), ids=UNPROVEN)
def test_a_target_comes_into_the_chain_by_no_other_proof(
    store: Store, proofs: Mapping[str, ChainProof]
) -> None:
    seeded(store)
    with store.write() as tx:
        with pytest.raises(ProofRefused):
            commit(tx, chain(SPARE.id, NEW.id, proofs=proofs), 1)
        # The refusal costs the unit of work nothing else.
        commit(tx, chain(), 1)

    assert evidence(store).fallbacks == ()


def test_a_target_that_left_the_chain_may_come_back(store: Store) -> None:
    seeded(store)
    with store.write() as tx:
        commit(tx, chain(), 1)
        commit(tx, chain(SPARE.id, proofs={SPARE.id: FormerTarget(SPARE.id)}), 2)

    assert evidence(store).fallbacks == (baseline_evidence(ROUTE, SPARE.id),)


def test_a_former_incumbent_may_stand_in_the_chain(store: Store) -> None:
    seeded(store)
    with store.write() as tx:
        start_canary(tx)
        promote(tx)
        commit(tx, chain(OLD.id, SPARE.id, proofs={OLD.id: FormerTarget(OLD.id)}), 3)

    assert evidence(store) == RouteEvidence(
        verdict_evidence(PASSED),
        None,
        (baseline_evidence(ROUTE, OLD.id), baseline_evidence(ROUTE, SPARE.id)),
    )


def test_an_expired_waiver_opens_no_chain(store: Store) -> None:
    seeded(store)
    with store.write() as tx:
        tx.waivers.add(WAIVER)
        with pytest.raises(ProofRefused, match=r"waiver of ada .* expired"):
            commit(tx, chain(NEW.id, proofs={NEW.id: WAIVER}), 1, now=LATER)


def test_an_expired_waiver_stays_through_a_rollout_and_through_no_persons_change(
    store: Store,
) -> None:
    after = LATER + timedelta(seconds=1)
    waiver = replace(WAIVER, target=SPARE.id)
    renewed = replace(waiver, id="w_2", expires_at=after + timedelta(days=1))
    seeded(store)
    with store.write() as tx:
        tx.waivers.add(waiver)
        commit(tx, chain(SPARE.id, proofs={SPARE.id: waiver}), 1)
        start_canary(tx, version=2)
        commit(tx, AbortCanary(ROUTE, "ro_1"), 3, now=after)
        for refused in (chain(SPARE.id), ChangeSettings(ROUTE, SETTINGS)):
            with pytest.raises(ProofRefused, match="expired"):
                commit(tx, refused, 4, now=after)
        assert tx.routing.evidence(ROUTE) == RouteEvidence(
            baseline_evidence(ROUTE, OLD.id), None, (waiver_evidence(waiver),)
        )

        tx.waivers.add(renewed)
        commit(tx, chain(SPARE.id, proofs={SPARE.id: renewed}), 4, now=after)
        commit(tx, chain(), 5, now=after)

    assert evidence(store).fallbacks == ()


def test_a_chain_that_makes_no_sense_is_refused(store: Store) -> None:
    seeded(store)
    with store.write() as tx:
        for twice in ((OLD.id,), (SPARE.id, SPARE.id)):
            with pytest.raises(InputError, match="twice"):
                commit(tx, chain(*twice), 1)
        with pytest.raises(InputError, match="only fallbacks are marked capable"):
            commit(tx, chain(SPARE.id, capable=(OLD.id,)), 1)
        with pytest.raises(NotFound, match="t_unknown"):
            commit(tx, chain("t_unknown"), 1)
