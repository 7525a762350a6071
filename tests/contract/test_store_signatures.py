from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Final

import pytest
import sqlalchemy as sa

from harness.agents.records import AgentGrants
from harness.app.store.store import Store
from harness.app.store.tables import metadata
from harness.frame.errors import SignatureInvalid, SnapshotInvalid
from harness.frame.people.access import (
    LOCAL_PRINCIPAL,
    SYSTEM,
    ApiKey,
    DashboardSession,
    PersonLink,
    Principal,
    PrincipalKind,
    Role,
)
from harness.frame.people.records import (
    ApiKeys,
    DashboardSessions,
    PersonLinks,
    Principals,
)
from harness.frame.records.transaction import Transaction
from harness.frame.signing.ed25519 import (
    Ed25519Signatures,
    new_private_key,
    public_key,
)
from harness.frame.signing.keyring import KeyPurpose
from harness.providers.records import Credentials, Providers
from harness.routing.evidence import BreakGlass, Waiver
from harness.routing.records.evidence import Waivers
from harness.routing.records.interventions import (
    BreakGlasses,
    Shadows,
    Switches,
)
from harness.routing.records.proposals import Proposals, Rollouts
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns, Suites
from harness.routing.records.verdicts import Verdicts
from tests.contract.conftest import Opener, open_store
from tests.contract.test_store_routing import SWITCH
from tests.contract.test_store_shadows import SHADOW
from tests.support.site.signing_keys import KEYRING, WORKER
from tests.support.store.agent_records import GRANT, add_agent
from tests.support.store.records import (
    CREDENTIAL,
    KEY,
    LATER,
    NEW,
    NOW,
    OLD,
    PASSED,
    PIN,
    PROVIDER,
    ROUTE,
    RUN,
    SAMPLE,
    SPARE,
    proposal,
    rollout,
    seeded,
    start_canary,
)
from tests.support.store.tampering import insert, owned, row, written

pytestmark = [pytest.mark.req("F1"), pytest.mark.both_databases]
WAIVER = Waiver("w_1", ROUTE, SPARE.id, "known well", "ada", LATER)
BROKEN = BreakGlass(
    id="bg_1",
    route=ROUTE,
    incumbent=OLD.id,
    target=NEW.id,
    reason="an emergency",
    through_freeze=False,
    proposer="local",
    proposer_principal=LOCAL_PRINCIPAL.id,
    proposer_key=None,
    created_at=NOW,
    confirm_by=NOW + timedelta(hours=1),
    expires_at=NOW + timedelta(days=1),
)
SESSION = DashboardSession(
    "ds_1",
    LOCAL_PRINCIPAL.id,
    None,
    NOW,
    LOCAL_PRINCIPAL.id,
    link_hash="b" * 64,
    link_expires_at=LATER,
)

DORA = Principal(
    "pr_dora",
    PrincipalKind.PERSON,
    "dora",
    NOW,
    "https://login.example.com",
    "u-1",
)
LINK = PersonLink("pl_1", DORA.id, 1, DORA.id, "we met", NOW, LOCAL_PRINCIPAL.id)


def filled(store: Store) -> None:
    """A row in every signed table."""
    with store.write() as tx:
        Providers(tx).put(PROVIDER)
        Providers(tx).put(replace(PROVIDER, name="other"))
        Suites(tx).put(PIN, NOW)
        ApiKeys(tx).add(KEY)
    seeded(store)
    with store.write() as tx:
        EvalRuns(tx).add(RUN)
        EvalRuns(tx).store_sample(SAMPLE)
        Waivers(tx).add(WAIVER)
        Switches(tx).add(SWITCH)
        BreakGlasses(tx).add(BROKEN)
        Shadows(tx).add(SHADOW)
        Credentials(tx).put(CREDENTIAL)
        Rollouts(tx).add(rollout())
        add_agent(tx)
        AgentGrants(tx).add(GRANT)
        DashboardSessions(tx).add(SESSION)
        Principals(tx).add(DORA)
        PersonLinks(tx).add(LINK)


def url_of(store: Store) -> str:
    return store._url.render_as_string(hide_password=False)


