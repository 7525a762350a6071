"""Changes and lists a route's fallback chain. A new target needs evidence.

Evidence is a passed verdict, earlier service on this route, or a waiver, by which a person
takes the responsibility (`find_chain_proof`). The module writes the chain only by `SetChain`,
and the store checks the evidence again. It never changes the incumbent. `harness.routing.plan`
has the order in which routers try the chain.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from harness.evals import proof_validity
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.errors import (
    InputError,
    NotAllowed,
    NotFound,
    ProofRefused,
    StaleWrite,
)
from harness.frame.people import four_eyes
from harness.frame.people.access import Actor, Role
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import require_reason
from harness.frame.signing.audit_log import AuditLog
from harness.gate.verdict import Passed
from harness.proposals import recomputation
from harness.proposals.context import ProposalsContext
from harness.proposals.registration import look_counts
from harness.providers.records import Targets
from harness.providers.registry import named_models
from harness.providers.target import Target
from harness.routing.candidate_schedule import OnBetter
from harness.routing.control import data_class_checks, routes, vector_checks
from harness.routing.evidence import (
    ChainProof,
    EvidenceKind,
    FormerTarget,
    Waiver,
)
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.evidence import Waivers
from harness.routing.records.proposals import Proposals
from harness.routing.records.routes import Routing
from harness.routing.records.verdicts import Verdicts
from harness.routing.route_changes import SetChain
from harness.routing.table import Route

# If a proposal is in one of these phases, its verdict does not prove a fallback. A promotion
# that a person rolled back after its bake has no phase: `routes.find_rollback_since` finds it.
PHASES_WITHOUT_PROOF: Final = frozenset(
    {
        ProposalPhase.ROLLED_BACK,
        ProposalPhase.REJECTED,
        ProposalPhase.CANCELLED,
    }
)
LONGEST_WAIVER: Final = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class WaiverRequest:
    """A person's request to use a target without a verdict.

    lasts: above 0 and at most `LONGEST_WAIVER`, from now.
    """

    reason: str
    lasts: timedelta


def update_waiver_alerts(ctx: ProposalsContext) -> None:
    """Opens an alert for each fallback with an expired waiver, and resolves the others.

    The fallback keeps its place until a person changes the chain. The end of a waiver therefore
    leaves no route without a fallback.
    """
    expired = list_expired_waivers(ctx)
    with ctx.store.read() as tx:
        names = {waiver.target: Targets(tx).all()[waiver.target].name for waiver in expired}
    kind = AlertKind.WAIVER_EXPIRED
    notices = {
        (kind, waiver.id): _expiry_notice(waiver, names[waiver.target]) for waiver in expired
    }
    alerts.update_alerts(ctx, [kind], notices)


def _expiry_notice(waiver: Waiver, name: str) -> alerts.AlertNotice:
    return alerts.AlertNotice(
        f"route {waiver.route}",
        f"the waiver for {name} on route {waiver.route} has expired",
        f"{waiver.author} gave the waiver for this reason: {waiver.reason}. {name} still "
        "serves as a fallback, but the next change of the route's settings or chain must "
        "drop it.",
    )


@dataclass(frozen=True, slots=True)
class FallbackRequest:
    """A person's request for a fallback.

    capable: whether it may answer on a route of high stakes.
    waive: a new waiver; None if the target has other evidence or is in the chain already.
    """

    target: str  # id or `provider/model`
    capable: bool = False
    waive: WaiverRequest | None = None


@dataclass(frozen=True, slots=True)
class ChainEntry:
    """A fallback with its evidence, as `list_fallbacks` shows it."""

    target: Target
    capable: bool
    evidence: EvidenceKind
    verdict: str | None = None  # its id
    waiver: Waiver | None = None
    waiver_expired: bool = False  # the next change must drop it


def list_fallbacks(ctx: ProposalsContext, name: str) -> Sequence[ChainEntry]:
    """Lists a route's fallbacks in the order of the chain. Raises NotFound."""
    with ctx.store.read() as tx:
        route = routes.require_route(tx, name)
        evidence = Routing(tx).evidence(name)
        waivers = {waiver.id: waiver for waiver in Waivers(tx).list(route=name)}
        targets_by_id = Targets(tx).all()
    now = ctx.clock.now()
    entries = []
    for fallback in evidence.fallbacks if evidence else ():
        waiver = waivers.get(fallback.proof)
        entry = ChainEntry(
            target=targets_by_id[fallback.target],
            capable=fallback.target in route.settings.capable,
            evidence=fallback.kind,
            verdict=fallback.proof if fallback.kind is EvidenceKind.VERDICT else None,
            waiver=waiver,
            waiver_expired=waiver is not None and waiver.expired(now),
        )
        entries.append(entry)
    return entries


