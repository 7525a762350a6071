"""What a version may do on a database of the version before or after it, and how a migration
behaves beside others: leaders, long readers, limits, kill -9, a disk that cannot be written.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from harness.domain.errors import Conflict, DatabaseUnusable, NotFound, StoreUnavailable
from harness.domain.operations.alert_record import Notified, mark_notified
from harness.domain.operations.delivery import new_delivery
from harness.store import migrate, schema_revisions
from harness.store.schema.operations import alert, delivery
from harness.store.sql import SqlStore
from harness.store.store import CHECK_SCHEMA_EVERY_S
from tests.contract.conftest import SECRET, open_store
from tests.contract.test_store_alerts import OPENED
from tests.integration.test_migrations import connected
from tests.support.control.manual_clock import ManualClock
from tests.support.router.router_process import eventually
from tests.support.site.command_line import CommandLine, installed
from tests.support.site.signing_keys import CONTROL
from tests.support.store.next_version import make_next_version
from tests.support.store.records import NOW, SAMPLE, seeded

pytestmark = [pytest.mark.both_databases, pytest.mark.req("G6")]

BEFORE = migrate.revisions()[-2]
LATER = "9999"


def set_schema(url: str, revision: str, oldest: str) -> None:
    with connected(url) as db:
        update = "UPDATE alembic_version SET version_num = :now, compatible_from = :oldest"
        db.execute(sa.text(update), {"now": revision, "oldest": oldest})


def test_a_migration_says_whose_code_may_go_on_beside_it() -> None:
    """One without `compatible_from` says nothing of it, and is not shipped."""
    texts = schema_revisions._texts()
    declared = sorted(revision for revision in texts if revision > "0016")
    for revision in declared:
        assert "\ncompatible_from = " in texts[revision], f"{revision} does not say it"
    oldest = [schema_revisions.compatible_from(revision) for revision in sorted(texts)]
    # Code that one step leaves behind cannot come back with the next.
    assert oldest == sorted(oldest)
    pairs = zip(oldest, sorted(texts), strict=True)
    assert all(first <= revision for first, revision in pairs)


def test_a_version_goes_on_with_a_newer_schema_as_long_as_that_lets_it(
    database_url: str,
) -> None:
    clock = ManualClock()
    url = database_url
    with closing(SqlStore(url, secret=SECRET, clock=clock, signatures=CONTROL)) as store:
        seeded(store)
        set_schema(url, LATER, oldest=schema_revisions.needed())
        clock.advance(CHECK_SCHEMA_EVERY_S)
        assert store.snapshot().table.routes
        migrate.upgrade(url)  # as control does at its start
        assert migrate.current(url) == LATER
        assert migrate.state(url).is_served

        set_schema(url, "99990", oldest=LATER)
        clock.advance(CHECK_SCHEMA_EVERY_S)
        for use in (store.snapshot, store.etag):
            with pytest.raises(DatabaseUnusable, match="newer version"):
                use()
        with pytest.raises(DatabaseUnusable), store.write() as tx:
            tx.runs.store_sample(SAMPLE)


def add_alert_of_the_next_version(url: str, record: str) -> None:
    """Beside a stored one, and to be sent as that is; by that version's triggers."""
    of_table = " ON alert" if url.startswith("postgresql") else ""
    with connected(url) as db:
        for event in ("insert", "update"):
            db.execute(sa.text(f"DROP TRIGGER alert_readable_{event}{of_table}"))
        for table, named in ((alert, alert.c.id), (delivery, delivery.c.alert)):
            row = db.execute(sa.select(table).where(named == record)).one()
            values = {**row._mapping, named.name: "al_next"}
            if table is alert:
                values |= {"kind": "kind_of_the_next", "key": "kind_of_the_next:x"}
            db.execute(sa.insert(table).values(values))


def test_an_alert_that_only_the_next_version_knows_hides_no_other_and_is_left_to_it(
    database_url: str,
) -> None:
    with closing(open_store(database_url)) as store:
        with store.write() as tx:
            tx.alerts.fold([OPENED])
            record = mark_notified(tx.alerts.list()[0], Notified.RAISED, NOW)
            tx.alerts.save(record)
            tx.deliveries.add(new_delivery(record, Notified.RAISED, "chat", NOW))
        add_alert_of_the_next_version(database_url, record.id)
        set_schema(database_url, LATER, oldest=schema_revisions.needed())

        with store.read() as tx:
            assert tx.alerts.list() == tx.alerts.list(open_only=True) == [record]
            assert tx.alerts.unsettled() == [record]
            assert [due.alert for due in tx.deliveries.due(NOW)] == [record.id]
            with pytest.raises(NotFound):
                tx.alerts.get("al_next")
        with store.listings() as listings:
            assert list(listings.alerts()) == [record]


def test_a_version_waits_for_the_upgrade_of_an_older_schema(database_url: str) -> None:
    migrate.downgrade(database_url)
    with closing(open_store(database_url)) as store:
        said = f"at revision {BEFORE} .* needs {migrate.head()}: run `swapgate db upgrade`"
        for use in (store.snapshot, store.etag):
            with pytest.raises(StoreUnavailable, match=said):
                use()
        with pytest.raises(StoreUnavailable, match=said), store.write() as tx:
            tx.runs.store_sample(SAMPLE)
        migrate.upgrade(database_url)
        assert store.etag()


