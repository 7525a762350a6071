"""The shadow stage is where a passed candidate's shadow before its canary stands (F8), and what
is decided of it, from the store alone. Every shadow of the proposal counts, so that a person
can mirror more than the policy pays. The audit event of a move keeps what it was decided from;
`replay_stage` decides it again. Routers only add to the stored figures: fewer than in the event
show tampering.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from harness.control.canary.audit import ReplayedAction, list_breaks, load_event
from harness.control.context import Context
from harness.control.routing import routes
from harness.control.serialize import to_plain
from harness.control.shadow import shadows
from harness.control.shadow.shadows import ShadowStatus
from harness.domain.content_hash import digest
from harness.domain.errors import InputError, NotAllowed, NotFound
from harness.domain.operations.access import SYSTEM
from harness.domain.plain_data import from_plain
from harness.domain.proposals.policy import Policy, ShadowStagePolicy
from harness.domain.proposals.proposal import Proposal, ProposalEvent, ProposalPhase
from harness.domain.routing.table import Route
from harness.domain.routing.target import Target
from harness.domain.shadow import Shadow, ShadowLimits, sum_usage
from harness.gate.shadow_stage import (
    ROUNDING_USD,
    ShadowMove,
    ShadowStageDecision,
    ShadowStageState,
    decide_shadow_stage,
)
from harness.store.transaction import Transaction

# A pace from less than this is none.
SHORTEST_S: Final = 60.0
# As the policy's own limits are.
IN_MONEY: Final = ShadowLimits(usd_in_all=1.0)


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
    # Of all its shadows together, under the newest one's name; None before the first.
    status: ShadowStatus | None
    live: str | None
    # Until the pairs are there at the pace so far, None where that is not known or nothing is
    # mirrored.
    eta_s: float | None


def check_stage(
    ctx: Context, tx: Transaction, route: Route, candidate: Target, policy: Policy
) -> None:
    """Check, before anything is paid for, that a shadow can come first. Raises InputError."""
    if policy.canary.shadow is None:
        return
    try:
        shadows.check_shadow(ctx, tx, route, candidate, IN_MONEY)
    except InputError as error:
        raise InputError(
            f"policy {policy.name!r} has a shadow before its canary (canary.shadow): {error}; "
            "or an admin names a policy without it for the route"
        ) from None


def build_stage(ctx: Context, tx: Transaction, proposal: Proposal) -> ShadowStage | None:
    """Builds the state of a proposal's shadow stage; None when its policy has no shadow."""
    policy = proposal.policy.canary.shadow
    if policy is None:
        return None
    now = ctx.clock.now()
    records = shadows.list_of_proposal(tx, proposal)
    rows = tx.shadows.tallies([record.id for record in records])
    status = shadows.build_status(records[0], rows, now) if records else None
    # The control plane's own, which the policy pays for.
    own = [record for record in records if record.started_by == SYSTEM.name]
    own_ids = {record.id for record in own}
    spent = sum_usage((row for row in rows if row.shadow in own_ids), now.date()).in_all_usd
    live = next((r for r in records if r.ended_at is None and now < r.expires_at), None)
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


def _stopped(own: Sequence[Shadow]) -> str:
    """Says who ended the newest of the control plane's own shadows, where a person did."""
    if not own or own[0].ended_by in (None, SYSTEM.name):
        return ""
    return f"{own[0].ended_by} stopped the shadow ({own[0].ended_because})"


def _obstacle(
    ctx: Context,
    tx: Transaction,
    proposal: Proposal,
    candidate: Target,
    records: Sequence[Shadow],
) -> str:
    """Why no shadow can be started now; empty if one can."""
    ours = {record.id for record in records}
    for other in tx.shadows.live():
        if other.route == proposal.route and other.id not in ours:
            return (
                f"the route has the shadow {other.id} of {other.candidate.name} "
                f"(`swapgate shadow stop {other.route}`)"
            )
    try:
        route = routes.require_route(tx, proposal.route)
        shadows.check_shadow(ctx, tx, route, candidate, IN_MONEY)
    except (InputError, NotAllowed, NotFound) as error:
        return str(error)
    return ""


