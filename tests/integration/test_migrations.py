"""The schema's history on both databases: up, down, and equal to the tables."""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from harness.domain.errors import StoreUnavailable
from harness.store import engine, migrate
from harness.store.schema import metadata
from tests.contract.conftest import open_store
from tests.support.store.raw_rows import PROPOSAL
from tests.support.store.records import SAMPLE, proposal, seeded, start_canary

pytestmark = pytest.mark.both_databases

NEWEST = "0043"


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    made = engine.make(engine.parse(url), create=True)
    made = made.execution_options(**{engine.BEGIN: "IMMEDIATE"})
    try:
        with made.begin() as db:
            yield db
    finally:
        made.dispose()


def names(url: str) -> set[str]:
    with connected(url) as db:
        return set(sa.inspect(db).get_table_names())


def test_an_upgrade_leads_to_the_tables_and_a_downgrade_back(empty_database_url: str) -> None:
    url = empty_database_url
    assert migrate.current(url) is None

    migrate.upgrade(url)
    assert migrate.current(url) == migrate.head()
    assert migrate.check(url) == []
    assert names(url) == {*metadata.tables, "alembic_version"}

    migrate.downgrade(url, "base")
    assert migrate.current(url) is None
    assert names(url) == {"alembic_version"}

    migrate.upgrade(url)
    assert migrate.check(url) == []


def test_each_migration_can_be_undone_and_done_again(empty_database_url: str) -> None:
    url = empty_database_url
    for revision in migrate.revisions():
        migrate.upgrade(url, revision)
        migrate.downgrade(url, "-1")
        migrate.upgrade(url, revision)
        assert migrate.current(url) == revision
    assert migrate.head() == NEWEST


def test_a_database_in_use_can_be_downgraded(database_url: str) -> None:
    store = open_store(database_url)
    seeded(store)
    with store.write() as tx:
        start_canary(tx)
    store.close()

    migrate.downgrade(database_url, "base")

    assert names(database_url) == {"alembic_version"}


def test_upgrading_twice_changes_nothing(database_url: str) -> None:
    store = open_store(database_url)
    seeded(store)
    before = store.etag()

    migrate.upgrade(database_url)

    assert store.etag() == before
    store.close()


def test_several_may_upgrade_at_once(empty_database_url: str) -> None:
    start = threading.Barrier(3)

    def upgrade() -> None:
        start.wait()
        migrate.upgrade(empty_database_url)

    with ThreadPoolExecutor(3) as pool:
        for each in [pool.submit(upgrade) for _ in range(3)]:
            each.result()

    assert migrate.check(empty_database_url) == []


@pytest.mark.parametrize("name", ["sqlite", "postgres"])
def test_the_migrated_checks_are_the_tables_own(
    request: pytest.FixtureRequest, name: str
) -> None:
    """alembic compares no CHECKs: a fresh database from the tables shows them as they are."""
    migrated = request.getfixturevalue(f"{name}_url")
    fresh = request.getfixturevalue(f"empty_{name}_url")
    with connected(fresh) as db:
        metadata.create_all(db)

    assert checks(migrated) == checks(fresh) != {}


def checks(url: str) -> Mapping[tuple[str, str], str]:
    with connected(url) as db:
        inspector = sa.inspect(db)
        return {
            (table, str(check["name"])): " ".join(check["sqltext"].split())
            for table in metadata.tables
            for check in inspector.get_check_constraints(table)
        }


def test_the_check_names_what_differs(database_url: str) -> None:
    with connected(database_url) as db:
        db.execute(sa.text("ALTER TABLE provider ADD COLUMN surplus TEXT"))

    (difference,) = migrate.check(database_url)
    assert "surplus" in difference


