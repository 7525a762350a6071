from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from harness.app.store.store import Store
from harness.frame.errors import (
    IllegalTransition,
    InputError,
    NotFound,
    ProofRefused,
    RevisionConflict,
)
from harness.frame.people.access import SYSTEM
from harness.frame.people.records import ApiKeys
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.providers.force import (
    Force,
    ForceKind,
    KillSwitch,
    SwitchSource,
)
from harness.providers.records import Credentials, Providers, Targets
from harness.routing.evidence import FormerTarget
from harness.routing.records.interventions import Shadows, Switches
from harness.routing.records.routes import Routing
from harness.routing.route_changes import (
    AbortCanary,
    ChangeSettings,
    RestoreIncumbent,
    SetChain,
    TableChange,
)
from tests.contract.test_store_shadows import SHADOW
from tests.support.store.records import (
    CREDENTIAL,
    KEY,
    LATER,
    NEW,
    NOW,
    OLD,
    PASSED,
    PROVIDER,
    ROUTE,
    SETTINGS,
    SPARE,
    create_route,
    seeded,
)

pytestmark = pytest.mark.both_databases

SWITCH = KillSwitch(
    id="sw_1",
    route=None,
    force=Force(ForceKind.PROVIDER, "spare"),
    reason="the other one is down",
    actor="ada",
    created_at=NOW,
    expires_at=LATER,
    source=SwitchSource.CLI,
)
ON_ROUTE = replace(
    SWITCH,
    id="sw_2",
    route="triage",
    force=Force(ForceKind.AVOID_TARGET, "sim/old-1"),
    created_at=NOW + timedelta(seconds=1),
    expires_at=None,
    source=SwitchSource.REST,
)


def commit(
    tx: Transaction,
    change: TableChange,
    version: int,
) -> int:
    return Routing(tx).commit(
        change,
        expected_version=version,
        actor="bob",
        reason="why not",
        now=NOW,
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


@pytest.mark.req("A7")
def test_a_chain_that_makes_no_sense_or_has_no_proof_is_refused(store: Store) -> None:
    def chain(*targets: str, capable: tuple[str, ...] = ()) -> SetChain:
        return SetChain(ROUTE, targets, capable)

    seeded(store)
    with store.write() as tx:
        for twice in ((OLD.id,), (SPARE.id, SPARE.id)):
            with pytest.raises(InputError, match="twice"):
                commit(tx, chain(*twice), 1)
        with pytest.raises(InputError, match="only fallbacks can be capable"):
            commit(tx, chain(SPARE.id, capable=(OLD.id,)), 1)
        with pytest.raises(ProofRefused, match="t_unknown"):
            commit(tx, chain("t_unknown"), 1)
        for proof, why in (
            (replace(PASSED, candidate=SPARE.id), "another target or route"),
            (replace(PASSED, incumbent=SPARE.id), "has incumbent"),
            (replace(PASSED, route="other"), "another target or route"),
            (replace(PASSED, id="v_unknown"), "proof_missing"),
            (FormerTarget(NEW.id), "never served"),
            (FormerTarget(SPARE.id), "another target or route"),
        ):
            with pytest.raises(ProofRefused, match=why):
                commit(tx, SetChain(ROUTE, (NEW.id,), proofs={NEW.id: proof}), 1)
        # The refusals cost the unit of work nothing else.
        commit(tx, chain(), 1)


def put_credential(ciphertext: str) -> Callable[[Transaction], object]:
    return lambda tx: Credentials(tx).put(replace(CREDENTIAL, ciphertext=ciphertext))


AGAIN = replace(PROVIDER, extra_body={})
SERVED: list[Callable[[Transaction], object]] = [
    create_route,
    lambda tx: Providers(tx).put(PROVIDER),
    lambda tx: ApiKeys(tx).add(KEY),
    *map(put_credential, ("c1", "c2", "")),
    lambda tx: Switches(tx).add(SWITCH),
    lambda tx: Switches(tx).lift(SWITCH.id, actor="ben", now=NOW),
    lambda tx: Shadows(tx).add(SHADOW),
    lambda tx: Shadows(tx).end(
        SHADOW.id,
        actor="kim",
        because="seen",
        now=NOW,
    ),
    lambda tx: ApiKeys(tx).revoke(KEY.id, NOW + timedelta(days=1)),
    lambda tx: Providers(tx).remove("sim"),
    lambda tx: Providers(tx).put(AGAIN),
]


@pytest.mark.req("B11", "D3", "D4")
def test_the_etag_changes_with_all_that_is_served_and_with_nothing_else(store: Store) -> None:
    seen = [store.etag()]
    for change in SERVED:
        with store.write() as tx:
            change(tx)
        seen.append(store.etag())
        assert store.snapshot().etag == seen[-1]
    assert len({*seen}) == len(SERVED) + 1
    assert store.snapshot().providers == {"sim": AGAIN}
    with store.write() as tx:
        Providers(tx).put(AGAIN)
        Targets(tx).add(OLD)
        AuditLog(tx).append(SYSTEM, "b", "c", {})
        with pytest.raises(NotFound):
            Providers(tx).remove("unknown")
    assert store.etag() == seen[-1]


def test_a_key_is_found_by_its_hash_also_when_it_is_revoked(store: Store) -> None:
    with store.write() as tx:
        ApiKeys(tx).add(KEY)
    with pytest.raises(InputError, match="hash"), store.write() as tx:
        ApiKeys(tx).add(replace(KEY, id="k_9"))
    with store.write() as tx:
        with pytest.raises(NotFound, match="k_unknown"):
            ApiKeys(tx).revoke("k_unknown", NOW)
        ApiKeys(tx).revoke(KEY.id, LATER)
        ApiKeys(tx).revoke(KEY.id, LATER + timedelta(days=1))

    with store.read() as tx:
        assert ApiKeys(tx).by_hash(KEY.hash) == replace(KEY, revoked_at=LATER)
        assert ApiKeys(tx).by_hash("0" * 64) is None
    with store.listings() as stored:
        assert list(stored.keys()) == [replace(KEY, revoked_at=LATER)]
