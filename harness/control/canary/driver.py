"""After a promotion: the incumbent before it keeps a small share, and harm that shows late
brings it back by itself."""

from harness.control.canary import holds, machine
from harness.control.context import Context
from harness.control.routing import routes
from harness.domain.canary.rollout import Rollout, RolloutSignal
from harness.domain.canary.rollout import apply_signal as rollout_moved
from harness.domain.formatting import without_scientific_notation
from harness.domain.operations.access import SYSTEM, Actor
from harness.domain.routing.route_changes import EndBake
from harness.gate.online.decision import RolloutAction
from harness.ports import Transaction


def turn(ctx: Context, seen: Rollout) -> list[str]:
    """One look at a promotion that bakes; what was done, in words."""
    action = machine.assess_rollout(ctx, seen)
    holds.update_hold_alert(ctx, seen)
    with ctx.store.read() as tx:
        ours = _held_back(tx, seen)
    if ours and action.signal is None:
        return []
    with ctx.store.write() as tx:
        rollout = tx.rollouts.get(seen.id)
        if rollout.version != seen.version:
            return []
        if not _held_back(tx, rollout):
            because = "the route was changed by another: nothing is left to compare with"
            over(ctx, tx, SYSTEM, rollout, RolloutSignal.BASE_CHANGED, because)
        elif action.signal is RolloutSignal.HARM:
            because = without_scientific_notation(action.reason)
            machine.end(ctx, tx, SYSTEM, rollout, RolloutSignal.HARM, because, action)
        else:
            because = without_scientific_notation(action.reason)
            over(ctx, tx, SYSTEM, rollout, RolloutSignal.BAKED, because, action)
    return [f"{seen.proposal}: {action.kind.value}: {because}"]


def over(
    ctx: Context,
    tx: Transaction,
    actor: Actor,
    rollout: Rollout,
    signal: RolloutSignal,
    because: str,
    action: RolloutAction | None = None,
) -> Rollout:
    """The bake ends, and the promotion stands. action: what asked. Raises IllegalTransition."""
    after = rollout_moved(rollout, signal, ctx.clock.now(), because)
    if _held_back(tx, rollout):
        route = routes.require_route(tx, rollout.route)
        machine.commit(ctx, tx, actor, route, EndBake(rollout.route, rollout.id), because)
    figures = machine.evidence_of(ctx, tx, rollout, action)
    machine.audit(ctx, tx, actor, f"canary.{signal.value}", after, because, figures)
    return tx.rollouts.save(after)


def _held_back(tx: Transaction, rollout: Rollout) -> bool:
    route = tx.routing.route(rollout.route)
    holdback = route.holdback if route else None
    return holdback is not None and holdback.rollout == rollout.id
