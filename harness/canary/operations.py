"""Moves canaries and bakes: the reconcile loop by what `decision` says (`drive`), and
people by hand (`operate`): pause, resume, advance, abort, promote, finish.

A person needs an approver's role and a reason. What takes a canary further needs another person
than the proposer; resume, advance and promote need a valid proof, and the last two are refused
where the data show harm, or warn of what the data say against them.
"""

from dataclasses import dataclass, replace

from harness.canary import decision, holds
from harness.canary.machine import CanaryMachine, CanaryMove, find_live
from harness.canary.rollout_unit import RolloutUnit
from harness.evals import proof_validity
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.errors import IllegalTransition, InputError, ProofRefused, StaleWrite
from harness.frame.formatting import format_bps, without_scientific_notation
from harness.frame.people import four_eyes
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import require_reason
from harness.gate.online.fisher import ALARM_LOG_E
from harness.gate.online.rollout import (
    MANUAL_ONWARD_SIGNALS,
    MANUAL_SIGNALS,
    ActionKind,
    Rollout,
    RolloutSignal,
    RolloutState,
    describe_abort,
)
from harness.gate.online.rollout_action import RolloutAction
from harness.gate.text.guardrail_rows import list_warnings
from harness.proposals import decisions
from harness.proposals.evaluation import recomputation
from harness.routing.context import Context
from harness.routing.proposal import ApprovalKind
from harness.routing.records.proposals import Proposals
from harness.routing.records.rollouts import Rollouts
from harness.routing.records.verdicts import Verdicts


@dataclass(frozen=True, slots=True)
class CanaryOperation:
    rollout: Rollout
    warnings: tuple[str, ...] = ()  # what the data say against what was done all the same


def operate(
    ctx: Context,
    actor: Actor,
    route: str,
    signal: RolloutSignal,
    reason: str,
    *,
    expected_version: int | None = None,
) -> CanaryOperation:
    """Move the route's canary, or end its bake.

    expected_version: the rollout's version that the person looked at; None takes what is
    stored. Raises NotFound when there is none, IllegalTransition when its state does not allow
    it, StaleWrite when it moved since it was seen, InputError without a reason, NotAllowed for
    the proposer of what would go on (`four_eyes.check_four_eyes`), ProofRefused where the
    verdict is not valid any more or the data show harm.
    """
    actor.require(Role.APPROVER)
    if signal not in MANUAL_SIGNALS:
        raise InputError(f"that is for the evidence to say, not for a person: {signal.value}")
    why = require_reason(reason, f"to {signal.value} by hand")
    with recomputation.alerting_mismatch(ctx), ctx.store.write() as tx:
        rollout = _find_movable(tx, actor, route, signal, expected_version)
        unit = RolloutUnit(ctx, tx, rollout)
        machine = CanaryMachine(unit)
        because = f"{signal.value} by {actor.name}: {why}"
        if signal is RolloutSignal.ABORT:
            because = describe_abort(actor.name, why, baking=rollout.baking)
        move, against = CanaryMove(actor, signal, because), tuple[str, ...]()
        match signal:
            case RolloutSignal.PROMOTE:
                move, against = _with_evidence(unit, move, ActionKind.PROMOTE)
                kind = ApprovalKind.PROMOTION
                decisions.record_approval(ctx, tx, actor, unit.proposal, kind, reason)
            case RolloutSignal.FINISH if not rollout.baking:
                raise IllegalTransition(
                    f"the canary of {route} is {rollout.state.value}: only a bake, after "
                    "the promotion, is finished by hand"
                )
            case RolloutSignal.ADVANCE:
                _require_proof(unit)
                move, against = _with_evidence(unit, move, ActionKind.ADVANCE)
            case RolloutSignal.RESUME:
                proof_validity.require_proof(ctx, tx, Verdicts(tx).get(rollout.verdict))
                looked = machine.acknowledge_faults(move)
                if looked and rollout.state is not RolloutState.PAUSED:
                    return CanaryOperation(rollout)
            case _:
                pass
        return CanaryOperation(machine.apply(move), against)


