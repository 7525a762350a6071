"""Finds the evidence for a target that is to come into a route's fallback chain (A7), or stores
a waiver.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from harness.control.context import Context
from harness.control.evals import proof_validity, recomputation
from harness.control.proposals import four_eyes
from harness.control.routing import routes
from harness.domain.errors import InputError, NotAllowed, ProofRefused
from harness.domain.evals.verdict import Passed
from harness.domain.operations.access import Actor
from harness.domain.proposals.proposal import ProposalPhase
from harness.domain.routing.evidence import ChainProof, FormerTarget, Waiver
from harness.domain.routing.table import Route
from harness.domain.routing.target import Target
from harness.store.transaction import Transaction

# A verdict that led there is no proof for another role either.
NO_PROOF: Final = frozenset(
    {ProposalPhase.ROLLED_BACK, ProposalPhase.REJECTED, ProposalPhase.CANCELLED}
)
LONGEST_WAIVER: Final = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class WaiverRequest:
    reason: str
    lasts: timedelta


def find_proof(
    ctx: Context,
    tx: Transaction,
    actor: Actor,
    route: Route,
    target: Target,
    waive: WaiverRequest | None,
) -> ChainProof:
    """Returns a new waiver if asked for, else the proof there is. Raises ProofRefused."""
    now = ctx.clock.now()
    if waive is not None:
        return _add_waiver(ctx, tx, actor, route, target, waive)
    verdict = _verdict(ctx, tx, actor, route, target)
    if verdict is not None:
        return verdict
    history = tx.routing.history(route.name)
    served = any(target.id in (r.route.incumbent, *r.route.fallbacks) for r in history)
    if served and routes.find_taken_back(tx, route.name, target.id, history) is None:
        return FormerTarget(target.id)
    for waiver in tx.waivers.list(route=route.name):
        if waiver.target == target.id and not waiver.expired(now):
            return waiver
    raise ProofRefused(
        f"{target.name} has no evidence on route {route.name!r}: propose it there "
        f"(`swapgate proposal create {route.name} {target.name}`), or take the responsibility "
        "with a waiver (`--waive REASON --for 30d`). A proposal that is still open is evidence "
        "where another person than its proposer says so"
    )


def _verdict(
    ctx: Context, tx: Transaction, actor: Actor, route: Route, target: Target
) -> Passed | None:
    """The newest that holds. A canary that did harm, a person's refusal or a missing approval
    takes its force; and while the proposal is open its own proposer cannot use it: a forced
    fallback would be a promotion by hand.
    """
    for proposal in tx.proposals.of_pair(route.name, route.incumbent, target.id):
        if proposal.verdict is None or proposal.phase in NO_PROOF:
            continue
        verdict = tx.verdicts.get(proposal.verdict)
        if not isinstance(verdict, Passed):
            continue
        if proposal.needs_approval and proposal.approver is None:
            continue
        if proposal.open:
            try:
                four_eyes.check_four_eyes(tx, actor, proposal, "make a fallback of")
            except NotAllowed:
                continue
        if not proof_validity.assess_proof(ctx, tx, verdict).holds:
            continue
        if recomputation.recompute_stored(ctx, tx, verdict, proposal).agrees:
            return verdict
    return None


def _add_waiver(
    ctx: Context,
    tx: Transaction,
    actor: Actor,
    route: Route,
    target: Target,
    waive: WaiverRequest,
) -> Waiver:
    if not waive.reason.strip():
        raise InputError("a waiver needs a reason: it is shown wherever it is used")
    if not timedelta(0) < waive.lasts <= LONGEST_WAIVER:
        raise InputError(f"a waiver lasts for up to {LONGEST_WAIVER.days} days, and ends")
    id_, expires_at = ctx.chance.token("w_"), ctx.clock.now() + waive.lasts
    waiver = Waiver(id_, route.name, target.id, waive.reason, actor.name, expires_at)
    tx.waivers.add(waiver)
    details = {
        "route": route.name,
        "target": target.id,
        "reason": waiver.reason,
        "expires_at": expires_at.isoformat(),
    }
    tx.audit.append(actor, "waiver.add", f"waiver {id_}", details)
    return waiver
