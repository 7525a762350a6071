"""Keeps the serving revision: from the database, or from disk if the database gives none.

A thread follows the database; requests only read `SnapshotHolder.current`. The holder refuses
a faulty, foreign or older revision whole, and the last good one keeps serving. `compiler`
makes a revision usable. The holder writes the file on disk, never the database.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from harness.frame import matching
from harness.frame.errors import (
    ConfigError,
    DatabaseRestored,
    SnapshotInvalid,
    StoreUnavailable,
)
from harness.frame.plain_data import (
    canonical_json,
    from_plain,
    hash_content,
    to_plain,
)
from harness.frame.signing.signed_rows import (
    Lineage,
    Revocations,
    foreign_reason,
    fork_reason,
    older_reason,
)
from harness.providers.credential import ProviderKeySets
from harness.providers.force import KillSwitch
from harness.providers.models.model_ends import EndDates
from harness.providers.target import NO_DATA_CLASSES, DataClasses
from harness.routing.table import Snapshot
from router.frame.database import RouterDatabase
from router.snapshot.compiled import NO_KEYS, CompiledSnapshot
from router.snapshot.compiler import compile_snapshot
from router.snapshot.end_headers import NO_ENDS, Statements

FORMAT: Final = 1
# The fields of a snapshot that come from signed rows.
_SIGNED_FIELDS: Final = frozenset({"lineage", "revoked"})


def save_snapshot(snapshot: Snapshot, file: Path) -> None:
    """Writes atomically: after a crash, the old or the new file exists. Raises OSError."""
    content = canonical_json(snapshot_to_json(snapshot))
    envelope = {
        "format": FORMAT,
        "sha256": hash_content(content),
        "snapshot": content,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(json.dumps(envelope).encode())
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)
    _sync_folder(file.parent)


def load_snapshot(file: Path) -> Snapshot:
    """Reads a snapshot that `save_snapshot` wrote. Raises SnapshotInvalid for any other
    file.

    The checksum finds damage, not forgery: the holder's `restored` checks the signed rows.
    """
    try:
        envelope = json.loads(file.read_bytes())
        if envelope["format"] != FORMAT:
            raise SnapshotInvalid(f"{file} has format {envelope['format']}, not {FORMAT}")
        content: str = envelope["snapshot"]
        checksum = hash_content(content)
        if checksum != envelope["sha256"]:
            raise SnapshotInvalid(f"{file} is damaged: its checksum does not fit")
        return snapshot_from_json(json.loads(content))
    except OSError as error:
        raise SnapshotInvalid(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SnapshotInvalid(f"{file} is not a snapshot: {error}") from error


def _sync_folder(folder: Path) -> None:
    # Without this, a power failure may lose the new name.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def snapshot_to_json(snapshot: Snapshot) -> dict[str, object]:
    """Returns a snapshot as plain data, without the fields that signed rows prove."""
    plain = to_plain(snapshot)
    return {name: value for name, value in plain.items() if name not in _SIGNED_FIELDS}


def snapshot_from_json(data: Mapping[str, Any]) -> Snapshot:
    if _SIGNED_FIELDS & data.keys():
        raise ValueError("it contains its own place in the history")
    snapshot: Snapshot = from_plain(Snapshot, data)
    return snapshot


FindMissing = Callable[[Lineage], Sequence[str]]


class LineageGuard:
    """Refuses restored databases. If a database is older than the serving revision, the router
    refuses all revisions of its epoch, because they belong to another history.
    """

    def __init__(self) -> None:
        self.served = Lineage()
        self._revoked: Sequence[Revocations] = ()
        self._refused: Lineage | None = None

    def admit(self, snapshot: Snapshot, find_missing: FindMissing) -> Snapshot:
        """Admits a snapshot, without revoked keys. Raises DatabaseRestored, SnapshotInvalid."""
        offered = snapshot.lineage
        served = self.served
        if other_installation := foreign_reason(served, offered):
            raise SnapshotInvalid(other_installation)
        reason = older_reason(served, offered)
        same_epoch = (served.installation, served.epoch) == (
            offered.installation,
            offered.epoch,
        )
        if not reason and same_epoch and (missing := find_missing(served)):
            reason = fork_reason(missing)
        if not reason and same_epoch and self._refused is not None:
            reason = older_reason(served, self._refused) or fork_reason(
                ["an earlier revision that was refused"]
            )
        if reason:
            self._refused = self._refused or offered
            raise DatabaseRestored(reason)
        return snapshot.without(self._revoked)

    def note(self, admitted: Snapshot) -> None:
        """Notes the revision that serves now. Later revisions must continue its history."""
        self.served = admitted.lineage
        self._refused = None
        signed = admitted.signed
        self._revoked = (*signed.former, signed.revocations) if signed is not None else ()


log = logging.getLogger(__name__)

# The router sees a new revision within this time, even if the store's signal is lost.
CHECK_EVERY_S: Final = 1.0
# How often the router checks a refused revision again.
AGAIN_S: Final = 15.0
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 2.0

KeysOf = Callable[[Snapshot], ProviderKeySets]


def no_keys(_: Snapshot) -> ProviderKeySets:
    return NO_KEYS


def _select_dates(ends: Statements) -> Mapping[str, Sequence[EndDates]]:
    """Returns only the dates, because the times of reading change no header."""
    return {
        target: [statement.dates for statement in statements]
        for target, statements in ends.items()
    }


class SnapshotHolder:
    """Holds the serving snapshot. Reading `current` never blocks; a request reads it once.

    stale: the database does not answer.
    refused: why the newest revision does not serve.
    undercut: the revision is refused because the database went back in its history.
    disk_refused: why the router refused the file at its start.
    age_s: seconds since the database last confirmed this revision as the newest.
    standing: switches of the environment and the configuration file.
    opened: decrypts a snapshot for serving; the disk keeps it encrypted.
    restored: checks the signed rows of the snapshot on disk; raises SnapshotInvalid.
    prepare: called before a snapshot serves, outside the event loop; may raise ConfigError.
    """

    def __init__(  # noqa: PLR0913 - the class describes each
        self,
        store: RouterDatabase,
        file: Path,
        standing: Sequence[KillSwitch] = (),
        keys_of: KeysOf = no_keys,
        prepare: Callable[[Snapshot], None] = lambda _: None,
        *,
        classes: DataClasses = NO_DATA_CLASSES,
        opened: Callable[[Snapshot], Snapshot] = lambda snapshot: snapshot,
        restored: Callable[[Snapshot], Snapshot] = lambda snapshot: snapshot,
    ) -> None:
        self.current: CompiledSnapshot | None = None
        self.stale = False
        self.refused = ""
        self.undercut = False
        self.disk_refused = ""
        self._store = store
        self._file = file
        self._standing = tuple(standing)
        self._keys_of = keys_of
        self._prepare = prepare
        self._classes = classes
        self._decrypt = opened
        self._check_signed_rows = restored
        self._seen_etag = ""
        self._snapshot: Snapshot | None = None  # of `current`, encrypted as it is stored
        self._ends: Statements = NO_ENDS
        self._refused_at = time.monotonic()
        self._guard = LineageGuard()
        self._confirmed_at_s = time.monotonic()
        self._followers: list[Callable[[RouterDatabase], None]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="snapshot", daemon=True)

    @property
    def store(self) -> RouterDatabase:
        """The database that this holder follows."""
        return self._store

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._confirmed_at_s

    def boot(self) -> CompiledSnapshot:
        """Loads the snapshot from the database, else from disk. Raises SnapshotInvalid."""
        try:
            self._guard.note(self._load_from_disk())
        except SnapshotInvalid as error:
            if self._file.exists():
                self.disk_refused = str(error)
                log.error("the router refuses the snapshot on disk: %s", error)  # noqa: TRY400 - the message names the cause
        try:
            return self._swap(self._store.snapshot())
        except Exception as error:
            if not isinstance(error, StoreUnavailable | SnapshotInvalid):
                log.exception("the database gave no snapshot")
            reason = str(error) or type(error).__name__
            if isinstance(error, DatabaseRestored):
                self._refuse(error)
        try:
            self.current = self._compile(self._load_from_disk())
        except SnapshotInvalid as error:
            raise SnapshotInvalid(
                f"the router cannot start: the database gave no snapshot ({reason}), and "
                f"neither did the disk ({error}). Start it once while the database answers"
            ) from error
        self.stale = True
        log.warning("serving revision %d from disk: %s", self.current.revision, reason)
        return self.current

    def _load_from_disk(self) -> Snapshot:
        return self._check_signed_rows(load_snapshot(self._file))

    def add_follower(self, follower: Callable[[RouterDatabase], None]) -> None:
        """Adds a function that the store's thread calls; it may raise StoreUnavailable."""
        self._followers.append(follower)

    def tell_followers(self) -> None:
        """Calls the followers; a follower's fault does not stop the others. Raises
        StoreUnavailable.
        """
        for follower in self._followers:
            try:
                follower(self._store)
            except StoreUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - a follower's error must not stop the other followers
                log.error("a follower of the database failed: %s", type(error).__name__)  # noqa: TRY400 - its text may contain a row's content

    def start(self) -> None:
        """Starts the thread that follows the database. Call `boot` first."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, and waits for it for two checks at most."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * CHECK_EVERY_S)

    def refresh(self) -> bool:
        """Checks for a new revision, and refuses an invalid one whole.

        Raises StoreUnavailable.
        """
        etag = self._store.etag()
        self.stale = False
        if etag == self._seen_etag and not self._must_reread():
            if not self.refused:
                self._confirmed_at_s = time.monotonic()
            return False
        try:
            self._swap(self._store.snapshot())
        except SnapshotInvalid as error:
            self._seen_etag = etag
            self._refused_at = time.monotonic()
            if str(error) == self.refused:
                return False
            self._refuse(error)
            log.error("new revision refused, the old one keeps serving: %s", error)  # noqa: TRY400 - the message names the cause
            return False
        return True

    def note_ends(self, ends: Statements) -> None:
        """Compiles the serving revision again if a target's stated end has changed. Call it in
        the thread that follows the store.
        """
        dates = _select_dates(ends)
        if self._snapshot is None or dates == _select_dates(self._ends):
            return
        self._ends = ends
        self.current = self._compile(self._snapshot)

    def _must_reread(self) -> bool:
        """Returns whether to read a refused revision again. A repair keeps the etag."""
        return bool(self.refused) and time.monotonic() - self._refused_at >= AGAIN_S

    def _refuse(self, error: SnapshotInvalid) -> None:
        self.refused = str(error)
        self.undercut = isinstance(error, DatabaseRestored)

    def _swap(self, offered: Snapshot) -> CompiledSnapshot:
        """Lets a snapshot serve: checks its history, compiles it, and saves it to disk.

        A full disk does not stop it. Raises SnapshotInvalid, and then the old revision
        keeps serving.
        """
        snapshot = self._guard.admit(offered, self._store.missing_lineage)
        serving = self._compile(snapshot)
        self._guard.note(snapshot)
        self.current = serving
        self._seen_etag = snapshot.etag
        self.refused = ""
        self.undercut = False
        self.stale = False
        self._confirmed_at_s = time.monotonic()
        try:
            save_snapshot(snapshot, self._file)
        except OSError as error:
            log.warning(
                "revision %d serves but is not on disk: %s",
                serving.revision,
                error,
            )
        return serving

    def _compile(self, snapshot: Snapshot) -> CompiledSnapshot:
        """Prepares a snapshot before it serves, so that its first answers do not wait."""
        opened = self._decrypt(snapshot)
        serving = compile_snapshot(
            opened, self._standing, self._keys_of(snapshot), self._classes, self._ends
        )
        if serving.judges_validity:
            matching.load_validator()
        try:
            self._prepare(snapshot)
        except ConfigError as error:
            raise SnapshotInvalid(str(error)) from error
        self._snapshot = snapshot
        return serving

    def _run(self) -> None:
        """Follows the database until `stop`. While it is away, waits up to LONGEST_PAUSE_S
        between tries.
        """
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            try:
                self._store.wait_for_change(CHECK_EVERY_S)
                if self._stopping.is_set():
                    return
                self.refresh()
                self.tell_followers()
                pause_s = FIRST_PAUSE_S
            except Exception as error:  # noqa: BLE001 - nothing may end this thread
                if not self.stale:
                    log.warning(
                        "the database does not answer, the router keeps serving: %s",
                        error,
                    )
                self.stale = True
                self._stopping.wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
