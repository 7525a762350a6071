"""The shadow stage is where a passed candidate's shadow before its canary stands (F8), and what
is decided of it, from the store alone. Every shadow of the proposal counts, so that a person
can mirror more than the policy pays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from harness.control.context import Context
from harness.control.routing import routes
from harness.control.shadow import shadows
from harness.control.shadow.shadows import ShadowStatus
from harness.domain.errors import InputError, NotAllowed, NotFound
from harness.domain.operations.access import SYSTEM
from harness.domain.proposals.policy import Policy, ShadowStagePolicy
from harness.domain.proposals.proposal import Proposal, ProposalPhase
from harness.domain.routing.table import Route
from harness.domain.routing.target import Target
from harness.domain.shadow.shadow import ShadowLimits, ShadowRecord, sum_usage
from harness.gate.shadow_stage import (
    ROUNDING_USD,
    ShadowStageDecision,
    ShadowStageState,
    decide_shadow_stage,
)
from harness.store.transaction import Transaction

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


def build_stage(ctx: Context, tx: Transaction, proposal: Proposal) -> ShadowStage | None:
    """Builds the state of a proposal's shadow stage; None when its policy has no shadow."""
    policy = proposal.policy.canary.shadow
    if policy is None:
        return None
    now = ctx.clock.now()
    records = shadows.list_of_proposal(tx, proposal)
    rows = tx.shadows.tallies([record.shadow.id for record in records])
    status = shadows.build_status(records[0], rows, now) if records else None
    # The control plane's own, which the policy pays for.
    own = [record for record in records if record.shadow.started_by == SYSTEM.name]
    own_ids = {record.shadow.id for record in own}
    spent = sum_usage((row for row in rows if row.shadow in own_ids), now.date()).in_all_usd
    live = next(
        (r.shadow for r in records if r.ended_at is None and now < r.shadow.expires_at), None
    )
    if live and live.id in own_ids and policy.max_cost_usd - spent <= ROUNDING_USD:
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
        stopped=_stopped(own),
        obstacle=_obstacle(ctx, tx, proposal, candidate, records) if waits else "",
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
    """Finds the stage of a route's proposal that is in its shadow now; None when none is."""
    with ctx.store.read() as tx:
        for proposal in tx.proposals.open():
            if proposal.route == route and proposal.phase is ProposalPhase.SHADOW:
                return build_stage(ctx, tx, proposal)
    return None


def _stopped(own: Sequence[ShadowRecord]) -> str:
    """Says who ended the newest of the control plane's own shadows, where a person did."""
    if not own or own[0].ended_by in (None, SYSTEM.name):
        return ""
    return f"{own[0].ended_by} stopped the shadow ({own[0].ended_because})"


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
        in_money = ShadowLimits(usd_in_all=1.0)
        shadows.check_shadow(ctx, tx, route, candidate, in_money)
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
