"""Stores the exposures of canaries, the events that follow them, and counts by minute.

Routers append these rows, and never change them. The rows of a rollout and of its first callers
(`name_first_callers`) are deleted some time after the rollout's end.
`harness.gate.online.exposures` defines the rows.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from harness.frame.records.columns import (
    amount,
    at_least,
    count,
    finite,
    metadata,
    not_blank,
    one_of,
    text,
    time,
)
from harness.frame.records.record import Record, record
from harness.frame.records.transaction import Transaction
from harness.gate.online.exposures import (
    BUCKETS,
    EventKind,
    Exposure,
    ExposureCount,
    ExposureEvent,
)
from harness.gate.online.outcome import JudgeOutcome, OutcomeKind, OutcomeReason
from harness.gate.online.rollout import FIRST_CALLERS
from harness.routing.records.proposals import IS_IN_BAKE, IS_LIVE, rollout

_AMOUNTS: Final = (
    "waited_s",
    "first_output_s",
    "longest_gap_s",
    "latency_s",
    "time_to_first_token_s",
    "inter_token_latency_s",
    "output_tokens",
    "cost_usd",
    "opening_s",
    "judge_usd",
)
# Differences, which may be negative.
_DIFFERENCES: Final = ("cache_worth_usd", "cache_saved_s")
_COUNTS: Final = (
    "input_tokens",
    "cached_tokens",
    "faults",
    "text_hash",
    "text_length",
    "question_hash",
)


def _weight_range() -> sa.CheckConstraint:
    return sa.CheckConstraint("weight_bps BETWEEN 0 AND 10000", name="weight_bps_range")


# The text columns that may be unknown are NULL then, as all other columns.
EXPOSURE: Final = record(
    Exposure,
    "exposure",
    text("client", nullable=True),
    not_blank("rollout"),
    not_blank("worker"),
    *(at_least(column, 1) for column in ("number", "ticket", "period")),
    *(at_least(column, 0) for column in ("caller", "traits")),
    sa.CheckConstraint(f"sample BETWEEN 0 AND {BUCKETS - 1}", name="sample_range"),
    _weight_range(),
    key="rollout number",
)

exposure = EXPOSURE.table

EXPOSURE_EVENT: Final = record(
    ExposureEvent,
    "exposure_event",
    text("failure", nullable=True),
    text("served", nullable=True),
    not_blank("rollout"),
    not_blank("worker"),
    at_least("number", 1),
    one_of("kind", EventKind),
    one_of("outcome", OutcomeKind),
    one_of("reason", OutcomeReason),
    *map(amount, _AMOUNTS),
    *map(finite, _DIFFERENCES),
    *(at_least(column, 0) for column in _COUNTS),
    sa.CheckConstraint(f"verdict BETWEEN 0 AND {max(JudgeOutcome)}", name="verdict_known"),
    # No comparison of these is NULL, because a CHECK accepts NULL.
    sa.CheckConstraint(
        "ticket >= 1 OR (ticket = 0 AND kind = 'judged')", name="ticket_of_exposure"
    ),
    sa.CheckConstraint(
        "(outcome IS NOT NULL) = (kind IN ('ended', 'turn'))", name="outcome_of_request"
    ),
    sa.CheckConstraint("reason IS NULL OR outcome IS NOT NULL", name="reason_of_outcome"),
    sa.CheckConstraint("(bad IS NOT NULL) = (kind = 'feedback')", name="bad_of_feedback"),
    sa.CheckConstraint(
        "(verdict IS NOT NULL OR judge_usd IS NOT NULL) = (kind = 'judged')",
        name="verdict_of_judge",
    ),
    key="rollout number",
)

exposure_event = EXPOSURE_EVENT.table

EXPOSURE_COUNT: Final = record(
    ExposureCount,
    "exposure_count",
    not_blank("rollout"),
    not_blank("worker"),
    at_least("requests", 0),
    _weight_range(),
    key="rollout minute worker weight_bps canary reason",
)

exposure_count = EXPOSURE_COUNT.table

# number: the last number that a rollout's exposures and events got.
exposure_arrival = sa.Table(
    "exposure_arrival",
    metadata,
    text("rollout"),
    count("number"),
    sa.PrimaryKeyConstraint("rollout"),
    not_blank("rollout"),
    at_least("number", 0),
)

# bytes: how many bytes of the worker's file are stored as rows. router: the process that stored
# them.
exposure_file = sa.Table(
    "exposure_file",
    metadata,
    text("worker"),
    text("router"),
    count("bytes"),
    time("at"),
    sa.PrimaryKeyConstraint("worker"),
    not_blank("worker"),
    at_least("bytes", 0),
)

LAST_NUMBER = sa.select(exposure_arrival.c.number).where(
    exposure_arrival.c.rollout == sa.bindparam("of")
)

COUNTED = (
    sa.select(exposure_count)
    .where(exposure_count.c.rollout == sa.bindparam("of"))
    .order_by(*exposure_count.primary_key.columns)
)

FILES = sa.select(exposure_file.c.worker, exposure_file.c.bytes).where(
    exposure_file.c.worker.in_(sa.bindparam("workers", expanding=True))
)

STILL_COMPARED = sa.select(rollout.c.id).where(
    rollout.c.id.in_(sa.bindparam("rollouts", expanding=True)),
    sa.or_(IS_LIVE, IS_IN_BAKE, rollout.c.updated_at >= sa.bindparam("before")),
)

# How many numbers one transaction deletes, so that no writer waits long.
NUMBERS_PER_DELETION: Final = 20_000


class Exposures:
    """The facts of canaries. Routers append, the control plane reads."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def append(
        self,
        exposures: Sequence[Exposure],
        events: Sequence[ExposureEvent],
    ) -> None:
        """Stores new rows with the next numbers of their rollouts, first the exposures.

        The rows commit in the order of their numbers: after a reader has read up to a number,
        no row with a lower number comes.

        Args:
            exposures: their number is 0, as that of the events.
        """
        rows: Sequence[Exposure | ExposureEvent] = (*exposures, *events)
        arrivals = Counter(row.rollout for row in rows)
        # All writers lock rollouts in one order, so that no two writers wait for each other.
        last_numbers = {
            of: self._tx.add_up(
                exposure_arrival, {"rollout": of, "number": arrivals[of]}, "number"
            )
            - arrivals[of]
            for of in sorted(arrivals)
        }
        self._insert(EXPOSURE, exposures, last_numbers)
        self._insert(EXPOSURE_EVENT, events, last_numbers)

    def _insert(
        self,
        stored: Record[Any],
        new: Sequence[Exposure | ExposureEvent],
        last_numbers: dict[str, int],
    ) -> None:
        """Inserts rows with the numbers after `last_numbers`, and raises these."""
        rows = []
        for row in new:
            last_numbers[row.rollout] += 1
            rows.append(stored.write(row) | {"number": last_numbers[row.rollout]})
        if rows:
            self._tx.write(sa.insert(stored.table), rows)

    def add_counts(self, counts: Iterable[ExposureCount]) -> None:
        """Adds requests to the stored counts."""
        rows = map(EXPOSURE_COUNT.write, counts)
        for row in sorted(rows, key=_count_key):
            self._tx.upsert(exposure_count, row, add=("requests",))

    def note_file(
        self,
        worker: str,
        router: str,
        bytes_: int,
        at: datetime,
    ) -> None:
        """Stores how much of a worker's file is in the database. Call it in the transaction
        that appends the rows, so that each line is stored once.

        Args:
            router: the process that stored the rows.
        """
        row = {"worker": worker, "router": router, "bytes": bytes_, "at": at}
        self._tx.upsert(exposure_file, row, put=("router", "bytes", "at"))

    def file_positions(self, workers: Collection[str]) -> Mapping[str, int]:
        """Returns how many bytes of workers' files are stored, without unknown workers."""
        rows = self._tx.read(FILES, {"workers": sorted(workers)})
        return {row.worker: row.bytes for row in rows}

    def forget_files(self, workers: Collection[str]) -> None:
        """Deletes the positions of files that the router has deleted."""
        if workers:
            deleted = exposure_file.c.worker.in_(sorted(workers))
            self._tx.write(sa.delete(exposure_file).where(deleted))

    def forget_files_before(self, before: datetime) -> int:
        """Deletes the positions of files that no router has written since a time."""
        return self._tx.write(sa.delete(exposure_file).where(exposure_file.c.at < before))

    def exposures(self, of: str, after: int = 0) -> Sequence[Exposure]:
        """Lists a rollout's exposures by number.

        Args:
            after: only exposures with a higher number.
        """
        return self._newer(EXPOSURE, of, after)

    def events(self, of: str, after: int = 0) -> Sequence[ExposureEvent]:
        """Lists the events of a rollout's exposures by number.

        Args:
            after: only events with a higher number.
        """
        return self._newer(EXPOSURE_EVENT, of, after)

    def _newer(
        self,
        stored: Record[Any],
        of: str,
        after: int,
    ) -> list[Any]:
        columns = stored.table.c
        query = sa.select(stored.table).where(columns.rollout == of, columns.number > after)
        return [stored.read(row) for row in self._tx.read(query.order_by(columns.number))]

    def counts(self, of: str) -> Sequence[ExposureCount]:
        """Lists a rollout's counts, the oldest minute first."""
        return [EXPOSURE_COUNT.read(row) for row in self._tx.read(COUNTED, {"of": of})]

    def last_number(self, of: str) -> int:
        """Returns the last number of a rollout's rows; 0 without rows."""
        return self._tx.read(LAST_NUMBER, {"of": of}).scalar() or 0

    def outdated(self, before: datetime) -> Sequence[str]:
        """Lists the names with rows whose rollout ended before a time, or is unknown.

        The rollout of a name with FIRST_CALLERS is that without.
        """
        names = {*self._names(exposure_arrival), *self._names(exposure_count)}
        rollouts = {name: name.removesuffix(FIRST_CALLERS) for name in names}
        wanted = {"rollouts": sorted({*rollouts.values()}), "before": before}
        compared = set(self._tx.read(STILL_COMPARED, wanted).scalars())
        return sorted(name for name in names if rollouts[name] not in compared)

    def _names(self, table: sa.Table) -> Iterable[str]:
        """Reads the rollouts of a table, one look into its key for each."""
        name = ""
        following = sa.select(sa.func.min(table.c.rollout)).where(
            table.c.rollout > sa.bindparam("name")
        )
        while name := self._tx.read(following, {"name": name}).scalar() or "":
            yield name

    def forget(self, of: str) -> bool:
        """Deletes a rollout's oldest rows, which the database refuses before the rollout's end.
        Returns whether rows are left.
        """
        first = self._first_number(of)
        end = first + NUMBERS_PER_DELETION
        if first > 0 and end <= self.last_number(of):
            for table in (exposure, exposure_event):
                oldest = (table.c.rollout == of, table.c.number < end)
                self._tx.write(sa.delete(table).where(*oldest))
            return True
        # First the arrival, which waits for a router that adds rows with its numbers.
        for table in (exposure_arrival, exposure, exposure_event, exposure_count):
            self._tx.write(sa.delete(table).where(table.c.rollout == of))
        return False

    def _first_number(self, of: str) -> int:
        """Returns the lowest number of a rollout's rows; 0 without rows."""
        queries = (
            sa.select(sa.func.min(table.c.number)).where(table.c.rollout == of)
            for table in (exposure, exposure_event)
        )
        lowest = [self._tx.read(query).scalar() for query in queries]
        return min((number for number in lowest if number is not None), default=0)


def _count_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column.name] for column in exposure_count.primary_key.columns)
