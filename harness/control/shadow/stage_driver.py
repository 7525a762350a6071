"""Moves a passed candidate's shadow before its canary (F8), as a part of the reconcile loop:
`run_once` starts it, and then opens the canary, rejects the candidate, or holds with an alert.
"""

from collections.abc import Mapping
from datetime import datetime

from harness.control import audit
from harness.control.canary import machine
from harness.control.context import Context
from harness.control.operations import alerts
from harness.control.routing import freezes, routes
from harness.control.shadow import shadows, stage_audit
from harness.control.shadow.shadows import LONGEST
from harness.control.shadow.stage import (
    ShadowStage,
    build_limits,
    build_stage,
    policy_of_stage,
)
from harness.domain.errors import StaleWrite
from harness.domain.evals.verdict import Passed
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alerts import AlertKind
from harness.domain.proposals.proposal import Proposal, ProposalEvent, apply_event
from harness.domain.shadow.shadow import Shadow
from harness.gate.shadow_stage import ShadowMove
from harness.store.transaction import Transaction


def run_once(ctx: Context, proposal: Proposal, proof: Passed) -> list[str]:
    """One look at a proposal in its shadow; what was done, in words.

    Raises StaleWrite when the proposal has moved, Conflict when another shadow was first.
    """
    with ctx.store.read() as tx:
        stage = build_stage(ctx, tx, proposal)
    if stage is None:
        return []
    decided, said = stage.decided, []
    match decided.move:
        case ShadowMove.START:
            said = [_start(ctx, proposal, proof, stage)]
        case ShadowMove.OPEN if ctx.observe_only:
            pass  # its shadow goes on, and no user gets an answer of the candidate
        case ShadowMove.OPEN if _is_frozen(ctx, proposal):
            pass  # its canary opens after the freeze
        case ShadowMove.OPEN:
            said = [_open(ctx, proposal, proof, stage)]
        case ShadowMove.REJECT:
            said = [_reject(ctx, proposal, stage)]
        case ShadowMove.HOLD:
            said = _hold(ctx, proposal, stage)
        case ShadowMove.MIRROR:
            said = _go_on(ctx, proposal)
    return [f"{proposal.id}: {words}" for words in said]


def _is_frozen(ctx: Context, proposal: Proposal) -> bool:
    with ctx.store.read() as tx:
        return bool(freezes.describe_freeze(ctx, tx, proposal.route))


def _start(ctx: Context, proposal: Proposal, proof: Passed, stage: ShadowStage) -> str:
    now = ctx.clock.now()
    policy = policy_of_stage(proposal)
    with ctx.store.write() as tx:
        _still(tx, proposal)
        route = routes.require_route(tx, proposal.route)
        candidate = tx.routing.targets()[proposal.candidate]
        limits = build_limits(policy, stage.decided.left_usd)
        shadows.check_shadow(ctx, tx, route, candidate, limits)
        made = Shadow(
            id=ctx.chance.token("sh_"),
            route=route.name,
            incumbent=route.incumbent,
            candidate=candidate,
            data_class=route.settings.data_class,
            limits=limits,
            proposal=proposal.id,
            reason=f"policy {proposal.policy.name}: before the canary of {proposal.id}",
            started_by=SYSTEM.name,
            started_at=now,
            expires_at=min(proof.expires_at, now + LONGEST),
        )
        tx.shadows.add(made)
        inputs = _inputs(stage, now)
        shadows.record_shadow(ctx, tx, made, SYSTEM, "shadow.start", made.reason, inputs)
    return f"mirrored to {candidate.name} ({made.id})"


def _open(ctx: Context, proposal: Proposal, proof: Passed, stage: ShadowStage) -> str:
    with ctx.store.write() as tx:
        _still(tx, proposal)
        _end_live(ctx, tx, proposal, "its pairs are there: the canary opens")
        _audit(ctx, tx, proposal, ProposalEvent.SHADOWED, stage)
        machine.open_canary(ctx, tx, proposal, proof, ProposalEvent.SHADOWED)
    return f"canary opened: {stage.decided.reason}"


def _reject(ctx: Context, proposal: Proposal, stage: ShadowStage) -> str:
    now, because = ctx.clock.now(), stage.decided.reason
    with ctx.store.write() as tx:
        tx.proposals.save(apply_event(proposal, ProposalEvent.HARM, now, because))
        _end_live(ctx, tx, proposal, because)
        _audit(ctx, tx, proposal, ProposalEvent.HARM, stage)
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
        _end_live(ctx, tx, proposal, because, _inputs(stage, ctx.clock.now()))
        if not told:
            raise_held_alert(ctx, tx, proposal, because)
    return [f"on hold: {because}"]


def raise_held_alert(ctx: Context, tx: Transaction, proposal: Proposal, because: str) -> None:
    alerts.raise_alert(
        ctx,
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
        alerts.resolve_alert(ctx, tx, AlertKind.SHADOW_HELD, proposal.id)
    return ["mirrored again"]


def _still(tx: Transaction, proposal: Proposal) -> None:
    if tx.proposals.get(proposal.id).version != proposal.version:
        raise StaleWrite(f"proposal {proposal.id} moved on since it was looked at: look again")


def _live(tx: Transaction, proposal: Proposal) -> Shadow | None:
    return next(
        (shadow for shadow in tx.shadows.live() if shadow.proposal == proposal.id), None
    )


def _inputs(stage: ShadowStage, now: datetime) -> Mapping[str, object]:
    return stage_audit.decision_inputs(stage.policy, stage.seen, stage.decided, now)


def _end_live(
    ctx: Context,
    tx: Transaction,
    proposal: Proposal,
    because: str,
    inputs: Mapping[str, object] | None = None,
) -> None:
    live, now = _live(tx, proposal), ctx.clock.now()
    if live is not None:
        tx.shadows.end(live.id, actor=SYSTEM.name, because=because, now=now)
        shadows.record_shadow(ctx, tx, live, SYSTEM, "shadow.stop", because, inputs)


def _audit(
    ctx: Context, tx: Transaction, proposal: Proposal, event: ProposalEvent, stage: ShadowStage
) -> None:
    """With every figure that it was decided from."""
    status, now = stage.status, ctx.clock.now()
    audit.record(
        ctx,
        tx,
        SYSTEM,
        f"proposal.{event.value}",
        f"proposal {proposal.id}",
        {
            "route": proposal.route,
            "reason": stage.decided.reason,
            "shadow": status.record.shadow.id if status else None,
            "pairs": status.pairs if status else 0,
            "min_pairs": stage.policy.min_pairs,
            "mirrored": status.mirrored if status else 0,
            "spent_usd": stage.spent_usd,
            "alpha": stage.policy.alpha,
            "log_e": stage.decided.log_e,
            "checks": {
                check.check: {
                    "both": check.both,
                    "incumbent_only": check.incumbent_only,
                    "candidate_only": check.candidate_only,
                    "neither": check.neither,
                }
                for check in (status.checks if status else ())
            },
            **_inputs(stage, now),
        },
    )
