"""Creates routes, changes their settings, and finds promotions that were undone.

All changes go through `commit`, which writes route version and audit event together. The
targets of an existing route do not change here: `harness.canary` promotes and rolls back, and
`harness.proposals.fallback_chain` changes the chain. The table itself is
`harness.routing.table`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from harness.frame.configuration import setting_values
from harness.frame.errors import (
    Conflict,
    InputError,
    NotFound,
    RouteBusy,
    SwapproofError,
)
from harness.frame.formatting import format_bps
from harness.frame.people.access import Actor, Role, check_principal_name
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import require_reason
from harness.frame.signing.audit_log import AuditLog
from harness.frame.suggestions import did_you_mean
from harness.gate.canary_sentences import end_predicate, who_ended
from harness.gate.online.rollout import (
    CanaryEnd,
    CanaryEnding,
    Rollout,
    RolloutSignal,
    RolloutState,
)
from harness.gate.policy import Policy, PromotionMode
from harness.gate.verdict import Verdict
from harness.providers.records import Targets
from harness.providers.registry import named_models
from harness.providers.target import Target
from harness.routing.candidate_schedule import (
    CandidateSchedule,
    OnBetter,
    build_start_round,
    check_schedule,
)
from harness.routing.context import RoutingContext
from harness.routing.control import data_class_checks, vector_checks
from harness.routing.records.proposals import (
    CandidateRounds,
    Proposals,
    Rollouts,
)
from harness.routing.records.routes import Routing
from harness.routing.records.runs import Suites
from harness.routing.route_changes import (
    CHANGE_KINDS,
    ChangeSettings,
    CreateRoute,
    RestoreIncumbent,
    TableChange,
    check_route_name,
    standing_incumbents,
)
from harness.routing.route_settings import RouteSettings
from harness.routing.table import Route, RouteRecord, RoutingTable, override_errors


def check_overrides(
    ctx: RoutingContext,
    tx: Transaction,
    name: str,
) -> None:
    """Checks the overrides from and to a route. Raises InputError, NotFound, NotAllowed."""
    table = Routing(tx).table()
    for route, override, error in _find_override_errors(ctx, table):
        if name in (route, override):
            raise error


def list_override_violations(ctx: RoutingContext) -> list[str]:
    """Lists the invalid overrides of all routes, as sentences for people."""
    with ctx.store.read() as tx:
        table = Routing(tx).table()
    return [str(error) for _, _, error in _find_override_errors(ctx, table)]


def _find_override_errors(
    ctx: RoutingContext, table: RoutingTable
) -> Iterator[tuple[str, str, SwapproofError]]:
    """Yields (route, overriding route, error) for each invalid override."""
    data_classes = {name: route.settings.data_class for name, route in table.routes.items()}
    for name, route in sorted(table.routes.items()):
        overrides = route.settings.overrides
        for kind, error in override_errors(name, overrides, data_classes, ctx.data_classes):
            yield name, overrides[kind], error


def load_table(ctx: RoutingContext) -> RoutingTable:
    """Loads the routing table: all routes and their targets, at one revision."""
    with ctx.store.read() as tx:
        return Routing(tx).table()


def require_route(tx: Transaction, name: str) -> Route:
    """Returns a route. Raises NotFound with the nearest name."""
    route = Routing(tx).route(name)
    if route is None:
        hint = did_you_mean(name, Routing(tx).table().routes)
        raise NotFound(
            f"there is no route {name!r}{hint or ';'} `swapproof route list` shows the routes"
        )
    return route


def create_route(
    ctx: RoutingContext,
    actor: Actor,
    name: str,
    incumbent: str,
    *,
    fallbacks: Sequence[str] = (),
    capable: Sequence[str] = (),
    settings: RouteSettings,
) -> Route:
    """Creates a route with its baseline targets, which need no verdict.

    Args:
        incumbent: id or name of a model; an unknown one is registered.
        fallbacks: ids or names of models; unknown ones are registered.
        capable: as `fallbacks`.

    Needs an admin. Raises Conflict for a known route, and InputError for invalid settings.
    Raises NotFound for an unknown model, suite or policy.
    Raises NotAllowed for a target that may not see the data class, and for fallbacks of another
    embedding model.
    """
    actor.require(Role.ADMIN)
    settings = check_settings(ctx, settings)
    check_route_name(name)
    check_principal_name(name)
    with ctx.store.write() as tx:
        if Routing(tx).route(name) is not None:
            raise Conflict(
                f"there is a route {name!r} already: `swapproof proposal create {name} MODEL` "
                "proposes another model for it, `swapproof route settings` changes its settings"
            )
        incumbent_id = named_models.register_model(ctx, tx, actor, incumbent).id
        fallback_ids = [
            named_models.register_model(ctx, tx, actor, fallback).id for fallback in fallbacks
        ]
        data_class_checks.check_targets(
            ctx, settings, known_targets(tx, [incumbent_id, *fallback_ids]), route=name
        )
        (primary,) = known_targets(tx, [incumbent_id])
        vector_checks.check_vectors(
            ctx, tx, name, settings, primary, known_targets(tx, fallback_ids)
        )
        capable_ids = tuple(named_models.find_model(ctx, tx, id_).id for id_ in capable)
        change = CreateRoute(
            name, incumbent_id, tuple(fallback_ids), replace(settings, capable=capable_ids)
        )
        store_pins(ctx, tx, settings)
        commit(tx, actor, change, 0, "created", action="route.create")
        check_overrides(ctx, tx, name)
        return require_route(tx, name)


def change_settings(
    ctx: RoutingContext,
    actor: Actor,
    name: str,
    changed: Callable[[RouteSettings], RouteSettings],
    *,
    reason: str = "",
) -> Route:
    """Changes settings and keeps the targets.

    Args:
        changed: returns the new settings for the old settings. It may run twice. Its changes of
            `capable` and `proven` have no effect: `capable` belongs to the fallback chain, and
            only the control process writes `proven`.
        reason: required for another policy.

    Raises ProofRefused for an expired waiver.
    Raises RouteBusy for another policy while a proposal is open.
    Also raises the errors of `check_settings`, `check_overrides` and
    `vector_checks.check_override`.
    """
    actor.require(Role.ADMIN)
    with ctx.store.read() as tx:
        settings_before = require_route(tx, name).settings
    # Outside the write transaction: a suite may take seconds to load, and a write transaction
    # blocks all others.
    pinned_suites = check_settings(ctx, changed(settings_before)).suites
    with ctx.store.write() as tx:
        route = require_route(tx, name)
        settings = replace(
            changed(route.settings),
            capable=route.settings.capable,
            proven=route.settings.proven,
        )
        if settings.suites == pinned_suites:
            settings = replace(settings, suites=pinned_suites)
        data_class_checks.check_targets(
            ctx, settings, known_targets(tx, route.targets), route=name
        )
        vector_checks.check_override(ctx, tx, route, settings)
        if settings.policy != route.settings.policy:
            # A proposal keeps the policy under which it was registered.
            if open_proposals := Proposals(tx).list(route=name, open_only=True):
                raise RouteBusy(
                    f"route {name!r} has the open proposal {open_proposals[0].id} and keeps "
                    "its policy until the proposal ends: wait, or cancel the proposal"
                )
            require_reason(reason, "another policy")
        change = ChangeSettings(name, settings)
        store_pins(ctx, tx, settings)
        changes = describe_difference(route, replace(route, settings=settings)).items()
        summary = "; ".join(
            f"{field}: {old or 'none'} → {new or 'none'}" for field, (old, new) in changes
        )
        full_reason = ": ".join(filter(None, (reason, summary or "the same settings again")))
        commit(tx, actor, change, route.version, full_reason, action="route.settings")
        check_overrides(ctx, tx, name)
        return require_route(tx, name)


def known_targets(tx: Transaction, ids: Iterable[str]) -> list[Target]:
    """Returns the registered targets of the ids, sorted by id."""
    targets_by_id = Targets(tx).all()
    return [targets_by_id[id_] for id_ in sorted(ids)]


def describe_difference(older: Route, newer: Route) -> dict[str, tuple[str, str]]:
    """Lists the differences between two states of a route: field to (before, after)."""
    before = describe_fields(older)
    after = describe_fields(newer)
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}


def describe_fields(route: Route) -> dict[str, str]:
    """Describes a route by field: targets by their ids, and "" for an unset field."""
    canary = route.canary
    return {
        "incumbent": route.incumbent,
        "canary": canary.target if canary else "none",
        "canary share": format_bps(canary.weight_bps) if canary else "0 %",
        "held back": route.holdback.target if route.holdback else "none",
        "fallbacks": ", ".join(route.fallbacks) or "none",
        **setting_values.describe_settings(route.settings),
    }


def check_settings(ctx: RoutingContext, settings: RouteSettings) -> RouteSettings:
    """Adds the current digest to each suite without a digest. Raises NotFound, InputError.

    Returns the settings with all digests. An existing digest stays, so that a person
    does not accept a changed suite by accident.
    """
    for record in (settings, *settings.suites):
        setting_values.check_settings(record)
    policy = ctx.policy(settings.policy)
    _check_candidates(settings.candidates, policy)
    digests = {suite.suite: ctx.suites.pin(suite.suite).digest for suite in settings.suites}
    suites = (
        replace(suite, digest=suite.digest or digests[suite.suite]) for suite in settings.suites
    )
    return replace(settings, suites=tuple(suites))


def _check_candidates(
    schedule: CandidateSchedule | None,
    policy: Policy,
) -> None:
    """Checks a candidate schedule and whether it fits the policy. Raises InputError."""
    if schedule is None:
        return
    check_schedule(schedule)
    if schedule.on_better is OnBetter.CANARY and policy.promotion is PromotionMode.APPROVED:
        raise InputError(
            f"on_better: canary opens canaries by itself, but the policy {policy.name!r} "
            "requires approval: use `propose`"
        )
    if schedule.prefer.claim not in policy.gate.allowed_claims:
        raise InputError(
            f"prefer: {schedule.prefer.value} claims {schedule.prefer.claim.value}, which the "
            f"policy {policy.name!r} does not allow (`claims`)"
        )


def store_pins(
    ctx: RoutingContext,
    tx: Transaction,
    settings: RouteSettings,
) -> None:
    """Stores the accepted suites' pins, so that Swapproof can describe a later change."""
    for suite in settings.suites:
        pin = ctx.suites.pin(suite.suite)
        if pin.digest == suite.digest:
            Suites(tx).put(pin, ctx.clock.now())


