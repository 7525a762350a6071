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

    @property
    def empty(self) -> bool:
        return self._size() == 0

    def append(self, batch: Batch) -> bool:
        """False when it does not fit any more. Raises OSError (disk full, not writable)."""
        line = (encode(batch) + "\n").encode()
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
        """Each batch with the offset of the next one; a line torn by a crash is skipped."""
        if self.empty:
            return
        with self.file.open("rb") as lines:
            offset = 0
            for line in lines:
                offset += len(line)
                try:
                    batch = decode(line)
                except (ValueError, KeyError, TypeError):
                    continue
                yield batch, offset

    def forget(self, offset: int) -> None:
        """Drop everything before the offset; what is left takes its place atomically."""
        rest = self.file.read_bytes()[offset:]
        if not rest:
            self.file.unlink()
            return
        temporary = self.file.with_name(f".{self.file.name}.rest")
        temporary.write_bytes(rest)
        temporary.replace(self.file)

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
