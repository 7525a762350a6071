"""Runs the routes' candidate schedules. `run_once`, a job of the control process, starts each
round that is due: a selection of all candidates that were never measured. The reconciler drives
the selection like any other. `ListRefresh`, another job, reads the providers' model lists each
day, and announces new models that a route's schedule selects.

A round only proposes: gate, canary and people decide as for a person's proposal. `candidates`
chooses the models of a round; `harness.routing.candidate_schedule` has the schedule's rules.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.cron import next_time
from harness.frame.errors import (
    ConfigError,
    InputError,
    RouteBusy,
    StoreUnavailable,
    SwapproofError,
)
from harness.frame.formatting import format_usd
from harness.frame.people.access import SYSTEM
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.proposals import submission
from harness.proposals.candidates import candidates
from harness.proposals.candidates.candidates import (
    PlannedCandidate,
    RoundPlan,
)
from harness.proposals.context import ProposalsContext
from harness.proposals.submission import ProposalRequest, ScheduleTerms
from harness.providers.credential import lacks_key
from harness.providers.models.model_match import DiscoveredModel
from harness.providers.records import Providers, Targets
from harness.providers.registry import named_models, provider_secrets
from harness.providers.target import Provider
from harness.routing.candidate_schedule import (
    BY_SCHEDULE,
    CandidateRound,
    CandidateSchedule,
    parse_patterns,
    round_id,
)
from harness.routing.control import deprecations
from harness.routing.records.proposals import CandidateRounds, Proposals
from harness.routing.records.routes import Routing
from harness.routing.table import Route

LISTS_EVERY: Final = timedelta(days=1)
NEWS_FOR: Final = timedelta(days=2)  # how long a model counts as new after a process starts
STORED_WITHIN: Final = timedelta(minutes=1)  # maximum time to store a list after reading it
# A round that begins later than this after its time is marked as late. The job runs every half
# minute.
LATE_AFTER: Final = timedelta(minutes=5)
RETRY_AFTER: Final = timedelta(minutes=15)  # pause after a provider's list could not be read


def run_once(ctx: ProposalsContext) -> list[str]:
    """Starts each round that is due. A route that is busy with a swap keeps its round until it
    is free. Returns log lines; raises ConfigError with the routes whose round failed.

    If several times passed while no process ran, the round starts only once.
    """
    lines = []
    failed = []
    with ctx.store.read() as tx:
        routes = [
            candidate_route
            for _, candidate_route in sorted(Routing(tx).table().routes.items())
            if candidate_route.settings.candidates
        ]
    for route in routes:
        try:
            lines += _run_route(ctx, route)
        except StoreUnavailable:
            raise
        except SwapproofError as error:
            failed.append(f"route {route.name}: {error}")
    if failed:
        raise ConfigError("; ".join(failed))
    return lines


def _run_route(ctx: ProposalsContext, route: Route) -> list[str]:
    """Starts the route's round if it is due and the route is free.

    The announced end of the incumbent starts a round at once, one for each announcement.
    """
    schedule = route.settings.candidates
    now = ctx.clock.now()
    assert schedule is not None  # noqa: S101 - `run_once`
    with ctx.store.read() as tx:
        newest = CandidateRounds(tx).newest(route.name, 50)
        obstacle = find_obstacle(tx, route)
    cause = _find_ending(ctx, route, newest)
    if not cause:
        due = next_time(schedule.every, newest[0].due_at if newest else now)
        if due > now:
            return []
        is_late = now - due > LATE_AFTER
        cause = f"{BY_SCHEDULE}, late: due {due:%Y-%m-%d %H:%M} UTC" if is_late else BY_SCHEDULE
    if obstacle:
        return []  # the next run tries again
    return _begin_round(ctx, route, schedule, cause)


def find_obstacle(tx: Transaction, route: Route) -> str:
    """Explains why a route's next round must wait; empty if the route is free."""
    for proposal in Proposals(tx).open():
        if proposal.route == route.name:
            return f"proposal {proposal.id} is open"
    if route.experiment is not None:
        return "a canary or its bake is running"
    return "the route is served without proof" if route.break_glass is not None else ""


def _find_ending(
    ctx: ProposalsContext,
    route: Route,
    rounds: Sequence[CandidateRound],
) -> str:
    """Describes the incumbent's end if no round began because of it; else empty."""
    for ending in deprecations.list_deprecations(ctx, with_rollback_targets=False):
        if ending.end_date is None:
            continue  # deprecated, but no source states an end
        cause = (
            ending.text
            if ending.unlisted
            else f"{ending.name} ends on {ending.end_date.isoformat()}"
        )
        has_round = any(round_.because == cause for round_ in rounds)
        if ending.target == route.incumbent and not has_round:
            return cause
    return ""


