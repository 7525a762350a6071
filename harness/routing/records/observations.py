"""Stores the observations of requests: blocks, traffic, keys' spend, and callers of canaries.

Routers write these rows, and the rows are not signed. Readers of sums are in
`harness.routing.records.traffic`; the counts are defined in `harness.gate.online.observation`.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

import sqlalchemy as sa

from harness.frame.people.limits import KeySpend, SpendTotals, next_month
from harness.frame.records.columns import (
    EPOCH,
    MICROSECOND,
    Values,
    storable,
)
from harness.frame.records.repository import rows_key, select_where
from harness.gate.online.guardrails import Guardrail
from harness.gate.online.late_outcomes import (
    FailedTurn,
    FailedTurns,
    pack_turns,
    unpack_turns,
)
from harness.gate.online.observation import (
    MOST_ASKED_NAMES,
    OTHER_NAMES,
    AskedName,
    KeyClaim,
    KeyHistory,
    ObservationBlock,
    TrafficMinute,
    claim_keys,
    find_last_period,
    page_of,
)
from harness.gate.online.usual_rate import DayCount
from harness.gate.online.waiting import WaitCounts, merge_waits, read_waits
from harness.routing.records.block_checks import check_block
from harness.routing.records.preload import json_rows, look_up, read_named
from harness.routing.records.traffic import OPEN_END, MinuteOutcomes, Traffic
from harness.routing.records.traffic_tables import (
    ASKED_NAME,
    BLOCK,
    CALLER_COUNTS,
    DAY,
    KEY_SPEND,
    SPEND_SUMS,
    TRAFFIC,
    TRAFFIC_KEY,
    TRAFFIC_SUMS,
    asked_name,
    block,
    canary_caller,
    failed_turns,
    floor_time,
    key_spend,
    observation_batch,
    seen_keys,
    traffic,
    traffic_hour,
)
from harness.routing.reliability.latency import merge_histograms
from harness.routing.table import Arm

BLOCKS = (
    sa.select(block)
    .where(
        block.c.rollout == sa.bindparam("of"),
        block.c.number > sa.bindparam("after"),
    )
    .order_by(block.c.number)
)

SEEN_PAGES = sa.select(seen_keys.c.page, seen_keys.c.entries).where(
    seen_keys.c.rollout == sa.bindparam("of"),
    seen_keys.c.page.in_(sa.bindparam("wanted", expanding=True)),
)

CANARY_CALLERS = (
    sa.select(canary_caller)
    .where(canary_caller.c.rollout.in_(sa.bindparam("ledgers", expanding=True)))
    .order_by(canary_caller.c.newest_at.desc(), canary_caller.c.caller)
    .limit(sa.bindparam("most"))
)

LAST_FAILED = sa.select(sa.func.coalesce(sa.func.max(failed_turns.c.number), 0)).where(
    failed_turns.c.rollout == sa.bindparam("of")
)

FAILED = (
    sa.select(failed_turns.c.entries)
    .where(
        failed_turns.c.rollout == sa.bindparam("of"),
        failed_turns.c.number > sa.bindparam("after"),
        failed_turns.c.newest_at >= sa.bindparam("since"),
    )
    .order_by(failed_turns.c.number)
)

KEEP_PAGE = (
    sa.update(seen_keys)
    .where(
        seen_keys.c.rollout == sa.bindparam("of"),
        seen_keys.c.page == sa.bindparam("of_page"),
    )
    .values(entries=sa.bindparam("new_entries"))
)

# All writers add minutes in this order, so that they lock an hour's sums in the same order.
ADDING_ORDER = ("route", "worker", "arm", "target", "minute", "revision")

IS_SAME_TRAFFIC = sa.and_(
    *(traffic.c[name] == sa.bindparam(f"key_{name}") for name in TRAFFIC_KEY)
)


@cache
def stored_minutes(dialect: str) -> sa.Select[Any]:
    """Builds the query that locks the stored minutes of given keys, in the writers' order."""
    columns: Mapping[str, sa.types.TypeEngine[Any]] = {
        name: sa.BigInteger() if name in ("minute", "revision") else sa.Text()
        for name in ADDING_ORDER
    }
    keys = json_rows("asked", columns, dialect)
    same_key = sa.and_(
        *(sa.type_coerce(traffic.c[name], columns[name]) == keys.c[name] for name in columns)
    )
    order = [traffic.c[name] for name in ADDING_ORDER]
    histograms = (traffic.c.latency_ms, traffic.c.waits)
    query = sa.select(*order, *histograms).select_from(look_up(keys, traffic, same_key))
    return query.order_by(*order).with_for_update(of=traffic)


