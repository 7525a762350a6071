"""Opens SQLite stores on copies of one migrated file."""

import sqlite3
import tempfile
from functools import cache
from pathlib import Path

from harness.app.store.migrate import upgrade
from harness.app.store.store import Store
from harness.frame.ports import Clock
from tests.support.site.signing_keys import CONTROL


@cache
def migrated_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "template.db"
        upgrade(f"sqlite:///{file}")
        db = sqlite3.connect(file)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        return file.read_bytes()


def open_sqlite(
    file: Path,
    clock: Clock,
    *,
    secret: bytes,
) -> Store:
    file.write_bytes(migrated_file())
    return Store(
        f"sqlite:///{file}",
        secret=secret,
        clock=clock,
        signatures=CONTROL,
    )