def commit(
    tx: Transaction,
    actor: Actor,
    change: TableChange,
    version: int,
    reason: str,
    *,
    action: str,
    **details: object,
) -> None:
    """Writes a change with its audit event. Raises RevisionConflict.

    Args:
        version: the route's version before the change.
        details: further fields of the event.

    If the change sets another schedule for candidates, it also starts that schedule.
    """
    now = tx.now()
    old_route = Routing(tx).route(change.route)
    revision = Routing(tx).commit(
        change,
        expected_version=version,
        actor=actor.name,
        reason=reason,
        now=now,
    )
    event = {
        "revision": revision,
        "reason": reason,
        **details,
    }
    AuditLog(tx).append(actor, action, f"route {change.route}", event)
    if isinstance(change, CreateRoute | ChangeSettings):
        cron_before = _find_cron(old_route.settings) if old_route else None
        if _find_cron(change.settings) not in (None, cron_before):
            incumbent = require_route(tx, change.route).incumbent
            CandidateRounds(tx).begin(build_start_round(change.route, incumbent, now))


def _find_cron(settings: RouteSettings) -> str | None:
    """Returns the schedule's cron expression; None without a schedule."""
    return settings.candidates.every if settings.candidates else None


def find_later_rollback(tx: Transaction, rollout: Rollout) -> RouteRecord | None:
    """Finds the change by which a person rolled back a promotion after its bake; None without
    such a change.
    """
    if not is_bake_over(rollout):
        return None
    record = Routing(tx).first_after(rollout.id)
    restored = record is not None and record.kind == CHANGE_KINDS[RestoreIncumbent]
    return record if restored else None


