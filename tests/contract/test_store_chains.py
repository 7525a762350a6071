"""Who may come into a route's chain, and with which evidence: the same in all stores."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

import pytest

from harness.domain.errors import InputError, NotFound, ProofRefused
from harness.domain.routing.evidence import (
    ChainProof,
    FormerTarget,
    RouteEvidence,
    Waiver,
    baseline_evidence,
    verdict_evidence,
)
from harness.domain.routing.route_changes import SetChain
from harness.store.store import Store
from harness.store.transaction import Transaction
from tests.support.store.records import (
    LATER,
    NEW,
    NOW,
    OLD,
    PASSED,
    ROUTE,
    SPARE,
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
