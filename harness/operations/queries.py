"""Queries for the command line, the API and the dashboard. `find_…` and `load_…` read one
record, `list_…` reads a page of a list. A list reports rows with an invalid signature
separately.

A query changes nothing. `harness.operations.captures` reads a captured request, because the
audit log records each reading. `harness.operations.route_queries` loads routes with their
canaries and traffic.
"""

from collections import defaultdict
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Final

from harness.canary import shadows
from harness.canary.shadows import ShadowStatus
from harness.frame.alerts import alerts
from harness.frame.alerts.records import Deliveries
from harness.frame.errors import NotFound, SignatureInvalid, SwapproofError
from harness.frame.pagination import (
    FIRST_PAGE,
    INVALID_ROWS_HINT,
    Page,
    PageRequest,
    read_all,
)
from harness.frame.people.access import Actor, ApiKey, Role
from harness.frame.people.limits import SpendTotals
from harness.frame.people.records import Principals
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import (
    ALL_EVENTS,
    AuditEvent,
    AuditFilter,
    hide_identity,
)
from harness.frame.signing.audit_log import AuditLog
from harness.frame.signing.signed_rows import RowFault
from harness.gate.run import EvalRun, Sample
from harness.gate.verdict import Verdict
from harness.operations import captures
from harness.operations.captures import CaptureSummary
from harness.operations.context import Context
from harness.operations.keys import KeySummary
from harness.proposals import proposal_waits
from harness.proposals.labels.blindness import hide_sample
from harness.providers.registry import targets
from harness.providers.target import Target
from harness.routing.agent import AgentGrant
from harness.routing.control import routes
from harness.routing.evidence import BreakGlass
from harness.routing.proposal import ProposalPhase, ProposalView
from harness.routing.records.interventions import BreakGlasses
from harness.routing.records.observations import Observations
from harness.routing.records.preload import Preload
from harness.routing.records.proposals import Proposals
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts
from harness.routing.reliability.failover import (
    Failover,
    FailoverReason,
    search_hashes,
    sum_failovers,
)
from harness.routing.route_changes import CHANGE_KINDS, RestoreIncumbent
from harness.routing.table import Route, RouteRecord


@dataclass(frozen=True, slots=True)
class SuiteSummary:
    name: str
    title: str
    version: str | None
    digest: str | None  # None unless requested
    items: int | None
    scorer: str | None
    error: str = ""  # why the suite does not load; empty if it loads


def find_target(ctx: Context, name: str) -> Target:
    """Finds a target by id or `provider/model`. Raises NotFound, InputError."""
    with ctx.store.read() as tx:
        return targets.find_target(tx, name)


def find_route(ctx: Context, name: str) -> Route:
    """Finds a route by name. Raises NotFound."""
    with ctx.store.read() as tx:
        return routes.require_route(tx, name)


def load_verdict(ctx: Context, name: str) -> Verdict:
    """Loads a verdict by id. Raises NotFound."""
    with ctx.store.read() as tx:
        return Verdicts(tx).get(name)


def find_audit_break(ctx: Context) -> int | None:
    """Returns the number of the first event that does not fit the chain, or None."""
    with ctx.store.read() as tx:
        return AuditLog(tx).first_break()


def list_suites(ctx: Context, *, pinned: bool = True) -> Sequence[SuiteSummary]:
    """Lists the suites in the order of the configuration, with the errors of suites that do not
    load.

    Args:
        pinned: whether to include digests and the scorers' hashes.
    """
    return [_summarize_suite(ctx, name, pinned=pinned) for name in ctx.suites.names()]


def _summarize_suite(
    ctx: Context,
    name: str,
    *,
    pinned: bool,
) -> SuiteSummary:
    """Describes a suite. A suite that does not load gets its error instead of figures."""
    title = ctx.suites.title(name)
    try:
        pin = ctx.suites.pin(name)
    except SwapproofError as error:
        return SuiteSummary(name, title, None, None, None, None, str(error))
    if not pinned:
        scorer = pin.scorer.partition("@")[0]
        return SuiteSummary(name, title, pin.version, None, pin.items, scorer)
    return SuiteSummary(name, title, pin.version, pin.digest, pin.items, pin.scorer)


DEFAULT_SINCE: Final = timedelta(days=1)


