"""Records of captured requests, and of the times of scheduled jobs.

The table `captured` refuses a row without the digest of its redaction rules. It has the sampled
requests and the pairs of shadows. Only the router writes captures; deletion is in
`harness.operations.captures`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, NamedTuple

import sqlalchemy as sa

from harness.frame.records.columns import at_least, index_where
from harness.frame.records.record import record
from harness.frame.records.repository import Records, given
from harness.routing.capture import CapturedRequest, CaptureResult, day_start
from harness.routing.records.failovers import batch_user_hashes
from harness.routing.shadow_pair import STORING_TIME, CandidateOutcome


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


class DeletedCapture(NamedTuple):
    """What remains of a captured request until its deletion is counted: no content.

    shadow: whose pair it was; None for a sampled request.
    """

    id: str
    at: datetime
    shadow: str | None
    caller: str
    conversation: str


_IS_PAIR: Final = sa.text("shadow IS NOT NULL")

CAPTURED: Final = record(
    CapturedRequest,
    "captured",
    at_least("seen", 1),
    sa.CheckConstraint("share_bps BETWEEN 1 AND 10000", name="share_bps_range"),
    sa.CheckConstraint("expires_at > at", name="expires_later"),
    # The redactor's digest proves that the texts are redacted.
    sa.CheckConstraint("length(rules) = 64", name="rules_known"),
    sa.CheckConstraint("(shadow IS NULL) = (candidate IS NULL)", name="pair_whole"),
    sa.Index("ix_captured_at", "at", "id"),
    sa.Index("ix_captured_route", "route", "at"),
    sa.Index("ix_captured_expires_at", "expires_at"),
    sa.Index("ix_captured_user_hash", "user_hash"),
    index_where("ix_captured_shadow", _IS_PAIR, "shadow", "at", "id"),
    index_where("ix_captured_pair_caller", _IS_PAIR, "shadow", "caller", "conversation"),
)

captured = CAPTURED.table
_SAMPLED: Final = captured.c.shadow.is_(None)


class Captures(Records[CapturedRequest]):
    """Captured requests with their answers. The router redacts them before it stores them."""

    record = CAPTURED
    order = (captured.c.at.desc(), captured.c.id)
    missing = "there is no captured request {}; `swapproof capture list` shows them"

    def store(self, new: CapturedRequest, *, most_per_day: int) -> CaptureResult:
        """Stores a sampled request, or counts its repetition.

        Args:
            most_per_day: the route's limit.
        """
        # Without the lock, parallel routers could exceed the limit.
        self._tx.serialize_by(f"capture:{new.route}")
        if self._change(self._is(new.id), seen=captured.c.seen + 1):
            return CaptureResult.REPEATED
        is_today = (
            _SAMPLED,
            captured.c.route == new.route,
            captured.c.at >= day_start(new.at),
        )
        count = sa.select(sa.func.count()).select_from(captured).where(*is_today)
        if self._tx.read(count).scalar_one() >= most_per_day:
            return CaptureResult.FULL
        self.add(new)
        return CaptureResult.STORED

    def store_pair(self, pair: CapturedRequest) -> CaptureResult:
        """Enters a shadow pair whose answer is pending, or stores an entered pair's answer.

        REPEATED: the caller has a pair already; without a caller, the conversation.
        LATE: the pair was never entered, is deleted or has an answer, or its answer is overdue.
        """
        if pair.candidate is None:
            raise ValueError(f"the capture {pair.id} is no shadow pair")
        self._tx.serialize_by(f"shadow:{pair.shadow}")
        if pair.candidate.outcome is CandidateOutcome.PENDING:
            if self._tx.read(self._same_caller(pair)).first() is not None:
                return CaptureResult.REPEATED
            self.add(pair)
            return CaptureResult.STORED
        entered = self._first(self._select(self._is(pair.id)).with_for_update())
        is_open = (
            entered is not None
            and entered.candidate is not None
            and entered.candidate.settle(self._tx.now()) is None
        )
        if not is_open:
            return CaptureResult.LATE
        self._change(self._is(pair.id), **CAPTURED.write(pair))
        return CaptureResult.STORED

    def _same_caller(self, pair: CapturedRequest) -> sa.Select[tuple[str]]:
        same = [self._is(pair.id)]
        if pair.caller or pair.conversation:
            same = [captured.c.shadow == pair.shadow, captured.c.caller == pair.caller]
        if not pair.caller and pair.conversation:
            same.append(captured.c.conversation == pair.conversation)
        return sa.select(captured.c.id).where(*same)

    def pairs(
        self,
        shadows: Collection[str],
        *,
        judged: Collection[str],
        limit: int,
    ) -> Sequence[CapturedRequest]:
        """Lists shadows' pairs that have no judgement, in the order in which they began.

        Args:
            judged: the ids of judged pairs.

        Ends at the first pair whose answer may still come, so that a slow answer keeps its
        place. An answer that is overdue has the outcome LOST. Each caller has one pair of a
        shadow.
        """
        in_order = (captured.c.at, captured.c.id)
        now = self._tx.now()
        ids = (
            sa.select(captured.c.id)
            .where(captured.c.shadow.in_(sorted(shadows)), captured.c.at <= now - STORING_TIME)
            .order_by(*in_order)
        )
        left = [row.id for row in self._tx.read(ids) if row.id not in judged][:limit]
        query = sa.select(captured).where(captured.c.id.in_(left)).order_by(*in_order)
        settled = []
        for pair in self._all(query):
            answer = pair.candidate and pair.candidate.settle(now)
            if answer is None:
                break
            settled.append(replace(pair, candidate=answer))
        return settled

    def list(
        self,
        *,
        route: str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
    ) -> Sequence[CapturedRequest]:
        """Lists sampled requests with their content, newest first.

        Args:
            since: None for all.

        A shadow's pairs are no part of the sample: another rule draws them.
        """
        is_recent = None if since is None else captured.c.at >= since
        conditions = (_SAMPLED, given(captured.c.route, route), is_recent)
        return self._all(self._select(*conditions).limit(limit))

    def sizes(
        self, *, since: datetime, route: str | None = None
    ) -> Sequence[tuple[int, bool, int]]:
        """Lists each sampled request's size in bytes, whether it was too large, and its
        repetitions.
        """
        columns = (
            captured.c.body_bytes,
            captured.c.too_large,
            captured.c.seen,
        )
        of_route = [] if route is None else [captured.c.route == route]
        query = sa.select(*columns).where(_SAMPLED, captured.c.at >= since, *of_route)
        rows = self._tx.read(query)
        return [(row.body_bytes, row.too_large, row.seen) for row in rows]

    def forget(self, now: datetime) -> Sequence[DeletedCapture]:
        """Deletes the expired requests, and returns what must be counted of them."""
        return self._take(sa.delete(captured).where(captured.c.expires_at <= now))

    def _take(self, statement: sa.Delete) -> Sequence[DeletedCapture]:
        columns = [captured.c[name] for name in DeletedCapture._fields]
        return [
            DeletedCapture(row.id, row.at, row.shadow, row.caller, row.conversation)
            for row in self._tx.delete(statement, *columns)
        ]

    def purge(
        self,
        *,
        id_: str | None = None,
        route: str | None = None,
        users: Sequence[str] = (),
    ) -> Sequence[DeletedCapture]:
        """Deletes requests that match all given filters, and returns what must be counted of
        them.

        Args:
            users: hashes of user ids; a request matches if it has any of them.
        """
        query = sa.delete(captured)
        if id_ is not None:
            query = query.where(captured.c.id == id_)
        if route is not None:
            query = query.where(captured.c.route == route)
        if not users:
            return self._take(query)
        return [
            deleted
            for batch in batch_user_hashes(self._tx, captured.c.user_hash, users)
            for deleted in self._take(query.where(captured.c.user_hash.in_(batch)))
        ]
