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
from harness.control.operations import integrity
from harness.domain.content_hash import canonical_json
from harness.domain.errors import SnapshotInvalid, StoreUnavailable
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alerts import AlertKind
from harness.domain.routing.table import Snapshot
from harness.runtime.clock import SystemClock
from harness.store.schema import metadata
from harness.store.store import Store
from router.snapshot import holder as snapshot
from router.snapshot.holder import SnapshotHolder, save_snapshot
from tests.contract.conftest import SECRET
from tests.support.control.control_plane import SmallInstallation
from tests.support.site.signing_keys import CONTROL, VERIFIER
from tests.support.store.records import KEY, NEW, OLD, PROVIDER, ROUTE, seeded
from tests.support.store.tampering import forge, owned, row

pytestmark = pytest.mark.req("F1")
CLOCK = SystemClock()


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = Store(database_url, secret=SECRET, clock=CLOCK, signatures=CONTROL)
    with closing(opened) as store:
        with store.write() as tx:
            tx.providers.put(PROVIDER)
            tx.providers.put(PROVIDER.__class__("other", "openai", "http://127.0.0.1:9/v1"))
            tx.keys.add(KEY)
            tx.keys.add(replace(KEY, id="k_gone", hash="c" * 64))
        seeded(store)
        with store.write() as tx:
            tx.keys.revoke("k_gone", CLOCK.now())
        yield store


class Away:
    """A database that does not answer."""

    def snapshot(self) -> Snapshot:
        raise StoreUnavailable("the database does not answer")


def restored(snapshot: Snapshot) -> Snapshot:
    installation = SimpleNamespace(signatures=VERIFIER, clock=CLOCK)
    return _restore_snapshot(cast("Installation", installation), snapshot)


def holder(store: Store, file: Path) -> SnapshotHolder:
    return SnapshotHolder(store, file, restored=restored)


@pytest.fixture
def router(database_url: str, store: Store, tmp_path: Path) -> Iterator[SnapshotHolder]:  # noqa: ARG001 - it fills the database
    url = database_url
    with closing(Store(url, secret=SECRET, clock=CLOCK, signatures=VERIFIER)) as theirs:
        made = holder(theirs, tmp_path / "snapshot.json")
        made.boot()
        yield made


def test_a_row_that_was_mended_serves_again_though_no_counter_tells(
    store: Store, router: SnapshotHolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = metadata.tables["provider"]
    with store.write() as tx:
        tx.providers.put(replace(PROVIDER, name="third"))
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


def test_control_alerts_within_a_turn_and_ends_the_alert_when_all_is_well(
    store: Store, tmp_path: Path
) -> None:
    ctx = SmallInstallation(tmp_path, store, clock=CLOCK).context()  # type: ignore[arg-type]
    integrity.check_snapshot(ctx)
    with owned(store) as db:
        forge(db, ROUTE, NEW.id)
    integrity.check_snapshot(ctx)
    with store.read() as tx:
        told = {alert.key: alert.text for alert in tx.alerts.list(open_only=True)}
    assert any("triage/2" in text for text in told.values())
    assert len(told) == 1
    assert all(key.startswith(AlertKind.AUDIT_BROKEN.value) for key in told)

    store.remove_forged(store.signature_faults(), actor=SYSTEM, reason="forged")
    integrity.check_snapshot(ctx)
    with store.read() as tx:
        assert not tx.alerts.list(open_only=True)


def edited(file: Path, old: str, new: str) -> None:
    whole = json.loads(file.read_text())
    assert old in whole["snapshot"]
    content = whole["snapshot"].replace(old, new)
    whole |= {"snapshot": content, "sha256": sha256(content.encode()).hexdigest()}
    file.write_text(json.dumps(whole))


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
    router: SnapshotHolder, tmp_path: Path, old: str, new: str
) -> None:
    file = tmp_path / "snapshot.json"
    edited(file, old, new)
    with pytest.raises(SnapshotInvalid, match="cannot start"):
        holder(cast("Store", Away()), file).boot()
    # Nor is it passed over in silence where the database answers.
    beside = holder(cast("Any", router)._store, file)
    beside.boot()
    assert beside.disk_refused


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
