import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import sqlalchemy as sa

from harness.app.installation import Installation
from harness.app.router_process import _restore_snapshot
from harness.app.store import row_faults
from harness.app.store.router_store import RouterStore
from harness.app.store.store import Store
from harness.app.store.tables import metadata
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import (
    InputError,
    SignatureInvalid,
    SnapshotInvalid,
    StoreUnavailable,
)
from harness.frame.people.access import SYSTEM
from harness.frame.people.records import ApiKeys
from harness.frame.plain_data import canonical_json
from harness.frame.runtime.clock import SystemClock
from harness.frame.signing.audit import AuditPosition
from harness.frame.signing.audit_log import AuditLog
from harness.operations import integrity
from harness.operations.integrity import (
    HEAD_EVERY,
    PROMOTION,
    AuditLines,
    head_line,
    read_heads,
)
from harness.providers.records import Providers
from harness.routing.table import Snapshot
from router.snapshot import holder as snapshot
from router.snapshot.holder import SnapshotHolder, save_snapshot
from tests.contract.conftest import SECRET
from tests.support.control.bare_installation import BareInstallation
from tests.support.control.manual_clock import ManualClock
from tests.support.site.signing_keys import CONTROL, VERIFIER
from tests.support.store.records import (
    KEY,
    NEW,
    OLD,
    PROVIDER,
    ROUTE,
    seeded,
)
from tests.support.store.tampering import forge, owned, row

KEYS = metadata.tables["api_key"]


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[BareInstallation]:
    clock = ManualClock()
    with closing(
        Store(
            database_url,
            secret=SECRET,
            clock=clock,
            signatures=CONTROL,
        )
    ) as store:
        with store.write() as tx:
            Providers(tx).put(PROVIDER)
            for number in range(9):
                ApiKeys(tx).add(replace(KEY, id=f"k_{number}", hash=f"{number:064}"))
        seeded(store)
        for number in range(3):
            with store.write() as tx:
                AuditLog(tx).append(SYSTEM, "note", f"n {number}", {})
        yield BareInstallation(tmp_path, store, clock=clock)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "EVENTS_PER_PAGE", 2)
    monkeypatch.setattr(integrity, "PAGES_PER_TURN", 2)


def rename(world: BareInstallation, names: dict[str, str]) -> dict[str, str]:
    """Writes around Swapproof; the names before."""
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
    world: BareInstallation, monkeypatch: pytest.MonkeyPatch
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


@pytest.mark.spine
@pytest.mark.req("F1", "G6", "F5")
@pytest.mark.usefixtures("small_parts")
def test_a_changed_event_is_told_until_it_is_as_it_was(world: BareInstallation) -> None:
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


def test_a_person_at_a_terminal_reads_sentences_and_no_heads(world: BareInstallation) -> None:
    lines: list[str] = []
    write = AuditLines(CONTROL, lines.append, for_people=True)
    write(world.context())
    record(world, "route.settings")

    write(world.context())

    assert [line[10:] for line in lines] == ["swapproof changed the settings of route chat"]


def record(world: BareInstallation, action: str = "route.describe") -> int:
    with world.store.write() as tx:
        return AuditLog(tx).append(SYSTEM, action, "route chat", {}).number


@pytest.mark.spine
@pytest.mark.req("F5", "G7")
def test_each_new_event_is_a_line_and_a_head_follows_each_hour_and_each_promotion(
    world: BareInstallation,
) -> None:
    printed = Printed()
    ctx = world.context()
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
    world: BareInstallation,
) -> None:
    line = head_line(AuditPosition(3, "a" * 64), world.clock.now(), CONTROL)
    with pytest.raises(SignatureInvalid):
        read_heads(line.replace('"audit_head":3', '"audit_head":4'), CONTROL)
    with pytest.raises(InputError, match="no printed head"):
        read_heads("nothing", CONTROL)


CLOCK = SystemClock()


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = Store(
        database_url,
        secret=SECRET,
        clock=CLOCK,
        signatures=CONTROL,
    )
    with closing(opened) as store:
        with store.write() as tx:
            Providers(tx).put(PROVIDER)
            Providers(tx).put(PROVIDER.__class__("other", "openai", "http://127.0.0.1:9/v1"))
            ApiKeys(tx).add(KEY)
            ApiKeys(tx).add(replace(KEY, id="k_gone", hash="c" * 64))
        seeded(store)
        with store.write() as tx:
            ApiKeys(tx).revoke("k_gone", CLOCK.now())
        yield store


class Away:
    """A database that does not answer."""

    def snapshot(self) -> Snapshot:
        raise StoreUnavailable("the database does not answer")


def restored(snapshot: Snapshot) -> Snapshot:
    installation = SimpleNamespace(signatures=VERIFIER, clock=CLOCK)
    return _restore_snapshot(cast("Installation", installation), snapshot)


def holder(store: Store, file: Path) -> SnapshotHolder:
    return SnapshotHolder(RouterStore(store), file, restored=restored)


