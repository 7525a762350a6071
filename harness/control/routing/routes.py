"""Creates routes, changes their settings, lists their versions, and brings a former incumbent
back (`roll_back`). `check_settings` and `check_overrides` refuse impossible settings, overrides
(D6) against the whole table; `find_taken_back` says that a target lost its proof with its
rollout.

Everything that needs proof goes by proposals.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from harness.control import audit
from harness.control.canary.audit import decision_inputs
from harness.control.canary.rollout_unit import RolloutUnit
from harness.control.context import Context
from harness.control.routing import data_class_checks, targets
from harness.domain.canary.rollout import (
    Rollout,
    RolloutSignal,
    RolloutState,
    apply_signal,
    describe_abort,
)
from harness.domain.errors import (
    Conflict,
    InputError,
    NotFound,
    ProofRefused,
    RouteBusy,
    StaleWrite,
    SwapgateError,
)
from harness.domain.formatting import format_bps
from harness.domain.operations.access import Actor, Role
from harness.domain.operations.audit import require_reason
from harness.domain.operations.principals import check_principal_name
from harness.domain.privacy.capture import check_capture
from harness.domain.proposals.proposal import ProposalEvent, apply_event
from harness.domain.routing.keep_warm import KeepWarm
from harness.domain.routing.overrides import format_overrides, override_errors
from harness.domain.routing.route_changes import (
    CHANGE_KINDS,
    ChangeSettings,
    CreateRoute,
    RestoreIncumbent,
    check_route_name,
)
from harness.domain.routing.route_history import RouteRecord
from harness.domain.routing.table import ROUTE_TIMEOUTS, Route, RouteSettings, RoutingTable
from harness.domain.routing.target import Target
from harness.domain.suggestions import did_you_mean
from harness.store.transaction import Transaction


def check_overrides(ctx: Context, tx: Transaction, name: str) -> None:
    """Checks a route's overrides as they are in `tx`, and those of other routes that name it.

    Raises InputError for one that names its own route, NotFound for one that names none,
    NotAllowed where its data class is not as strict.
    """
    table = tx.routing.table()
    for route, other, error in _override_faults(ctx, table):
        if name in (route, other):
            raise error


def list_override_violations(ctx: Context) -> list[str]:
    """Overrides that the file does not allow (any more), in words."""
    with ctx.store.read() as tx:
        table = tx.routing.table()
    return [str(error) for _, _, error in _override_faults(ctx, table)]


def _override_faults(
    ctx: Context, table: RoutingTable
) -> Iterator[tuple[str, str, SwapgateError]]:
    """Route, the route that its override names, and the fault."""
    carried = {name: route.settings.data_class for name, route in table.routes.items()}
    for name, route in sorted(table.routes.items()):
        overrides = route.settings.overrides
        for kind, error in override_errors(name, overrides, carried, ctx.data_classes):
            yield name, overrides[kind], error


LONGEST_TIMEOUT_S: Final = 86_400


def load_table(ctx: Context) -> RoutingTable:
    with ctx.store.read() as tx:
        return tx.routing.table()


def require_route(tx: Transaction, name: str) -> Route:
    """Returns the route of this name. Raises NotFound with the nearest name."""
    route = tx.routing.route(name)
    if route is None:
        hint = did_you_mean(name, tx.routing.table().routes)
        raise NotFound(
            f"there is no route {name!r}{hint}; `swapgate route list` shows the routes"
        )
    return route


def create_route(
    ctx: Context,
    actor: Actor,
    name: str,
    incumbent: str,
    *,
    fallbacks: Sequence[str] = (),
    capable: Sequence[str] = (),
    settings: RouteSettings,
) -> Route:
    """A new route; the targets it starts with are its baseline.

    capable: which of the fallbacks are good enough for high stakes.

    Raises InputError for a name that clients cannot send or people not tell from another,
    Conflict when it is taken, NotFound for an unknown target, suite, policy or
    route of an override, NotAllowed when one's data class is not as strict.
    """
    actor.require(Role.ADMIN)
    settings = check_settings(ctx, settings)
    check_route_name(name)
    check_principal_name(name)
    with ctx.store.write() as tx:
        if tx.routing.route(name) is not None:
            raise Conflict(
                f"there is a route {name!r} already: `swapgate proposal create {name} MODEL` "
                "proposes another model for it, `swapgate route settings` changes the rest"
            )
        first = targets.find_or_register_target(ctx, tx, actor, incumbent).id
        chain = [
            targets.find_or_register_target(ctx, tx, actor, fallback).id
            for fallback in fallbacks
        ]
        data_class_checks.check_targets(ctx, settings, _known(tx, [first, *chain]), route=name)
        marked = tuple(targets.find_target(tx, id_).id for id_ in capable)
        change = CreateRoute(name, first, tuple(chain), replace(settings, capable=marked))
        store_pins(ctx, tx, settings)
        _commit(ctx, tx, actor, change, 0, "created", "route.create")
        check_overrides(ctx, tx, name)
        return require_route(tx, name)


def change_settings(
    ctx: Context,
    actor: Actor,
    name: str,
    changed: Callable[[RouteSettings], RouteSettings],
    *,
    reason: str = "",
) -> Route:
    """Changes a route's settings and keeps its targets; which are marked capable, the chain
    decides. reason: another policy needs one, since the policy is the route's bar.

    Raises ProofRefused while a waiver of the chain has expired, NotAllowed when a target may
    not see the data class, or a route that an override joins to this one is not as strict.
    """
    actor.require(Role.ADMIN)
    with ctx.store.read() as tx:
        before = require_route(tx, name).settings
    # A suite may take seconds to load, and a unit of work holds up all others.
    pinned = check_settings(ctx, changed(before)).suites
    with ctx.store.write() as tx:
        route = require_route(tx, name)
        settings = replace(changed(route.settings), capable=route.settings.capable)
        if settings.suites == pinned:
            settings = replace(settings, suites=pinned)
        data_class_checks.check_targets(ctx, settings, _known(tx, route.targets), route=name)
        if settings.policy != route.settings.policy:
            _refuse_while_open(tx, name)
            require_reason(reason, "another policy")
        change = ChangeSettings(name, settings)
        store_pins(ctx, tx, settings)
        said = describe_settings_change(route, settings).items()
        words = "; ".join(f"{field}: {a or 'none'} → {b or 'none'}" for field, (a, b) in said)
        why = ": ".join(filter(None, (reason, words or "the same settings again")))
        _commit(ctx, tx, actor, change, route.version, why, "route.settings")
        check_overrides(ctx, tx, name)
        return require_route(tx, name)


def roll_back(
    ctx: Context,
    actor: Actor,
    name: str,
    *,
    to_version: int | None = None,
    reason: str,
    expected: Route | None = None,
    expected_version: int | None = None,
) -> Route:
    """Bring a former incumbent back, by default the one before the last promotion that still
    stands. A live canary ends, and so does a bake: its promotion is taken back.

    expected: the route as whoever decides saw it, by default as it is now; with another
    incumbent or canary by the time of the write it raises StaleWrite: two who roll back at once
    go back by one promotion. expected_version: of the route; likewise with another.

    Needs no proof: it served this route before. Raises NotFound when there is none,
    ProofRefused for a model that its rollout's end took from the route: that takes a verdict.
    """
    actor.require(Role.APPROVER)
    require_reason(reason, "a rollback")
    if expected is None:
        with ctx.store.read() as tx:
            expected = require_route(tx, name)
    with ctx.store.write() as tx:
        route = require_route(tx, name)
        if expected_version not in (None, route.version):
            raise StaleWrite(
                f"route {name!r} is at version {route.version} by now, not {expected_version}: "
                "look at it again"
            )
        if _models(expected) != _models(route):
            raise StaleWrite(
                f"route {name!r} has another model or canary by now: look at it again"
            )
        history = tx.routing.history(name)
        incumbent = _former(history, route, to_version)
        _refuse_taken_back(tx, name, incumbent, history)
        data_class_checks.check_targets(
            ctx, route.settings, _known(tx, [incumbent]), route=name
        )
        change = RestoreIncumbent(name, incumbent)
        _commit(ctx, tx, actor, change, route.version, reason, "route.rollback")
        if incumbent != route.incumbent:
            because = describe_abort(actor.name, reason, baking=True)
            _take_back_baking(ctx, tx, actor, name, because)
        return require_route(tx, name)


def _refuse_while_open(tx: Transaction, name: str) -> None:
    """A proposal ends by the policy under which it was registered. Raises RouteBusy."""
    if found := tx.proposals.list(route=name, open_only=True):
        raise RouteBusy(
            f"route {name!r} has the open proposal {found[0].id}, and keeps its policy until "
            "that ends: wait, or cancel it"
        )


def _models(route: Route) -> tuple[str, str | None]:
    """Names who serves, and in whose canary."""
    return route.incumbent, route.canary.target if route.canary is not None else None


def _take_back_baking(
    ctx: Context, tx: Transaction, actor: Actor, name: str, because: str
) -> None:
    """End a bake as an abort does, in the same unit: else its model could return unproven."""
    now = ctx.clock.now()
    for rollout in tx.rollouts.baking():
        if rollout.route != name:
            continue
        tx.rollouts.save(apply_signal(rollout, RolloutSignal.ABORT, now, because))
        proposal = tx.proposals.get(rollout.proposal)
        tx.proposals.save(apply_event(proposal, ProposalEvent.CANCELLED, now, because))
        inputs = decision_inputs(RolloutUnit(ctx, tx, rollout), None)
        audit.record(
            ctx,
            tx,
            actor,
            f"canary.{RolloutSignal.ABORT.value}",
            f"route {name}",
            {"rollout": rollout.id, "reason": because, **inputs},
        )


def _known(tx: Transaction, ids: Iterable[str]) -> list[Target]:
    targets_ = tx.routing.targets()
    return [targets_[id_] for id_ in sorted(ids)]


def _former(history: Sequence[RouteRecord], route: Route, version: int | None) -> str:
    if version is None:
        found, which = _one_before(history), "earlier incumbent"
    else:
        named = (r.route.incumbent for r in history if r.route.version == version)
        found, which = next(named, None), f"version {version}"
    if found is None:
        raise NotFound(
            f"route {route.name!r} has no {which}; `swapgate route history` shows all"
        )
    return found


def find_taken_back(
    tx: Transaction, name: str, target: str, history: Sequence[RouteRecord]
) -> Rollout | None:
    """The rollout whose end took the target from the route: it has no proof left. None where
    its promotion stands, or it was never rolled out.
    """
    if target in _standing(history):
        return None
    last = next(iter(tx.rollouts.list(route=name, candidate=target, limit=1)), None)
    return last if last is not None and last.state is RolloutState.ROLLED_BACK else None


def _refuse_taken_back(
    tx: Transaction, name: str, target: str, history: Sequence[RouteRecord]
) -> None:
    """A verdict is the proof of one rollout: what was rolled back after it has none left."""
    last = find_taken_back(tx, name, target, history)
    if last is not None:
        known = tx.routing.targets()[target].name
        raise ProofRefused(
            f"{known} was taken back from route {name!r} by the end of rollout {last.id} "
            f"({last.ended_because}): propose it again, that needs a new verdict"
        )


def _one_before(history: Sequence[RouteRecord]) -> str | None:
    """A rollback goes one promotion back, and so a second one never undoes the first."""
    chain = _standing(history)
    return chain[-2] if len(chain) > 1 else None


def _standing(history: Sequence[RouteRecord]) -> list[str]:
    """Incumbents, oldest first, without those whose promotion was taken back."""
    chain: list[str] = []
    for record in reversed(history):
        incumbent = record.route.incumbent
        if record.kind == CHANGE_KINDS[RestoreIncumbent] and incumbent in chain:
            while chain[-1] != incumbent:
                chain.pop()
        elif chain[-1:] != [incumbent]:
            chain.append(incumbent)
    return chain


def describe_difference(older: RouteRecord, newer: RouteRecord) -> dict[str, tuple[str, str]]:
    """Lists what differs between two versions of a route: field to (before, after)."""
    return dict(_otherwise(older.route, newer.route))


def describe_settings_change(route: Route, wanted: RouteSettings) -> dict[str, tuple[str, str]]:
    """Lists what other settings would change of a route: field to (before, after)."""
    return dict(_otherwise(route, replace(route, settings=wanted)))


def _otherwise(older: Route, newer: Route) -> list[tuple[str, tuple[str, str]]]:
    before, after = _fields(older), _fields(newer)
    both = ((name, (before[name], after[name])) for name in before)
    return [(name, pair) for name, pair in both if pair[0] != pair[1]]


def _fields(route: Route) -> dict[str, str]:
    canary = route.canary
    return {
        "incumbent": route.incumbent,
        "canary": canary.target if canary else "none",
        "canary share": format_bps(canary.weight_bps) if canary else "0 %",
        "held back": route.holdback.target if route.holdback else "none",
        "fallbacks": ", ".join(route.fallbacks) or "none",
        "description": route.settings.description,
        "capable": ", ".join(route.settings.capable) or "none",
        "stakes": route.settings.stakes.value,
        "on content policy": route.settings.on_content_policy.value,
        "keep warm": format_bps(route.settings.keep_warm_bps),
        "tools": "side effects" if route.settings.side_effects else "",
        "data class": route.settings.data_class,
        "task": route.settings.task,
        "capture": format_bps(route.settings.capture_bps),
        "captured per day": str(route.settings.capture_per_day),
        "captured for": f"{route.settings.capture_keep_days:g} days",
        "overrides": format_overrides(route.settings.overrides),
        "timeout": f"{route.settings.total_timeout_s:g} s",
        "first token": _limit(route.settings.first_token_timeout_s),
        "first byte": _limit(route.settings.first_byte_timeout_s),
        "commit": route.settings.commit.value,
        "on bad event": route.settings.on_bad_event.value,
        "on empty answer": route.settings.on_empty_answer.value,
        "policy": route.settings.policy,
        "suites": ", ".join(suite.text for suite in route.settings.suites),
    }


def _limit(seconds: float | None) -> str:
    return f"{seconds:g} s" if seconds is not None else ""


def check_settings(ctx: Context, settings: RouteSettings) -> RouteSettings:
    """The settings with the digest of each suite that has none: naming one accepts it as it is.

    Raises NotFound for an unknown suite or policy, InputError for an impossible value.
    """
    KeepWarm(settings.keep_warm_bps)
    check_capture(settings)
    if not 0 < settings.total_timeout_s <= LONGEST_TIMEOUT_S:
        raise InputError(
            f"a request's whole budget is above 0 s, at most {LONGEST_TIMEOUT_S} s"
        )
    for name in ROUTE_TIMEOUTS:
        limit_s = getattr(settings, name)
        if limit_s is not None and not 0 < limit_s <= LONGEST_TIMEOUT_S:
            raise InputError(f"{name} is above 0 s, at most {LONGEST_TIMEOUT_S} s")
    ctx.policy(settings.policy)
    digests = {suite.suite: ctx.suites.pin(suite.suite).digest for suite in settings.suites}
    suites = (
        replace(suite, digest=suite.digest or digests[suite.suite]) for suite in settings.suites
    )
    return replace(settings, suites=tuple(suites))


def store_pins(ctx: Context, tx: Transaction, settings: RouteSettings) -> None:
    """Store the suites' pins as they were accepted, so that a later change can be named."""
    for suite in settings.suites:
        pin = ctx.suites.pin(suite.suite)
        if pin.digest == suite.digest:
            tx.suites.put(pin, ctx.clock.now())


def _commit(
    ctx: Context,
    tx: Transaction,
    actor: Actor,
    change: CreateRoute | ChangeSettings | RestoreIncumbent,
    expected: int,
    reason: str,
    action: str,
) -> None:
    now = ctx.clock.now()
    revision = tx.routing.commit(
        change, expected_version=expected, actor=actor.name, reason=reason, now=now
    )
    audit.record(
        ctx,
        tx,
        actor,
        action,
        f"route {change.route}",
        {"revision": revision, "reason": reason},
    )