ADD_TRAFFIC = (
    sa.update(traffic)
    .where(IS_SAME_TRAFFIC)
    .values(
        {name: traffic.c[name] + sa.bindparam(f"more_{name}") for name in TRAFFIC_SUMS}
        | {"latency_ms": sa.bindparam("histogram", type_=traffic.c.latency_ms.type)}
        | {"waits": sa.bindparam("new_waits", type_=traffic.c.waits.type)}
    )
)

# The end of a span without an end. Without this bound, SQLite estimates that a quarter of the
# table matches, and does not use the index.
LAST_DAY = date(9999, 12, 31)

OLDEST_TRAFFIC = sa.select(traffic).order_by(traffic.c.minute, *traffic.primary_key.columns)

TRAFFIC_OF = OLDEST_TRAFFIC.where(
    traffic.c.route.in_(sa.bindparam("names", expanding=True)),
    traffic.c.minute >= sa.bindparam("since", type_=traffic.c.minute.type),
)

WAITS = sa.select(traffic.c.waits).where(
    traffic.c.route == sa.bindparam("of"),
    traffic.c.minute >= sa.bindparam("since", type_=traffic.c.minute.type),
    traffic.c.target.in_(sa.bindparam("targets", expanding=True)),
    traffic.c.arm == sa.bindparam("arm", type_=traffic.c.arm.type),
)

CALLERS = sa.select(
    *(sa.func.coalesce(sa.func.sum(traffic.c[column]), 0) for column in CALLER_COUNTS)
).where(
    traffic.c.route == sa.bindparam("of"),
    traffic.c.minute >= sa.bindparam("since", type_=traffic.c.minute.type),
    traffic.c.minute < sa.bindparam("until", type_=traffic.c.minute.type),
    traffic.c.arm == sa.bindparam("arm", type_=traffic.c.arm.type),
)

FAILING_ROUTES = (
    sa.select(traffic.c.route)
    .where(
        traffic.c.minute >= sa.bindparam("since", type_=traffic.c.minute.type),
        traffic.c.minute < OPEN_END,
        sa.or_(traffic.c.failed > 0, traffic.c.charged > 0, traffic.c.unanswered > 0),
    )
    .distinct()
)


MINUTE_OUTCOMES = (
    sa.select(
        traffic.c.route,
        traffic.c.minute,
        sa.func.sum(traffic.c.requests - traffic.c.failed - traffic.c.unanswered).label(
            "answered"
        ),
        sa.func.sum(traffic.c.failed - traffic.c.refused).label("failed"),
    )
    .where(
        traffic.c.minute >= sa.bindparam("since", type_=traffic.c.minute.type),
        traffic.c.minute < OPEN_END,
    )
    .group_by(traffic.c.route, traffic.c.minute)
)


class ListedCaller(NamedTuple):
    """A caller that a candidate served. caller: its fingerprint, in hexadecimal. rollout: the
    ledger's name.
    """

    rollout: str
    caller: str
    days: int
    newest_at: datetime


def _minute_key(minute: TrafficMinute) -> tuple[object, ...]:
    """Returns the key of a minute, in ADDING_ORDER."""
    return tuple(getattr(minute, name) for name in ADDING_ORDER)


class _Histograms(NamedTuple):
    """The histograms of a stored minute."""

    latency_ms: Mapping[int, int]
    waits: WaitCounts


