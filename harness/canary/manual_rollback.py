"""Takes a promotion back by hand, so that a former incumbent of the route serves again."""

from collections.abc import Sequence

from harness.canary.audit import decision_inputs
from harness.canary.rollout_unit import RolloutUnit
from harness.frame.errors import NotFound, ProofRefused, StaleWrite
from harness.frame.people.access import Actor, Role
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import require_reason
from harness.frame.signing.audit_log import AuditLog
from harness.gate.online.rollout import RolloutSignal, apply_signal, describe_abort
from harness.registry import data_class_checks
from harness.routes.routes import commit, known_targets, require_route
from harness.routes.taken_back import find_taken_back, standing_incumbents
from harness.routing.context import Context
from harness.routing.proposal import ProposalEvent, apply_event
from harness.routing.records.proposals import Proposals
from harness.routing.records.rollouts import Rollouts
from harness.routing.records.routes import Routing
from harness.routing.route_changes import RestoreIncumbent
from harness.routing.table import Route, RouteRecord


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
    """Restores a former incumbent, by default the incumbent before the last promotion in force.
    Ends a live canary, and takes a baking promotion back. expected: the route as the actor saw
    it. If incumbent, canary or `expected_version` has changed, raises StaleWrite, so that two
    simultaneous rollbacks go back by one promotion.

    Needs an approver, and no proof. Raises NotFound without a former incumbent, ProofRefused
    for a model that the end of its rollout removed from the route.
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
                "check it again"
            )
        if _models(expected) != _models(route):
            raise StaleWrite(
                f"route {name!r} has another model or canary by now: check it again"
            )
        history = Routing(tx).history(name)
        incumbent = _former(history, route, to_version)
        (known,) = known_targets(tx, [incumbent])
        # A verdict proves one rollout, so a model that was rolled back has no proof left.
        if (last := find_taken_back(tx, name, incumbent, history)) is not None:
            raise ProofRefused(
                f"{known.name} was taken back from route {name!r} by the end of rollout "
                f"{last.id} ({last.ended_because}): propose it again, because it needs a new "
                "verdict"
            )
        data_class_checks.check_targets(ctx, route.settings, [known], route=name)
        change = RestoreIncumbent(name, incumbent)
        commit(tx, actor, change, route.version, reason, action="route.rollback")
        if incumbent != route.incumbent:
            because = describe_abort(actor.name, reason, baking=True)
            _take_back_baking(ctx, tx, actor, name, because)
        return require_route(tx, name)


def _models(route: Route) -> tuple[str, str | None]:
    return route.incumbent, route.canary.target if route.canary is not None else None


def _take_back_baking(
    ctx: Context, tx: Transaction, actor: Actor, name: str, because: str
) -> None:
    """Ends a bake like an abort, at once, so that its model cannot return unproven."""
    now = ctx.clock.now()
    for rollout in Rollouts(tx).baking():
        if rollout.route != name:
            continue
        Rollouts(tx).save(apply_signal(rollout, RolloutSignal.ABORT, now, because))
        proposal = Proposals(tx).get(rollout.proposal)
        Proposals(tx).save(apply_event(proposal, ProposalEvent.CANCELLED, now, because))
        inputs = decision_inputs(RolloutUnit(ctx, tx, rollout), None)
        details, action = {"rollout": rollout.id, "reason": because, **inputs}, "canary.abort"
        AuditLog(tx).append(actor, action, f"route {name}", details)


def _former(history: Sequence[RouteRecord], route: Route, version: int | None) -> str:
    if version is None:
        # Each rollback goes one promotion back, so a second rollback does not undo the first.
        found, which = (
            next(iter(standing_incumbents(history)[-2:-1]), None),
            "earlier incumbent",
        )
    else:
        named = (r.route.incumbent for r in history if r.route.version == version)
        found, which = next(named, None), f"version {version}"
    if found is None:
        raise NotFound(
            f"route {route.name!r} has no {which}; `swapgate route history` shows all"
        )
    return found
