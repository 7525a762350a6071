"""Lets people move a canary: pause, resume, advance, abort, promote now, finish the bake. Each
needs an approver and a reason. What takes it further needs another person than the proposer;
resume, advance and promote need a valid proof, and the last two are refused where the data show
harm, or warn of what the data say against them.
"""

from dataclasses import dataclass, replace

from harness.control.canary import decision
from harness.control.canary.machine import CanaryMachine, CanaryMove, find_live
from harness.control.canary.rollout_unit import RolloutUnit
from harness.control.context import Context
from harness.control.evals import proof_validity, recomputation
from harness.control.proposals import decisions, four_eyes
from harness.domain.canary.rollout import (
    MANUAL_ONWARD_SIGNALS,
    MANUAL_SIGNALS,
    ActionKind,
    Rollout,
    RolloutSignal,
    RolloutState,
    describe_abort,
)
from harness.domain.errors import (
    IllegalTransition,
    InputError,
    ProofRefused,
    StaleWrite,
)
from harness.domain.formatting import without_scientific_notation
from harness.domain.operations.access import Actor, Role
from harness.domain.operations.audit import require_reason
from harness.domain.proposals.proposal import ApprovalKind
from harness.gate.online.rollout_action import RolloutAction
from harness.gate.text.warnings import list_warnings
from harness.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class CanaryOperation:
    """Holds a rollout after a person moved it, and what the data say against that."""

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
) -> Rollout:
    """Applies a person's signal to the live rollout of a route, and drops the warnings that
    `operate_with_warnings` returns.
    """
    return operate_with_warnings(
        ctx, actor, route, signal, reason, expected_version=expected_version
    ).rollout


def operate_with_warnings(
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
                proof_validity.require_proof(ctx, tx, tx.verdicts.get(rollout.verdict))
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
    """The route's canary, where this person may give it that signal."""
    rollout = find_live(tx, route)
    if expected_version not in (None, rollout.version):
        raise StaleWrite(
            f"the canary of {route} is at version {rollout.version}, not {expected_version}: "
            "look at it again, then decide"
        )
    if signal in MANUAL_ONWARD_SIGNALS:
        four_eyes.check_four_eyes(tx, actor, tx.proposals.get(rollout.proposal), signal.value)
    return rollout


def _require_proof(unit: RolloutUnit) -> None:
    ctx, tx, rollout = unit.ctx, unit.tx, unit.rollout
    proof, proposal = tx.verdicts.get(rollout.verdict), unit.proposal
    proof_validity.require_proof(ctx, tx, proof)
    recomputation.require_agreement(ctx, tx, proof, proposal)


def _with_evidence(
    unit: RolloutUnit, move: CanaryMove, kind: ActionKind
) -> tuple[CanaryMove, tuple[str, ...]]:
    """The move with what the data say at this moment; and what they say against it.

    Raises ProofRefused when they ask for the rollback.
    """
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
