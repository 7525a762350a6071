"""Runs a passed candidate's shadow before its canary (F8). `run_once`, a part of the reconcile
loop, starts it, and then opens the canary, rejects the candidate, or holds with an alert.
`ShadowStage` is where it stands, for people.

All that is decided from is in the store: the proposal's policy, its shadows, what routers added
up. Every shadow of the proposal counts, so that a person can mirror more than the policy pays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from harness.control import audit
from harness.control.canary import machine
from harness.control.context import Context
from harness.control.operations import alerts
from harness.control.routing import routes
from harness.control.shadow import shadows, stage_audit
from harness.control.shadow.shadows import LONGEST, ShadowStatus
from harness.domain.errors import InputError, NotAllowed, NotFound, StaleWrite
from harness.domain.evals.run import Passed
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alerts import AlertKind
from harness.domain.proposals.policy import Policy, ShadowStagePolicy
from harness.domain.proposals.proposal import (
    Proposal,
    ProposalEvent,
    ProposalPhase,
    apply_event,
)
from harness.domain.routing.table import Route
from harness.domain.routing.target import Target
from harness.domain.shadow.shadow import MAX_PER_DAY, Shadow, ShadowLimits, sum_usage
from harness.gate.shadow_stage import (
    ALL_CHECKS_RULE,
    ROUNDING_USD,
    ShadowMove,
    ShadowStageDecision,
    ShadowStageState,
    decide_shadow_stage,
)
from harness.ports import ShadowRecord, Transaction

# A pace from less than this is none.
SHORTEST_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class ShadowStage:
    """Where a proposal's shadow stands, and why."""

    proposal: str
    phase: ProposalPhase
    candidate: Target
    policy: ShadowStagePolicy
    first_bps: int  # what the canary then opens with
    seen: ShadowStageState  # what is decided from
    decided: ShadowStageDecision
    spent_usd: float
    # Of all its shadows together, under the newest one's name; None before the first.
    status: ShadowStatus | None
    live: str | None
    # Until the pairs are there at the pace so far, None where that is not known or nothing is
    # mirrored.
    eta_s: float | None


def check_stage(tx: Transaction, route: Route, candidate: Target, policy: Policy) -> None:
    """Check, before anything is paid for, that a shadow can come first. Raises InputError."""
    if policy.canary.shadow is None:
        return
    if route.settings.side_effects:
        raise InputError(
            f"policy {policy.name!r} has a shadow before its canary (canary.shadow), and route "
            f"{route.name!r} has tools that act on the world (side_effects): nothing of it is "
            "sent twice. Take a policy without it: --policy NAME"
        )
    provider = tx.providers.all().get(candidate.provider)
    if provider is None or candidate.model not in provider.prices:
        raise InputError(
            f"policy {policy.name!r} has a shadow before its canary, with a budget in money, "
            f"and {candidate.name} has no price: set providers.{candidate.provider}.prices"
        )


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
        case ShadowMove.OPEN:
            said = [_open(ctx, proposal, proof, stage)]
        case ShadowMove.REJECT:
            said = [_reject(ctx, proposal, stage)]
        case ShadowMove.HOLD:
            said = _hold(ctx, proposal, stage)
        case ShadowMove.MIRROR:
            said = _go_on(ctx, proposal)
    return [f"{proposal.id}: {words}" for words in said]


def build_stage(ctx: Context, tx: Transaction, proposal: Proposal) -> ShadowStage | None:
    """None for a proposal whose policy has no shadow."""
    policy = proposal.policy.canary.shadow
    if policy is None:
        return None
    now, unit = ctx.clock.now(), proposal.policy.canary.unit
    records = shadows.list_of_proposal(tx, proposal)
    rows = tx.shadows.tallies([record.shadow.id for record in records])
    status = shadows.build_status(records[0], rows, now, unit) if records else None
    own = {record.shadow.id for record in records if _is_own(record)}
    spent = sum_usage((row for row in rows if row.shadow in own), now.date()).in_all_usd
    live = next((record.shadow for record in records if _mirrors(record, now)), None)
    if live is not None and _spends_out(live, policy, spent):
        live = None
    candidate = tx.routing.targets()[proposal.candidate]
    waits = proposal.phase is ProposalPhase.SHADOW and live is None
    state = ShadowStageState(
        pairs=status.pairs if status else 0,
        lost_won={
            check.check: (check.lost, check.won) for check in (status.checks if status else ())
        },
        spent_usd=spent,
        mirroring=live is not None,
        stopped=_stopped(records),
        obstacle=_obstacle(ctx, tx, proposal, candidate, records) if waits else "",
        rule=ALL_CHECKS_RULE,
        unit=unit,
    )
    return ShadowStage(
        proposal=proposal.id,
        phase=proposal.phase,
        candidate=candidate,
        policy=policy,
        first_bps=proposal.policy.canary.steps[0].weight_bps,
        seen=state,
        decided=decide_shadow_stage(policy, state),
        spent_usd=spent,
        status=status,
        live=live.id if live else None,
        eta_s=_eta_s(policy, status, records, now) if live else None,
    )