def _begin_round(
    ctx: ProposalsContext,
    route: Route,
    schedule: CandidateSchedule,
    cause: str,
) -> list[str]:
    """Reads the lists, plans the round, proposes its models and stores the round.

    Also stores a round without a new model, so that the schedule continues with its next time.
    If a person proposes first, the function stores nothing, and a later run tries again.

    Args:
        cause: the round's cause, for people.
    """
    _refresh_schedule_lists(ctx, [route])
    plan = candidates.plan_round(ctx, route, schedule)
    proposal_ids: tuple[str, ...] = ()
    if plan.measured:
        first, *others = [candidate.name for candidate in plan.measured]
        request = ProposalRequest(
            route.name,
            first,
            reason=f"candidates of {route.name}: {cause}",
            claim=schedule.prefer.claim,
            rivals=tuple(others),
        )
        terms = ScheduleTerms(schedule.on_better, plan.most_alpha, plan.setbacks)
        try:
            selection = submission.create_selection(ctx, SYSTEM, request, terms)
        except RouteBusy:
            return []  # a person was faster; the next run tries again
        proposal_ids = tuple(proposal.id for proposal in selection)
    _store_round(ctx, route, cause, proposal_ids, plan)
    measured = ", ".join(candidate.name for candidate in plan.measured) or "no candidate is new"
    setbacks = "".join(f"; {text}" for text in plan.setbacks.values())
    return [f"route {route.name}: candidates by {cause}: {measured}{setbacks}"]


def _store_round(
    ctx: ProposalsContext,
    route: Route,
    cause: str,
    proposal_ids: tuple[str, ...],
    plan: RoundPlan,
) -> None:
    """Stores a round with its audit event, unless another control process was faster.

    Args:
        proposal_ids: of the round's proposals; may be empty.
    """
    now = ctx.clock.now()
    new = CandidateRound(
        id=round_id(route.name, now),
        route=route.name,
        due_at=now,
        started_at=now,
        incumbent=route.incumbent,
        because=cause,
        proposals=proposal_ids,
        waiting=tuple(candidate.name for candidate in plan.waiting),
        cost_usd=plan.cost_usd,
    )
    with ctx.store.write() as tx:
        if CandidateRounds(tx).begin(new):
            details = {
                "because": cause,
                "proposals": list(proposal_ids),
                "waiting": list(new.waiting),
                **({"setbacks": dict(plan.setbacks)} if plan.setbacks else {}),
            }
            AuditLog(tx).append(SYSTEM, "candidates.round", f"route {route.name}", details)


class ListRefresh:
    """Reads each provider's list once a day, a new provider's at once, and after RETRY_AFTER if
    it failed. Announces each new model that a route's schedule selects.

    The object remembers its attempts, so each process needs one instance. After a restart it
    reads the stored lists again, and treats a model as new for NEWS_FOR.
    """

    def __init__(self) -> None:
        self._tried: dict[str, tuple[object, datetime]] = {}
        self._checked_at: datetime | None = None

    def __call__(self, ctx: ProposalsContext) -> Sequence[str]:
        """Reads the lists that are due, and announces new models. Returns log lines."""
        refresh_lists(ctx, partial(self._is_due, ctx))
        now = ctx.clock.now()
        since = self._checked_at - STORED_WITHIN if self._checked_at else now - NEWS_FOR
        self._checked_at = now
        with ctx.store.read() as tx:
            listed = named_models.read_lists(tx)
        first = _find_first_dates(listed)
        return _announce(
            ctx,
            {
                f"{model.provider}/{model.model}"
                for model in listed
                # A provider's first list contains no news.
                if model.listed_since and model.listed_since > max(since, first[model.provider])
            },
        )

    def _is_due(self, ctx: ProposalsContext, provider: Provider) -> bool:
        """Tells whether to read a provider's list now, and notes the attempt.

        A changed provider or key ends the pause after a failure. Never reads the list of a
        provider without its key.
        """
        keys = provider_secrets.keys_of_provider(ctx, provider)
        now = ctx.clock.now()
        state = (provider, tuple(keys))
        last_state, tried_at = self._tried.get(provider.name, (None, now))
        if last_state == state and now - tried_at < RETRY_AFTER:
            return False
        self._tried[provider.name] = state, now
        return not lacks_key(provider, keys)


def _find_first_dates(listed: Sequence[DiscoveredModel]) -> dict[str, datetime]:
    """Returns the oldest date in each provider's stored list, by provider."""
    first_dates: dict[str, datetime] = {}
    for model in listed:
        since = model.listed_since or model.found_at
        first_dates[model.provider] = min(since, first_dates.get(model.provider, since))
    return first_dates


def refresh_lists(ctx: ProposalsContext, wanted: Callable[[Provider], bool]) -> Sequence[str]:
    """Reads each wanted list that was not read for a day. Lists the errors.

    Args:
        wanted: called only for providers whose list is due.

    A failed list leaves the stored list.
    """
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        providers = Providers(tx).all()
        read_at = {model.provider: model.found_at for model in named_models.read_lists(tx)}
    due = [
        provider
        for name, provider in sorted(providers.items())
        if not (name in read_at and now - read_at[name] < LISTS_EVERY) and wanted(provider)
    ]
    results = named_models.discover_several(ctx, SYSTEM, due).values()
    return [str(error) for error in results if isinstance(error, SwapproofError)]


