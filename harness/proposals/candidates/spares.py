"""Finds the spares of routes with their proofs, and publishes proven fallbacks to routers.

A spare is a fallback, or a model that passed the route's suites. The proofs are the verdicts of
stored proposals; this module stores no further kind of proof. `harness.routing.spare` judges
a proof's age and suites. `run_once`, a job of the control process, writes the proven fallbacks
of each route with `failover: proven_first` into the route's signed settings.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from harness.evals import proof_validity
from harness.evals.proof_validity import ProofState
from harness.frame.errors import ProofRefused, SwapproofError
from harness.frame.people.access import SYSTEM
from harness.frame.records.transaction import Transaction
from harness.gate.verdict import InfraError, Passed
from harness.proposals import recomputation
from harness.proposals.context import ProposalsContext
from harness.proposals.registration import look_counts, route_risk
from harness.providers.records import Targets
from harness.routing.control import routes
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Proposals
from harness.routing.records.routes import Routing
from harness.routing.records.verdicts import Verdicts
from harness.routing.route_changes import ChangeSettings
from harness.routing.route_settings import FailoverOrder
from harness.routing.spare import (
    ProvenSpare,
    Spare,
    SpareComparison,
    SpareProof,
    build_spare,
    judge_spare,
)
from harness.routing.table import Route


def list_spares(ctx: ProposalsContext, name: str) -> Sequence[Spare]:
    """Lists a route's fallbacks in the order of the chain, then the models outside of the chain
    that are proven now, the newest proof first. Raises NotFound.
    """
    with ctx.store.read() as tx:
        route = routes.require_route(tx, name)
        digests, fault = _read_digests(ctx, route)
        names = {id_: target.name for id_, target in Targets(tx).all().items()}
        now = ctx.clock.now()
        chain = [fallback for fallback in route.fallbacks if fallback != route.incumbent]
        spares = [
            build_spare(
                target,
                names[target],
                place,
                _judge(ctx, tx, route, target, digests, fault),
                now,
            )
            for place, target in enumerate(chain, 1)
        ]
        others = dict.fromkeys(
            proposal.candidate
            for proposal in Proposals(tx).since(name, now - route_risk.WINDOW)
            if proposal.incumbent == route.incumbent and proposal.candidate not in chain
        )
        outside = [
            build_spare(
                target,
                names[target],
                None,
                _judge(ctx, tx, route, target, digests, fault),
                now,
            )
            for target in others
        ]
    return [*spares, *(spare for spare in outside if spare.proven)]


def judge_target(
    ctx: ProposalsContext, tx: Transaction, route: Route, target: str
) -> SpareProof:
    """Judges one target (an id) as a spare of the route."""
    digests, fault = _read_digests(ctx, route)
    return _judge(ctx, tx, route, target, digests, fault)


def _read_digests(ctx: ProposalsContext, route: Route) -> tuple[Mapping[str, str], str]:
    """Returns the present digests of the route's suites, and why nothing can be proven."""
    suites = [suite.suite for suite in route.settings.suites]
    if not suites:
        return {}, "the route has no suites"
    try:
        return {suite: ctx.suites.pin(suite).digest for suite in suites}, ""
    except SwapproofError as error:
        return {}, f"a suite cannot be loaded ({error})"


def _judge(
    ctx: ProposalsContext,
    tx: Transaction,
    route: Route,
    target: str,
    digests: Mapping[str, str],
    fault: str,
) -> SpareProof:
    """Judges a target.

    Args:
        digests: by suite.
        fault: why nothing can be proven; empty if it can.
    """
    if fault:
        return SpareProof(proven=False, why=fault)
    newest = find_newest(ctx, tx, route, target)
    return judge_spare(newest, digests, ctx.clock.now())


