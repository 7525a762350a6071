"""URLs, waiting for a lock, shipped files: the edges of the store."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects.sqlite.pysqlite import dialect

from harness import shipped
from harness.domain.errors import ConfigError, InputError, StoreUnavailable
from harness.store import memory
from harness.store.sql import engine
from harness.store.tables.base import Json, UtcTime, storable
from tests.contract.builders import PROVIDER, RUN
from tests.contract.conftest import FixedClock, open_store

SQLITE = dialect()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://somewhere/db", "not in 'mysql'"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("no url at all", "cannot be read"),
    ],
)
def test_a_url_that_is_no_store_is_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_store(url)


def test_postgresql_is_reached_by_its_one_driver() -> None:
    for url in ("postgresql://u@h/d", "postgresql+psycopg://u@h/d"):
        assert engine.parse(url).drivername == "postgresql+psycopg"


def test_the_urls_own_settings_win() -> None:
    url = engine.parse("postgresql://u@h/d?connect_timeout=1")
    arguments = engine.postgres_arguments(url)
    assert "connect_timeout" not in arguments
    assert "options" in arguments


def test_a_missing_sqlite_file_is_not_made_and_found_once_it_is_back(sqlite_url: str) -> None:
    store, file = open_store(sqlite_url), Path(sqlite_url.removeprefix("sqlite:///"))
    away = file.with_suffix(".away")
    file.rename(away)
    with pytest.raises(StoreUnavailable, match="missing"):
        store.etag()
    assert not file.exists()

    away.rename(file)

    assert store.etag()
    store.close()


def test_a_sqlite_file_that_was_moved_away_or_replaced_is_not_written_to(
    sqlite_url: str, sqlite_template: Path
) -> None:
    store, file = open_store(sqlite_url), Path(sqlite_url.removeprefix("sqlite:///"))
    before = store.etag()
    file.rename(file.with_suffix(".away"))
    with pytest.raises(StoreUnavailable, match="missing"):
        store.etag()

    shutil.copyfile(sqlite_template, file)  # a backup
    with store.write() as tx:
        tx.providers.put(PROVIDER)

    other = open_store(sqlite_url)
    assert other.etag() == store.etag() != before
    store.close()
    other.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks are given up at once."""
    settings = ("PRAGMA busy_timeout = 1", "PRAGMA foreign_keys = ON")
    monkeypatch.setattr(engine, "_SQLITE_SETTINGS", settings)
    monkeypatch.setattr(memory.store, "LOCK_TIMEOUT_S", 0.001)


@pytest.mark.usefixtures("impatient")
def test_a_locked_sqlite_is_unavailable_and_may_be_tried_again(sqlite_url: str) -> None:
    first, second = open_store(sqlite_url), open_store(sqlite_url)
    with first.write():
        with pytest.raises(StoreUnavailable, match="locked") as caught, second.write():
            pass
        assert caught.value.retryable
        # Readers do not wait for the writer.
        with second.read() as tx:
            assert tx.routing.table().revision == 0
    first.close()
    second.close()


@pytest.mark.usefixtures("impatient")
def test_a_busy_store_in_memory_is_unavailable() -> None:
    store = memory.MemoryStore(secret=b"s", clock=FixedClock())
    with store.write(), pytest.raises(StoreUnavailable), store.write():
        pass


def test_a_folder_that_cannot_be_written_has_no_leader(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'missing' / 'swapgate.db'}")
    with pytest.raises(StoreUnavailable, match="writable"):
        store.try_lead("control")
    store.close()


def test_the_leaders_name_lies_beside_the_database(sqlite_url: str, tmp_path: Path) -> None:
    store = open_store(sqlite_url)
    assert store.try_lead("control-7")
    assert (tmp_path / "swapgate.db.leader").read_text() == "control-7\n"
    store.close()


def test_a_time_without_a_zone_is_refused(sqlite_url: str) -> None:
    store = open_store(sqlite_url)
    naive = replace(RUN, created_at=datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point
    with pytest.raises(InputError, match="no time zone"), store.write() as tx:
        tx.runs.add(naive)
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
    assert (shipped.path("migrations") / "env.py").is_file()
    with pytest.raises(ConfigError, match="no such folder"):
        shipped.path("no such folder")


def test_a_wheels_own_files_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_shipped" / "datasets").mkdir(parents=True)
    (tmp_path / "site" / "datasets").mkdir(parents=True)
    places = (tmp_path / "_shipped", tmp_path / "site")
    monkeypatch.setattr(shipped, "_PLACES", places)
    assert shipped.path("datasets") == tmp_path / "_shipped" / "datasets"
