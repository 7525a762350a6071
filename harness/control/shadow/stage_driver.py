"""Moves a passed candidate's shadow before its canary (F8): starts it, and then opens the
canary, rejects the candidate, or holds with an alert.
"""

from collections.abc import Mapping
from datetime import datetime

from harness.control.canary import machine
from harness.control.context import Context
from harness.control.operations import alerts
from harness.control.routing import freezes
from harness.control.shadow import shadows
from harness.control.shadow.shadows import LONGEST, ShadowRequest
from harness.control.shadow.stage import ShadowStage, build_stage, decision_inputs
from harness.domain.errors import StaleWrite
from harness.domain.evals.verdict import Passed
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alerts import AlertKind
from harness.domain.proposals.proposal import Proposal, ProposalEvent, apply_event
from harness.domain.shadow import MAX_PER_DAY, CheckSides, Shadow, ShadowLimits
from harness.gate.shadow_stage import ShadowMove
from harness.store.transaction import Transaction


def run_once(ctx: Context, proposal: Proposal, proof: Passed) -> list[str]:
    """Moves a proposal in its shadow once, in words. Raises StaleWrite, Conflict."""
    with ctx.store.read() as tx:
        stage = build_stage(ctx, tx, proposal)
        held = ctx.observe_only or freezes.describe_freeze(ctx, tx, proposal.route)
    if stage is None:
        return []
    said: list[str] = []
    match stage.decided.move:
        case ShadowMove.START:
            said = [_start(ctx, proposal, proof, stage)]
        case ShadowMove.OPEN if held:
            pass  # its shadow goes on, and no user gets an answer of the candidate
        case ShadowMove.OPEN:
            said = [_open(ctx, proposal, proof, stage)]
        case ShadowMove.REJECT:
            said = [_reject(ctx, proposal, stage)]
        case ShadowMove.HOLD:
            said = _hold(ctx, proposal, stage)
        case ShadowMove.MIRROR:
            said = _go_on(ctx, proposal)
    return [f"{proposal.id}: {words}" for words in said]


def _start(ctx: Context, proposal: Proposal, proof: Passed, stage: ShadowStage) -> str:
    now = ctx.clock.now()
    limits = ShadowLimits(
        share_bps=stage.policy.share_bps,
        requests_per_day=MAX_PER_DAY,
        usd_per_day=None,
        usd_in_all=stage.decided.left_usd,
    )
    why = f"policy {proposal.policy.name}: before the canary of {proposal.id}"
    lasts = min(proof.expires_at - now, LONGEST)
    wanted = ShadowRequest(proposal.route, proposal.candidate, limits, why, lasts)
    with ctx.store.write() as tx:
        _still(tx, proposal)
        shadow = shadows.add_shadow(ctx, tx, SYSTEM, wanted, _inputs(stage, now))
    return f"mirrored to {shadow.candidate.name} ({shadow.id})"


def _open(ctx: Context, proposal: Proposal, proof: Passed, stage: ShadowStage) -> str:
    with ctx.store.write() as tx:
        _still(tx, proposal)
        _end_live(tx, proposal, "its pairs are there: the canary opens")
        _audit(tx, proposal, ProposalEvent.SHADOWED, stage)
        machine.open_canary(ctx, tx, proposal, proof, ProposalEvent.SHADOWED)
    return f"canary opened: {stage.decided.reason}"


def _reject(ctx: Context, proposal: Proposal, stage: ShadowStage) -> str:
    now, because = ctx.clock.now(), stage.decided.reason
    with ctx.store.write() as tx:
        tx.proposals.save(apply_event(proposal, ProposalEvent.HARM, now, because))
        _end_live(tx, proposal, because)
        _audit(tx, proposal, ProposalEvent.HARM, stage)
    return f"rejected: {because}"


def _hold(ctx: Context, proposal: Proposal, stage: ShadowStage) -> list[str]:
    because = stage.decided.reason
    told = alerts.is_open(ctx, AlertKind.SHADOW_HELD, proposal.id)
    with ctx.store.read() as tx:
        live = _live(tx, proposal)
    if told and live is None:
        return []
    with ctx.store.write() as tx:
        _still(tx, proposal)
        _end_live(tx, proposal, because, _inputs(stage, ctx.clock.now()))
        if not told:
            raise_held_alert(tx, proposal, because)
    return [f"on hold: {because}"]


def raise_held_alert(tx: Transaction, proposal: Proposal, because: str) -> None:
    alerts.raise_alert(
        tx,
        AlertKind.SHADOW_HELD,
        proposal.id,
        subject=f"route {proposal.route}",
        title=f"the shadow before the canary of route {proposal.route} is on hold",
        text=f"{because} No user gets an answer of the candidate meanwhile.",
    )


def _go_on(ctx: Context, proposal: Proposal) -> list[str]:
    if not alerts.is_open(ctx, AlertKind.SHADOW_HELD, proposal.id):
        return []
    with ctx.store.write() as tx:
        alerts.resolve_alert(tx, AlertKind.SHADOW_HELD, proposal.id)
    return ["mirrored again"]


def _still(tx: Transaction, proposal: Proposal) -> None:
    if tx.proposals.get(proposal.id).version != proposal.version:
        raise StaleWrite(f"proposal {proposal.id} moved on since it was looked at: look again")


def _live(tx: Transaction, proposal: Proposal) -> Shadow | None:
    return next(
        (shadow for shadow in tx.shadows.live() if shadow.proposal == proposal.id), None
    )


def _inputs(stage: ShadowStage, now: datetime) -> Mapping[str, object]:
    return decision_inputs(stage.policy, stage.seen, stage.decided, now)


def _end_live(
    tx: Transaction,
    proposal: Proposal,
    because: str,
    inputs: Mapping[str, object] | None = None,
) -> None:
    if (live := _live(tx, proposal)) is not None:
        shadows.end_shadow(tx, live, SYSTEM, because, inputs)


def _audit(
    tx: Transaction, proposal: Proposal, event: ProposalEvent, stage: ShadowStage
) -> None:
    """With every figure that it was decided from."""
    status = stage.status
    details = {
        "route": proposal.route,
        "reason": stage.decided.reason,
        "shadow": status.shadow.id if status else None,
        "pairs": status.pairs if status else 0,
        "min_pairs": stage.policy.min_pairs,
        "mirrored": status.mirrored if status else 0,
        "spent_usd": stage.seen.spent_usd,
        "alpha": stage.policy.alpha,
        "log_e": stage.decided.log_e,
        "checks": {
            check.check: {sides.value: getattr(check, sides.value) for sides in CheckSides}
            for check in (status.checks if status else ())
        },
        **_inputs(stage, tx.now()),
    }
    action, subject = f"proposal.{event.value}", f"proposal {proposal.id}"
    tx.audit.append(SYSTEM, action, subject, details)