def test_an_interrupted_upgrade_leaves_the_database_as_it_was(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate.upgrade(empty_database_url, "0002")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sa.Connection, "commit", interrupted)
        patch.setattr(sa.engine.base.RootTransaction, "commit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            migrate.upgrade(empty_database_url)

    assert migrate.current(empty_database_url) == "0002"


def test_the_folder_of_a_new_sqlite_file_is_created(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a folder' / 'with 100 %' / 'swapgate.db'}"
    migrate.upgrade(url)

    assert migrate.check(url) == []


def test_a_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreUnavailable, match="file"):
        migrate.upgrade(f"sqlite:///{tmp_path / 'file' / 'swapgate.db'}")


def test_a_store_without_tables_says_what_to_do(empty_database_url: str) -> None:
    store = open_store(empty_database_url)
    with pytest.raises(StoreUnavailable, match="swapgate db upgrade"), store.write() as tx:
        tx.proposals.add(proposal())
    with pytest.raises(StoreUnavailable, match="swapgate db upgrade"):
        store.snapshot()
    store.close()


def test_a_database_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    for url in (
        f"sqlite:///{tmp_path / 'no folder' / 'swapgate.db'}",
        f"postgresql://nobody@/nothing?host={tmp_path}",
    ):
        store = open_store(url)
        with pytest.raises(StoreUnavailable), store.write() as tx:
            tx.runs.store_sample(SAMPLE)
        with pytest.raises(StoreUnavailable):
            store.etag()
        assert not store.wait_for_change(0.05)
        store.close()


def test_alerts_keep_their_deliveries_when_kinds_of_alerts_are_added(
    empty_database_url: str,
) -> None:
    url = empty_database_url
    migrate.upgrade(url, "0015")
    with connected(url) as db:
        db.execute(
            sa.text(
                "INSERT INTO alert VALUES ('al_1', 'test', 's', 'k', 't', 'x', 1, 2, 1, '{}',"
                " NULL, NULL, NULL, 0, 0)"
            )
        )
        db.execute(
            sa.text(
                "INSERT INTO delivery VALUES ('al_1', 1, 'chat', 'raised', 't', 'x', 1, 2, 0,"
                " NULL, NULL, '')"
            )
        )

    for step, revision in (
        ("upgrade", "0016"),
        ("downgrade", "0015"),
        ("upgrade", "0019"),
        ("downgrade", "0018"),
        ("upgrade", "0019"),
    ):
        getattr(migrate, step)(url, revision)
        with connected(url) as db:
            assert db.scalar(sa.text("SELECT count(*) FROM delivery")) == 1
            assert db.scalar(sa.text("SELECT count(*) FROM alert")) == 1


@pytest.mark.req("F5")
def test_keys_from_before_get_principals_and_names_that_are_one_get_one(
    empty_database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    url = empty_database_url
    migrate.upgrade(url, "0033")
    names_of = {"k1": "Ops", "k2": "ｏｐｓ ", "k3": "op\u200bs", "k4": "local", "k5": "web"}
    key = (
        "INSERT INTO api_key (id, name, hash, hint, role, routes, created_at)"
        " VALUES (:id, :name, :id, 'h', :role, '[]', :at)"
    )
    target = (
        "INSERT INTO target (id, provider, model, parameters, request_patch)"
        " VALUES (:id, 'sim', :id, '{}', '{}')"
    )
    with connected(url) as db:
        for at, (id_, name) in enumerate(names_of.items()):
            role = None if id_ == "k5" else 3
            db.execute(sa.text(key), {"id": id_, "name": name, "role": role, "at": at})
        for each in ("t_old", "t_new"):
            db.execute(sa.text(target), {"id": each})
        for id_, proposer in (("p_1", "OPS"), ("p_2", "ann")):
            row = PROPOSAL | {"id": id_, "route": id_, "proposer": proposer}
            insert = sa.text(
                f"INSERT INTO proposal ({', '.join(row)})"  # noqa: S608 - our own columns
                f" VALUES ({', '.join(f':{column}' for column in row)})"
            )
            db.execute(insert, row)

    migrate.upgrade(url)

    with connected(url) as db:
        found = db.execute(sa.text("SELECT id, principal FROM api_key")).all()
        owners = {row.id: row.principal for row in found}
        listed = db.execute(sa.text("SELECT id, kind, name, folded FROM principal")).all()
        by_id = {row.id: (row.kind, row.name, row.folded) for row in listed}
        proposals = sa.text("SELECT id, proposer_principal FROM proposal")
        proposers = {row.id: row.proposer_principal for row in db.execute(proposals)}
    assert owners["k1"] == owners["k2"] == owners["k3"]
    assert owners["k5"] is None
    assert by_id[owners["k1"]] == ("person", "Ops", "ops")
    assert by_id[owners["k4"]][1:] == ("local (key)", "local (key)")
    assert by_id["local"] == ("local", "local", "local")
    assert proposers == {"p_1": owners["k1"], "p_2": "local"}
    said = capfd.readouterr().err
    assert "the management key k2" in said
    assert "the management key k3" in said
    assert "k4" not in said
    assert migrate.check(url) == []