def _find_movable(
    tx: Transaction,
    actor: Actor,
    route: str,
    signal: RolloutSignal,
    expected_version: int | None,
) -> Rollout:
    rollout = find_live(tx, route)
    if expected_version not in (None, rollout.version):
        raise StaleWrite(
            f"the canary of {route} is at version {rollout.version}, not {expected_version}: "
            "look at it again, then decide"
        )
    if signal in MANUAL_ONWARD_SIGNALS:
        four_eyes.check_four_eyes(tx, actor, Proposals(tx).get(rollout.proposal), signal.value)
    return rollout


def _require_proof(unit: RolloutUnit) -> None:
    ctx, tx, rollout = unit.ctx, unit.tx, unit.rollout
    proof, proposal = Verdicts(tx).get(rollout.verdict), unit.proposal
    proof_validity.require_proof(ctx, tx, proof)
    recomputation.require_agreement(ctx, tx, proof, proposal)


def _with_evidence(
    unit: RolloutUnit, move: CanaryMove, kind: ActionKind
) -> tuple[CanaryMove, tuple[str, ...]]:
    action, against = _check_harmless(unit)
    reason = move.reason
    if move.signal is RolloutSignal.PROMOTE:
        reason = without_scientific_notation(f"{reason}. {action.reason}")
    asked = replace(action, kind=kind, signal=move.signal, reason=reason)
    return replace(move, reason=reason, action=asked), against


def _check_harmless(unit: RolloutUnit) -> tuple[RolloutAction, tuple[str, ...]]:
    """What the data say, and what they say against it, which the audit log keeps as well.

    Raises ProofRefused when they, or a router's own guard, ask for the rollback.
    """
    action = decision.confirm_worker_abort(unit, decision.read_evidence(unit))
    if action.signal is RolloutSignal.HARM:
        raise ProofRefused(
            f"the canary of {unit.rollout.route} goes back, not on: "
            f"{without_scientific_notation(action.reason)}"
        )
    against = list_warnings(action.figures)
    if not against:
        return action, ()
    return replace(action, figures=replace(action.figures, warnings=against)), against


def drive(ctx: Context, before: Rollout) -> list[str]:
    """Takes one turn of a live canary, or of a bake. Says what was done."""
    action = decision.decide(ctx, before)
    _update_ratio_alert(ctx, before, action)
    # Nothing that is read for the alert may stop an end for harm, which ends the alert.
    if action.signal is not RolloutSignal.HARM:
        holds.update_hold_alert(ctx, before)
    with ctx.store.read() as tx:
        in_place = RolloutUnit(ctx, tx, before).is_in_place
    if action.signal is None and in_place:
        return []
    with ctx.store.write() as tx:
        after = apply_action(RolloutUnit(ctx, tx, before), action)
    if after == before:
        return []
    return [f"{before.proposal}: {action.kind.value}, {after.state.value}: {action.reason}"]


def apply_action(unit: RolloutUnit, action: RolloutAction) -> Rollout:
    """Apply the action to rollout, routing table and proposal in one unit of work.

    unit: with the rollout that the action was decided for. Raises StaleWrite when it has moved.
    """
    rollout = Rollouts(unit.tx).get(unit.rollout.id)
    if rollout.version != unit.rollout.version:
        raise StaleWrite(f"rollout {rollout.id} moved on since it was looked at: look again")
    unit = replace(unit, rollout=rollout)
    machine = CanaryMachine(unit)
    if not unit.is_in_place:
        reason = "the route was changed by another"
        return machine.apply(CanaryMove(SYSTEM, RolloutSignal.BASE_CHANGED, reason))
    if words := action.figures.unproven:
        recomputation.raise_mismatch_alert(unit.tx, unit.proposal, rollout.verdict, words)
    if action.signal is None:
        return rollout
    reason = without_scientific_notation(action.reason)
    return machine.apply(CanaryMove(SYSTEM, action.signal, reason, action))


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
