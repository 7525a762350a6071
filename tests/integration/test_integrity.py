"""Stored rows are verified page by page, and the audit log as it grows."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from harness.control.operations import alerts, integrity
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alerts import AlertKind
from harness.store.schema import metadata
from harness.store.signing import row_faults
from harness.store.store import Store
from tests.contract.conftest import SECRET
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.manual_clock import ManualClock
from tests.support.site.signing_keys import CONTROL
from tests.support.store.records import KEY, NEW, PROVIDER, ROUTE, seeded
from tests.support.store.tampering import forge, owned

pytestmark = pytest.mark.req("F1", "G6")
KEYS = metadata.tables["api_key"]


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[SmallInstallation]:
    clock = ManualClock()
    with closing(Store(database_url, secret=SECRET, clock=clock, signatures=CONTROL)) as store:
        with store.write() as tx:
            tx.providers.put(PROVIDER)
            for number in range(9):
                tx.keys.add(replace(KEY, id=f"k_{number}", hash=f"{number:064}"))
        seeded(store)
        for number in range(3):
            with store.write() as tx:
                tx.audit.append(SYSTEM, "note", f"n {number}", {})
        yield SmallInstallation(tmp_path, store, clock=clock)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "EVENTS_PER_PAGE", 2)
    monkeypatch.setattr(integrity, "PAGES_PER_TURN", 2)


def rename(world: SmallInstallation, names: dict[str, str]) -> dict[str, str]:
    """Writes around Swapgate; the names before."""
    with owned(world.store) as db:
        before = {
            id_: db.execute(sa.select(KEYS.c.name).where(KEYS.c.id == id_)).scalar_one()
            for id_ in names
        }
        for id_, name in names.items():
            db.execute(sa.update(KEYS).where(KEYS.c.id == id_).values(name=name))
    return before


def test_pages_of_one_row_find_what_one_page_finds(
    world: SmallInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = world.store
    with owned(store) as db:
        forge(db, ROUTE, NEW.id)
        versions = metadata.tables["route_version"]
        db.execute(sa.update(versions).where(versions.c.version == 1).values(reason="another"))
    rename(world, {"k_0": "another", "k_8": "another"})
    found = {fault.name: fault.why for fault in store.signature_faults()}

    monkeypatch.setattr(row_faults, "ROWS_PER_PAGE", 1)

    assert len(found) > 3
    assert {fault.name: fault.why for fault in store.signature_faults()} == found


@pytest.mark.usefixtures("small_parts")
def test_a_changed_event_is_told_until_it_is_as_it_was(world: SmallInstallation) -> None:
    ctx = world.context()
    events = metadata.tables["audit_event"]
    with owned(world.store) as db:
        honest = db.execute(
            sa.select(events.c.subject).where(events.c.number == 2)
        ).scalar_one()
        db.execute(sa.update(events).where(events.c.number == 2).values(subject="another"))

    for _ in range(3):
        assert integrity.check_audit_log(ctx) == ["the audit log is broken from event 2 on"]
        assert alerts.is_open(ctx, AlertKind.AUDIT_BROKEN, "log")
    with owned(world.store) as db:
        db.execute(sa.update(events).where(events.c.number == 2).values(subject=honest))
    while not ctx.audit_reading.is_whole:
        assert integrity.check_audit_log(ctx) == []
    assert not alerts.is_open(ctx, AlertKind.AUDIT_BROKEN, "log")
