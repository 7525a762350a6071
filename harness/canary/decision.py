"""Decides the next action of a canary or a bake; changes nothing. In this order: the evidence;
holds, while data or clock are not trusted; the proof (an unmeasured candidate is rolled back,
any other change pauses); an abort by a router's own guard.

A guard needs no database. Its alert arrives from its spool, perhaps much later; until then
users do not get the shares in the database.
"""

from collections.abc import Sequence
from dataclasses import replace

from harness.canary import holds
from harness.canary.audit import RolloutUnit
from harness.evals import proof_validity
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.alert_record import AlertRecord
from harness.frame.alerts.records import Alerts
from harness.frame.errors import NotFound, SignatureInvalid
from harness.gate.online.rollout import ActionKind, Rollout, RolloutSignal, RolloutState
from harness.gate.online.rollout_action import RolloutAction, decide_action
from harness.gate.verdict import Verdict
from harness.proposals.evaluation import recomputation
from harness.proposals.evaluation.recomputation import AgreementLevel
from harness.routing.context import Context
from harness.routing.records.observations import Observations
from harness.routing.records.verdicts import Verdicts


def decide(ctx: Context, rollout: Rollout) -> RolloutAction:
    with ctx.store.read() as tx:
        unit = RolloutUnit(ctx, tx, rollout)
        action = holds.apply_hold(unit, read_evidence(unit))
        return confirm_worker_abort(unit, _allowed(unit, action))


def read_evidence(unit: RolloutUnit) -> RolloutAction:
    blocks = Observations(unit.tx).blocks(unit.rollout.id)
    return decide_action(unit.rollout, blocks, unit.ctx.clock.now())


def _allowed(unit: RolloutUnit, action: RolloutAction) -> RolloutAction:
    """Removes an unmeasured model from traffic; any other change of the proof pauses."""
    ctx, tx, rollout = unit.ctx, unit.tx, unit.rollout
    if not rollout.live or action.signal is RolloutSignal.HARM:
        return action
    try:
        proof = Verdicts(tx).get(rollout.verdict)
    except (NotFound, SignatureInvalid) as error:
        why = f"its proof is gone: {error}"
        return replace(action, kind=ActionKind.ROLLBACK, signal=RolloutSignal.STALE, reason=why)
    unreadable = proof_validity.find_unreadable(proof)
    gone = not unreadable and proof_validity.find_replaced_candidate(tx, proof) is not None
    if unreadable or gone or proof_validity.list_clearance_faults(ctx, tx, proof):
        why = f"the proof is {proof_validity.assess_proof(ctx, tx, proof).text}"
        return replace(action, kind=ActionKind.ROLLBACK, signal=RolloutSignal.STALE, reason=why)
    if moved := proof_validity.list_moved_providers(ctx, tx, proof):
        return _held_by_move(rollout, action, describe_moved(moved))
    onward = action.signal in (RolloutSignal.STEP_DONE, RolloutSignal.PROVEN)
    return _proven(unit, proof, action) if onward else action


def _proven(unit: RolloutUnit, proof: Verdict, action: RolloutAction) -> RolloutAction:
    validity = proof_validity.assess_proof(unit.ctx, unit.tx, proof)
    if not validity.holds:
        why = (
            f"the proof is {validity.text}. The canary does not continue: undo the change and "
            "resume, or abort and propose again"
        )
        return replace(action, kind=ActionKind.PAUSE, signal=RolloutSignal.PAUSE, reason=why)
    return _recomputed(unit, proof, action)


def describe_moved(moved: Sequence[str]) -> str:
    """Explains why a canary stops. moved: result of `proof_validity.list_moved_providers`."""
    if not moved:
        return ""
    return f"{'; '.join(moved)}. The canary does not continue: abort it and propose again."


def _held_by_move(rollout: Rollout, action: RolloutAction, why: str) -> RolloutAction:
    """Keeps the share: the new address is unmeasured, but an admin's change is not harm."""
    if rollout.state is RolloutState.PAUSED:
        return replace(action, kind=ActionKind.HOLD, signal=None, reason=why)
    return replace(action, kind=ActionKind.PAUSE, signal=RolloutSignal.PAUSE, reason=why)


def _recomputed(unit: RolloutUnit, proof: Verdict, action: RolloutAction) -> RolloutAction:
    """Rolls back if the scores no longer give the verdict, because the candidate is then
    unproven. If only a figure differs, scores and outcome are unchanged: the canary pauses for
    a person.
    """
    found = recomputation.recompute_stored(unit.ctx, unit.tx, proof, unit.proposal)
    if found.agrees:
        return action
    figures = replace(action.figures, unproven=found.text)
    if found.agreement is AgreementLevel.DIFFERS:
        why = f"the stored scores do not give verdict {proof.id} any more: {found.text}"
        kind, signal = ActionKind.ROLLBACK, RolloutSignal.STALE
    else:
        why = (
            f"verdict {proof.id} has the same outcome but other figures: {found.text}. The "
            "canary does not continue: find out why and resume, or abort and propose again"
        )
        kind, signal = ActionKind.PAUSE, RolloutSignal.PAUSE
    return replace(action, kind=kind, signal=signal, reason=why, figures=figures)


def confirm_worker_abort(unit: RolloutUnit, action: RolloutAction) -> RolloutAction:
    """Returns the action, or a router's rollback, which may become known only in the bake."""
    rollout = unit.rollout
    if not (rollout.live or rollout.baking) or action.signal is RolloutSignal.HARM:
        return action
    found = find_worker_abort(unit)
    if found is None:
        return action
    blocks = Observations(unit.tx).blocks(rollout.id)
    figures = replace(action.figures, local_abort=found.id).with_segment(blocks)
    where = f" {figures.segment.text}." if figures.segment else ""
    return replace(
        action,
        kind=ActionKind.ROLLBACK,
        signal=RolloutSignal.HARM,
        reason=f"A router's own guard stopped the canary. {found.text}{where}",
        figures=figures,
    )


def find_worker_abort(unit: RolloutUnit) -> AlertRecord | None:
    return Alerts(unit.tx).newest(f"{AlertKind.LOCAL_ABORT.value}:{unit.rollout.id}")