def list_expired_waivers(ctx: ProposalsContext) -> Sequence[Waiver]:
    """Lists the expired waivers of the fallbacks of all routes, by the route's name."""
    with ctx.store.read() as tx:
        routes = Routing(tx).table().routes
    return [
        entry.waiver
        for name in sorted(name for name, route in routes.items() if route.fallbacks)
        for entry in list_fallbacks(ctx, name)
        if entry.waiver is not None and entry.waiver_expired
    ]


def replace_chain(
    ctx: ProposalsContext,
    actor: Actor,
    name: str,
    wanted: Sequence[FallbackRequest],
    *,
    reason: str,
    expected: Route | None = None,
) -> Route:
    """Replaces a route's chain.

    Args:
        expected: the route that the actor saw; another chain raises StaleWrite.

    Also raises the errors of `_edit_chain`.
    """

    def changed(tx: Transaction, chain: list[FallbackRequest]) -> None:
        if expected is not None and _chain_state(expected) != _chain_state(
            routes.require_route(tx, name)
        ):
            raise StaleWrite(
                f"another person changed the chain of route {name!r} meanwhile: check it again"
            )
        chain[:] = wanted

    return _edit_chain(ctx, actor, name, changed, reason)


def _chain_state(route: Route) -> tuple[object, ...]:
    """Returns the parts of a route that `replace_chain` compares: fallbacks in order, and
    capable ones.
    """
    return tuple(route.fallbacks), frozenset(route.settings.capable)


def add_fallback(
    ctx: ProposalsContext,
    actor: Actor,
    name: str,
    wanted: FallbackRequest,
    *,
    position_from_1: int | None = None,
    reason: str,
) -> Route:
    """Adds a fallback, or renews its evidence.

    Args:
        position_from_1: from 1; None for the end.

    Raises InputError for a place below 1, and as `_edit_chain`.
    """

    def edit(tx: Transaction, chain: list[FallbackRequest]) -> None:
        id_ = named_models.register_model(ctx, tx, actor, wanted.target).id
        position = next(
            (index for index, request in enumerate(chain) if request.target == id_),
            len(chain),
        )
        del chain[position : position + 1]
        chain.insert(
            position if position_from_1 is None else position_from_1 - 1,
            replace(wanted, target=id_),
        )

    if position_from_1 is not None and position_from_1 < 1:
        raise InputError(f"places count from 1, so {position_from_1} is not a place")
    return _edit_chain(ctx, actor, name, edit, reason)


def remove_fallback(
    ctx: ProposalsContext,
    actor: Actor,
    name: str,
    target: str,
    *,
    reason: str,
) -> Route:
    """Removes a target from the chain. Raises NotFound if it is not a fallback of the route."""

    def edit(tx: Transaction, chain: list[FallbackRequest]) -> None:
        del chain[_find_position(ctx, tx, chain, name, target)]

    return _edit_chain(ctx, actor, name, edit, reason)


def mark_capable(
    ctx: ProposalsContext,
    actor: Actor,
    name: str,
    target: str,
    *,
    capable: bool,
    reason: str,
) -> Route:
    """Changes whether a fallback may answer on a route of high stakes.

    Raises NotFound if the target is not a fallback of the route.
    """

    def edit(tx: Transaction, chain: list[FallbackRequest]) -> None:
        position = _find_position(ctx, tx, chain, name, target)
        chain[position] = replace(chain[position], capable=capable)

    return _edit_chain(ctx, actor, name, edit, reason)


