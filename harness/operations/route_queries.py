"""Loads the statuses of routes with few statements.

Rows are preloaded for a whole page, because a statement for each route would make pages of
large installations slow. Words and ranks are in `harness.operations.route_status`. No decision
reads a status.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final

from harness.canary import status as canary_status
from harness.canary.audit import RolloutTransaction
from harness.canary.canary_state import describe_canary_state
from harness.evals import proof_validity
from harness.frame.errors import NotFound, SignatureInvalid
from harness.frame.pagination import FIRST_PAGE, Page, PageRequest
from harness.frame.records.transaction import Transaction
from harness.frame.signing.signed_rows import RowFault
from harness.gate.online.observation import TrafficMinute
from harness.gate.online.rollout import Rollout, RolloutState
from harness.operations.context import Context
from harness.operations.route_status import NEWS_PERIOD, RouteStatus
from harness.proposals.labels import label_verdicts
from harness.proposals.labels.blindness import describe_label_command
from harness.providers.force import KillSwitch, active_switches, decide_plan
from harness.providers.records import Targets
from harness.providers.target import Target
from harness.routing.control import freezes, routes
from harness.routing.control.deprecations import list_route_endings
from harness.routing.control.outages import load_outages
from harness.routing.control.routes import find_later_rollback, read_later_end
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.interventions import Switches
from harness.routing.records.observations import Observations
from harness.routing.records.preload import Preload
from harness.routing.records.proposals import Proposals, Rollouts
from harness.routing.records.router_reports import RouterReports
from harness.routing.records.routes import Routing
from harness.routing.records.verdicts import Verdicts
from harness.routing.reliability.failover import FailoverReason
from harness.routing.reports.traffic_report import TargetTraffic, TrafficReport, sum_by_target
from harness.routing.table import Route, RouteHead

HOUR: Final = timedelta(hours=1)
AWAITING: Final = ProposalPhase.AWAITING_APPROVAL
GATE_PHASES: Final = (ProposalPhase.PROPOSED, ProposalPhase.EVALUATING)
# Pages read only the latencies of this time, because reading more would take too long.
LATENCY_PERIOD: Final = timedelta(days=1)


@dataclass(frozen=True)
class CurrentActivity:
    """The open proposals, rollouts and switches at one moment, read once for all routes."""

    proposals: Mapping[str, Proposal]  # by route: its open proposal in the furthest phase
    rivals: Mapping[str, int]  # by route: the number of its other open proposals
    waits: Mapping[str, str]  # by route: when the canary of its approved proposal opens
    # By route: the commands that label the pairs of its proposals that wait for labels.
    label_commands: Mapping[str, Sequence[str]]
    rollouts: Mapping[str, Rollout]
    switches: Sequence[KillSwitch]  # stored switches that are not lifted
    has_router: bool  # whether a router serves

    def includes(self, head: RouteHead, now: datetime) -> bool:
        """Tells whether a route may be active, by its newest version alone, so that
        only few routes must be loaded. Returns True for every active route, except
        for outages, and for some routes at rest.
        """
        if head.break_glass or head.name in self.rollouts or head.name in self.proposals:
            return True
        if head.state == RolloutState.ROLLED_BACK and head.updated_at is not None:
            return now - head.updated_at < NEWS_PERIOD
        return _is_promotion_gone(head) and now - head.at < NEWS_PERIOD


@dataclass(frozen=True)
class RouteOverview:
    """All routes at one moment. `names` has first the forged routes, then the active routes by
    urgency, then the routes at rest by name.
    """

    at: datetime
    heads: Mapping[str, RouteHead]  # all routes by name
    now: CurrentActivity
    active: Sequence[RouteStatus]  # routes that are not at rest; without verdict and traffic
    faults: Mapping[str, RowFault]  # busy routes with an invalid signature, by name

    @cached_property
    def names(self) -> Sequence[str]:
        active = [status.route.name for status in self.active]
        at_rest = self.heads.keys() - self.faults.keys() - set(active)
        return [
            *self.faults,
            *active,
            *(name for name in self.heads if name in at_rest),
        ]

    @property
    def urgent(self) -> Sequence[RouteStatus]:
        """Lists the active routes that a person should look at first."""
        return [status for status in self.active if status.is_urgent(self.at)]

    @property
    def others(self) -> int:
        """Counts the routes at rest."""
        return len(self.heads) - len(self.faults) - len(self.active)


def load_overview(ctx: Context) -> RouteOverview:
    """Loads the active routes, and the names of all others."""
    at = ctx.clock.now()
    heads = {head.name: head for head in ctx.store.lists.route_heads()}
    with ctx.store.read() as tx:
        activity = _load_activity(ctx, tx)
    outages = load_outages(ctx)
    busy = [n for n, head in heads.items() if n in outages or activity.includes(head, at)]
    states, faults = _load_states(
        ctx,
        busy,
        heads,
        activity,
    )
    states = {name: replace(s, outage=outages.get(name)) for name, s in states.items()}
    active = [status for status in states.values() if not status.is_at_rest(at)]
    active.sort(key=lambda status: status.urgency(at))
    return RouteOverview(at, heads, activity, active, faults)


def _load_activity(
    ctx: Context,
    tx: Transaction,
    route: str | None = None,
) -> CurrentActivity:
    """Reads open proposals, rollouts and switches.

    Args:
        route: None for all routes.
    """
    rollouts = (
        *Rollouts(tx).baking(route=route),
        *Rollouts(tx).live(route=route),
    )
    open_proposals = sorted(Proposals(tx).open(route=route), key=_rank_proposal)
    approved_proposals = [
        p for p in open_proposals if p.phase is AWAITING and p.approver is not None
    ]
    counts = Counter(proposal.route for proposal in open_proposals)
    return CurrentActivity(
        {proposal.route: proposal for proposal in open_proposals},
        {name: number - 1 for name, number in counts.items()},
        freezes.describe_canary_openings(ctx, tx, approved_proposals),
        _list_label_commands(tx, reversed(open_proposals)),
        {rollout.route: rollout for rollout in rollouts},
        Switches(tx).not_lifted(),
        RouterReports(tx).oldest(ctx.clock.now()) is not None,
    )


def _list_label_commands(
    tx: Transaction, proposals: Iterable[Proposal]
) -> Mapping[str, Sequence[str]]:
    """Lists, by route, the commands that label the proposals that wait for labels."""
    commands: dict[str, list[str]] = {}
    for proposal in proposals:
        with suppress(SignatureInvalid):
            if label_verdicts.find_wait(tx, proposal) is not None:
                own = commands.setdefault(proposal.route, [])
                own.append(describe_label_command(proposal))
    return commands


def _rank_proposal(proposal: Proposal) -> tuple[bool, int]:
    """Ranks the open proposals of a route: by their phases, and in equal phases by the order in
    which the proposer named the candidates.
    """
    return proposal.phase not in GATE_PHASES, -proposal.place


def _is_promotion_gone(head: RouteHead) -> bool:
    """Tells whether the newest promotion no longer serves."""
    return head.state == RolloutState.PROMOTED and head.candidate != head.incumbent


def load_page(ctx: Context, page_request: PageRequest = FIRST_PAGE) -> Page[RouteStatus]:
    """Loads a page of routes in the overview's order. Raises NotFound for an unknown start."""
    overview = load_overview(ctx)
    names = overview.names
    first = 0
    if page_request.after is not None:
        if page_request.after not in overview.heads:
            raise NotFound(f"this list has no {page_request.after}: begin with the first page")
        first = names.index(page_request.after) + 1
    page_names = names[first : first + page_request.limit]
    page = load_statuses(ctx, overview, page_names)
    has_more = page_names and first + len(page_names) < len(names)
    return Page(page.items, len(names), page_names[-1] if has_more else None, page.invalid)