def _eta_s(
    policy: ShadowStagePolicy,
    status: ShadowStatus | None,
    records: Sequence[Shadow],
    now: datetime,
) -> float | None:
    if status is None or not status.pairs or status.pairs >= policy.min_pairs:
        return None
    spent_s = sum(
        ((record.ended_at or now) - record.started_at).total_seconds() for record in records
    )
    if spent_s < SHORTEST_S:
        return None
    return (policy.min_pairs - status.pairs) * spent_s / status.pairs


KEY: Final = "shadow_inputs"
# What each event says was decided.
_DONE: Final = {
    "shadow.start": ShadowMove.START,
    "shadow.stop": ShadowMove.HOLD,
    f"proposal.{ProposalEvent.SHADOWED.value}": ShadowMove.OPEN,
    f"proposal.{ProposalEvent.HARM.value}": ShadowMove.REJECT,
}


def decision_inputs(
    policy: ShadowStagePolicy,
    state: ShadowStageState,
    decided: ShadowStageDecision,
    at: datetime,
) -> dict[str, object]:
    """Gathers what the audit log needs to decide again to the same bytes."""
    return {
        KEY: {
            "at": at.isoformat(),
            "seen": to_plain(state),
            "policy_sha256": digest(to_plain(policy)),
        },
        "decided_sha256": digest(to_plain(decided)),
    }


def has_inputs(ctx: Context, number: int) -> bool:
    """Whether the audit event is a decision on a shadow before a canary. Raises NotFound."""
    with ctx.store.read() as tx:
        return KEY in load_event(tx, number).details


def replay_stage(ctx: Context, number: int) -> ReplayedAction:
    """Decides again, from what an audit event keeps. Raises NotFound, InputError for one
    without inputs.
    """
    with ctx.store.read() as tx:
        event = load_event(tx, number)
        inputs = event.details.get(KEY)
        if not isinstance(inputs, Mapping):
            raise InputError(f"event {number} ({event.action}) keeps no inputs of a shadow")
        named = event.details.get("proposal") or event.subject.removeprefix("proposal ")
        proposal = tx.proposals.get(str(named))
        state = from_plain(ShadowStageState, inputs["seen"])
        differences = [*list_breaks(tx, number), *_fewer(ctx, tx, proposal, state)]
    policy = proposal.policy.canary.shadow
    if policy is None or digest(to_plain(policy)) != inputs["policy_sha256"]:
        differences.append("the proposal's stored policy is not the one that it was decided by")
    again = ReplayedAction(event, proposal.id, state.pairs, tuple(differences))
    if policy is None:
        return again
    again = again.decide_again(
        "what was seen gives", lambda: decide_shadow_stage(policy, state)
    )
    wanted, decided = _DONE.get(event.action), again.decided
    is_ours = event.actor == SYSTEM.name
    if is_ours and isinstance(decided, ShadowStageDecision) and decided.move is not wanted:
        did = wanted.value if wanted else event.action
        asked = f"what was done is {did}, and what was seen asks for {decided.move.value}"
        again = replace(again, differences=(*again.differences, asked))
    return again


def _fewer(
    ctx: Context, tx: Transaction, proposal: Proposal, used: ShadowStageState
) -> list[str]:
    """Where less is stored than was seen: routers only ever add."""
    records = shadows.list_of_proposal(tx, proposal)
    if not records:
        return (
            [f"{used.pairs:,} pairs were seen, and no shadow is stored"] if used.pairs else []
        )
    rows = tx.shadows.tallies([record.id for record in records])
    status = shadows.build_status(records[0], rows, ctx.clock.now())
    found = []
    if status.pairs < used.pairs:
        found.append(f"{used.pairs:,} pairs were seen, and {status.pairs:,} are stored")
    checks = {check.check: check for check in status.checks}
    for name, (lost, won) in (used.lost_won or {}).items():
        pair = checks.get(name)
        if pair is None or pair.lost < lost or pair.won < won:
            found.append(f"of the check {name} fewer pairs are stored than were seen")
    return found
