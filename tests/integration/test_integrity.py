import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from harness.control.operations import alerts, integrity
from harness.control.operations.audit_export import (
    HEAD_EVERY,
    PROMOTION,
    AuditLines,
    head_line,
    read_heads,
)
from harness.domain.errors import InputError, SignatureInvalid
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alerts import AlertKind
from harness.domain.operations.audit import AuditPosition
from harness.store.schema import metadata
from harness.store.signing import row_faults
from harness.store.store import Store
from tests.contract.conftest import SECRET
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.manual_clock import ManualClock
from tests.support.site.command_line import installed
from tests.support.site.signing_keys import CONTROL
from tests.support.store.records import KEY, NEW, PROVIDER, ROUTE, seeded
from tests.support.store.tampering import forge, owned

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


@pytest.mark.req("F1", "G6")
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


@pytest.mark.req("F1", "G6")
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


class Printed:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.write = AuditLines(CONTROL, self.lines.append)

    @property
    def heads(self) -> list[int]:
        found = [json.loads(line) for line in self.lines]
        return [line["audit_head"] for line in found if "audit_head" in line]

    @property
    def events(self) -> list[dict[str, object]]:
        found = [json.loads(line) for line in self.lines]
        return [line["audit"] for line in found if "audit" in line]


def record(world: SmallInstallation, action: str = "route.describe") -> int:
    with world.store.write() as tx:
        return tx.audit.append(SYSTEM, action, "route chat", {}).number


@pytest.mark.req("F5")
def test_each_new_event_is_a_line_and_a_head_follows_each_hour_and_each_promotion(
    world: SmallInstallation,
) -> None:
    printed, ctx = Printed(), world.context()
    first = record(world)
    assert printed.write(ctx)
    assert (printed.events, printed.heads) == ([], [first])

    record(world)
    assert not printed.write(ctx)
    assert printed.write(ctx)
    assert [event["number"] for event in printed.events] == [first + 1]
    assert printed.heads == [first]
    promoted = record(world, PROMOTION)
    printed.write(ctx)
    assert printed.heads == [first, promoted]
    world.clock.jump(HEAD_EVERY.total_seconds())
    printed.write(ctx)
    assert printed.heads == [first, promoted, promoted]


@pytest.mark.req("F5")
def test_a_head_that_the_control_plane_did_not_sign_is_refused(
    world: SmallInstallation,
) -> None:
    line = head_line(AuditPosition(3, "a" * 64), world.clock.now(), CONTROL)
    with pytest.raises(SignatureInvalid):
        read_heads(line.replace('"audit_head":3', '"audit_head":4'), CONTROL)
    with pytest.raises(InputError, match="no printed head"):
        read_heads("nothing", CONTROL)


@pytest.mark.req("F5")
def test_audit_verify_takes_a_printed_head_and_a_file_of_lines(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with installed(tmp_path, sqlite_url, monkeypatch) as cli:
        cli.run("config", "apply")
        with cli.world.store.read() as tx:
            (event,) = tx.audit.tail(1)
        line = head_line(AuditPosition(event.number, event.mac), event.at, CONTROL)
        file = tmp_path / "collected.log"
        file.write_text(f"started\n{line}\n", "utf-8")
        cli.run("audit", "verify", "--head", str(file))
        cli.run("audit", "verify", "--head", line)
        gone = head_line(AuditPosition(event.number + 5, event.mac), event.at, CONTROL)
        cli.run("audit", "verify", "--head", gone, exits=1)
        with owned(cli.world.store) as db:
            db.execute(sa.text("DELETE FROM audit_event WHERE number > 1"))
        said = cli.run("audit", "verify", exits=1).output
        assert "of the audit log, and the log lacks this event" in " ".join(said.split())