def load_statuses(
    ctx: Context,
    overview: RouteOverview,
    names: Sequence[str],
) -> Page[RouteStatus]:
    """Loads these routes with verdict and traffic, in their order. Forged routes
    become faults.
    """
    states = {status.route.name: status for status in overview.active}
    faults = {name: overview.faults[name] for name in names if name in overview.faults}
    at_rest = [name for name in names if name not in states and name not in faults]
    loaded, invalid = _load_states(
        ctx,
        at_rest,
        overview.heads,
        overview.now,
    )
    states |= loaded
    faults |= invalid
    valid_names = [name for name in names if name in states]
    statuses = []
    with ctx.store.read() as tx:
        Preload(tx).newest_verdicts(valid_names)
        Preload(tx).routes(valid_names)
        proposed = {name for name in valid_names if _shows_proposal(states[name])}
        _preload_last_rollouts(
            tx, [overview.heads[name] for name in valid_names if name in proposed]
        )
        traffic = Observations(tx).traffic_of(valid_names, since=overview.at - HOUR)
        for name in valid_names:
            try:
                state = states[name]
                state = _add_last_rollout(tx, state) if name in proposed else state
                statuses.append(_add_verdict(ctx, tx, state, traffic.get(name, ())))
            except SignatureInvalid as error:
                faults[name] = RowFault("route", (name,), str(error))
    endings = list_route_endings(ctx, [status.route for status in statuses])
    statuses = [
        replace(status, endings=endings.get(status.route.name, ())) for status in statuses
    ]
    return Page(statuses, len(names), None, [*faults.values()])