def faults(store: Store) -> set[str]:
    return {fault.name for fault in store.signature_faults()}


EDITS: Final[list[tuple[str, Mapping[str, object], Mapping[str, object]]]] = [
    (
        "provider",
        {"name": "sim"},
        {"api_base": "http://elsewhere.example/v1"},
    ),
    ("api_key", {"id": "k_1"}, {"role": 4}),
    ("api_key", {"id": "k_1"}, {"routes": []}),
    ("switch", {"id": SWITCH.id}, {"expires_at": NOW}),
    ("shadow", {"id": "sh_1"}, {"share_bps": 10_000}),
    ("credential", {"name": "first"}, {"ciphertext": "another"}),
    ("agent_grant", {"id": "gr_1"}, {"data_class": ""}),
    (
        "agent_grant",
        {"id": "gr_1"},
        {"target": OLD.id, "target_name": OLD.name},
    ),
    (
        "agent_grant",
        {"id": "gr_1"},
        {"expires_at": LATER + timedelta(days=365)},
    ),
    ("route_version", {"version": 1}, {"settings": {"data_class": ""}}),
    ("target", {"id": OLD.id}, {"model": "cheaper-1"}),
]


@contextmanager
def changed(
    store: Store,
    table: str,
    act: Callable[[sa.Connection], object],
) -> Iterator[None]:
    """What `act` did to the table's rows, by their owner; at the end they are as before."""
    known = metadata.tables[table]
    with owned(store) as db:
        before = [dict(row) for row in db.execute(sa.select(known)).mappings()]
        act(db)
    yield
    with owned(store) as db:
        db.execute(sa.delete(known))
        db.execute(sa.insert(known), before)


def edit(
    table: str,
    change: Mapping[str, object],
    key: Mapping[str, object] = MappingProxyType({}),
) -> Callable[[sa.Connection], object]:
    known = metadata.tables[table]
    same = [known.c[name] == value for name, value in key.items()]
    return lambda db: db.execute(sa.update(known).where(*same).values(**change))


@pytest.mark.spine
def test_an_edited_row_of_a_snapshot_is_refused_and_named(sql_stores: Opener) -> None:
    store = sql_stores()
    filled(store)
    for table, key, change in EDITS:
        with changed(store, table, edit(table, change, key)):
            with pytest.raises(SnapshotInvalid, match=table):
                sql_stores().snapshot()
            assert any(fault.startswith(f"{table} ") for fault in faults(store)), change
    assert store.signature_faults() == []


def test_a_row_that_is_gone_is_missed(sql_stores: Opener) -> None:
    store = sql_stores()
    filled(store)
    for table in (
        "switch",
        "api_key",
        "credential",
        "shadow",
        "agent_grant",
    ):
        gone = sa.delete(metadata.tables[table])
        with changed(store, table, lambda db, gone=gone: db.execute(gone)):  # type: ignore[misc]
            with pytest.raises(SnapshotInvalid, match="manifest"):
                sql_stores().snapshot()
            assert faults(store) == {"manifest"}, table
            with (
                pytest.raises(SignatureInvalid, match="manifest"),
                store.write() as tx,
            ):
                Providers(tx).put(replace(PROVIDER, name="third"))


def test_a_version_that_is_gone_is_missed(sql_stores: Opener) -> None:
    store = sql_stores()
    filled(store)
    with store.write() as tx:
        start_canary(tx)
    with owned(store) as db:
        for table in ("route_fallback", "route_version"):
            versions = metadata.tables[table]
            db.execute(sa.delete(versions).where(versions.c.version == 2))
    with pytest.raises(SnapshotInvalid, match="manifest"):
        sql_stores().snapshot()