class Observations(Traffic):
    """Blocks, traffic, spend and the key ledger. Routers append, the control plane reads."""

    def append(
        self,
        blocks: Iterable[ObservationBlock],
        traffic: Iterable[TrafficMinute],
        spends: Iterable[KeySpend] = (),
        asked_names: Iterable[AskedName] = (),
    ) -> None:
        """Stores observations. A stored block (rollout, worker, sequence) stays unchanged.

        Adds up traffic by (route, minute, worker, arm, target, revision), the spend of keys by
        (key, day, worker), and requested names by (route, name, day). A route has at most
        MOST_ASKED_NAMES names a day; further names count as one.
        """
        # All writers use one order, so that no two writers wait for each other.
        for observation_block in sorted(
            blocks, key=lambda observation_block_: observation_block_.rollout
        ):
            self._append_block(observation_block)
        self._add_traffic(traffic)
        for spend in sorted(spends, key=lambda spend_: (spend_.key, spend_.day, spend_.worker)):
            self._tx.upsert(key_spend, KEY_SPEND.write(spend), add=SPEND_SUMS)
        for row in sorted(asked_names, key=lambda row: (row.day, row.route, row.name)):
            self._add_asked(row)

    def waits(
        self,
        route: str,
        target: str,
        since: datetime,
    ) -> WaitCounts:
        """Adds up the waiting times of the route's callers for a target's output. Callers who
        left without any output count too: their rows name no target.
        """
        rows = self._tx.read(
            WAITS,
            {
                "of": route,
                "targets": (target, ""),
                "since": since,
                "arm": Arm.INCUMBENT,
            },
        )
        return merge_waits(read_waits(row.waits) for row in rows)

    def caller_counts(
        self,
        route: str,
        since: datetime,
        until: datetime,
    ) -> dict[Guardrail, DayCount]:
        """Counts the callers of the route's incumbent by stream of errors: those with a first
        request, and those with a whole window.
        """
        values: Values = {
            "of": route,
            "since": since,
            "until": until,
            "arm": Arm.INCUMBENT,
        }
        # PostgreSQL returns a sum of integers as a decimal.
        row = [int(count) for count in self._tx.read(CALLERS, values).one()]
        return {
            Guardrail.ERRORS: DayCount(*row[:2]),
            Guardrail.CALLER_ERRORS: DayCount(*row[2:]),
        }

    def begin_batch(self, id_: str, at: datetime) -> bool:
        """Marks a batch as stored. Returns False if it is stored already: a router sends a
        batch again if it got no acknowledgement.
        """
        # The INSERT waits for a running transaction of the same batch.
        return self._tx.write_new(observation_batch, {"id": id_, "at": at})

    def forget_batches(self, ids: Collection[str]) -> None:
        """Deletes the marks of batches whose acknowledgement the router has received."""
        if ids:
            sent = observation_batch.c.id.in_(ids)
            self._tx.write(sa.delete(observation_batch).where(sent))

    def forget_batches_before(self, before: datetime) -> int:
        return self._delete_before(observation_batch.c.at, before)

    def _append_block(self, new: ObservationBlock) -> None:
        """Stores a new block with the rollout's next number.

        Raises InputError.
        """
        check_block(new)
        # Blocks must commit in the order of their numbers, so that a reader misses no block.
        self._tx.serialize_by(new.rollout)
        highest_number = sa.select(sa.func.coalesce(sa.func.max(block.c.number), 0)).where(
            block.c.rollout == new.rollout
        )
        number = highest_number.scalar_subquery() + 1
        self._tx.write_new(block, BLOCK.write(new) | {"number": number})

    def _add_traffic(self, minutes: Iterable[TrafficMinute]) -> None:
        """Stores new minutes, and adds to stored ones."""
        ordered = sorted(
            minutes,
            key=lambda minute: [str(part) for part in _minute_key(minute)],
        )
        stored = self._stored_histograms(ordered)
        additions: list[TrafficMinute] = []
        for minute in ordered:
            key = _minute_key(minute)
            if key not in stored:
                # Stores the earlier minutes first, so that all writers keep one order.
                self._add_to_stored(additions)
                if self._tx.write_new(traffic, TRAFFIC.write(minute)):
                    stored[key] = _Histograms(minute.latency_ms, minute.waits)
                    continue
                stored |= self._stored_histograms([minute])
            earlier = stored[key]
            stored[key] = _Histograms(
                merge_histograms([earlier.latency_ms, minute.latency_ms]),
                merge_waits([earlier.waits, minute.waits]),
            )
            additions.append(replace(minute, **stored[key]._asdict()))
        self._add_to_stored(additions)

    def _stored_histograms(
        self, minutes: Sequence[TrafficMinute]
    ) -> dict[tuple[object, ...], "_Histograms"]:
        """Reads and locks the histograms of stored minutes, by key."""
        if not minutes:
            return {}
        keys = []
        for minute in minutes:
            key = dict(zip(ADDING_ORDER, _minute_key(minute), strict=True))
            keys.append(key | {"minute": (minute.minute - EPOCH) // MICROSECOND})
        query = stored_minutes(self._tx.dialect)
        return {
            tuple(row[:-2]): _Histograms(
                {int(bound): count for bound, count in row.latency_ms.items()},
                read_waits(row.waits),
            )
            for row in self._tx.read(query, {"asked": json.dumps(keys)})
        }

    def _add_to_stored(self, minutes: list[TrafficMinute]) -> None:
        """Adds counts to stored minutes, and replaces their histograms. Empties the list."""
        if not minutes:
            return
        changes = []
        for values in map(TRAFFIC.write, minutes):
            key = {f"key_{name}": values[name] for name in TRAFFIC_KEY}
            sums = {f"more_{name}": values[name] for name in TRAFFIC_SUMS}
            histograms = {
                "histogram": values["latency_ms"],
                "new_waits": values["waits"],
            }
            changes.append(key | sums | histograms)
        self._tx.write(ADD_TRAFFIC, changes)
        minutes.clear()

    def _add_asked(self, addition: AskedName) -> None:
        """Adds to a name's count; a name beyond the limit counts as OTHER_NAMES."""
        stored = self._asked_names(addition.route, addition.day, addition.day)
        name = storable(addition.name)
        if len(stored) >= MOST_ASKED_NAMES and all(name != row.name for row in stored):
            name = OTHER_NAMES
        values = ASKED_NAME.write(replace(addition, name=name))
        self._tx.upsert(asked_name, values, add=("requests",))

    def claim_keys(self, claim: KeyClaim) -> Sequence[KeyHistory]:
        """Enters a block's keys into the rollout's ledger. Returns each key's earlier history,
        in the claim's order. If two routers claim a key in one period, the first router gets
        it.
        """
        # Only one claim at a time, so that a key is new for only one router.
        self._tx.serialize_by(claim.rollout)
        pages_ = sorted({page_of(print_) for print_ in claim.fingerprints})
        read = self._tx.read(SEEN_PAGES, {"of": claim.rollout, "wanted": pages_})
        entries_by_page = {row.page: row.entries for row in read}
        changed, histories = claim_keys(entries_by_page, claim)
        if new_pages := [page for page in changed if page not in entries_by_page]:
            rows = [
                {
                    "rollout": claim.rollout,
                    "page": page,
                    "entries": changed[page],
                }
                for page in new_pages
            ]
            self._tx.write(sa.insert(seen_keys), rows)
        if stored_pages := [page for page in changed if page in entries_by_page]:
            pages = [
                {
                    "of": claim.rollout,
                    "of_page": page,
                    "new_entries": changed[page],
                }
                for page in stored_pages
            ]
            self._tx.write(KEEP_PAGE, pages)
        self._list_candidates(claim, histories)
        return histories

    def _list_candidates(self, claim: KeyClaim, histories: Sequence[KeyHistory]) -> None:
        """Adds a day to each new caller of the candidate."""
        now = self._tx.now()
        for print_, history in zip(claim.fingerprints, histories, strict=True):
            if print_ in claim.candidates and history is not KeyHistory.COUNTED:
                caller = f"{print_:011x}"
                row = {"rollout": claim.rollout, "caller": caller, "days": 1, "newest_at": now}
                self._tx.upsert(canary_caller, row, add=("days",), put=("newest_at",))

    def canary_callers(self, ledgers: Collection[str], limit: int) -> Sequence[ListedCaller]:
        """Lists the callers that a rollout's candidate served, the newest first."""
        values: Values = {"ledgers": sorted(ledgers), "most": limit}
        rows = self._tx.read(CANARY_CALLERS, values)
        return [ListedCaller(row.rollout, row.caller, row.days, row.newest_at) for row in rows]

    def forget_callers(self, before: datetime) -> int:
        return self._delete_before(canary_caller.c.newest_at, before)

    def last_period(self, rollout: str, print_: int) -> int | None:
        """Returns the last period in which a ledger counted a key; None if it never did.

        Args:
            print_: of `fingerprint`.

        A rollout's keys are deleted after its end.
        """
        wanted = {"of": rollout, "wanted": [page_of(print_)]}
        row = self._tx.read(SEEN_PAGES, wanted).first()
        return None if row is None else find_last_period(row.entries, print_)

    def exchange_failures(
        self,
        rollout: str,
        failed: Sequence[FailedTurn],
        *,
        after: int,
        since: float,
    ) -> FailedTurns:
        """Stores failures of a rollout's callers, and returns those of all routers.

        Args:
            after: the last number that the router has read.
            since: seconds since 1970; the result omits older failures.
        """
        # Failures must commit in the order of their numbers, so that a reader misses none.
        self._tx.serialize_by(rollout)
        last = self._tx.read(LAST_FAILED, {"of": rollout}).scalar_one()
        if failed:
            row = {
                "rollout": rollout,
                "number": last + 1,
                "newest_at": EPOCH + timedelta(seconds=max(turn.at for turn in failed)),
                "entries": pack_turns(failed),
            }
            self._tx.write(sa.insert(failed_turns), row)
            last += 1
        values = {
            "of": rollout,
            "after": after,
            "since": EPOCH + timedelta(seconds=max(0.0, since)),
        }
        rows = self._tx.read(FAILED, values) if last > after else ()
        turns = [turn for row in rows for turn in unpack_turns(row.entries)]
        return FailedTurns(last, turns)

    def forget_keys(self, kept: Collection[str]) -> int:
        """Deletes the key ledgers and failures of all rollouts but these; returns the number of
        rows.
        """
        return sum(
            self._tx.write(sa.delete(table).where(table.c.rollout.not_in(sorted(kept))))
            for table in (seen_keys, failed_turns)
        )

    def blocks(self, rollout: str, *, after: int = 0) -> Sequence[ObservationBlock]:
        """Lists a rollout's blocks by number.

        Args:
            after: only blocks with a higher number.
        """
        values: Values = {"of": rollout, "after": after}
        if after:
            return [BLOCK.read(row) for row in self._tx.read(BLOCKS, values)]
        rows = self._tx.once(
            rows_key(block, rollout),
            lambda: self._tx.read(BLOCKS, values).all(),
        )
        return [BLOCK.read(row) for row in rows]

    def traffic(self, *, since: datetime, route: str | None = None) -> Sequence[TrafficMinute]:
        """Lists minutes of traffic since a moment, oldest first.

        Args:
            route: None for all routes.
        """
        query = OLDEST_TRAFFIC.where(traffic.c.minute >= since)
        if route is not None:
            query = query.where(traffic.c.route == route)
        return [TRAFFIC.read(row) for row in self._tx.read(query)]

    def last_traffic(self, route: str) -> datetime | None:
        """Returns the route's latest minute with recorded traffic."""
        query = sa.select(sa.func.max(traffic.c.minute)).where(traffic.c.route == route)
        last: datetime | None = self._tx.read(query).scalar_one()
        return last

    def traffic_of(
        self, routes: Collection[str], *, since: datetime
    ) -> Mapping[str, Sequence[TrafficMinute]]:
        """Lists minutes since a moment by route, without routes that had no traffic."""
        minutes: dict[str, list[TrafficMinute]] = {}
        for row in read_named(self._tx, TRAFFIC_OF, routes, {"since": since}):
            minutes.setdefault(row.route, []).append(TRAFFIC.read(row))
        return minutes

    def failing_routes(self, *, since: datetime) -> Sequence[str]:
        """Lists the routes on which a request or an attempt at the incumbent failed, or a
        caller left without an answer.
        """
        return [row.route for row in self._tx.read(FAILING_ROUTES, {"since": since})]

    def minute_outcomes(self, *, since: datetime) -> Mapping[str, Sequence[MinuteOutcomes]]:
        """Sums the outcomes of each route's minutes since a moment, by route."""
        outcomes: dict[str, list[MinuteOutcomes]] = {}
        for row in self._tx.read(MINUTE_OUTCOMES, {"since": since}):
            minute = MinuteOutcomes(row.minute, int(row.answered), int(row.failed))
            outcomes.setdefault(row.route, []).append(minute)
        return outcomes

    def asked_names(self, *, since: date, route: str = "") -> Sequence[AskedName]:
        """Lists the requested names that Swapproof does not serve, by day and name. For a
        route, these are features of providers' own endpoints. Without a route, these are models
        without a route.
        """
        return self._asked_names(route, since, LAST_DAY)

    def _asked_names(
        self,
        route: str,
        since: date,
        until: date,
    ) -> Sequence[AskedName]:
        days = (asked_name.c.day >= since, asked_name.c.day <= until)
        query = sa.select(asked_name).where(asked_name.c.route == route, *days)
        rows = self._tx.read(query.order_by(asked_name.c.day, asked_name.c.name))
        return [ASKED_NAME.read(row) for row in rows]

    def forget_traffic(self, before: datetime) -> int:
        """Deletes minutes of traffic, sums of hours, and keys' spend; sums of days stay."""
        begin = floor_time(before, DAY)
        self._delete_before(traffic_hour.c.begins_at, begin)
        self._delete_before(key_spend.c.day, begin.date())
        self._delete_before(asked_name.c.day, begin.date())
        return self._delete_before(traffic.c.minute, begin)

    def _delete_before(self, column: sa.Column[Any], before: date) -> int:
        return self._tx.write(sa.delete(column.table).where(column < before))

    def spend_totals(self, *, today: date, keys: Collection[str]) -> Mapping[str, SpendTotals]:
        """Sums up today's and this month's spend by key. Omits keys without spend."""
        columns = key_spend.c
        month_start = today.replace(day=1)
        todays_cost = sa.case((columns.day == today, columns.cost_usd), else_=0.0)
        query = sa.select(
            columns.key,
            sa.func.sum(todays_cost).label("day_usd"),
            sa.func.sum(columns.cost_usd).label("month_usd"),
            sa.func.sum(columns.unpriced).label("unpriced"),
            sa.func.sum(columns.bounded).label("bounded"),
        ).where(
            columns.key.in_(sorted(keys)),
            columns.day >= month_start,
            columns.day < next_month(month_start),
        )
        return {
            sums.key: SpendTotals(
                today,
                sums.day_usd,
                sums.month_usd,
                int(sums.unpriced),
                int(sums.bounded),
            )
            for sums in self._tx.read(query.group_by(columns.key))
        }

    def spends(self, *, since: date, keys: Collection[str] | None = None) -> Sequence[KeySpend]:
        """Lists the spend since a day.

        Args:
            keys: None for all.
        """
        columns = key_spend.c
        has_key = None if keys is None else columns.key.in_(sorted(keys))
        query = select_where(key_spend, columns.day >= since, columns.day <= LAST_DAY, has_key)
        rows = self._tx.read(query.order_by(*key_spend.primary_key.columns))
        return [KEY_SPEND.read(stored) for stored in rows]
