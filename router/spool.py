"""Observations on disk while the database is away: one batch a line, replayed in order."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from harness.domain.observation import Block, Traffic


class Batch(NamedTuple):
    blocks: Sequence[Block]
    traffic: Sequence[Traffic]

    @property
    def rows(self) -> int:
        return len(self.blocks) + len(self.traffic)


class Spool:
    """A JSONL file of at most max_bytes. One process and thread at a time."""

    def __init__(self, file: Path, *, max_bytes: int = 64 * 1024 * 1024) -> None:
        self.file = file
        self._max_bytes = max_bytes
        self._done = 0  # up to here everything is forgotten

    @property
    def empty(self) -> bool:
        return self._size() <= self._done

    def append(self, batch: Batch) -> bool:
        """False when it does not fit any more. Raises OSError (disk full, not writable)."""
        # It begins a line of its own: a crash may have torn the one before.
        line = f"\n{encode(batch)}\n".encode()
        size = self._size()
        if size + len(line) > self._max_bytes:
            return False
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("ab") as out:
            try:
                out.write(line)
                out.flush()
                os.fsync(out.fileno())
            except OSError:
                out.truncate(size)  # no half a line before the next one
                raise
        return True

    def batches(self) -> Iterator[tuple[Batch, int]]:
        """Each batch that is not forgotten, with the offset of the next; a torn one is empty.

        Raises OSError.
        """
        if self.empty:
            return
        with self.file.open("rb") as lines:
            offset = lines.seek(self._done)
            for line in lines:
                offset += len(line)
                try:
                    batch = decode(line)
                except (ValueError, KeyError, TypeError):
                    batch = Batch((), ())
                yield batch, offset

    def forget(self, offset: int) -> None:
        """Never hand out again what is before the offset. Raises OSError, and forgets."""
        self._done = offset
        if offset >= self._size():
            self.file.unlink()
            self._done = 0

    def _size(self) -> int:
        try:
            return self.file.stat().st_size
        except FileNotFoundError:
            return 0


def encode(batch: Batch) -> str:
    """One line of JSON."""
    return json.dumps(
        {
            "blocks": [asdict(block) for block in batch.blocks],
            "traffic": [asdict(row) for row in batch.traffic],
        },
        default=datetime.isoformat,
    )


def decode(line: bytes | str) -> Batch:
    """Raises ValueError, KeyError or TypeError for what `encode` did not write."""
    data = json.loads(line)
    moment = datetime.fromisoformat
    blocks = [
        Block(
            **{
                **block,
                "opened_at": moment(block["opened_at"]),
                "closed_at": moment(block["closed_at"]),
            }
        )
        for block in data["blocks"]
    ]
    traffic = [
        Traffic(
            **{
                **row,
                "minute": moment(row["minute"]),
                "latency_ms": {int(bound): n for bound, n in row["latency_ms"].items()},
            }
        )
        for row in data["traffic"]
    ]
    return Batch(blocks, traffic)