def load_status(ctx: Context, name: str) -> RouteStatus:
    """Loads a route's status. Raises NotFound, SignatureInvalid."""
    with ctx.store.read() as tx:
        route = routes.require_route(tx, name)
        activity = _load_activity(ctx, tx, name)
    targets = _load_targets(ctx, [route], activity)
    outages = load_outages(ctx, [name])
    with ctx.store.read() as tx:
        traffic = Observations(tx).traffic_of([name], since=ctx.clock.now() - HOUR)
        state = _build_state(ctx, tx, route, targets, activity)
        if _shows_proposal(state):
            state = _add_last_rollout(tx, state)
        state = replace(state, outage=outages.get(name))
        return _add_verdict(ctx, tx, state, traffic.get(name, ()))


def load_serving(ctx: Context, name: str) -> RouteStatus | None:
    """Loads a route's status as far as it tells which model answers callers now: without
    proposal, canary and verdict. Returns None for a deleted route. Raises SignatureInvalid.
    """
    with ctx.store.read() as tx:
        route = Routing(tx).route(name)
        if route is None:
            return None
        targets = Targets(tx).among(route.targets)
        switches = active_switches(Switches(tx).not_lifted(), ctx.clock.now())
        has_router = RouterReports(tx).oldest(ctx.clock.now()) is not None
    return RouteStatus(
        route=route,
        incumbent=targets[route.incumbent],
        candidate=None,
        open_proposal=None,
        last_verdict=None,
        rollout=None,
        traffic=(),
        outage=load_outages(ctx, [name]).get(name),
        forced=_find_forced_target(route, targets, switches),
        has_router=has_router,
    )


def _load_states(
    ctx: Context,
    names: Collection[str],
    heads: Mapping[str, RouteHead],
    activity: CurrentActivity,
) -> tuple[dict[str, RouteStatus], dict[str, RowFault]]:
    """Loads routes without verdict and traffic. Also returns the faults of forged routes."""
    page = ctx.store.lists.routes_named(names)
    routes_by_name = {route.name: route for route in page}
    # A fault's key is a route's name and version.
    faults = {fault.key[0]: fault for fault in page.invalid}
    targets = _load_targets(ctx, page, activity)
    states = {}
    with ctx.store.read() as tx:
        _preload_rows(tx, [heads[name] for name in names], activity, ctx.clock.now())
        for name in names:
            if name not in routes_by_name:
                continue
            try:
                states[name] = _build_state(ctx, tx, routes_by_name[name], targets, activity)
            except SignatureInvalid as error:
                faults[name] = RowFault("route", (name,), str(error))
    return states, faults


def _load_targets(
    ctx: Context,
    routes_: Iterable[Route],
    activity: CurrentActivity,
) -> Mapping[str, Target]:
    ids: set[str] = set()
    for route in routes_:
        ids |= route.targets
        if route.name in activity.proposals:
            ids.add(activity.proposals[route.name].candidate)
    return ctx.store.lists.targets_of(ids)


def _preload_rows(
    tx: Transaction,
    heads: Sequence[RouteHead],
    activity: CurrentActivity,
    now: datetime,
) -> None:
    """Loads the rows that `_build_state` reads for these routes."""
    rollouts = {
        head.name: activity.rollouts[head.name]
        for head in heads
        if head.name in activity.rollouts
    }
    proposed_names = activity.proposals.keys() - rollouts.keys()
    live_names = {name for name, rollout in rollouts.items() if rollout.live}
    _preload_last_rollouts(
        tx, [head for head in heads if head.name not in proposed_names | live_names]
    )
    canary_status.preload_canaries(tx, [*rollouts.values()], now)


def _preload_last_rollouts(tx: Transaction, heads: Sequence[RouteHead]) -> None:
    Preload(tx).newest_rollouts([head.name for head in heads])
    Preload(tx).first_after([h.rollout for h in heads if h.rollout and _is_promotion_gone(h)])


