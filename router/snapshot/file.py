"""Saves the last good snapshot to a file and loads it, so that a router starts without its
database. JSON with a checksum.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from harness.domain.content_hash import canonical_json, hash_content
from harness.domain.errors import SnapshotInvalid
from harness.domain.plain_data import from_plain, to_plain
from harness.domain.routing.table import Snapshot

FORMAT: Final = 1
# What the signed rows alone say of a snapshot.
_OF_SIGNED_ROWS: Final = frozenset({"lineage", "revoked"})


def save_snapshot(snapshot: Snapshot, file: Path) -> None:
    """Atomically: after a crash there is the old file or the new one. Raises OSError."""
    content = canonical_json(snapshot_to_json(snapshot))
    whole = {
        "format": FORMAT,
        "sha256": hash_content(content),
        "snapshot": content,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(json.dumps(whole).encode())
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)
    _sync_folder(file.parent)


def load_snapshot(file: Path) -> Snapshot:
    """Loads a snapshot from its file. Raises SnapshotInvalid."""
    try:
        whole = json.loads(file.read_bytes())
        if whole["format"] != FORMAT:
            raise SnapshotInvalid(f"{file} has format {whole['format']}, not {FORMAT}")
        content: str = whole["snapshot"]
        found = hash_content(content)
        if found != whole["sha256"]:
            raise SnapshotInvalid(f"{file} is damaged: its checksum does not fit")
        return snapshot_from_json(json.loads(content))
    except OSError as error:
        raise SnapshotInvalid(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SnapshotInvalid(f"{file} is not a snapshot: {error}") from error


def _sync_folder(folder: Path) -> None:
    # Without it the new name itself may be lost with the power.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def snapshot_to_json(snapshot: Snapshot) -> dict[str, object]:
    plain = to_plain(snapshot)
    return {name: value for name, value in plain.items() if name not in _OF_SIGNED_ROWS}


def snapshot_from_json(data: Mapping[str, Any]) -> Snapshot:
    if _OF_SIGNED_ROWS & data.keys():
        raise ValueError("it says itself where it stands in its history")
    snapshot: Snapshot = from_plain(Snapshot, data)
    return snapshot
