import gc
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects.sqlite.pysqlite import dialect

from harness.app.store.router_store import RouterStore
from harness.app.store.store import Store
from harness.frame import package_data
from harness.frame.alerts.alert import Alert, AlertKind
from harness.frame.database import engine
from harness.frame.errors import ConfigError, InputError, StoreUnavailable
from harness.frame.records.columns import Json, UtcTime, storable
from harness.providers.records import Providers
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns
from router.recording.recorder import Recorder
from router.recording.spool import Spool
from tests.contract.conftest import FixedClock, open_store
from tests.support.store.records import PROVIDER, RUN

SQLITE = dialect()
OTHER = replace(PROVIDER, name="another")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://somewhere/db", "not 'mysql'"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("no url at all", "cannot be read"),
        ("postgresql://u@h:port/d", "cannot be read"),
    ],
)
def test_a_url_that_is_no_store_is_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_store(url)


def test_the_urls_own_settings_win() -> None:
    url = engine.parse("postgresql://u@h/d?connect_timeout=1")
    arguments = engine.postgres_arguments(url)
    assert "connect_timeout" not in arguments
    assert "options" in arguments


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@a:1,b:2/d?target_session_attrs=read-write",
        "postgresql://u:p@/d?host=a:1&host=b:2&target_session_attrs=read-write",
        "postgresql+psycopg://u:p@/d?host=a,b&port=1,2&target_session_attrs=read-write",
    ],
)
def test_several_hosts_are_read_as_libpq_and_as_sqlalchemy_write_them(url: str) -> None:
    arguments = engine.driver_arguments(engine.parse(url))
    assert (arguments["host"], arguments["port"]) == ("a,b", "1,2")
    assert arguments["target_session_attrs"] == "read-write"
    assert arguments["connect_timeout"] == engine.CONNECT_TIMEOUT_S
    assert (
        arguments["user"],
        arguments["password"],
        arguments["dbname"],
    ) == (
        "u",
        "p",
        "d",
    )


def test_several_hosts_need_no_ports() -> None:
    arguments = engine.driver_arguments(engine.parse("postgresql://u:a,b@one,two/d"))
    assert (arguments["host"], arguments["password"]) == ("one,two", "a,b")


def test_a_missing_sqlite_file_is_not_made_and_found_once_it_is_back(sqlite_url: str) -> None:
    store = open_store(sqlite_url)
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    away = file.with_suffix(".away")
    file.rename(away)
    with pytest.raises(StoreUnavailable, match="missing"):
        store.etag()
    assert not file.exists()

    away.rename(file)

    assert store.etag()
    store.close()


@pytest.mark.req("B2")
def test_the_log_of_a_replaced_file_is_not_played_into_the_one_in_its_place(
    sqlite_url: str, sqlite_template: Path
) -> None:
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    # Two processes, for SQLite: what one closes, the other may have open.
    store = open_store(sqlite_url)
    other = open_store(sqlite_url)
    for storage in (store, other):
        with storage.write() as tx:
            Providers(tx).put(PROVIDER)
        assert storage.etag()
    put_in_its_place(sqlite_template, file)

    with store.read() as tx:
        assert Providers(tx).all() == {}
    with store.write() as tx:
        Providers(tx).put(OTHER)
    with other.read() as tx:
        assert Providers(tx).all() == {OTHER.name: OTHER}
    store.close()
    other.close()

    assert file.with_name(f"{file.name}-wal.replaced").exists()
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("SELECT name FROM provider").fetchall() == [(OTHER.name,)]


@pytest.mark.req("B2")
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_was_committed_into_a_file_that_is_gone_is_not_called_written(
    sqlite_url: str,
    sqlite_template: Path,
    tmp_path: Path,
    when: str,
) -> None:
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    store = ReplacedStore(sqlite_url, sqlite_template, when)
    spool = Spool(tmp_path / "spool.jsonl")
    recorder = Recorder(
        RouterStore(cast("Store", store)),
        spool,
        worker="w1",
        clock=FixedClock(),
    )
    recorder.notify(
        Alert(
            AlertKind.BREAKER_OPEN,
            "target t",
            "k",
            "t",
            "text",
            FixedClock().now(),
            "w1",
        )
    )

    recorder.flush()

    assert store.replaced
    assert recorder.counters["rows_written"] == 0
    assert recorder.counters["rows_spooled"] == 1
    recorder.flush()
    assert recorder.counters["rows_written"] == 1
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("SELECT count(*) FROM alert").fetchone() == (1,)
    store.inner.close()


@pytest.mark.req("B2", "G5")
def test_what_was_committed_into_a_file_that_is_away_is_there_once_when_it_comes_back(
    sqlite_url: str,
) -> None:
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    away = file.with_suffix(".away")
    store = open_store(sqlite_url)
    store.etag()
    sa.event.listen(store._writing, "commit", lambda _: file.rename(away), once=True)

    with store.write() as tx:
        Providers(tx).put(PROVIDER)
    with pytest.raises(StoreUnavailable, match="missing"):
        store.etag()
    away.rename(file)

    with store.read() as tx:
        assert Providers(tx).all() == {PROVIDER.name: PROVIDER}
    store.close()