def list_proposals(
    ctx: Context,
    page_request: PageRequest = FIRST_PAGE,
    *,
    route: str | None = None,
    open_only: bool = False,
    decided_only: bool = False,
) -> Page[ProposalView]:
    """Lists the proposals, newest first. Shows whether promoted candidates serve now, and why
    evaluations wait.
    """
    with ctx.store.listings() as stored:
        page = stored.proposals(
            page_request,
            route=route,
            open_only=open_only,
            decided_only=decided_only,
        )
        promoted = {
            proposal.route for proposal in page if proposal.phase is ProposalPhase.PROMOTED
        }
        routes_now = {route.name: route for route in stored.routes_named(promoted)}
    with ctx.store.read() as tx:
        views = [proposal_waits.build_view(tx, proposal, routes_now.get) for proposal in page]
    return Page(views, page.total, page.next, page.invalid)


def find_proposal(ctx: Context, proposal: str) -> ProposalView:
    """Finds a proposal, and shows whether a promoted candidate serves now. Raises NotFound."""

    def find_route(name: str) -> Route | None:
        with suppress(SignatureInvalid):
            return Routing(tx).route(name)
        return None

    with ctx.store.read() as tx:
        record = Proposals(tx).get(proposal)
        return proposal_waits.build_view(tx, record, find_route)


def load_target_names(ctx: Context, targets: Collection[str]) -> Mapping[str, str]:
    """Maps ids to names, for targets with a valid signature."""
    targets_by_id = ctx.store.lists.targets_of(targets)
    return {id_: target.name for id_, target in targets_by_id.items()}


def list_route_users(
    ctx: Context, names_used_by: Callable[[Route], Iterable[str]]
) -> tuple[Mapping[str, Sequence[str]], Sequence[RowFault]]:
    """Maps each name to the routes that use it, with the faults of forged routes.

    Args:
        names_used_by: returns the names that a route uses.
    """
    page = ctx.store.lists.routes()
    users: dict[str, list[str]] = defaultdict(list)
    for route in page:
        for name in names_used_by(route):
            users[name].append(route.name)
    return users, page.invalid


def list_route_versions(
    ctx: Context,
    route: str,
    page_request: PageRequest = FIRST_PAGE,
) -> Page[RouteRecord]:
    """Lists every stored version of a route, newest first. Raises NotFound."""
    page = ctx.store.lists.versions(page_request, route=route)
    restored = CHANGE_KINDS[RestoreIncumbent]
    if not any(record.kind == restored for record in page):
        return page
    with ctx.store.read() as tx:
        ended_by_cause = {
            (
                glass.ended_at,
                f"break-glass {glass.id}: {glass.ended_because}",
            ): glass.id
            for glass in BreakGlasses(tx).ended_on(route)
        }
    records = [
        replace(record, ended_break_glass=ended_by_cause.get((record.at, record.reason)))
        if record.kind == restored
        else record
        for record in page
    ]
    return Page(records, page.total, page.next, page.invalid)


def load_route_version(
    ctx: Context,
    route: str,
    number: int | None = None,
) -> RouteRecord:
    """Loads a version, by default the newest. Raises NotFound, SignatureInvalid."""
    cursor = None if number is None else str(number + 1)
    records = list_route_versions(ctx, route, PageRequest(1, cursor))
    for record in records:
        if number in (None, record.route.version):
            return record
    for fault in records.invalid:
        raise SignatureInvalid(f"{fault.name}: {INVALID_ROWS_HINT}")
    raise NotFound(f"route {route!r} has versions 1 to {records.total}, not {number}")


def list_keys(ctx: Context, page_request: PageRequest = FIRST_PAGE) -> Page[KeySummary]:
    """Lists all keys, including revoked ones, oldest first, with their spend of today and of
    this month.
    """
    page = ctx.store.lists.keys(page_request)
    today = ctx.clock.now().date()
    with ctx.store.read() as tx:
        ids = [key.id for key in page]
        spent_by_key = Observations(tx).spend_totals(today=today, keys=ids)
        owners = _load_owner_names(tx, {key.principal for key in page if key.principal})

    def summarize(key: ApiKey) -> KeySummary:
        return KeySummary(
            **{field.name: getattr(key, field.name) for field in fields(key)},
            spent=spent_by_key.get(key.id, SpendTotals(today)),
            principal_name=owners.get(key.principal, INVALID_ROWS_HINT)
            if key.principal
            else "",
        )

    return page.map(summarize)


def _load_owner_names(tx: Transaction, ids: Collection[str]) -> Mapping[str, str]:
    """Maps principals to names. Omits principals with an invalid signature."""
    names = {}
    for id_ in ids:
        with suppress(SignatureInvalid):
            names[id_] = Principals(tx).get(id_).name
    return names