def reorder_chain(
    ctx: ProposalsContext,
    actor: Actor,
    name: str,
    order: Sequence[str],
    *,
    reason: str,
) -> Route:
    """Sorts the chain by `order`, which names each fallback once. Raises InputError
    otherwise.
    """

    def edit(tx: Transaction, chain: list[FallbackRequest]) -> None:
        wanted = [named_models.find_model(ctx, tx, target_name).id for target_name in order]
        if sorted(wanted) != sorted(request.target for request in chain):
            raise InputError(
                f"name each fallback of route {name!r} once; "
                f"`swapproof route fallback list {name}` shows them"
            )
        chain.sort(key=lambda request: wanted.index(request.target))

    return _edit_chain(ctx, actor, name, edit, reason)


def _edit_chain(
    ctx: ProposalsContext,
    actor: Actor,
    name: str,
    edit: Callable[[Transaction, list[FallbackRequest]], None],
    reason: str,
) -> Route:
    """Runs `edit` on the chain in a write transaction, and stores the result.

    Needs an admin. Raises InputError without a reason, and NotFound for an unknown route or
    target.
    Raises NotAllowed for a target that may not see the route's data class.
    Raises ProofRefused for a target without evidence, and for a fallback with an expired
    waiver.

    Args:
        edit: edits the list in place. The list omits the incumbent.
    """
    actor.require(Role.ADMIN)
    require_reason(reason, "a change of the chain")
    with ctx.store.write() as tx:
        route = routes.require_route(tx, name)
        capable = route.settings.capable
        # Omit a promoted fallback: as the incumbent it answers first anyway.
        chain = [
            FallbackRequest(fallback, fallback in capable)
            for fallback in route.fallbacks
            if fallback != route.incumbent
        ]
        edit(tx, chain)
        return _commit_requests(ctx, tx, actor, route, chain, reason)


def _find_position(
    ctx: ProposalsContext,
    tx: Transaction,
    chain: Sequence[FallbackRequest],
    route: str,
    target: str,
) -> int:
    """Finds a target's index in the chain. Raises NotFound."""
    target_id = named_models.find_model(ctx, tx, target).id
    for position, request in enumerate(chain):
        if request.target == target_id:
            return position
    raise NotFound(
        f"{target} is not a fallback of route {route!r}; `swapproof route fallback list "
        f"{route}` lists them"
    )


def _commit_requests(
    ctx: ProposalsContext,
    tx: Transaction,
    actor: Actor,
    route: Route,
    wanted: Sequence[FallbackRequest],
    reason: str,
) -> Route:
    """Registers the wanted targets, finds evidence for the new ones, and stores the chain.

    A target that is in the chain already keeps its evidence, unless the request renews it.
    """
    targets_ = [
        named_models.register_model(ctx, tx, actor, request.target) for request in wanted
    ]
    data_class_checks.check_targets(ctx, route.settings, targets_, route=route.name)
    new_targets = [target for target in targets_ if target.id not in route.fallbacks]
    incumbent = Targets(tx).all()[route.incumbent]
    vector_checks.check_vectors(ctx, tx, route.name, route.settings, incumbent, new_targets)
    proofs = {
        target.id: find_chain_proof(ctx, tx, actor, route, target, request.waive)
        for target, request in zip(targets_, wanted, strict=True)
        if request.waive is not None or target.id not in route.fallbacks
    }
    capable = (
        target_.id for target_, request in zip(targets_, wanted, strict=True) if request.capable
    )
    fallbacks = tuple(target.id for target in targets_)
    change = SetChain(route.name, fallbacks, tuple(capable), proofs)
    return _store_chain(tx, actor, route, change, reason)


def drop_fallback(
    tx: Transaction,
    actor: Actor,
    route: Route,
    target: str,
    reason: str,
) -> Route:
    """Drops a fallback; needs no role and no proof. Raises ProofRefused for an expired waiver.

    A rollback drops its harmful candidate from the chain in this way. The other fallbacks keep
    their evidence.
    """
    # Omit the incumbent too: it answers first anyway.
    remaining = [
        fallback for fallback in route.fallbacks if fallback not in (target, route.incumbent)
    ]
    capable = [id_ for id_ in route.settings.capable if id_ in remaining]
    change = SetChain(route.name, tuple(remaining), tuple(capable))
    return _store_chain(tx, actor, route, change, reason)


