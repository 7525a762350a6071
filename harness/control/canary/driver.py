"""Drives canaries and bakes for the reconcile loop: takes each one's next move from `decision`,
applies it by `CanaryMachine` in one unit of work, and keeps the alerts about holds and about a
canary's share of the traffic (statistics.md §2.6).
"""

from dataclasses import replace

from harness.control.canary import decision, holds
from harness.control.canary.machine import CanaryMachine, CanaryMove
from harness.control.canary.rollout_unit import RolloutUnit
from harness.control.context import Context
from harness.control.evals import recomputation
from harness.control.operations import alerts
from harness.domain.canary.rollout import Rollout, RolloutSignal
from harness.domain.errors import StaleWrite
from harness.domain.formatting import format_bps, without_scientific_notation
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alerts import AlertKind
from harness.domain.proposals.proposal import Proposal
from harness.gate.online.fisher import ALARM_LOG_E
from harness.gate.online.rollout_action import RolloutAction


def drive_canary(ctx: Context, proposal: Proposal) -> list[str]:
    """One turn of a proposal's live canary; what was done, in words."""
    with ctx.store.read() as tx:
        before = tx.rollouts.get(proposal.rollout or "")
        in_place = RolloutUnit(ctx, tx, before).is_canary_in_place
    action = decision.decide(ctx, before)
    _update_ratio_alert(ctx, before, action)
    _update_hold_alert(ctx, before, action)
    if action.signal is None and in_place:
        return []
    with ctx.store.write() as tx:
        after = apply_action(RolloutUnit(ctx, tx, before), action)
    if after == before:
        return []
    return [f"{proposal.id}: {action.kind.value}, {after.state.value}: {action.reason}"]


def apply_action(unit: RolloutUnit, action: RolloutAction) -> Rollout:
    """Apply the action to rollout, routing table and proposal in one unit of work.

    unit: with the rollout that the action was decided for. Raises StaleWrite when it has moved.
    """
    rollout = unit.tx.rollouts.get(unit.rollout.id)
    if rollout.version != unit.rollout.version:
        raise StaleWrite(f"rollout {rollout.id} moved on since it was looked at: look again")
    unit = replace(unit, rollout=rollout)
    machine = CanaryMachine(unit)
    if not unit.is_canary_in_place:
        reason = "the route was changed by another"
        return machine.apply(CanaryMove(SYSTEM, RolloutSignal.BASE_CHANGED, reason))
    if words := action.figures.unproven:
        recomputation.raise_mismatch_alert(unit.tx, unit.proposal, rollout.verdict, words)
    if action.signal is None:
        return rollout
    reason = without_scientific_notation(action.reason)
    return machine.apply(CanaryMove(SYSTEM, action.signal, reason, action))


def drive_bake(ctx: Context, observed: Rollout) -> list[str]:
    """One turn of a promotion that bakes; what was done, in words.

    The incumbent before it keeps a small share, and harm that shows late brings it back.
    """
    action = decision.decide(ctx, observed)
    _update_hold_alert(ctx, observed, action)
    with ctx.store.read() as tx:
        held_back = RolloutUnit(ctx, tx, observed).is_holdback_in_place
    if held_back and action.signal is None:
        return []
    with ctx.store.write() as tx:
        rollout = tx.rollouts.get(observed.id)
        if rollout.version != observed.version:
            return []
        unit = RolloutUnit(ctx, tx, rollout)
        harm = action.signal is RolloutSignal.HARM
        reason = without_scientific_notation(action.reason)
        move = CanaryMove(
            SYSTEM, RolloutSignal.HARM if harm else RolloutSignal.BAKED, reason, action
        )
        if not unit.is_holdback_in_place:
            reason = "the route was changed by another: nothing is left to compare with"
            move = CanaryMove(SYSTEM, RolloutSignal.BASE_CHANGED, reason)
        CanaryMachine(unit).apply(move)
    return [f"{observed.proposal}: {action.kind.value}: {reason}"]


def _update_hold_alert(ctx: Context, rollout: Rollout, action: RolloutAction) -> None:
    """Nothing that is read for the alert may stop an end for harm, which ends the alert."""
    if action.signal is not RolloutSignal.HARM:
        holds.update_hold_alert(ctx, rollout)


def _update_ratio_alert(ctx: Context, rollout: Rollout, action: RolloutAction) -> None:
    """Alert once when the canary's share is not the planned one (statistics.md §2.6).

    It is over with the next step, or once a person resumed and the split is right since.
    """
    if not rollout.live:
        return
    notice: alerts.AlertNotice | None = None
    if action.figures.log_srm >= ALARM_LOG_E:
        planned = format_bps(rollout.current.weight_bps)
        notice = alerts.AlertNotice(
            f"route {rollout.route}",
            f"the canary of route {rollout.route} gets another share than planned",
            f"Planned: {planned}. {without_scientific_notation(action.reason)}",
        )
    alerts.update_alert(ctx, AlertKind.SAMPLE_RATIO, rollout.id, notice)
