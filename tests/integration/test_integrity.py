"""Stored rows and the audit log are verified in parts: what is wrong is found wherever it is,
stays known until it is right, and no process ends an alert for what it has not seen.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from harness.control.context import Context
from harness.control.operations import alerts, integrity
from harness.domain.operations import integrity as progress
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alerts import AlertKind
from harness.store.schema import metadata
from harness.store.signing import row_faults
from harness.store.sql import SqlStore
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
    with closing(
        SqlStore(database_url, secret=SECRET, clock=clock, signatures=CONTROL)
    ) as store:
        with store.write() as tx:
            tx.providers.put(PROVIDER)
            for number in range(9):
                tx.keys.add(replace(KEY, id=f"k_{number}", hash=f"{number:064}"))
        seeded(store)
        for number in range(3):
            with store.write() as tx:
                tx.audit.append(
                    at=clock.now(),
                    actor=SYSTEM,
                    action="note",
                    subject=f"n {number}",
                    details={},
                )
        yield SmallInstallation(tmp_path, store, clock=clock)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_faults, "ROWS_PER_PAGE", 2)
    monkeypatch.setattr(integrity, "ROWS_PER_PART", 4)
    monkeypatch.setattr(integrity, "EVENTS_PER_PAGE", 2)
    monkeypatch.setattr(integrity, "EVENTS_PER_PART", 4)


def rename(world: SmallInstallation, names: dict[str, str]) -> dict[str, str]:
    """Writes around Swapgate; the names before."""
    assert isinstance(world.store, SqlStore)
    with owned(world.store) as db:
        before = {
            id_: db.execute(sa.select(KEYS.c.name).where(KEYS.c.id == id_)).scalar_one()
            for id_ in names
        }
        for id_, name in names.items():
            db.execute(sa.update(KEYS).where(KEYS.c.id == id_).values(name=name))
    return before


def is_open(ctx: Context, key: str = "rows") -> bool:
    return alerts.is_open(ctx, AlertKind.AUDIT_BROKEN, key)


def turns_until(ctx: Context, faults: int, most: int = 60) -> int:
    for turn in range(most):
        if integrity.check_signatures(ctx) == faults:
            return turn
    raise AssertionError(f"not within {most} parts")


@pytest.mark.usefixtures("small_parts")
def test_a_row_at_fault_is_told_in_the_part_that_has_it_until_it_holds_again(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    while not ctx.integrity.row_rounds:
        assert integrity.check_signatures(ctx) == 0

    honest = rename(world, {"k_7": "another"})

    assert turns_until(ctx, 1) > 1
    for _ in range(20):
        assert integrity.check_signatures(ctx) == 1
        assert is_open(ctx)
    rename(world, honest)
    assert integrity.check_signatures(ctx) == 0
    assert not is_open(ctx)


@pytest.mark.usefixtures("small_parts")
def test_a_process_that_begins_ends_no_alert_before_it_has_seen_every_row(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    honest = rename(world, {"k_7": "another"})
    turns_until(ctx, 1)

    new = world.context()
    while not new.integrity.faults:
        assert is_open(new)
        integrity.check_signatures(new)
    rename(world, honest)
    third = world.context()
    while not third.integrity.row_rounds:
        assert is_open(third)
        integrity.check_signatures(third)
    assert not is_open(third)


@pytest.mark.usefixtures("small_parts")
def test_more_rows_at_fault_than_are_remembered_are_told_until_the_last_one_holds(
    world: SmallInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "MOST_FAULTS", 2)
    ctx = world.context()
    honest = rename(world, {f"k_{number}": "another" for number in (1, 2, 6, 8)})
    turns_until(ctx, 2)

    def go_round(times: int) -> None:
        until = ctx.integrity.row_rounds + times
        while ctx.integrity.row_rounds < until:
            assert is_open(ctx)
            integrity.check_signatures(ctx)

    go_round(2)
    last = honest.popitem()
    rename(world, honest)
    go_round(3)
    assert [fault.key for fault in ctx.integrity.faults.values()] == [(last[0],)]
    rename(world, dict([last]))
    integrity.check_signatures(ctx)
    assert not is_open(ctx)


def test_pages_of_one_row_find_what_one_page_finds(
    world: SmallInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = world.store
    assert isinstance(store, SqlStore)
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
def test_an_event_changed_behind_the_part_that_was_read_is_found_in_the_next_round(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    assert isinstance(world.store, SqlStore)
    events = metadata.tables["audit_event"]
    while not ctx.integrity.event_rounds:
        assert integrity.check_audit_chain(ctx) is None
    assert integrity.check_audit_chain(ctx) is None

    with owned(world.store) as db:
        honest = db.execute(
            sa.select(events.c.subject).where(events.c.number == 2)
        ).scalar_one()
        db.execute(sa.update(events).where(events.c.number == 2).values(subject="another"))
    before = ctx.integrity.event_rounds
    while integrity.check_audit_chain(ctx) is None:
        assert ctx.integrity.event_rounds <= before + 1
    for _ in range(5):
        assert integrity.check_audit_chain(ctx) == 2
        assert is_open(ctx, "log")
    with owned(world.store) as db:
        db.execute(sa.update(events).where(events.c.number == 2).values(subject=honest))
    assert integrity.check_audit_chain(ctx) is None
    assert not is_open(ctx, "log")