def is_bake_over(rollout: Rollout) -> bool:
    """Tells whether a rollout promoted its candidate, and the bake has ended."""
    return rollout.state is RolloutState.PROMOTED and not rollout.baking


def read_later_end(rollback: RouteRecord | None) -> CanaryEnding | None:
    """Returns how a person rolled back the promotion after its bake; None without such a
    rollback.
    """
    if rollback is None:
        return None
    end = CanaryEnd.PROMOTION_ROLLED_BACK
    return CanaryEnding(end, RolloutSignal.ABORT, rollback.actor, rollback.reason)


@dataclass(frozen=True, slots=True)
class TargetRollback:
    """The last rollback of a target from a route."""

    at: datetime
    words: str  # what happened to the target, as a predicate: `was aborted by ben: too slow`
    after_bake: bool = False  # a person rolled back the promotion after its bake


def find_rollback(tx: Transaction, name: str, target: str) -> TargetRollback | None:
    """Finds a target's last rollback from a route: the end of a canary or a bake by its
    evidence, a guard, a change or a person, or a person's rollback after the bake.
    """
    rollbacks = []
    for rollout in Rollouts(tx).list(route=name, candidate=target):
        if rollout.state is RolloutState.ROLLED_BACK:
            words = _describe_end(rollout.end, rollout.ending, rollout.ended_because)
            rollbacks.append(TargetRollback(rollout.updated_at, words))
        elif (later := find_later_rollback(tx, rollout)) is not None:
            ending = read_later_end(later)
            words = _describe_end(CanaryEnd.PROMOTION_ROLLED_BACK, ending, later.reason)
            rollbacks.append(TargetRollback(later.at, words, after_bake=True))
    return max(rollbacks, key=lambda rollback: rollback.at, default=None)


def _describe_end(end: CanaryEnd | None, ending: CanaryEnding | None, because: str) -> str:
    predicate = end_predicate(end or CanaryEnd.ROLLED_BACK)
    if ending is not None and ending.by:
        return f"{predicate} {who_ended(ending)}"
    return f"{predicate}: {because}".rstrip(": ")


def find_rollback_since(tx: Transaction, verdict: Verdict) -> TargetRollback | None:
    """Finds the last rollback of a verdict's candidate, unless it is older than the verdict.

    After a rollback, the verdict proves the candidate no longer: only a newer verdict can.
    """
    rollback = find_rollback(tx, verdict.route, verdict.candidate)
    return rollback if rollback is not None and rollback.at >= verdict.decided_at else None


def find_last_rollback(
    tx: Transaction,
    name: str,
    target: str,
    history: Sequence[RouteRecord],
) -> TargetRollback | None:
    """Finds the last rollback of a target from a route, unless a later version of `history`
    still counts the target as an incumbent (`standing_incumbents`).

    Args:
        history: the route's versions, newest first.
    """
    if target in standing_incumbents(history):
        return None
    return find_rollback(tx, name, target)
