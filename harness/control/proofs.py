"""What speaks for a target that wants to come into a route's chain (A7)."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from harness.control import standing
from harness.control.context import Context
from harness.domain.access import Actor
from harness.domain.errors import InputError, ProofRefused
from harness.domain.evaluation import Passed
from harness.domain.evidence import ChainProof, Served, Waiver
from harness.domain.proposal import Phase
from harness.domain.routing import Route
from harness.domain.targets import Target
from harness.ports import Transaction

LONGEST_WAIVER: Final = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Waive:
    """The wish to let a target in without a verdict."""

    reason: str
    lasts: timedelta


def proof_for(
    ctx: Context,
    tx: Transaction,
    actor: Actor,
    route: Route,
    target: Target,
    waive: Waive | None,
) -> ChainProof:
    """A new waiver if one is wished; else the best there is: verdict, past, living waiver.

    Raises ProofRefused when there is none.
    """
    now = ctx.clock.now()
    if waive is not None:
        return _waived(ctx, tx, actor, route, target, waive)
    verdict = _verdict(ctx, tx, route, target)
    if verdict is not None:
        return verdict
    history = tx.routing.history(route.name)
    if any(target.id in (r.route.incumbent, *r.route.fallbacks) for r in history):
        return Served(target.id)
    live = [w for w in tx.waivers.list(route=route.name) if not w.expired(now)]
    stored = next((each for each in live if each.target == target.id), None)
    if stored is not None:
        return stored
    raise ProofRefused(
        f"{target.name} has no evidence on route {route.name!r}: propose it there "
        f"(`swapgate proposal create {route.name} {target.name}`), or take the responsibility "
        "with a waiver (`--waive REASON --for 30d`)"
    )


def _verdict(ctx: Context, tx: Transaction, route: Route, target: Target) -> Passed | None:
    """The newest that holds. One whose canary did harm in production shows no more."""
    harmful = {
        each.verdict
        for each in tx.proposals.list(route=route.name)
        if each.phase is Phase.ROLLED_BACK
    }
    for each in tx.verdicts.list(route=route.name):
        pair = (each.incumbent, each.candidate)
        if not isinstance(each, Passed) or pair != (route.incumbent, target.id):
            continue
        if each.id not in harmful and standing.of(ctx, tx, each).holds:
            return each
    return None


def _waived(
    ctx: Context,
    tx: Transaction,
    actor: Actor,
    route: Route,
    target: Target,
    waive: Waive,
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
    tx.audit.append(
        at=now,
        actor=actor.name,
        action="waiver.add",
        subject=f"waiver {waiver.id}",
        details={
            "route": route.name,
            "target": target.id,
            "reason": waiver.reason,
            "expires_at": waiver.expires_at.isoformat(),
        },
    )
    return waiver
