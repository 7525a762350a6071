"""Writes batches of observations: to a file if the database is down, or between processes.

Both use JSON of the rows, so that a batch has one form. `recorder` decides when to spool, and
replays in order. The spool never contains captures.
"""

import fcntl
import json
import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from struct import Struct
from typing import Any, Final, NamedTuple

from harness.frame.alerts.alert import Alert
from harness.frame.people.limits import KeySpend
from harness.frame.plain_data import from_plain, to_plain
from harness.gate.online.exposures import ExposureCount
from harness.gate.online.observation import (
    AskedName,
    ObservationBlock,
    TrafficMinute,
)
from harness.gate.pins import Sighting
from harness.routing.reliability.failover import Failover
from harness.routing.shadow import ShadowTally


class Batch(NamedTuple):
    """The plain data of one transaction."""

    blocks: Sequence[ObservationBlock] = ()
    traffic: Sequence[TrafficMinute] = ()
    failovers: Sequence[Failover] = ()
    alerts: Sequence[Alert] = ()
    spends: Sequence[KeySpend] = ()
    sightings: Sequence[Sighting] = ()
    shadows: Sequence[ShadowTally] = ()
    asked_names: Sequence[AskedName] = ()
    exposure_counts: Sequence[ExposureCount] = ()
    # The database recognizes a repeated batch by this id; empty for a batch that is sent once.
    id: str = ""

    @property
    def rows(self) -> int:
        """The number of rows of all kinds."""
        return sum(len(rows) for rows in self if not isinstance(rows, str))

    @property
    def parts(self) -> list["Batch"]:
        """The batch in parts that the database may accept alone.

        Blocks and traffic stay together.
        """
        counts = Batch(self.blocks, self.traffic)
        single = [
            NOTHING._replace(**{name: getattr(self, name)})
            for name in _ROW_TYPES
            if name != "traffic"
        ]
        return [
            batch._replace(id=f"{self.id}.{number}" if self.id else "")
            for number, batch in enumerate((counts, *single))
            if batch.rows
        ]


NOTHING = Batch()
# The row types of a batch's fields, without blocks.
_ROW_TYPES: Final[Mapping[str, type]] = {
    "traffic": TrafficMinute,
    "failovers": Failover,
    "alerts": Alert,
    "spends": KeySpend,
    "sightings": Sighting,
    "shadows": ShadowTally,
    "asked_names": AskedName,
    "exposure_counts": ExposureCount,
}
# The longest wait for another process that replays the same spool.
LOCK_S = 2.0


class Spool:
    """Keeps batches in a JSONL file of at most max_bytes.

    Several processes may share it, with one thread each.
    """

    def __init__(self, file: Path, *, max_bytes: int = 64 * 1024 * 1024) -> None:
        self.file = file
        self._max_bytes = max_bytes

    @property
    def empty(self) -> bool:
        return not self.file.exists()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Locks the spool against other processes inside the `with` block.

        Raises OSError if another process does not finish in time.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        ends_at_s = time.monotonic() + LOCK_S
        with self.file.with_name(f"{self.file.name}.lock").open("ab") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > ends_at_s:
                        raise
                    time.sleep(0.02)
            yield

    def append(self, batch: Batch) -> bool:
        """Appends a batch; False if the file is full. Raises OSError."""
        # Begin a new line, because a crash may have cut the last line.
        line = f"\n{json.dumps(batch_to_json(batch))}\n".encode()
        with self.lock():
            size = self.file.stat().st_size if self.file.exists() else 0
            if size + len(line) > self._max_bytes:
                return False
            with self.file.open("ab") as out:
                try:
                    out.write(line)
                    out.flush()
                    os.fsync(out.fileno())
                except OSError:
                    out.truncate(size)  # removes an incomplete line
                    raise
        return True

    def batches(self) -> Generator[Batch, None, None]:
        """Yields the complete batches in order. Skips incomplete lines. Raises OSError."""
        with self.file.open("rb") as lines:
            for line in lines:
                with suppress(ValueError, KeyError, TypeError, AttributeError):
                    yield batch_from_json(json.loads(line))

    def clear(self) -> None:
        """Removes the file. Raises OSError. The database must have all its batches."""
        self.file.unlink()


def batch_to_json(batch: Batch) -> dict[str, object]:
    """Returns a batch as plain data."""
    return to_plain(batch._asdict())  # type: ignore[no-any-return]  # a mapping


def batch_from_json(data: Mapping[str, Any]) -> Batch:
    """Reads a batch. Raises ValueError, KeyError, TypeError or AttributeError."""
    kinds = {"blocks": ObservationBlock, **_ROW_TYPES}
    rows = {name: [from_plain(kind, row) for row in data[name]] for name, kind in kinds.items()}
    return Batch(id=data["id"], **rows)


class ExposureEntry(StrEnum):
    """The tag of an entry in a report's `units`. The comments list the values after a tag.

    rollout: the number of the rollout. key: a hash of the sticky key. canary: 1 or 0.
    """

    ADMITTED = "a"  # ticket, rollout, key, canary, weight_bps, traits, id of the client's key
    ENDED = "o"  # ticket, `ExposureOutcome.plain`, served model, `GuardrailSample.plain` or []
    JUDGED = "v"  # ticket, rollout, verdict, cost in US dollars
    UNCOUNTED = "n"  # rollout, canary, weight_bps, reason (`ObservationBlock.uncounted`)


_LENGTH: Final = Struct("!I")
_FRAME_ENCODER: Final = json.JSONEncoder(default=to_plain, separators=(",", ":"))


def encode_frame(message: dict[str, Any]) -> bytes:
    """Writes a message between a worker and its parent: its length, then JSON (`to_plain`).

    A worker's report may have `ready`, `live` (the rollouts of its snapshot), `batch`, `abort`,
    `metrics` and `ask` (a request for all metrics). `rollouts` has ids and exposure rules,
    numbered from 0 in order. `units` has lists that begin with an `ExposureEntry`. `captures`
    stay in memory: no process writes them to a file. Feedback uses `opinion`, `opined` and
    `entered`.
    """
    data = _FRAME_ENCODER.encode(message).encode()
    return _LENGTH.pack(len(data)) + data


class FrameReader:
    """Assembles messages from bytes that arrive in any pieces."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Yields the messages that are complete now. Raises ValueError for malformed data."""
        buffer = self._buffer
        buffer += data
        position = 0
        while len(buffer) - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, position)
            end = position + _LENGTH.size + length
            if len(buffer) < end:
                break
            yield json.loads(buffer[position + _LENGTH.size : end])
            position = end
        del buffer[:position]