def _store_chain(
    tx: Transaction,
    actor: Actor,
    route: Route,
    change: SetChain,
    reason: str,
) -> Route:
    """Writes the chain and its audit event. Returns the route after the change."""
    details = {
        "before": list(route.fallbacks),
        "after": list(change.fallbacks),
        "capable": list(change.capable),
        "proofs": {
            target: "served before" if isinstance(proof, FormerTarget) else proof.id
            for target, proof in change.proofs.items()
        },
    }
    routes.commit(
        tx,
        actor,
        change,
        route.version,
        reason,
        action="route.fallbacks",
        **details,
    )
    return routes.require_route(tx, route.name)


def find_chain_proof(
    ctx: ProposalsContext,
    tx: Transaction,
    actor: Actor,
    route: Route,
    target: Target,
    waiver_request: WaiverRequest | None,
) -> ChainProof:
    """Returns a new waiver if requested, otherwise existing evidence. Raises ProofRefused.

    Tries a passed verdict first, then service on this route before, then a stored waiver.
    Service does not count for a target that was rolled back since
    (`routes.find_last_rollback`).
    """
    now = ctx.clock.now()
    if waiver_request is not None:
        return _add_waiver(ctx, tx, actor, route, target, waiver_request)
    verdict = _find_verdict(ctx, tx, actor, route, target)
    if verdict is not None:
        return verdict
    history = Routing(tx).history(route.name)
    has_served = any(
        target.id in (record.route.incumbent, *record.route.fallbacks) for record in history
    )
    if has_served and routes.find_last_rollback(tx, route.name, target.id, history) is None:
        return FormerTarget(target.id)
    for waiver in Waivers(tx).list(route=route.name):
        if waiver.target == target.id and not waiver.expired(now):
            return waiver
    raise ProofRefused(
        f"{target.name} has no evidence on route {route.name!r}: propose it there "
        f"(`swapproof proposal create {route.name} {target.name}`), or take the responsibility "
        "with a waiver (`--waive REASON --for 30d`). The verdict of an open proposal is "
        "evidence only for a person other than its proposer"
    )


def _find_verdict(
    ctx: ProposalsContext,
    tx: Transaction,
    actor: Actor,
    route: Route,
    target: Target,
) -> Passed | None:
    """Finds a valid verdict for the pair. A rollback since or a refusal invalidates a verdict.
    A proposer cannot use their own open proposal, which would be a promotion by hand.
    """
    for proposal in Proposals(tx).of_pair(route.name, route.incumbent, target.id):
        if proposal.verdict is None:
            continue
        if proposal.phase in PHASES_WITHOUT_PROOF and not _is_announced(tx, proposal):
            continue
        verdict = Verdicts(tx).get(proposal.verdict)
        if not isinstance(verdict, Passed) or routes.find_rollback_since(tx, verdict):
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


def _is_announced(tx: Transaction, proposal: Proposal) -> bool:
    """Tells whether a schedule measured the candidate only to announce it, as for a spare.

    Such a proposal ends with its verdict, without a person's decision.
    """
    is_notice = proposal.closed and proposal.on_better is OnBetter.NOTIFY
    return is_notice and not look_counts.describe_uncounted_looks(tx, proposal)


def _add_waiver(
    ctx: ProposalsContext,
    tx: Transaction,
    actor: Actor,
    route: Route,
    target: Target,
    request: WaiverRequest,
) -> Waiver:
    """Stores a waiver with its audit event.

    Raises InputError without a reason, and for a duration that is not above 0 and at most
    `LONGEST_WAIVER`.
    """
    if not request.reason.strip():
        raise InputError(
            "a waiver needs a reason: every place that uses the waiver shows the reason"
        )
    if not timedelta(0) < request.lasts <= LONGEST_WAIVER:
        raise InputError(f"a waiver must last more than 0 and up to {LONGEST_WAIVER.days} days")
    id_ = ctx.chance.token("w_")
    expires_at = ctx.clock.now() + request.lasts
    waiver = Waiver(id_, route.name, target.id, request.reason, actor.name, expires_at)
    Waivers(tx).add(waiver)
    details = {
        "route": route.name,
        "target": target.id,
        "reason": waiver.reason,
        "expires_at": expires_at.isoformat(),
    }
    AuditLog(tx).append(actor, "waiver.add", f"waiver {id_}", details)
    return waiver