def list_shadows(
    ctx: Context,
    page_request: PageRequest = FIRST_PAGE,
    *,
    route: str | None = None,
) -> Page[ShadowStatus]:
    """Lists the shadows, including ended ones, newest first."""
    page = ctx.store.lists.shadows(page_request, route=route)
    with ctx.store.read() as tx:
        statuses = [shadows.load_shadow_status(ctx, tx, shadow) for shadow in page]
    return Page(statuses, page.total, page.next, page.invalid)


def list_alerts(
    ctx: Context,
    page_request: PageRequest = FIRST_PAGE,
    *,
    open_only: bool = False,
    search: str = "",
) -> Page[alerts.AlertView]:
    """Lists the alerts, last seen first.

    Args:
        search: a part of their text.
    """
    page = ctx.store.lists.alerts(page_request, open_only=open_only, search=search)
    with ctx.store.read() as tx:
        Preload(tx).deliveries([record.id for record in page])
        return page.map(
            lambda record: alerts.build_alert_view(record, Deliveries(tx).for_alert(record.id))
        )


def list_failovers(
    ctx: Context,
    page_request: PageRequest = FIRST_PAGE,
    *,
    secret: bytes,
    route: str | None = None,
    user: str | None = None,
    since: timedelta = DEFAULT_SINCE,
) -> Page[Failover]:
    """Lists the failovers, newest first.

    Args:
        user: the id that the client sent, or a part of its hash, which the log contains.
    """
    return ctx.store.lists.failovers(
        page_request,
        since=ctx.clock.now() - since,
        route=route,
        user_hashes=search_hashes(user, secret) if user else (),
    )


def count_failovers(
    ctx: Context,
    since: datetime,
    route: str | None = None,
) -> Sequence[FailoverReason]:
    """Counts failovers by target and reason, most frequent first."""
    return sum_failovers(ctx.store.lists.failover_counts(since=since, route=route))


def list_captures(
    ctx: Context,
    page_request: PageRequest = FIRST_PAGE,
    *,
    route: str | None = None,
) -> Page[CaptureSummary]:
    """Lists the captured requests, newest first, without their content."""
    return ctx.store.lists.captures(page_request, route=route).map(captures.summarize_capture)


def list_audit_events(
    ctx: Context,
    page_request: PageRequest = FIRST_PAGE,
    selection: AuditFilter = ALL_EVENTS,
    *,
    reader: Actor | None = None,
) -> Page[AuditEvent]:
    """Lists the selected audit events, newest first.

    Args:
        reader: the person who reads.

    Only an admin sees people's identities at the single sign-on server.
    """
    page = ctx.store.lists.events(page_request, selection=selection)
    if reader is not None and reader.role >= Role.ADMIN:
        return page
    return page.map(hide_identity)


def read_audit_events(
    ctx: Context,
    selection: AuditFilter = ALL_EVENTS,
    *,
    reader: Actor | None = None,
) -> Iterator[AuditEvent]:
    """Yields all selected audit events, newest first.

    Args:
        reader: as for `list_audit_events`.
    """
    return read_all(lambda page: list_audit_events(ctx, page, selection, reader=reader))


def load_run_progress(ctx: Context, run: str) -> tuple[EvalRun, int, float]:
    """Returns a run, the number of its stored samples, and its cost so far in USD."""
    with ctx.store.read() as tx:
        samples, cost, _, _ = EvalRuns(tx).progress(run)
        return EvalRuns(tx).get(run), samples, cost


def list_samples(
    ctx: Context, run: str, page_request: PageRequest = FIRST_PAGE
) -> Page[Sample]:
    """Lists a run's samples, in the order in which the run asks the items. Hides them until
    people have labelled (`blindness`).
    """
    page = ctx.store.lists.samples(page_request, run=run)
    why = find_why_hidden(ctx, run)
    return page.map(lambda sample: hide_sample(sample, why)) if why else page


def find_why_hidden(ctx: Context, run: str) -> str:
    """Returns why a run's scores and answers are hidden; empty if they are shown."""
    with ctx.store.read() as tx:
        return ctx.why_hidden(tx, EvalRuns(tx).get(run))


def list_agent_grants(
    ctx: Context,
    page_request: PageRequest = FIRST_PAGE,
    *,
    agent: str | None = None,
) -> Page[AgentGrant]:
    """Lists all grants of literal models, newest first.

    Args:
        agent: None for all agents.
    """
    return ctx.store.lists.agent_grants(page_request, agent=agent)


def list_break_glasses(
    ctx: Context,
    page_request: PageRequest = FIRST_PAGE,
) -> Page[BreakGlass]:
    """Lists the uses of break-glass, with the people who allowed them, newest first."""
    return ctx.store.lists.break_glasses(page_request)
