"""The spool keeps batches of observations in a file while the database is away, and gives them
back in order. `Batch` is what is written in one go: blocks, traffic, failovers, alerts, spends;
also as JSON between processes.
"""

import fcntl
import json
import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

from harness.domain.canary.guardrails import (
    levels_from_json,
    ranks_from_json,
    tallies_from_json,
)
from harness.domain.canary.observation import (
    AskedName,
    NeverSeen,
    ObservationBlock,
    TrafficMinute,
)
from harness.domain.evals.pins import ServedModel, Sighting
from harness.domain.operations.alerts import Alert, AlertEvent, AlertKind
from harness.domain.reliability.failover import Failover
from harness.domain.reliability.spend import KeySpend
from harness.domain.shadow.shadow import ShadowTally


class Batch(NamedTuple):
    """What is written in one unit of work: plain data."""

    blocks: Sequence[ObservationBlock]
    traffic: Sequence[TrafficMinute]
    failovers: Sequence[Failover] = ()
    alerts: Sequence[Alert] = ()
    spends: Sequence[KeySpend] = ()
    sightings: Sequence[Sighting] = ()
    shadows: Sequence[ShadowTally] = ()
    asked_names: Sequence[AskedName] = ()
    # By which the database knows a batch that comes again; empty for one that never does.
    id: str = ""

    @property
    def rows(self) -> int:
        return sum(len(rows) for rows in self if not isinstance(rows, str))

    @property
    def parts(self) -> list["Batch"]:
        """Parts the batch by kind, so that what is refused takes nothing else with it."""
        counts, none = Batch(self.blocks, self.traffic), Batch((), ())
        split = (
            counts,
            none._replace(failovers=self.failovers),
            none._replace(alerts=self.alerts),
            none._replace(spends=self.spends),
            none._replace(sightings=self.sightings),
            none._replace(shadows=self.shadows),
            none._replace(asked_names=self.asked_names),
        )
        return [
            batch._replace(id=f"{self.id}.{number}" if self.id else "")
            for number, batch in enumerate(split)
            if batch.rows
        ]


NOTHING = Batch((), ())
# What a line begins with once its batch is in the database.
DONE = b"#"
# How long to wait for another process that replays the same spool.
LOCK_S = 2.0


class Spool:
    """Keeps batches in a JSONL file of at most max_bytes. Several processes may share it, each
    by one thread.
    """

    def __init__(self, file: Path, *, max_bytes: int = 64 * 1024 * 1024) -> None:
        self.file = file
        self._max_bytes = max_bytes
        self._unmarked: set[int] = set()  # done, and the disk did not take the mark

    @property
    def empty(self) -> bool:
        return not self.file.exists()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from replaying or appending within its block. Raises OSError
        when one goes on.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + LOCK_S
        with self.file.with_suffix(".lock").open("ab") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.02)
            yield

    def append(self, batch: Batch) -> bool:
        """Appends a batch; False when it does not fit any more. Raises OSError (disk full, not
        writable).
        """
        # It begins a line of its own: a crash may have torn the one before.
        line = f"\n{encode(batch)}\n".encode()
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
                    out.truncate(size)  # no half a line before the next one
                    raise
        return True

    def batches(self) -> Generator[tuple[Batch, int], None, None]:
        """Yields each batch that is not done, with its place; torn ones are left out.

        To be called while it is `held`. Raises OSError.
        """
        place = 0
        with self.file.open("rb") as lines:
            for line in lines:
                batch = NOTHING
                if not line.startswith(DONE) and place not in self._unmarked:
                    with suppress(ValueError, KeyError, TypeError):
                        batch = decode(line)
                if batch.rows:
                    yield batch, place
                place += len(line)

    def done(self, places: Sequence[int]) -> None:
        """The batches there are never handed out again. Raises OSError.

        At once and in place: a kill in mid-replay must not count what was written twice.
        """
        try:
            with self.file.open("r+b") as out:
                for place in places:
                    out.seek(place)
                    out.write(DONE)
        except OSError:
            self._unmarked.update(places)
            raise

    def clear(self) -> None:
        """Deletes the spool's file, as all batches are done. Raises OSError."""
        self.file.unlink()
        self._unmarked.clear()


def encode(batch: Batch) -> str:
    """Writes a batch as one line of JSON."""
    return json.dumps(batch_to_json(batch), default=datetime.isoformat)


def batch_to_json(batch: Batch) -> dict[str, object]:
    """Turns a batch into JSON, but for its datetimes, which the encoder must write."""
    return {
        "blocks": [asdict(block) for block in batch.blocks],
        "traffic": [asdict(row) for row in batch.traffic],
        "failovers": [asdict(row) for row in batch.failovers],
        "alerts": [asdict(alert) for alert in batch.alerts],
        "spends": [{**asdict(row), "day": row.day.isoformat()} for row in batch.spends],
        "sightings": [asdict(sighting) for sighting in batch.sightings],
        "shadows": [{**asdict(row), "day": row.day.isoformat()} for row in batch.shadows],
        "asked_names": [
            {**asdict(row), "day": row.day.isoformat()} for row in batch.asked_names
        ],
        "id": batch.id,
    }


def decode(line: bytes | str) -> Batch:
    """Reads a batch from a line of `encode`. Raises ValueError, KeyError or TypeError for any
    other line.
    """
    return batch_from_json(json.loads(line))


def batch_from_json(data: Mapping[str, Any]) -> Batch:
    """Builds a batch from the JSON of `batch_to_json`. Raises ValueError, KeyError or TypeError
    for any other.
    """
    moment = datetime.fromisoformat
    blocks = [
        ObservationBlock(
            **{
                **block,
                "opened_at": moment(block["opened_at"]),
                "closed_at": moment(block["closed_at"]),
                "counts": tallies_from_json(block["counts"]),
                "ranks": ranks_from_json(block["ranks"]),
                "levels": levels_from_json(block["levels"]),
                "never_seen": NeverSeen.from_json(new)
                if (new := block["never_seen"])
                else None,
            }
        )
        for block in data["blocks"]
    ]
    traffic = [
        TrafficMinute(
            **{
                **row,
                "minute": moment(row["minute"]),
                "latency_ms": {int(bound): n for bound, n in row["latency_ms"].items()},
            }
        )
        for row in data["traffic"]
    ]
    failovers = [Failover(**{**row, "at": moment(row["at"])}) for row in data["failovers"]]
    alerts = [_alert(row) for row in data["alerts"]]
    spends = [
        KeySpend(**{**row, "day": date.fromisoformat(row["day"])}) for row in data["spends"]
    ]
    sightings = [
        Sighting(
            row["target"],
            ServedModel(**row["served"]),
            moment(row["first_at"]),
            moment(row["last_at"]),
        )
        for row in data["sightings"]
    ]
    shadows = [
        ShadowTally(**{**row, "day": date.fromisoformat(row["day"])}) for row in data["shadows"]
    ]
    asked_names = [
        AskedName(**{**row, "day": date.fromisoformat(row["day"])})
        for row in data["asked_names"]
    ]
    id_ = data["id"]
    return Batch(
        blocks, traffic, failovers, alerts, spends, sightings, shadows, asked_names, id_
    )


def _alert(row: dict[str, Any]) -> Alert:
    words = {"kind": AlertKind(row["kind"]), "news": AlertEvent(row["news"])}
    return Alert(**{**row, **words, "at": datetime.fromisoformat(row["at"])})