def test_a_role_with_dml_alone_brings_no_moment_back_at_which_a_revoked_key_was_valid(
    sql_stores: Opener,
) -> None:
    """Its row, the manifest and the counters of then, which fit one another."""
    store = sql_stores()
    filled(store)
    with store.read() as tx:
        db = tx.db
        key = row(db, "api_key", id="k_1")
        then = row(db, "manifest")
    with store.write() as tx:
        ApiKeys(tx).revoke("k_1", NOW)
    back: list[sa.Executable] = [
        sa.update(metadata.tables["api_key"]).values(
            revoked_at=None, signature=key["signature"]
        ),
        sa.update(metadata.tables["manifest"]).values(then),
        sa.update(metadata.tables["meta"]).values(changes=then["changes"]),
        sa.delete(metadata.tables["manifest"]),
        sa.delete(metadata.tables["meta"]),
        sa.insert(metadata.tables["manifest"]).values(then),
    ]
    for statement in back:
        with pytest.raises(sa.exc.IntegrityError), written(store) as db:
            db.execute(statement)
    assert sql_stores().snapshot().keys == ()
    assert store.signature_faults() == []


def test_a_manifest_of_a_workers_key_or_of_other_counters_does_not_fit(
    sql_stores: Opener,
) -> None:
    store = sql_stores()
    filled(store)
    with owned(store) as db:
        db.exec_driver_sql("UPDATE meta SET changes = changes - 1")
    with pytest.raises(SnapshotInvalid, match="manifest"):
        sql_stores().snapshot()
    with owned(store) as db:
        db.exec_driver_sql("UPDATE meta SET changes = changes + 1")
        db.exec_driver_sql("DELETE FROM manifest")
    with pytest.raises(SnapshotInvalid, match="manifest"):
        sql_stores().snapshot()


def read_verdict(tx: Transaction) -> object:
    return Verdicts(tx).get("v_1")


DECISIONS: list[tuple[str, dict[str, object], Callable[[Transaction], object]]] = [
    ("verdict", {"expires_at": LATER.replace(year=2040)}, read_verdict),
    (
        "sample",
        {"strict": 0.0},
        lambda tx: EvalRuns(tx).outcomes("r_1", below=9),
    ),
    (
        "sample",
        {"answer_sha256": "0" * 64},
        lambda tx: EvalRuns(tx).samples("r_1"),
    ),
    (
        "sample",
        {"strict": 0.0},
        lambda tx: EvalRuns(tx).samples_of("r_1", [SAMPLE.item]),
    ),
    (
        "eval_run",
        {"suite_digest": "0" * 64},
        lambda tx: EvalRuns(tx).get("r_1"),
    ),
    (
        "waiver",
        {"expires_at": LATER.replace(year=2040)},
        lambda tx: Waivers(tx).list(),
    ),
    (
        "proposal",
        {"self_approval": True},
        lambda tx: Proposals(tx).get("p_1"),
    ),
    ("proposal", {"approver": "somebody"}, lambda tx: Proposals(tx).list()),
    ("rollout", {"step": 3}, lambda tx: Rollouts(tx).get("ro_1")),
    ("suite", {"items": 3}, lambda tx: Suites(tx).get(PIN.digest)),
    (
        "evidence",
        {"created_at": LATER},
        lambda tx: Routing(tx).evidence(ROUTE),
    ),
    ("api_key", {"role": 4}, lambda tx: ApiKeys(tx).by_hash(KEY.hash)),
]


def test_nothing_is_decided_on_an_edited_row(sql_stores: Opener) -> None:
    store = sql_stores()
    filled(store)
    for table, change, decide in DECISIONS:
        with store.read() as tx:
            decide(tx)
        with changed(store, table, edit(table, change)):
            with (
                pytest.raises(SignatureInvalid, match=f"row {table} "),
                store.read() as tx,
            ):
                decide(tx)
            assert any(fault.startswith(f"{table} ") for fault in faults(store)), change


VIEWER = replace(
    KEY,
    id="k_viewer",
    hash="c" * 64,
    role=Role.VIEWER,
    principal=DORA.id,
)
SPENT = replace(VIEWER, id="k_revoked", hash="d" * 64)
KEYS = metadata.tables["api_key"]
MANIFEST = metadata.tables["manifest"]
Attack = Callable[[sa.Connection, dict[str, object]], object]


def change_key(**values: object) -> Attack:
    return lambda db, _: db.execute(
        sa.update(KEYS).where(KEYS.c.id == VIEWER.id).values(**values)
    )