def _build_state(
    ctx: Context,
    tx: Transaction,
    route: Route,
    targets: Mapping[str, Target],
    activity: CurrentActivity,
) -> RouteStatus:
    """Builds a route's status without verdict and traffic.

    Args:
        targets: the targets of the route and its open proposal, by id.

    Raises SignatureInvalid.
    """
    for id_ in route.targets - targets.keys():
        raise SignatureInvalid(f"its target {id_} has an invalid signature")
    rollout = activity.rollouts.get(route.name)
    open_ = activity.proposals.get(route.name)
    waits = activity.waits.get(route.name, "")
    if waits and open_ and open_.verdict:
        validity = proof_validity.assess_proof(ctx, tx, Verdicts(tx).get(open_.verdict))
        end = validity.describe_end(open_)
        waits = f"{end[:1].upper()}{end[1:]}" if end else waits
    status = RouteStatus(
        route=route,
        incumbent=targets[route.incumbent],
        candidate=targets[route.canary.target] if route.canary else None,
        open_proposal=open_,
        last_verdict=None,
        rollout=rollout,
        traffic=(),
        proposed=targets.get(open_.candidate) if open_ else None,
        rivals=activity.rivals.get(route.name, 0),
        waits=waits,
        label_commands=activity.label_commands.get(route.name, ()),
        has_router=activity.has_router,
        forced=_find_forced_target(
            route, targets, active_switches(activity.switches, ctx.clock.now())
        ),
    )
    if rollout is None:
        return status if _shows_proposal(status) else _add_last_rollout(tx, status)
    transaction = RolloutTransaction(ctx, tx, rollout)
    return replace(
        status,
        canary_state=canary_status.build_canary_status(
            transaction, targets, ctx.clock.now()
        ).state,
        # A live rollout is the newest, because a route has only one at a time.
        last_rollout=rollout if rollout.live else Rollouts(tx).newest(route.name),
    )


def _find_forced_target(
    route: Route,
    targets: Mapping[str, Target],
    switches: Sequence[KillSwitch],
) -> Target | None:
    """Returns the target that a kill switch forces upon the route; None if the incumbent
    serves.
    """
    ids = (route.incumbent, *route.fallbacks)
    plan = decide_plan(switches, route.name, [targets[id_] for id_ in ids])
    if plan is None or not plan.in_effect or plan.kept[0] == route.incumbent:
        return None
    return targets[plan.kept[0]]


def _shows_proposal(status: RouteStatus) -> bool:
    """Tells whether the route's state comes from its open proposal."""
    return status.rollout is None and status.open_proposal is not None


def _add_last_rollout(tx: Transaction, status: RouteStatus) -> RouteStatus:
    """Adds the newest rollout, and how it ended."""
    last_rollout = Rollouts(tx).newest(status.route.name)
    if last_rollout is None:
        return status
    is_gone = last_rollout.candidate != status.route.incumbent
    rollback = find_later_rollback(tx, last_rollout) if is_gone else None
    return replace(
        status,
        # Passes no evidence, because an ended canary's state does not depend on it.
        canary_state=describe_canary_state(
            last_rollout, (), later_end=read_later_end(rollback)
        ),
        last_rollout=last_rollout,
        rollback=rollback,
    )


def _add_verdict(
    ctx: Context,
    tx: Transaction,
    status: RouteStatus,
    traffic: Sequence[TrafficMinute],
) -> RouteStatus:
    """Adds the open proposal's verdict, or else the newest verdict, with its validity, and the
    traffic.
    """
    verdict = Verdicts(tx).newest(status.route.name)
    open_ = status.open_proposal
    if open_ is not None and open_.verdict and (verdict is None or verdict.id != open_.verdict):
        # A rival of the same selection may have the newest verdict.
        verdict = Verdicts(tx).get(open_.verdict)
    return replace(
        status,
        traffic=traffic,
        last_verdict=verdict,
        standing=proof_validity.assess_proof(ctx, tx, verdict) if verdict else None,
        verdict_proposal=Verdicts(tx).proposal_of(verdict.id) if verdict else "",
    )


def load_target_traffic(
    ctx: Context,
    report: TrafficReport,
    reasons: Iterable[FailoverReason],
    route: str | None = None,
) -> Sequence[TargetTraffic]:
    """Sums a report's traffic by target, with latencies of at most one day."""
    answered_totals = [total for total in report.totals if total.target]
    targets = ctx.store.lists.targets_of({total.target for total in answered_totals})
    since = max(report.since, report.now - LATENCY_PERIOD)
    with ctx.store.read() as tx:
        latencies = Observations(tx).latencies(since=since, route=route)
    names = {id_: target.name for id_, target in targets.items()}
    return sum_by_target(answered_totals, names, latencies, reasons)
