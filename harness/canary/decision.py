"""Decides what a canary or a bake does next; changes nothing. In this order: what the evidence
asks for; holds, while data or clock are not trusted; what the proof still allows (a candidate
that was never measured goes back, any other change pauses); what a router's own guard has
stopped.

A guard needs no database: what it did arrives as an alert, perhaps much later, from its spool;
until then the weights that the database has are not what users get.
"""

from collections.abc import Sequence
from dataclasses import replace

from harness.canary import holds
from harness.canary.rollout_unit import RolloutUnit
from harness.evals import proof_validity
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.alert_record import AlertRecord
from harness.frame.alerts.records import Alerts
from harness.frame.errors import NotFound, SignatureInvalid
from harness.gate.online.next_step import decide_action
from harness.gate.online.rollout import ActionKind, Rollout, RolloutSignal, RolloutState
from harness.gate.online.rollout_action import RolloutAction
from harness.gate.verdict import Verdict
from harness.proposals.evaluation import recomputation
from harness.proposals.evaluation.recomputed_verdict import AgreementLevel
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
    """Takes users off a model that was not measured; any other change of the proof pauses."""
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
            f"the proof is {validity.text}. It goes no further: put that back and resume, or "
            "abort and propose again"
        )
        return replace(action, kind=ActionKind.PAUSE, signal=RolloutSignal.PAUSE, reason=why)
    return _recomputed(unit, proof, action)


def describe_moved(moved: Sequence[str]) -> str:
    """Says why a canary goes no further. moved: of `proof_validity.list_moved_providers`."""
    if not moved:
        return ""
    return f"{'; '.join(moved)}. It goes no further: abort it and propose again."


def _held_by_move(rollout: Rollout, action: RolloutAction, why: str) -> RolloutAction:
    """Nobody measured what answers now, and an admin's act is no harm: the share stays."""
    if rollout.state is RolloutState.PAUSED:
        return replace(action, kind=ActionKind.HOLD, signal=None, reason=why)
    return replace(action, kind=ActionKind.PAUSE, signal=RolloutSignal.PAUSE, reason=why)


def _recomputed(unit: RolloutUnit, proof: Verdict, action: RolloutAction) -> RolloutAction:
    """Where the scores do not give the verdict any more, nothing shows that the candidate is
    good enough: users leave it. Where only a figure is another, the scores and what they
    decide are as they were: it goes no further, and a person looks.
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
            f"verdict {proof.id} is decided alike and with other figures: {found.text}. It "
            "goes no further: find out why and resume, or abort and propose again"
        )
        kind, signal = ActionKind.PAUSE, RolloutSignal.PAUSE
    return replace(action, kind=kind, signal=signal, reason=why, figures=figures)


def confirm_worker_abort(unit: RolloutUnit, action: RolloutAction) -> RolloutAction:
    """The action, or the rollback that a router has begun: it may become known in the bake."""
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
