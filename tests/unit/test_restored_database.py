"""A database restored from a backup never undercuts what routers served (G6)."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import pytest

from harness.app.store.router_store import RouterStore
from harness.app.store.signed_snapshot import build_verified
from harness.app.store.store import Store
from harness.frame.alerts.alert import Alert, AlertEvent, AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import InputError, NotAllowed
from harness.frame.people.access import SYSTEM
from harness.frame.signing.signed_rows import Lineage, older_reason
from harness.gate.online.observation import TrafficMinute
from harness.operations import integrity, keys
from harness.routing.control import routes
from harness.routing.records.observations import Observations
from harness.routing.table import Snapshot
from router.snapshot.holder import SnapshotHolder
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.known_secrets import SECRET
from tests.support.control.manual_clock import ManualClock
from tests.support.control.people import BEN
from tests.support.site.signing_keys import CONTROL, VERIFIER

pytestmark = pytest.mark.req("G6", "F1")
SERVED = Lineage("one", 1, 6, 9, "d6", {"chat": "4:then"})


@pytest.mark.spine
@pytest.mark.parametrize(
    ("offered", "refused"),
    [
        (SERVED, False),
        (replace(SERVED, revision=7, changes=9), False),
        (
            replace(
                SERVED,
                revision=6,
                changes=10,
                digest="d7",
            ),
            False,
        ),
        (replace(SERVED, revision=3), True),
        (replace(SERVED, changes=8), True),
        (replace(SERVED, revision=7, changes=8), True),
        (replace(SERVED, digest="other"), True),
        (replace(SERVED, revision=3, epoch=2), False),
        (replace(SERVED, revision=9, epoch=0), True),
    ],
)
def test_what_is_older_of_the_same_installation_and_epoch_is_refused(
    offered: Lineage, *, refused: bool
) -> None:
    assert bool(older_reason(SERVED, offered)) is refused


def test_rows_that_are_signed_for_the_first_time_undercut_nothing() -> None:
    assert older_reason(replace(SERVED, digest=""), replace(SERVED, digest="first")) == ""


class Place:
    """A control plane and a router's holder over one SQLite file that can be put back."""

    def __init__(self, folder: Path, file: Path) -> None:
        self.file = file
        self._backup = folder / "backup.db"
        url = f"sqlite:///{file}"
        self.folder = folder
        clock = ManualClock()
        control = Store(
            url,
            secret=SECRET,
            clock=clock,
            signatures=CONTROL,
        )
        self.world = SmallInstallation(folder, control, clock=clock)
        self.store = Store(
            url,
            secret=SECRET,
            clock=clock,
            signatures=VERIFIER,
        )
        self.holder = self.new_holder()

    def new_holder(self) -> SnapshotHolder:
        return SnapshotHolder(
            RouterStore(self.store),
            self.folder / "snapshot.json",
            restored=self._verified,
        )

    def _verified(self, stored: Snapshot) -> Snapshot:
        assert stored.signed is not None
        return build_verified(stored.signed, VERIFIER, stored.etag, self.world.clock.now())

    def back_up(self) -> None:
        self._copy(self.file, self._backup)

    def restore(self) -> None:
        self._copy(self._backup, self.file)

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        with (
            closing(sqlite3.connect(source)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)

    def describe(self, text: str) -> None:
        """One more revision, a second later."""
        self.world.clock.advance(1)
        routes.change_settings(
            self.world.context(),
            SYSTEM,
            "chat",
            lambda s: replace(s, description=text),
        )

    def create_key(self, name: str) -> str:
        return keys.create_key(self.world.context(), SYSTEM, name, secret=SECRET)[0].id

    def revoke_and_restore(self, key: str) -> None:
        self.back_up()
        keys.revoke_key(self.world.context(), SYSTEM, key)
        self.holder.refresh()
        self.restore()

    @property
    def revision(self) -> int:
        assert self.holder.current is not None
        return self.holder.current.revision

    @property
    def grants(self) -> set[str]:
        assert self.holder.current is not None
        return {grant.id for grant in self.holder.current.grants.values()}


@pytest.fixture
def place(tmp_path: Path, sqlite_url: str) -> Iterator[Place]:
    made = Place(tmp_path, Path(sqlite_url.removeprefix("sqlite:///")))
    made.world.set_up()
    made.holder.boot()
    yield made
    made.store.close()
    made.world.store.close()


def test_a_restored_database_that_was_changed_until_it_is_ahead_is_refused(
    place: Place,
) -> None:
    place.back_up()
    place.describe("a")
    place.holder.refresh()
    place.restore()
    for text in ("other", "and", "another"):
        place.describe(text)

    assert not place.holder.refresh()
    assert "lacks the served version of route chat" in place.holder.refused
    place.describe("and on")
    assert not place.holder.refresh()


@pytest.mark.spine
def test_once_found_older_no_higher_number_helps(place: Place) -> None:
    key = place.create_key("app")
    place.holder.refresh()
    place.revoke_and_restore(key)
    assert not place.holder.refresh()

    for name in ("one", "two", "three"):
        place.create_key(name)

    assert not place.holder.refresh()
    assert key not in place.grants


def test_a_key_revoked_since_the_backup_stays_revoked_also_after_a_restart(
    place: Place,
) -> None:
    key = place.create_key("app")
    other = place.create_key("other")
    place.revoke_and_restore(key)
    place.holder.refresh()

    integrity.accept_restore(
        place.world.context(),
        SYSTEM,
        reason="kept",
        above=9,
    )
    place.holder.refresh()
    new = place.create_key("new")
    place.holder.refresh()

    assert {key, other, new} & place.grants == {other, new}
    place.holder = place.new_holder()
    place.holder.boot()
    assert {key, other, new} & place.grants == {other, new}


def test_a_key_is_not_revoked_by_what_is_written_to_the_routers_disk(place: Place) -> None:
    """Nor in the name of an earlier epoch."""
    key = place.create_key("app")
    place.revoke_and_restore(key)
    other = place.create_key("other")
    integrity.accept_restore(
        place.world.context(),
        SYSTEM,
        reason="kept",
        above=9,
    )
    place.holder.refresh()
    file = place.folder / "snapshot.json"
    whole = json.loads(file.read_text())
    content = whole["snapshot"].replace(f'"ids":["{key}"]', f'"ids":["{other}"]')
    assert content != whole["snapshot"]
    whole |= {
        "snapshot": content,
        "sha256": sha256(content.encode()).hexdigest(),
    }
    file.write_text(json.dumps(whole))

    place.holder = place.new_holder()
    place.holder.boot()

    assert "earlier epoch" in place.holder.disk_refused
    assert other in place.grants


def test_a_router_that_starts_beside_a_restored_database_serves_what_it_has_on_disk(
    place: Place,
) -> None:
    place.back_up()
    place.describe("a")
    place.holder.refresh()
    served = place.revision
    place.restore()

    place.holder = place.new_holder()
    place.holder.boot()

    assert place.revision == served
    assert place.holder.undercut
    assert place.holder.stale


def test_the_control_plane_moves_nothing_on_a_database_that_routers_refuse(
    place: Place,
) -> None:
    world = place.world
    world.propose()
    with world.store.write() as tx:
        Alerts(tx).fold([refusal(world.clock.now())])

    assert "was restored" in world.run_once().failed[0]
    with world.store.write() as tx:
        Alerts(tx).fold([replace(refusal(world.clock.now()), news=AlertEvent.ENDED)])
    assert world.run_once().failed == ()


def test_it_goes_on_once_accepted_though_a_router_that_refused_was_killed(place: Place) -> None:
    world = place.world
    with world.store.write() as tx:
        Alerts(tx).fold([refusal(world.clock.now())])

    integrity.accept_restore(
        world.context(),
        SYSTEM,
        reason="the disk died",
        above=0,
    )

    assert world.run_once().failed == ()


def refusal(now: datetime) -> Alert:
    kind = AlertKind.DATABASE_RESTORED
    return Alert(
        kind,
        "routing table",
        kind.value,
        "it went back",
        "why",
        now,
        "router-1",
    )


def test_another_installations_database_is_refused_until_a_person_removes_the_snapshot(
    place: Place, sqlite_template: Path
) -> None:
    """Its rows are signed with the same key: a trial's, or after `init` was run again."""
    shutil.copyfile(sqlite_template, trial := place.folder / "trial.db")
    with closing(sqlite3.connect(trial)) as db:
        db.executescript(
            "DROP TRIGGER meta_no_return; UPDATE meta SET installation = 'another'"
        )
    other = Place(place.folder, trial)
    other.world.set_up()
    place._copy(trial, place.file)

    assert not place.holder.refresh()
    assert "another installation" in place.holder.refused
    again = place.new_holder()
    again.boot()
    assert again.stale
    (place.folder / "snapshot.json").unlink()
    last = place.new_holder()
    last.boot()
    assert not last.stale
    for store in (other.store, other.world.store):
        store.close()


def test_rows_that_are_signed_anew_are_no_other_history(place: Place) -> None:
    control = place.world.store
    assert isinstance(control, Store)

    control.sign_all_rows(actor=SYSTEM, reason="the key was rotated")

    assert place.holder.refresh()
    assert not place.holder.undercut


def test_a_router_tells_when_the_audit_log_ends_earlier_than_it_did(place: Place) -> None:
    place.describe("a")
    place.holder.refresh()
    with closing(sqlite3.connect(place.file)) as db:
        db.execute("DROP TRIGGER audit_event_no_delete")
        db.execute(
            "DELETE FROM audit_event WHERE number = (SELECT max(number) FROM audit_event)"
        )
        db.commit()

    place.describe("b")

    assert not place.holder.refresh()
    assert "of the audit log" in place.holder.refused


def test_only_an_admin_accepts_and_says_why(place: Place) -> None:
    ctx = place.world.context()

    with pytest.raises(NotAllowed):
        integrity.accept_restore(
            ctx,
            BEN,
            reason="x",
            above=0,
        )
    with pytest.raises(InputError, match="needs a reason"):
        integrity.accept_restore(
            ctx,
            SYSTEM,
            reason=" ",
            above=0,
        )
    for none in (-1, 2**53 + 1):
        with pytest.raises(InputError, match="from 0 to"):
            integrity.accept_restore(
                ctx,
                SYSTEM,
                reason="x",
                above=none,
            )


def test_traffic_that_names_a_revision_which_no_router_served_raises_no_floor(
    place: Place,
) -> None:
    """Nobody signs traffic, and a floor never falls."""
    now = place.world.clock.now()
    minute = TrafficMinute("chat", now, "w", "incumbent", "t", 2**62, 1, 0, 0, 0, 0, 0, 0.0)
    with place.world.store.write() as tx:
        Observations(tx).append([], [minute])

    assert integrity.highest_known_revision(place.world.context()) == place.revision