def put_back(db: sa.Connection, former: dict[str, object]) -> None:
    db.execute(sa.delete(KEYS).where(KEYS.c.id == SPENT.id))
    insert(db, "api_key", former)


def add_copy(db: sa.Connection, former: dict[str, object]) -> None:
    """With a signature that holds for another row."""
    insert(db, "api_key", former | {"id": "k_forged", "hash": "e" * 64})


def exchange_hashes(db: sa.Connection, _: dict[str, object]) -> None:
    for id_, hash_ in (
        (VIEWER.id, "f" * 64),
        (KEY.id, VIEWER.hash),
        (VIEWER.id, KEY.hash),
    ):
        db.execute(sa.update(KEYS).where(KEYS.c.id == id_).values(hash=hash_))


def join_signatures(db: sa.Connection, _: dict[str, object]) -> None:
    """One row less, and what is hashed is the same text."""
    rows = db.execute(
        sa.select(KEYS.c.id, KEYS.c.signature).where(KEYS.c.revoked_at.is_(None))
    ).all()
    one, two = sorted(rows, key=lambda row: row.signature)
    db.execute(sa.delete(KEYS).where(KEYS.c.id == two.id))
    both = f"{one.signature}\n{two.signature}"
    db.execute(sa.update(KEYS).where(KEYS.c.id == one.id).values(signature=both))


ATTACKS: dict[str, tuple[str, Attack]] = {
    "a higher role": (VIEWER.hash, change_key(role=4)),
    "another's hash": (VIEWER.hash, exchange_hashes),
    "a row that nobody signed": (VIEWER.hash, change_key(signature=None)),
    "a row with another's signature": ("e" * 64, add_copy),
    "a revoked key, as it was signed before": (SPENT.hash, put_back),
    "another key, as it was signed before": (VIEWER.hash, put_back),
    "another key is gone": (
        VIEWER.hash,
        lambda db, _: db.execute(sa.delete(KEYS).where(KEYS.c.id == KEY.id)),
    ),
    "a revoked client key is gone": (
        VIEWER.hash,
        lambda db, _: db.execute(sa.delete(KEYS).where(KEYS.c.id == "k_old")),
    ),
    "two signatures in one row": (VIEWER.hash, join_signatures),
    "another digest": (
        VIEWER.hash,
        lambda db, _: db.execute(sa.update(MANIFEST).values(digest="0" * 64)),
    ),
    "no manifest": (
        VIEWER.hash,
        lambda db, _: db.execute(sa.delete(MANIFEST)),
    ),
    "another counter": (
        VIEWER.hash,
        lambda db, _: db.exec_driver_sql("UPDATE meta SET changes = changes - 1"),
    ),
}


@pytest.mark.parametrize("whose", ["own", "another's"])
def test_a_key_that_was_just_accepted_is_refused_once_somebody_has_changed_rows(
    sql_stores: Opener, whose: str
) -> None:
    """By the connection that accepted it, and by another one."""
    store = sql_stores()
    filled(store)
    with store.write() as tx:
        ApiKeys(tx).add(VIEWER)
        ApiKeys(tx).add(SPENT)
        ApiKeys(tx).add(replace(KEY, id="k_old", hash="9" * 64))
    with store.read() as tx:
        former = row(tx.db, "api_key", id=SPENT.id)
    with store.write() as tx:
        ApiKeys(tx).revoke(SPENT.id, NOW)
        ApiKeys(tx).revoke("k_old", NOW)
    other = store if whose == "own" else sql_stores()
    tables = [metadata.tables[name] for name in ("api_key", "manifest", "meta")]
    with owned(other) as db:
        before = {table: db.execute(sa.select(table)).mappings().all() for table in tables}
    for name, (hash_, attack) in ATTACKS.items():
        with store.read() as tx:
            assert ApiKeys(tx).by_hash(VIEWER.hash) == VIEWER
        with owned(other) as db:
            attack(db, former)
        with suppress(SignatureInvalid), store.read() as tx:
            assert ApiKeys(tx).by_hash(hash_) is None, name
        with owned(other) as db:
            for table, rows in before.items():
                db.execute(sa.delete(table))
                db.execute(sa.insert(table), [dict(row) for row in rows])