@pytest.mark.req("B2")
def test_who_waits_for_a_change_hears_of_those_in_a_file_put_in_its_place(
    sqlite_url: str, sqlite_template: Path
) -> None:
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    store = open_store(sqlite_url)
    store.wait_for_change(0.0)
    while store.wait_for_change(0.0):
        pass
    put_in_its_place(sqlite_template, file)
    assert store.wait_for_change(30.0)
    while store.wait_for_change(0.0):
        pass

    writer = open_store(sqlite_url)
    with writer.write() as tx:
        Providers(tx).put(PROVIDER)

    assert store.wait_for_change(30.0)
    writer.close()
    store.close()


def put_in_its_place(template: Path, file: Path) -> None:
    backup = file.with_suffix(".backup")
    shutil.copyfile(template, backup)
    backup.replace(file)


class ReplacedStore:
    def __init__(
        self,
        url: str,
        template: Path,
        when: str,
    ) -> None:
        self.inner = open_store(url)
        self.inner.etag()
        self.replaced = False
        self._file = Path(url.removeprefix("sqlite:///"))
        self._template = template
        self._when = when

    @contextmanager
    def write(self) -> Iterator[Any]:
        if self._when == "after" and not self.replaced:
            sa.event.listen(self.inner._writing, "commit", self._replace, once=True)
        with self.inner.write() as tx:
            yield tx
            if self._when == "before" and not self.replaced:
                self._replace()

    def _replace(self, *_: object) -> None:
        self.replaced = True
        put_in_its_place(self._template, self._file)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ("PRAGMA busy_timeout = 1", "PRAGMA foreign_keys = ON")
    monkeypatch.setattr(engine, "_SQLITE_SETTINGS", settings)


@pytest.mark.usefixtures("impatient")
def test_a_locked_sqlite_is_unavailable_and_may_be_tried_again(sqlite_url: str) -> None:
    first = open_store(sqlite_url)
    second = open_store(sqlite_url)
    with first.write():
        with (
            pytest.raises(StoreUnavailable, match="locked") as caught,
            second.write(),
        ):
            pass
        assert caught.value.retryable
        # Readers do not wait for the writer.
        with second.read() as tx:
            assert Routing(tx).table().revision == 0
    first.close()
    second.close()


@pytest.mark.req("B8")
def test_a_server_that_is_away_leaves_no_connection_to_the_garbage_collector(
    tmp_path: Path,
) -> None:
    store = open_store(f"postgresql://nobody@/none?host={tmp_path}")

    def try_all() -> None:
        for call in (
            store.etag,
            store.snapshot,
            partial(store.try_lead, "control"),
            partial(store.wait_for_change, 0.0),
            store.write().__enter__,
        ):
            with suppress(StoreUnavailable):
                call()

    try_all()
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            try_all()
        # psycopg's cycles would hold one for each, until they are collected.
        assert not [left for left in gc.get_objects() if type(left).__name__ == "PGconn"]
    finally:
        gc.enable()
    store.close()


def test_a_folder_that_cannot_be_written_has_no_leader(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'missing' / 'swapproof.db'}")
    with pytest.raises(StoreUnavailable, match="writable"):
        store.try_lead("control")
    store.close()


def test_the_leaders_name_lies_beside_the_database(sqlite_url: str, tmp_path: Path) -> None:
    store = open_store(sqlite_url)
    assert store.try_lead("control-7")
    assert (tmp_path / "swapproof.db.leader").read_text() == "control-7\n"
    store.close()


def test_a_time_without_a_zone_is_refused(sqlite_url: str) -> None:
    store = open_store(sqlite_url)
    naive = replace(RUN, created_at=datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point
    with (
        pytest.raises(InputError, match="no time zone"),
        store.write() as tx,
    ):
        EvalRuns(tx).add(naive)
    store.close()


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_lose_nothing(moment: datetime) -> None:
    column = UtcTime()
    stored = column.process_bind_param(moment, SQLITE)
    assert column.process_result_value(stored, SQLITE) == moment


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values.filter(lambda value: value is not None))
def test_json_loses_nothing_and_is_always_text(value: object) -> None:
    column = Json()
    stored = column.process_bind_param(value, SQLITE)
    assert stored is not None
    stored.encode()
    assert column.process_result_value(stored, SQLITE) == value


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_becomes_storable_and_stays_so(text: str) -> None:
    once = storable(text)
    assert "\0" not in once
    once.encode()
    assert storable(once) == once


def test_shipped_files_are_found_in_the_checkout() -> None:
    assert (package_data.path("migrations") / "env.py").is_file()
    with pytest.raises(ConfigError, match="no such folder"):
        package_data.path("no such folder")
