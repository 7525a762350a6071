"""Moves old rows of what requests leave behind from the database into Parquet files
(`archive_old_rows`), lists the files by the audit log, verifies and reads them.

Each file is one unit of work: rows are locked and read, written and read back, deleted, and the
file's checksum is recorded in the audit log. Who is killed before the end has deleted nothing,
and leaves a file that no event names.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from itertools import takewhile
from typing import Any, Final

from harness.control import audit
from harness.control.context import Context
from harness.domain.errors import InputError, NotFound, SignatureInvalid
from harness.domain.operations.access import SYSTEM, Actor, Role
from harness.domain.operations.archive import (
    ARCHIVE_SUBJECT,
    ARCHIVE_WRITE,
    ARCHIVED,
    LEAST_KEPT,
    ArchivedFile,
    ArchiveFault,
)
from harness.ports import ArchiveFiles

# A unit of work holds the lock of SQLite for about as long as it takes to write these.
ROWS_PER_FILE: Final = 5_000
_MOST_FILES: Final = 1_000_000
_FIRST_DAY: Final = "0001-01-01"
_BEGINNING: Final = re.compile(r"\d{4}(-\d\d(-\d\d(T.*)?)?)?", re.ASCII)
_ALWAYS: Final = datetime(1970, 1, 1, tzinfo=UTC)


def archive_old_rows(
    ctx: Context,
    files: ArchiveFiles,
    after: timedelta,
    *,
    actor: Actor = SYSTEM,
    rows_per_file: int = ROWS_PER_FILE,
) -> Sequence[ArchivedFile]:
    """Moves the rows that are older than `after`; returns the files that it wrote. Raises
    InputError for less than `LEAST_KEPT`, StoreUnavailable where a file cannot be written.
    """
    actor.require(Role.ADMIN)
    if after < LEAST_KEPT:
        raise InputError(
            f"`archive.after_days` is {after.days}: reports read the last {LEAST_KEPT.days} "
            "days from the database"
        )
    before = (ctx.clock.now() - after).astimezone(UTC)
    written = []
    for table in ARCHIVED:
        while file := _archive_part(ctx, files, table, before, actor, rows_per_file):
            written.append(file)
    with ctx.store.write() as tx:
        tx.observations.forget_hours(before)
    return written


def _archive_part(
    ctx: Context,
    files: ArchiveFiles,
    table: str,
    before: datetime,
    actor: Actor,
    limit: int,
) -> ArchivedFile | None:
    """Moves some of the oldest rows, of one month; None where there are none."""
    with ctx.store.write() as tx:
        oldest = tx.archive.oldest(table, before, limit=limit)
        if not oldest:
            return None
        month = _time(table, oldest[0])[: len("2026-01")]
        rows = list(takewhile(lambda row: _time(table, row).startswith(month), oldest))
        name, sha256 = files.write(table, month, tx.archive.columns(table), rows)
        tx.archive.delete(table, rows)
        first, last = _time(table, rows[0]), _time(table, rows[-1])
        file = ArchivedFile(name, table, len(rows), first, last, sha256)
        audit.record(ctx, tx, actor, ARCHIVE_WRITE, ARCHIVE_SUBJECT, asdict(file))
    return file


def _time(table: str, row: Mapping[str, Any]) -> str:
    value = row[ARCHIVED[table]]
    return value.isoformat() if isinstance(value, date) else str(value)


def list_archived_files(ctx: Context) -> Sequence[ArchivedFile]:
    """Lists the files that were written, oldest first."""
    with ctx.store.read() as tx:
        events = tx.audit.for_subject(ARCHIVE_SUBJECT, since=_ALWAYS, limit=_MOST_FILES)
    found = {}
    for event in reversed(events):
        if event.action == ARCHIVE_WRITE:
            file = ArchivedFile(**event.details)  # type: ignore[arg-type] # as it was recorded
            found[file.name] = file
    return list(found.values())


def verify_archive(ctx: Context, files: ArchiveFiles) -> Sequence[ArchiveFault]:
    """Compares the folder with the audit log: files that are missing or changed, and files that
    no event names, whose rows are still in the database.
    """
    known = {file.name: file for file in list_archived_files(ctx)}
    faults = []
    for name, file in known.items():
        sha256 = files.sha256(name)
        if sha256 is None:
            faults.append(ArchiveFault(name, "it is missing: bring it back from a copy"))
        elif sha256 != file.sha256:
            faults.append(ArchiveFault(name, "it is not what was written: bring it back"))
    extra = (
        ArchiveFault(name, "the audit log does not name it: its rows were not removed")
        for name in files.names()
        if name not in known
    )
    return [*faults, *extra]


def read_archive(
    ctx: Context, files: ArchiveFiles, table: str, since: str = "", until: str = ""
) -> Iterator[Mapping[str, Any]]:
    """Yields the archived rows of a table, oldest first. since, until: beginnings of ISO times,
    such as 2026-03; until is left out itself. Raises NotFound for a table that is never
    archived or a missing file, SignatureInvalid for one that was changed, InputError for what
    begins no time.
    """
    if table not in ARCHIVED:
        raise NotFound(f"{table!r} is not archived; these are: {', '.join(ARCHIVED)}")
    for begin in filter(None, (since, until)):
        if not _begins_time(begin):
            raise InputError(
                f"{begin!r} begins no time: write a month or a day, 2026-03 or 2026-03-14"
            )
    for file in list_archived_files(ctx):
        if file.table != table or file.last < since or (until and file.first >= until):
            continue
        if files.sha256(file.name) not in (None, file.sha256):
            raise SignatureInvalid(
                f"{file.name} is not what was written: bring it back from a copy"
            )
        for row in files.read(file.name):
            at = _time(table, row)
            if at >= since and not (until and at >= until):
                yield row


def _begins_time(text: str) -> bool:
    """Tells whether a text is a year, a month, a day, or a day with more behind it."""
    if _BEGINNING.fullmatch(text) is None:
        return False
    day = text[: len(_FIRST_DAY)]
    try:
        date.fromisoformat(day + _FIRST_DAY[len(day) :])
    except ValueError:
        return False
    return True