@pytest.fixture
def router(
    database_url: str,
    store: Store,  # noqa: ARG001 - it fills the database
    tmp_path: Path,
) -> Iterator[SnapshotHolder]:
    url = database_url
    with closing(
        Store(
            url,
            secret=SECRET,
            clock=CLOCK,
            signatures=VERIFIER,
        )
    ) as theirs:
        made = holder(theirs, tmp_path / "snapshot.json")
        made.boot()
        yield made


@pytest.mark.req("F1")
def test_a_row_that_was_mended_serves_again_though_no_counter_tells(
    store: Store,
    router: SnapshotHolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = metadata.tables["provider"]
    with store.write() as tx:
        Providers(tx).put(replace(PROVIDER, name="third"))
    with owned(store) as db:
        honest = row(db, "provider", name="third")["api_base"]
        db.execute(
            sa.update(known).where(known.c.name == "third").values(api_base="http://x.example")
        )
    assert not router.refresh()
    assert "provider third" in router.refused
    with owned(store) as db:
        db.execute(sa.update(known).where(known.c.name == "third").values(api_base=honest))
    monkeypatch.setattr(snapshot, "AGAIN_S", 0.0)

    assert router.refresh()
    assert not router.refused


@pytest.mark.req("F1")
def test_control_alerts_within_a_turn_and_ends_the_alert_when_all_is_well(
    store: Store, tmp_path: Path
) -> None:
    ctx = BareInstallation(tmp_path, store, clock=CLOCK).context()  # type: ignore[arg-type]
    integrity.check_snapshot(ctx)
    with owned(store) as db:
        forge(db, ROUTE, NEW.id)
    integrity.check_snapshot(ctx)
    with store.read() as tx:
        told = {alert.key: alert.text for alert in Alerts(tx).list(open_only=True)}
    assert any("triage/2" in text for text in told.values())
    assert len(told) == 1
    assert all(key.startswith(AlertKind.AUDIT_BROKEN.value) for key in told)

    store.remove_forged(store.signature_faults(), actor=SYSTEM, reason="forged")
    integrity.check_snapshot(ctx)
    with store.read() as tx:
        assert not Alerts(tx).list(open_only=True)


def edited(
    file: Path,
    old: str,
    new: str,
) -> None:
    whole = json.loads(file.read_text())
    assert old in whole["snapshot"]
    content = whole["snapshot"].replace(old, new)
    whole |= {
        "snapshot": content,
        "sha256": sha256(content.encode()).hexdigest(),
    }
    file.write_text(json.dumps(whole))


@pytest.mark.req("F1")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (PROVIDER.api_base, "http://127.0.0.2:9000/v1"),
        (OLD.model, "cheaper-1"),
        (KEY.hash, "b" * 64),
        ('"manifest":{', '"manifest":{"more":1,'),
        ('"revoked":["k_gone"]', '"revoked":[]'),
        ('"revoked":["k_gone"]', f'"revoked":["k_gone","{KEY.id}"]'),
        ('"log_end":"', '"log_end":"9'),
    ],
)
def test_a_snapshot_on_disk_that_was_edited_serves_nobody(
    router: SnapshotHolder,
    tmp_path: Path,
    old: str,
    new: str,
) -> None:
    file = tmp_path / "snapshot.json"
    edited(file, old, new)
    with pytest.raises(SnapshotInvalid, match="cannot start"):
        holder(cast("Store", Away()), file).boot()
    # Nor is it passed over in silence where the database answers.
    beside = holder(cast("Any", router)._store, file)
    beside.boot()
    assert beside.disk_refused


@pytest.mark.req("F1")
def test_a_snapshot_on_disk_without_a_row_or_without_signatures_serves_nobody(
    router: SnapshotHolder, tmp_path: Path
) -> None:
    file = tmp_path / "snapshot.json"
    whole = json.loads(file.read_text())
    content = json.loads(whole["snapshot"])

    def save(changed: dict[str, Any]) -> None:
        text = canonical_json(changed)
        digest = sha256(text.encode()).hexdigest()
        file.write_text(json.dumps(whole | {"snapshot": text, "sha256": digest}))

    rows = content["signed"]["rows"] | {"api_key": []}
    save(content | {"signed": content["signed"] | {"rows": rows}})
    with pytest.raises(SnapshotInvalid, match="manifest"):
        holder(cast("Store", Away()), file).boot()
    save(content | {"signed": None})
    with pytest.raises(SnapshotInvalid, match="not signed"):
        holder(cast("Store", Away()), file).boot()
    # What its JSON says beside the rows is of no weight.
    assert router.current is not None
    save_snapshot(router.current.snapshot, file)
    routes = content["table"]["routes"]
    routes = {name: route | {"incumbent": NEW.id} for name, route in routes.items()}
    save(content | {"table": content["table"] | {"routes": routes}})
    loaded = holder(cast("Store", Away()), file).boot()
    assert loaded.snapshot.table.routes[ROUTE].incumbent == OLD.id