WORK: list[tuple[str, dict[str, object], Callable[[Transaction], object]]] = [
    ("rollout", {"step": 3}, lambda tx: Rollouts(tx).live()),
    ("proposal", {"approver": "somebody"}, lambda tx: Proposals(tx).open()),
    ("eval_run", {"suite_digest": "0" * 64}, lambda tx: EvalRuns(tx).list()),
]


def test_what_is_edited_is_no_work_of_control_and_stops_no_other(sql_stores: Opener) -> None:
    store = sql_stores()
    filled(store)
    for table, change, work in WORK:
        with changed(store, table, edit(table, change)):
            with store.read() as tx:
                assert work(tx) == []
            [fault] = store.signature_faults(working=True)
            assert fault.table == table


def test_a_workers_key_signs_samples_and_no_verdict(sql_stores: Opener) -> None:
    store = sql_stores()
    filled(store)
    worker = open_store(url_of(store), WORKER)
    try:
        with worker.write() as tx:
            EvalRuns(tx).store_sample(replace(SAMPLE, item="i2", position=1))
            Verdicts(tx).store(replace(PASSED, id="v_worker"), "p_1")
    finally:
        worker.close()
    with store.read() as tx:
        assert len(EvalRuns(tx).samples("r_1")) == 2
    with (
        pytest.raises(SignatureInvalid, match="worker key"),
        store.read() as tx,
    ):
        Verdicts(tx).get("v_worker")


def test_another_installations_rows_are_no_rows_of_ours(sql_stores: Opener) -> None:
    store = sql_stores()
    filled(store)
    with owned(store) as db:
        db.exec_driver_sql("UPDATE meta SET installation = 'another'")
    with pytest.raises(SnapshotInvalid):
        sql_stores().snapshot()


def test_a_replaced_key_verifies_and_a_retired_one_does_not(sql_stores: Opener) -> None:
    store = sql_stores()
    filled(store)
    private = new_private_key()
    new = public_key(private, KeyPurpose.CONTROL)
    both = {**KEYRING, new.id: new}
    rotated = open_store(url_of(store), Ed25519Signatures(lambda: both, lambda: private))
    try:
        with rotated.write() as tx:
            ApiKeys(tx).add(replace(KEY, id="k_2", hash="b" * 64))
        assert rotated.signature_faults() == []
    finally:
        rotated.close()
    alone = open_store(url_of(store), Ed25519Signatures(lambda: {new.id: new}))
    with pytest.raises(SnapshotInvalid, match="keyring lacks"):
        alone.snapshot()
    alone.close()


def test_an_admin_takes_forged_rows_out_and_all_goes_on(sql_stores: Opener) -> None:
    store = sql_stores()
    filled(store)
    with written(store) as db:
        insert(
            db,
            "api_key",
            {
                **row(db, "api_key", id="k_1"),
                "id": "k_x",
                "hash": "x" * 64,
            },
        )
    found = store.signature_faults()
    assert {signature_fault.name for signature_fault in found} == {
        "api_key k_x",
        "manifest",
    }

    assert store.remove_forged(found, actor=SYSTEM, reason="nobody knows it") == 1
    assert store.signature_faults() == []
    assert [key.id for key in sql_stores().snapshot().keys] == [KEY.id]
    with store.write() as tx:
        ApiKeys(tx).add(ApiKey("k_2", "ours", "b" * 64, "wxyz", None, frozenset(), NOW))
        Proposals(tx).save(replace(proposal(), reason="cheaper"))


def test_rows_that_nobody_signs_keep_no_forged_row_in_its_place(sql_stores: Opener) -> None:
    store = sql_stores()
    filled(store)
    with written(store) as db:
        insert(
            db,
            "provider",
            {**row(db, "provider", name="sim"), "name": "evil"},
        )
        check = {
            "provider": "evil",
            "kind": "plain",
            "ok": True,
            "findings": [],
            "at": NOW,
        }
        insert(db, "provider_check", check)
    found = store.signature_faults()

    assert store.remove_forged(found, actor=SYSTEM, reason="nobody knows it") == 1
    assert store.signature_faults() == []