def describe_schedule_faults(ctx: ProposalsContext, routes: Sequence[Route]) -> Sequence[str]:
    """Describes schedule faults, by today's lists. Raises the errors of
    `candidates.describe_faults`.

    Reads the lists of the schedules' providers first. Returns one sentence for each fault, and
    for each list that could not be read.
    """
    errors = _refresh_schedule_lists(ctx, routes)
    faults = [fault for route in routes for fault in candidates.describe_faults(ctx, route)]
    return [*errors, *faults]


@dataclass(frozen=True, slots=True)
class RouteWithFaults(Route):
    """A route after a change, with descriptions of its candidate schedule's faults."""

    faults: tuple[str, ...] = ()


def add_schedule_faults(ctx: ProposalsContext, route: Route) -> RouteWithFaults:
    """Adds the faults of the route's schedule. Raises as `describe_schedule_faults`."""
    values = {field.name: getattr(route, field.name) for field in fields(Route)}
    return RouteWithFaults(**values, faults=tuple(describe_schedule_faults(ctx, [route])))


def _refresh_schedule_lists(ctx: ProposalsContext, routes: Sequence[Route]) -> Sequence[str]:
    """Reads the lists of all providers that the routes' schedules name. Lists the errors."""
    schedules = [route.settings.candidates for route in routes if route.settings.candidates]
    patterns = [
        pattern for schedule in schedules for pattern in parse_patterns(schedule.models)
    ]
    return refresh_lists(
        ctx,
        lambda provider: any(p.takes_provider(provider.name) for p in patterns),
    )


def _announce(ctx: ProposalsContext, new: set[str]) -> list[str]:
    """Raises an alert for each route that selects a new model, once per route and model.

    Args:
        new: names as `provider/model`.

    Returns log lines.
    """
    lines: list[str] = []
    if not new:
        return lines
    with ctx.store.read() as tx:
        routes = Routing(tx).table().routes
        targets = Targets(tx).all()
    for name, route in sorted(routes.items()):
        schedule = route.settings.candidates
        if schedule is None:
            continue
        incumbent = targets[route.incumbent].name
        selected, _ = candidates.select_candidates(
            ctx,
            incumbent,
            schedule,
        )
        plan = candidates.plan_round(ctx, route, schedule)
        planned = {candidate.name: candidate for candidate in (*plan.measured, *plan.waiting)}
        for model in selected:
            subject_key = f"{name}:{model.name}"
            if model.name not in new or _was_announced(ctx, subject_key):
                continue
            step = _describe_step(ctx, route, planned.get(model.name))
            provider, _, model_name = model.name.partition("/")
            text = f"It matches {model.pattern} of {name}'s candidates. {step}"
            with ctx.store.write() as tx:
                alerts.raise_alert(
                    tx,
                    AlertKind.NEW_CANDIDATE,
                    subject_key,
                    subject=f"route {name}",
                    title=f"new at {provider}: {model_name}",
                    text=text,
                )
            lines.append(f"new at {provider}: {model_name}, for route {name}")
    return lines


def _was_announced(ctx: ProposalsContext, subject_key: str) -> bool:
    """Tells whether the alert exists.

    Args:
        subject_key: `route:provider/model`, the alert's key.
    """
    with ctx.store.read() as tx:
        return Alerts(tx).newest(f"{AlertKind.NEW_CANDIDATE.value}:{subject_key}") is not None


def _describe_step(
    ctx: ProposalsContext,
    route: Route,
    planned: PlannedCandidate | None,
) -> str:
    """Describes for people the time and the cost of a new model's measurement.

    Args:
        planned: the model in the next round's plan; None if the route has measured it already.
    """
    if planned is None:
        return "These suites have measured it already."
    if planned.remark:
        return f"It waits: {planned.remark}."
    with ctx.store.read() as tx:
        obstacle = find_obstacle(tx, route)
    next_round_at = find_next_round(ctx, route)
    if obstacle:
        time_text = f"once the route is free ({obstacle})"
    else:
        time_text = (
            f"on {next_round_at:%A %Y-%m-%d at %H:%M} UTC"
            if next_round_at
            else "when a round is due"
        )
    setbacks = f" {planned.setbacks}." if planned.setbacks else ""
    return f"It is measured {time_text}, about {format_usd(planned.cost_usd)}.{setbacks}"


def find_next_round(ctx: ProposalsContext, route: Route) -> datetime | None:
    """Finds the start of the route's next round, now if one is overdue; None for never.

    Also None for an invalid schedule. Ignores a round that the incumbent's end would start.
    """
    schedule = route.settings.candidates
    now = ctx.clock.now()
    if schedule is None:
        return None
    with ctx.store.read() as tx:
        newest = CandidateRounds(tx).newest(route.name)
    try:
        starts_at = next_time(schedule.every, newest[0].due_at if newest else now)
    except InputError:
        return None  # the job's alert names the fault
    return max(starts_at, now)