def find_newest(
    ctx: ProposalsContext, tx: Transaction, route: Route, target: str
) -> SpareComparison | None:
    """Finds the newest decided comparison of a target with the route's incumbent.

    A comparison that measured nothing decides nothing, so an older verdict still counts.
    """
    comparisons = []
    for proposal in Proposals(tx).of_pair(route.name, route.incumbent, target):
        if proposal.verdict is None:
            continue
        verdict = Verdicts(tx).get(proposal.verdict)
        if not isinstance(verdict, InfraError):
            comparisons.append((verdict, proposal))
    if not comparisons:
        return None
    verdict, proposal = max(comparisons, key=lambda pair: (pair[0].decided_at, pair[0].id))
    fault = _find_fault(ctx, tx, verdict, proposal) if isinstance(verdict, Passed) else ""
    digests = {plan.suite: plan.suite_digest for plan in proposal.plans}
    return SpareComparison(proposal.id, verdict, digests, fault)


def _find_fault(
    ctx: ProposalsContext, tx: Transaction, verdict: Passed, proposal: Proposal
) -> str:
    """Explains why a passed verdict proves no spare, whatever its age; empty if it may.

    The end of its validity for a swap does not matter: a spare has its own period.
    """
    if (rollback := routes.find_rollback_since(tx, verdict)) is not None:
        return f"since its verdict of {verdict.decided_at:%Y-%m-%d}, it {rollback.words}"
    if proposal.phase is ProposalPhase.CANCELLED:
        return f"proposal {proposal.id} was cancelled after its verdict"
    if proposal.phase is ProposalPhase.REJECTED and not proposal.closed:
        return f"proposal {proposal.id} was {proposal.closed_because}"
    if uncounted := look_counts.describe_uncounted_looks(tx, proposal):
        return uncounted
    validity = proof_validity.assess_proof(ctx, tx, verdict)
    return validity.why if validity.proof is ProofState.STALE else ""


def is_renewal_due(proof: SpareProof, next_round: datetime) -> bool:
    """Tells whether a spare is proven now, but not until the next round."""
    return proof.proven and proof.until is not None and proof.until <= next_round


def run_once(ctx: ProposalsContext) -> list[str]:
    """Publishes the proven fallbacks of the routes with `failover: proven_first`, and withdraws
    proofs that no longer hold. Returns log lines.
    """
    with ctx.store.read() as tx:
        routes_ = [
            route
            for _, route in sorted(Routing(tx).table().routes.items())
            if route.settings.proven or route.settings.failover is FailoverOrder.PROVEN_FIRST
        ]
    lines = []
    for route in routes_:
        # An expired waiver stops every change of its route; an alert of its own says so.
        with suppress(ProofRefused):
            lines += _publish(ctx, route)
    return lines


def _publish(ctx: ProposalsContext, route: Route) -> list[str]:
    """Writes the route's proven fallbacks, if they differ from the stored ones."""
    is_wanted = route.settings.failover is FailoverOrder.PROVEN_FIRST
    spares = list_spares(ctx, route.name) if is_wanted else ()
    with ctx.store.write() as tx:
        current = routes.require_route(tx, route.name)
        if current.version != route.version:
            return []  # the next run reads the route again
        proven = tuple(
            ProvenSpare(spare.target, route.incumbent, proof.verdict, proof.until)
            for spare in spares
            if (proof := spare.proof).until is not None
            and spare.place is not None
            and proof.proven
            and _is_recomputed(ctx, tx, route, proof)
        )
        if proven == route.settings.proven:
            return []
        names = ", ".join(spare.name for spare in spares if spare.place and spare.proven)
        reason = f"proven fallbacks: {names or 'none'}"
        settings = replace(route.settings, proven=proven)
        change = ChangeSettings(route.name, settings)
        routes.commit(tx, SYSTEM, change, route.version, reason, action="route.settings")
    return [f"route {route.name}: {reason}"]


def _is_recomputed(
    ctx: ProposalsContext, tx: Transaction, route: Route, proof: SpareProof
) -> bool:
    """Tells whether the stored scores still give the verdict. Recomputes each verdict once."""
    if any(spare.verdict == proof.verdict for spare in route.settings.proven):
        return True
    verdict = Verdicts(tx).get(proof.verdict)
    proposal = Proposals(tx).get(proof.proposal)
    return recomputation.recompute_stored(ctx, tx, verdict, proposal).agrees
