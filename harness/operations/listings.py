"""Lists for people. A page names its forged rows, so that a forged row does not hide the list.
The interfaces and the dashboard read these pages. A decision must read through a `Transaction`,
which raises for a forged row.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from harness.agents.records import AgentListings
from harness.frame.alerts.alert_record import AlertRecord
from harness.frame.alerts.records import ALERT, alert
from harness.frame.errors import NotFound
from harness.frame.pagination import FIRST_PAGE, Page, PageRequest
from harness.frame.people.access import ApiKey
from harness.frame.people.records import API_KEY, api_key
from harness.frame.records.columns import Row
from harness.frame.records.repository import (
    Order,
    given,
    newest,
    read_page,
    select_where,
)
from harness.frame.signing.audit import ALL_EVENTS, AuditEvent, AuditFilter
from harness.frame.signing.audit_log import AUDIT_EVENT, read_events
from harness.frame.signing.signed_rows import RowFault
from harness.gate.run import EvalRun, RunState, Sample
from harness.gate.verdict import Verdict
from harness.operations.records import CAPTURED, captured
from harness.providers.force import SwitchRecord
from harness.providers.records import TARGET, target
from harness.providers.target import Target
from harness.routing.capture import CapturedRequest
from harness.routing.evidence import BreakGlass
from harness.routing.proposal import Proposal
from harness.routing.records.evidence import signed_chain
from harness.routing.records.failovers import FAILOVER, failover, failover_count_from_row
from harness.routing.records.interventions import (
    BREAK_GLASS,
    SWITCH,
    break_glass,
    shadow,
    shadow_from_row,
    switch,
)
from harness.routing.records.preload import NAMES_AT_ONCE
from harness.routing.records.proposals import (
    DECIDED_PHASE_VALUES,
    HAS_NOT_ENDED,
    PROPOSAL,
    proposal,
)
from harness.routing.records.routes import (
    NEWEST_NAMES,
    ROUTE_HEADS,
    read_current,
)
from harness.routing.records.runs import (
    EVAL_RUN,
    NO_SUCH_RUN,
    SAMPLE,
    eval_run,
    sample,
)
from harness.routing.records.verdicts import VERDICT, verdict
from harness.routing.records.versions import (
    record_from_row,
    route_fallback,
    route_from_row,
    route_version,
)
from harness.routing.reliability.failover import Failover, FailoverCount
from harness.routing.shadow import Shadow
from harness.routing.table import Route, RouteHead, RouteRecord

PROPOSALS: Final = newest(proposal.c.created_at, proposal.c.id)
RUNS: Final = newest(eval_run.c.created_at, eval_run.c.id)
SWITCHES: Final = newest(switch.c.created_at, switch.c.id)
BREAK_GLASSES: Final = newest(break_glass.c.created_at, break_glass.c.id)
SHADOWS: Final = newest(shadow.c.started_at, shadow.c.id)
SAMPLES: Final = Order((sample.c.position, sample.c.epoch, sample.c.item))
TARGETS: Final = Order((target.c.provider, target.c.model, target.c.id), key=target.c.id)
KEYS: Final = Order((api_key.c.created_at, api_key.c.id), key=api_key.c.id)
ROUTES: Final = Order((route_version.c.route,))
VERSIONS: Final = Order((route_version.c.version,), frozenset({route_version.c.version}))
ALERTS: Final = Order((alert.c.last_seen, alert.c.id), frozenset({alert.c.last_seen}))
FAILOVERS: Final = Order(
    (failover.c.at, failover.c.worker, failover.c.number),
    frozenset({failover.c.at, failover.c.number}),
)
CAPTURES: Final = Order((captured.c.at, captured.c.id), frozenset({captured.c.at}))


class Listings(AgentListings):
    """Pages of stored rows for people. Methods raise NotFound for a cursor of a missing row,
    and InputError for a malformed cursor.

    `Page.invalid` names rows with invalid signatures, which do not hide other rows. A
    `Transaction` has no listings, because no decision may use these rows.
    """

    def proposals(
        self,
        page_request: PageRequest = FIRST_PAGE,
        *,
        route: str | None = None,
        open_only: bool = False,
        decided_only: bool = False,
    ) -> Page[Proposal]:
        """Pages proposals, newest first.

        Args:
            route: None for all routes.
            open_only: proposals that have not ended.
            decided_only: proposals in a decided phase.
        """
        where = (
            given(proposal.c.route, route),
            HAS_NOT_ENDED if open_only else None,
            proposal.c.phase.in_(DECIDED_PHASE_VALUES) if decided_only else None,
        )
        return self.page(PROPOSAL, PROPOSALS, page_request, *where)

    def runs(
        self,
        page_request: PageRequest = FIRST_PAGE,
        *,
        states: Sequence[RunState] = (),
    ) -> Page[EvalRun]:
        in_state = eval_run.c.state.in_(states) if states else None
        return self.page(EVAL_RUN, RUNS, page_request, in_state)

    def samples(self, page_request: PageRequest = FIRST_PAGE, *, run: str) -> Page[Sample]:
        """Pages a run's samples by position and epoch. Raises NotFound for an unknown run."""
        known_run = sa.select(eval_run.c.id).where(eval_run.c.id == run)
        if self.tx.read(known_run).first() is None:
            raise NotFound(NO_SUCH_RUN.format(run))
        return self.page(SAMPLE, SAMPLES, page_request, sample.c.run == run)

    def targets(self, page_request: PageRequest = FIRST_PAGE) -> Page[Target]:
        return self.page(TARGET, TARGETS, page_request)

    def versions(
        self, page_request: PageRequest = FIRST_PAGE, *, route: str
    ) -> Page[RouteRecord]:
        """Pages a route's versions, newest first, with their fallback chains. Raises NotFound
        for an unknown route.
        """
        query = sa.select(route_version).where(route_version.c.route == route)
        rows = read_page(self.tx, query, VERSIONS, page_request)
        if not rows.total:
            raise NotFound(f"there is no route {route!r}; `swapproof route list` shows them")
        chains = self._read_chains(route, [row.version for row in rows.rows])
        records = []
        invalid = []
        for row in rows.rows:
            chain = chains.get(row.version, [])
            fault = self.tx.fault(route_version, row, fallbacks=signed_chain(chain))
            if fault is not None:
                invalid.append(fault)
                continue
            fallbacks = {row.version: tuple(link.target for link in chain)}
            records.append(record_from_row(row, fallbacks))
        return Page(records, rows.total, rows.next, invalid)

    def _read_chains(self, route: str, versions: Collection[int]) -> dict[int, list[Row]]:
        query = (
            sa.select(route_fallback)
            .where(
                route_fallback.c.route == route,
                route_fallback.c.version.in_(versions),
            )
            .order_by(route_fallback.c.version, route_fallback.c.position)
        )
        chains: dict[int, list[Row]] = {}
        for row in self.tx.read(query):
            chains.setdefault(row.version, []).append(row)
        return chains

    def keys(self, page_request: PageRequest = FIRST_PAGE) -> Page[ApiKey]:
        return self.page(API_KEY, KEYS, page_request)

    def switches(
        self,
        page_request: PageRequest = FIRST_PAGE,
        *,
        route: str | None = None,
    ) -> Page[SwitchRecord]:
        """Lists switches.

        Args:
            route: selects the switches of this route and of all routes.
        """
        affects_route = sa.or_(switch.c.route == route, switch.c.route.is_(None))
        return self.page(
            SWITCH, SWITCHES, page_request, None if route is None else affects_route
        )

    def break_glasses(self, page_request: PageRequest = FIRST_PAGE) -> Page[BreakGlass]:
        return self.page(BREAK_GLASS, BREAK_GLASSES, page_request)

    def shadows(
        self,
        page_request: PageRequest = FIRST_PAGE,
        *,
        route: str | None = None,
    ) -> Page[Shadow]:
        query = select_where(shadow, given(shadow.c.route, route))
        page = read_page(self.tx, query, SHADOWS, page_request)
        good, invalid = self.split_by_signature(shadow, page.rows)
        targets_by_id, invalid_targets = self._read_targets({row.candidate for row in good})
        records = [
            shadow_from_row(row, targets_by_id)
            for row in good
            if row.candidate in targets_by_id
        ]
        return Page(records, page.total, page.next, [*invalid, *invalid_targets])

    def alerts(
        self,
        page_request: PageRequest = FIRST_PAGE,
        *,
        open_only: bool = False,
        search: str = "",
    ) -> Page[AlertRecord]:
        """Lists the alerts.

        Args:
            search: a substring of their text.
        """
        columns = (
            alert.c.title,
            alert.c.text,
            alert.c.subject,
            alert.c.kind,
        )
        where = (
            alert.c.resolved_at.is_(None) if open_only else None,
            sa.or_(*(c.icontains(search, autoescape=True) for c in columns))
            if search
            else None,
        )
        return self.page(ALERT, ALERTS, page_request, *where)

    def failovers(
        self,
        page_request: PageRequest = FIRST_PAGE,
        *,
        since: datetime,
        route: str | None = None,
        user_hashes: Sequence[str] = (),
    ) -> Page[Failover]:
        """Pages the failovers since a time, newest first.

        Args:
            user_hashes: only requests of a caller with one of these hashes; empty for all.
        """
        # Searches for substrings, because a request that names its caller twice has several
        # hashes.
        parts = [failover.c.user_hash.contains(part) for part in user_hashes]
        where = (
            failover.c.at >= since,
            given(failover.c.route, route),
            sa.or_(failover.c.user_hash.in_(user_hashes), *parts) if user_hashes else None,
        )
        return self.page(FAILOVER, FAILOVERS, page_request, *where)

    def failover_counts(
        self, *, since: datetime, route: str | None = None
    ) -> Sequence[FailoverCount]:
        """Counts failovers since a time by route, target and failure, the most frequent
        first.
        """
        group_columns = (failover.c.route, failover.c.target, failover.c.failure)
        unanswered = sa.case((failover.c.next_target.is_(None), 1), else_=0)
        query = (
            sa.select(
                *group_columns,
                sa.func.count().label("times"),
                sa.func.sum(unanswered).label("unanswered"),
                sa.func.max(failover.c.at, type_=failover.c.at.type).label("last"),
            )
            .where(failover.c.at >= since)
            .group_by(*group_columns)
            .order_by(sa.desc("times"), *group_columns)
        )
        if route is not None:
            query = query.where(failover.c.route == route)
        return [failover_count_from_row(row) for row in self.tx.read(query)]

    def captures(
        self,
        page_request: PageRequest = FIRST_PAGE,
        *,
        route: str | None = None,
    ) -> Page[CapturedRequest]:
        return self.page(CAPTURED, CAPTURES, page_request, given(captured.c.route, route))

    def events(
        self,
        page_request: PageRequest = FIRST_PAGE,
        *,
        selection: AuditFilter = ALL_EVENTS,
    ) -> Page[AuditEvent]:
        rows = read_events(self.tx, selection, page_request)
        return Page(
            [AUDIT_EVENT.read(row) for row in rows.rows],
            rows.total,
            rows.next,
        )

    def verdicts(self, ids: Collection[str]) -> Mapping[str, Verdict]:
        """Maps ids to verdicts. Omits unknown ids and rows with invalid signatures."""
        query = sa.select(verdict).where(verdict.c.id.in_(sorted(ids)))
        good, _ = self.split_by_signature(verdict, self.tx.read(query).all())
        return {row.id: VERDICT.read(row) for row in good}

    def targets_of(self, ids: Collection[str]) -> Mapping[str, Target]:
        """Maps ids to targets. Omits unknown ids and rows with invalid signatures."""
        return self._read_targets(ids)[0]

    def routes(self, page_request: PageRequest | None = None) -> Page[Route]:
        """Lists the current routes by name; without a page request, all of them."""
        if page_request is None:
            return self._read_current_routes(None)
        page = read_page(self.tx, NEWEST_NAMES, ROUTES, page_request)
        current = self.routes_named([row.route for row in page.rows])
        routes = sorted(current, key=lambda route: route.name)
        return Page(routes, page.total, page.next, current.invalid)

    def routes_named(self, names: Collection[str]) -> Page[Route]:
        """Reads the current routes with these names, `NAMES_AT_ONCE` in a query. The page is
        complete.
        """
        sorted_names = sorted(names)
        pages = [
            self._read_current_routes(sorted_names[first : first + NAMES_AT_ONCE])
            for first in range(0, len(sorted_names), NAMES_AT_ONCE)
        ]
        routes = [route for page in pages for route in page]
        invalid = [fault for page in pages for fault in page.invalid]
        return Page(routes, len(routes) + len(invalid), None, invalid)

    def route_heads(self) -> Sequence[RouteHead]:
        """Lists the sort keys of all routes by name, including forged rows."""
        return [RouteHead(**row._asdict()) for row in self.tx.read(ROUTE_HEADS)]

    def _read_current_routes(self, names: Collection[str] | None) -> Page[Route]:
        """Reads the newest version of each named route; None for all routes."""
        current_routes = []
        invalid = []
        for row, chain in read_current(self.tx, names):
            if fault := self.tx.fault(route_version, row, fallbacks=signed_chain(chain)):
                invalid.append(fault)
            else:
                current_routes.append(route_from_row(row, tuple(link.target for link in chain)))
        return Page(current_routes, len(current_routes) + len(invalid), None, invalid)

    def _read_targets(self, ids: Collection[str]) -> tuple[dict[str, Target], list[RowFault]]:
        query = sa.select(target).where(target.c.id.in_(sorted(ids)))
        good, invalid = self.split_by_signature(target, self.tx.read(query).all())
        return {row.id: TARGET.read(row) for row in good}, invalid