def find_stage(ctx: Context, tx: Transaction, proposal: Proposal) -> ShadowStage | None:
    """The stage of a proposal that is in it or has had it, else None."""
    stage = build_stage(ctx, tx, proposal)
    had = stage is not None and (
        stage.phase is ProposalPhase.SHADOW or stage.status is not None
    )
    return stage if had else None


def find_stage_of_route(ctx: Context, route: str) -> ShadowStage | None:
    """Of the proposal that is in its shadow now; None when none is."""
    with ctx.store.read() as tx:
        for proposal in tx.proposals.open():
            if proposal.route == route and proposal.phase is ProposalPhase.SHADOW:
                return build_stage(ctx, tx, proposal)
    return None


def _start(ctx: Context, proposal: Proposal, proof: Passed, stage: ShadowStage) -> str:
    now = ctx.clock.now()
    policy = _policy(proposal)
    with ctx.store.write() as tx:
        _still(tx, proposal)
        route = routes.require_route(tx, proposal.route)
        candidate = tx.routing.targets()[proposal.candidate]
        limits = _limits(policy, stage.decided.left_usd)
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


def _policy(proposal: Proposal) -> ShadowStagePolicy:
    shadow = proposal.policy.canary.shadow
    assert shadow is not None  # noqa: S101 - a stage has one
    return shadow


def _limits(policy: ShadowStagePolicy, left_usd: float) -> ShadowLimits:
    return ShadowLimits(
        share_bps=policy.share_bps,
        requests_per_day=MAX_PER_DAY,
        usd_per_day=None,
        usd_in_all=left_usd,
    )


def _is_own(record: ShadowRecord) -> bool:
    return record.shadow.started_by == SYSTEM.name


def _mirrors(record: ShadowRecord, now: datetime) -> bool:
    return record.ended_at is None and now < record.shadow.expires_at


def _spends_out(live: Shadow, policy: ShadowStagePolicy, spent_usd: float) -> bool:
    """Whether it is the policy's own, and mirrors no more for want of money."""
    own = live.started_by == SYSTEM.name
    return own and policy.max_cost_usd - spent_usd <= ROUNDING_USD


def _stopped(records: Sequence[ShadowRecord]) -> str:
    """Of the newest of the control plane's own, where a person ended it."""
    newest = next((record for record in records if _is_own(record)), None)
    if newest is None or newest.ended_by in (None, SYSTEM.name):
        return ""
    return f"{newest.ended_by} stopped the shadow ({newest.ended_because})"


def _obstacle(
    ctx: Context,
    tx: Transaction,
    proposal: Proposal,
    candidate: Target,
    records: Sequence[ShadowRecord],
) -> str:
    """Why no shadow can be started now; empty if one can."""
    ours = {record.shadow.id for record in records}
    for other in tx.shadows.live():
        if other.route == proposal.route and other.id not in ours:
            return (
                f"the route has the shadow {other.id} of {other.candidate.name} "
                f"(`swapgate shadow stop {other.route}`)"
            )
    try:
        route = routes.require_route(tx, proposal.route)
        shadows.check_shadow(ctx, tx, route, candidate, _limits(_policy(proposal), 1.0))
    except (InputError, NotAllowed, NotFound) as error:
        return str(error)
    return ""


def _eta_s(
    policy: ShadowStagePolicy,
    status: ShadowStatus | None,
    records: Sequence[ShadowRecord],
    now: datetime,
) -> float | None:
    if status is None or not status.pairs or status.pairs >= policy.min_pairs:
        return None
    spent_s = sum(
        ((record.ended_at or now) - record.shadow.started_at).total_seconds()
        for record in records
    )
    if spent_s < SHORTEST_S:
        return None
    return (policy.min_pairs - status.pairs) * spent_s / status.pairs
