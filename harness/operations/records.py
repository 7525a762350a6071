"""Records of captured requests, and of the times of scheduled jobs.

The table `captured` refuses a row without the digest of its redaction rules. Only the router
writes captures; deletion is in `harness.operations.captures`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from harness.frame.records.columns import at_least
from harness.frame.records.record import record
from harness.frame.records.repository import Records, given
from harness.routing.capture import CapturedRequest, CaptureResult, day_start
from harness.routing.records.failovers import batch_user_hashes


@dataclass(frozen=True, slots=True)
class JobTime:
    """The last time of a job with a cron expression. The job may have missed it during a
    restart.
    """

    job: str
    cron: str  # the expression that this time belongs to
    at: datetime


JOB_TIME: Final = record(JobTime, "job_time", key="job")


class JobTimes(Records[JobTime]):
    record = JOB_TIME

    def find(self, job: str) -> JobTime | None:
        return self._first(self._select(self._is(job)))

    def put(self, new: JobTime) -> None:
        """Stores a job's time instead of its earlier time."""
        self._tx.upsert(JOB_TIME.table, JOB_TIME.write(new), put=("cron", "at"))

    def forget(self, job: str) -> int:
        return self._delete(self._is(job))


CAPTURED: Final = record(
    CapturedRequest,
    "captured",
    at_least("seen", 1),
    sa.CheckConstraint("share_bps BETWEEN 1 AND 10000", name="share_bps_range"),
    sa.CheckConstraint("expires_at > at", name="expires_later"),
    # The redactor's digest proves that the texts are redacted.
    sa.CheckConstraint("length(rules) = 64", name="rules_known"),
    sa.Index("ix_captured_at", "at", "id"),
    sa.Index("ix_captured_route", "route", "at"),
    sa.Index("ix_captured_expires_at", "expires_at"),
    sa.Index("ix_captured_user_hash", "user_hash"),
)

captured = CAPTURED.table


class Captures(Records[CapturedRequest]):
    """Captured requests with their answers. The router redacts them before it stores them."""

    record = CAPTURED
    order = (captured.c.at.desc(), captured.c.id)
    missing = "there is no captured request {}; `swapgate capture list` shows them"

    def store(self, new: CapturedRequest, *, most_per_day: int) -> CaptureResult:
        """Stores a request, or counts its repetition. most_per_day: the route's limit."""
        # Without the lock, parallel routers could exceed the limit.
        self._tx.serialize_by(f"capture:{new.route}")
        if self._change(self._is(new.id), seen=captured.c.seen + 1):
            return CaptureResult.REPEATED
        is_today = (
            captured.c.route == new.route,
            captured.c.at >= day_start(new.at),
        )
        count = sa.select(sa.func.count()).select_from(captured).where(*is_today)
        if self._tx.read(count).scalar_one() >= most_per_day:
            return CaptureResult.FULL
        self.add(new)
        return CaptureResult.STORED

    def list(
        self,
        *,
        route: str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
    ) -> Sequence[CapturedRequest]:
        """Lists captured requests with their content, newest first. since: None for all."""
        is_recent = None if since is None else captured.c.at >= since
        return self._all(self._select(given(captured.c.route, route), is_recent).limit(limit))

    def sizes(
        self, *, since: datetime, route: str | None = None
    ) -> Sequence[tuple[int, bool, int]]:
        """Lists each request's size in bytes, whether it was too large, and its repetitions."""
        columns = (
            captured.c.body_bytes,
            captured.c.too_large,
            captured.c.seen,
        )
        of_route = [] if route is None else [captured.c.route == route]
        query = sa.select(*columns).where(captured.c.at >= since, *of_route)
        rows = self._tx.read(query)
        return [(row.body_bytes, row.too_large, row.seen) for row in rows]

    def forget(self, now: datetime) -> int:
        """Deletes the expired requests. Returns their number."""
        return self._delete(captured.c.expires_at <= now)

    def purge(
        self,
        *,
        id_: str | None = None,
        route: str | None = None,
        users: Sequence[str] = (),
    ) -> int:
        """Deletes requests that match all given filters. users: hashes of user ids; a request
        matches if it has any of them.
        """
        query = sa.delete(captured)
        if id_ is not None:
            query = query.where(captured.c.id == id_)
        if route is not None:
            query = query.where(captured.c.route == route)
        if not users:
            return self._tx.write(query)
        return sum(
            self._tx.write(query.where(captured.c.user_hash.in_(batch)))
            for batch in batch_user_hashes(self._tx, captured.c.user_hash, users)
        )
