"""Finds the evidence for a target that is to come into a route's fallback chain (A7): a passed
verdict that still holds, an earlier place on the route, or a living waiver (`find_proof`);
stores a new waiver where one is asked for. Raises ProofRefused where there is none.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from harness.control import audit
from harness.control.context import Context
from harness.control.evals import proof_validity, recomputation
from harness.control.proposals import four_eyes
from harness.control.routing import routes
from harness.domain.errors import InputError, NotAllowed, ProofRefused
from harness.domain.evals.verdict import Passed
from harness.domain.operations.access import Actor
from harness.domain.proposals.proposal import Proposal, ProposalPhase
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
    """Asks to let a target into a fallback chain without a verdict, for a limited time."""

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
    """A new waiver if `waive` asks for one; else the first that there is: a verdict that holds,
    an earlier place on the route, a living waiver.

    Raises ProofRefused when there is none.
    """
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
    live = [w for w in tx.waivers.list(route=route.name) if not w.expired(now)]
    stored = next((evidence for evidence in live if evidence.target == target.id), None)
    if stored is not None:
        return stored
    raise ProofRefused(
        f"{target.name} has no evidence on route {route.name!r}: propose it there "
        f"(`swapgate proposal create {route.name} {target.name}`), or take the responsibility "
        "with a waiver (`--waive REASON --for 30d`). A proposal that is still open is evidence "
        "where another person than its proposer says so"
    )


def _verdict(
    ctx: Context, tx: Transaction, actor: Actor, route: Route, target: Target
) -> Passed | None:
    """The newest that holds. One whose canary did harm in production shows no more; nor does
    one that a person refused, or that waits for a person's approval. One whose canary is not
    over shows nothing for its own proposer: a fallback, forced, would be a promotion by hand.
    """
    for proposal in tx.proposals.of_pair(route.name, route.incumbent, target.id):
        if proposal.verdict is None or proposal.phase in NO_PROOF:
            continue
        verdict = tx.verdicts.get(proposal.verdict)
        if not isinstance(verdict, Passed):
            continue
        if proposal.needs_approval and proposal.approver is None:
            continue
        if proposal.open and not _another_person(tx, actor, proposal):
            continue
        if not proof_validity.assess_proof(ctx, tx, verdict).holds:
            continue
        if recomputation.recompute_stored(ctx, tx, verdict, proposal).agrees:
            return verdict
    return None


def _another_person(tx: Transaction, actor: Actor, proposal: Proposal) -> bool:
    try:
        four_eyes.check_four_eyes(tx, actor, proposal, "make a fallback of")
    except NotAllowed:
        return False
    return True


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
    now = ctx.clock.now()
    waiver = Waiver(
        id=ctx.chance.token("w_"),
        route=route.name,
        target=target.id,
        reason=waive.reason,
        author=actor.name,
        expires_at=now + waive.lasts,
    )
    tx.waivers.add(waiver)
    audit.record(
        ctx,
        tx,
        actor,
        "waiver.add",
        f"waiver {waiver.id}",
        {
            "route": route.name,
            "target": target.id,
            "reason": waiver.reason,
            "expires_at": waiver.expires_at.isoformat(),
        },
    )
    return waiver