def test_a_step_that_leaves_older_code_behind_waits_for_its_leader_to_end(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate.downgrade(database_url)
    with closing(open_store(database_url)) as leader:
        assert leader.try_lead("old control") is not None
        with pytest.raises(Conflict, match="a control process leads"):
            migrate.downgrade(database_url)
        with monkeypatch.context() as patch:
            patch.setattr(schema_revisions, "compatible_from", lambda revision: revision)
            with pytest.raises(Conflict, match="a control process leads"):
                migrate.upgrade(database_url)
        assert migrate.current(database_url) == BEFORE
        # One that it may stay with does not wait.
        migrate.upgrade(database_url)
        assert leader.try_lead("old control") is not None
    assert migrate.check(database_url) == []


def test_a_long_reader_holds_up_the_migration_and_no_writer(postgres_url: str) -> None:
    with closing(open_store(postgres_url)) as store:
        seeded(store)
    migrate.downgrade(postgres_url, "0015")  # 0016 adds a column to the table that is read
    made = sa.create_engine(postgres_url)
    with ThreadPoolExecutor(1) as pool, made.connect() as reader, made.connect() as writer:
        reader.execute(sa.text("SELECT COUNT(*) FROM route_version"))
        upgrade = pool.submit(migrate.upgrade, postgres_url)
        waiting = sa.text(
            "SELECT COUNT(*) FROM pg_locks WHERE NOT granted"
            " AND relation = 'route_version'::regclass"
        )
        for _ in range(2):  # attempts of the migration
            eventually(lambda: writer.execute(waiting).scalar())
            # In the queue behind the migration, which gives way before the reader does.
            writer.execute(sa.text("LOCK TABLE route_version IN ROW EXCLUSIVE MODE"))
            writer.rollback()
        assert not upgrade.done()
        reader.rollback()
        upgrade.result()
    made.dispose()
    assert migrate.check(postgres_url) == []


def test_no_limit_on_statements_ends_a_migration(postgres_url: str) -> None:
    made = sa.create_engine(postgres_url)
    name = made.url.database
    with made.begin() as db:
        db.execute(sa.text(f'ALTER DATABASE "{name}" SET statement_timeout = 60000'))
    made.dispose()
    with migrate.exclusive(postgres_url) as db:
        assert db.execute(sa.text("SHOW statement_timeout")).scalar() == "0"


SLEEPS = """
    import pathlib, time
    op.add_column("rollout", sa.Column("next_note", sa.Text(), nullable=True))
    pathlib.Path({marker!r}).touch()
    time.sleep({seconds})
    op.create_table(
        "next_table",
        sa.Column("id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_next_table")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_rollout_next_note", "rollout", ["next_note", "id"])
"""
MIGRATE = "import sys; from harness.store import migrate; migrate.upgrade(sys.argv[1])"


@pytest.mark.slow
def test_a_migration_that_is_killed_twice_leaves_what_was_there(
    database_url: str, tmp_path: Path
) -> None:
    marker = tmp_path / "in the middle"
    later = make_next_version(tmp_path, upgrade=SLEEPS.format(marker=str(marker), seconds=600))
    for _ in range(2):
        marker.unlink(missing_ok=True)
        command = [sys.executable, "-c", MIGRATE, database_url]
        child = subprocess.Popen(command, cwd=later)  # noqa: S603 - our own command
        eventually(marker.exists)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        # The server, too, notices that its client is gone.
        migrate.upgrade(database_url)
        assert migrate.check(database_url) == []
        with closing(open_store(database_url)) as store:
            assert store.signature_faults() == []


@pytest.fixture
def read_only_folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    with mounted(folder):
        yield folder


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    done = subprocess.run(  # noqa: S603 - our own folder
        ["mount", "--bind", str(folder), str(folder)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"a disk that cannot be written takes the right to mount: {done.stderr}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S603, S607


def test_a_disk_that_cannot_be_written_is_named_and_the_file_stays(
    read_only_folder: Path,
) -> None:
    url = f"sqlite:///{read_only_folder / 'swapgate.db'}"
    migrate.upgrade(url, BEFORE)
    remount = ["mount", "-o", "remount,bind,{}", str(read_only_folder)]
    for mode in ("ro", "rw"):
        words = [word.format(mode) for word in remount]
        subprocess.run(words, check=True)  # noqa: S603 - our own folder
        if mode == "ro":
            with pytest.raises(StoreUnavailable, match="cannot be written, so that"):
                migrate.upgrade(url)
    assert migrate.current(url) == BEFORE
    migrate.upgrade(url)
    assert migrate.check(url) == []


@pytest.fixture
def cli(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CommandLine]:
    with installed(tmp_path, sqlite_url, monkeypatch) as made:
        yield made


def test_the_way_back_names_what_goes_and_is_recorded(cli: CommandLine) -> None:
    head = migrate.head()
    shown = cli.text("db", "downgrade", "--reason", "a rehearsal", "--dry-run")
    assert "table break_glass, of 0 rows" in shown or head != "0016"
    assert f"would go back from revision {head} to {BEFORE}" in shown
    assert "every row is as it was signed" in cli.text("db", "check")

    cli.run("db", "downgrade", "--reason", " ", "--yes", exits=2)
    cli.run("db", "downgrade", "--reason", "x", exits=130)
    cli.run("db", "downgrade", "--reason", "x", "--yes", "--to", "77", exits=6)
    ben = cli.acting("ben", "approver")
    refused = cli.error(*ben, "db", "downgrade", "--reason", "x", "--yes", exits=7)
    assert "this needs admin" in refused
    gone = cli.json("db", "downgrade", "--reason", "back", "--yes")
    assert (gone["done"], gone["from"], gone["to"]) == (True, head, BEFORE)

    assert "run `swapgate db upgrade`" in cli.error("route", "list", exits=1)
    cli.text("db", "upgrade")
    assert "every row is as it was signed" in cli.text("db", "check")
    assert "database.downgrade" in cli.text("audit", "tail")
    cli.text("audit", "verify")
