"""Registers proposals for people: for one candidate, or for several candidates that share one
alpha.

The module has the request, its preview and its registration. It registers a selection whole or
not at all, and the terms never change afterwards. `harness.proposals.driver` starts the runs on
its next turn. `registration` plans the suites and computes each look's alpha, and `route_rules`
finds the rules that a proposer widens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from harness.frame.configuration.setting import SHARE_RANGE, format_bound
from harness.frame.errors import InputError, NotAllowed, RouteBusy
from harness.frame.idempotency import NoteCreated, note_nothing
from harness.frame.people.access import Actor, Role
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.gate.policy import (
    CostAcceptance,
    GatePolicy,
    Policy,
    parse_change_reference,
)
from harness.gate.suite_plan import Claim, SuitePlan
from harness.proposals import eval_queue, route_rules, traffic_suites
from harness.proposals.candidates import cost_ratio, slice_routes
from harness.proposals.candidates.cost_ratio import CostRatio
from harness.proposals.candidates.slice_routes import DeclaredSlice
from harness.proposals.context import ProposalsContext
from harness.proposals.registration import alpha_charges, look_counts, route_risk, suite_plans
from harness.proposals.registration.alpha_charges import SelectionPlace
from harness.proposals.registration.route_risk import FalsePassRisk
from harness.providers.records import Providers, Targets
from harness.providers.registry import named_models, targets
from harness.providers.target import Target
from harness.providers.target_price import describe_missing, list_unpriced
from harness.routing.candidate_schedule import OnBetter
from harness.routing.control import data_class_checks, routes, vector_checks
from harness.routing.proposal import (
    PROPOSAL_TEXTS,
    Proposal,
    ProposalEvent,
    ProposalPhase,
    ProposalTexts,
    apply_event,
)
from harness.routing.records.proposals import Proposals
from harness.routing.records.runs import Suites
from harness.routing.reports import untaken
from harness.routing.route_settings import RouteSettings
from harness.routing.table import Route

MAX_CANDIDATES: Final = 10  # in one selection
ACCEPT_AT_PROPOSAL: Final = (
    "An approver may accept it in their own proposal (`--accept-cost {0} --because …`), or "
    "before yours: `swapproof proposal accept-cost ROUTE CANDIDATE --up-to {0} --because …`"
)


@dataclass(frozen=True, slots=True)
class ProposalRequest(ProposalTexts):
    """A person's request, before anything is checked or registered.

    Claim, margin and saving are choices within the limits of the route's policy.
    """

    route: str
    candidate: str
    reason: str = ""
    claim: Claim | None = None  # None uses the policy's value, as for margin and min_saving
    margin: float | None = None
    # Id or name of a target whose results the candidate was tuned on; its looks count, too.
    descends_from: str | None = None
    min_saving: float | None = None
    # Further candidates for the same swap: the best that passes continues.
    rivals: tuple[str, ...] = ()
    # Accepted cost of a candidate, in costs of the incumbent, and why; only for an approver.
    accept_cost: float | None = None
    because: str = ""
    # Slices that are tested alone if the whole route does not pass; only for an admin.
    slices: tuple[str, ...] = ()

    @property
    def candidates(self) -> tuple[str, ...]:
        """Lists all candidates of the request, in the order of their places."""
        return (self.candidate, *self.rivals)

    @property
    def alone(self) -> tuple["ProposalRequest", ...]:
        """Splits the request into a request for each candidate, with the other candidates as
        its rivals.

        An estimate of one candidate therefore still divides alpha among all.
        """
        return tuple(
            replace(
                self,
                candidate=candidate,
                rivals=tuple(
                    other for index, other in enumerate(self.candidates) if index != number
                ),
            )
            for number, candidate in enumerate(self.candidates)
        )


@dataclass(frozen=True, slots=True)
class ScheduleTerms:
    """Terms that a route's candidate schedule adds to its proposals.

    setbacks: appended to the reason of the candidate's proposal, for the people who decide.
    """

    on_better: OnBetter
    most_alpha: float  # for each candidate
    setbacks: Mapping[str, str] = field(default_factory=dict)  # by candidate, for the reason


def create_proposal(
    ctx: ProposalsContext,
    actor: Actor,
    request: ProposalRequest,
    note_made: NoteCreated = note_nothing,
) -> Proposal:
    """Register a proposal: fixes suites, claim, margin, alpha, items and order.

    Raises RouteBusy if the route has an open proposal, NotFound for an unknown route, target
    or policy, and InputError for an invalid request.
    """
    return create_selection(ctx, actor, request, note_made=note_made)[0]


def create_selection(
    ctx: ProposalsContext,
    actor: Actor,
    request: ProposalRequest,
    terms: ScheduleTerms | None = None,
    *,
    note_made: NoteCreated = note_nothing,
) -> tuple[Proposal, ...]:
    """Registers a proposal for each of the request's candidates, all or none.

    Args:
        terms: of the route's schedule; None for a person's request, which ends the schedule's
            open proposals.

    Each of k candidates gets the k-th part of alpha (statistics.md §1.16). Raises the errors of
    `create_proposal`, and InputError for a duplicate candidate.

    Stores the proposals, their suites' pins and audit events in one transaction. terms also
    sets the step after a pass (`on_better`) and the most alpha. The proposals of the request's
    slices come last.
    """
    actor.require(Role.PROPOSER)
    _check_rivals(request)
    # Load suites before the transaction: loading may take seconds, and a write transaction
    # blocks all others.
    preview_proposal(ctx, request, actor)
    slices = _check_slices(ctx, actor, request)
    count = len(request.candidates)
    selection = ctx.chance.token("sel_") if count > 1 else ""
    proposals: list[Proposal] = []
    with ctx.store.write() as tx:
        if terms is None:
            _end_scheduled(ctx, tx, actor, request.route)
        for index, candidate in enumerate(request.candidates):
            place = SelectionPlace(
                selection,
                index,
                count,
                terms.most_alpha if terms else 1.0,
            )
            setbacks = terms.setbacks.get(candidate, "") if terms else ""
            reason = ". ".join(filter(None, (request.reason, setbacks)))
            single_request = replace(
                request,
                candidate=candidate,
                rivals=(),
                reason=reason,
            )
            proposal = replace(
                _register(ctx, tx, actor, single_request, place),
                on_better=terms.on_better if terms else None,
            )
            if any(proposal.candidate == other.candidate for other in proposals):
                raise InputError(f"{candidate} is named twice; name each candidate once")
            if not proposals:
                note_made(tx, proposal.id)
            _store(tx, actor, proposal)
            proposals.append(proposal)
        if slices:

            def register_slice(route: str) -> Proposal:
                own_request = replace(request, route=route, slices=())
                return _register(ctx, tx, actor, own_request, SelectionPlace())

            # Each slice counts the looks before any slice is stored.
            added = slice_routes.add_slices(
                ctx, tx, actor, proposals[0], slices, register_slice
            )
            for proposal in added:
                _store(tx, actor, proposal)
            proposals += added
    return tuple(proposals)


def _store(tx: Transaction, actor: Actor, proposal: Proposal) -> None:
    Proposals(tx).add(proposal)
    subject = f"proposal {proposal.id}"
    AuditLog(tx).append(actor, "proposal.create", subject, _registration_details(proposal))


def _check_slices(
    ctx: ProposalsContext, actor: Actor, request: ProposalRequest
) -> tuple[DeclaredSlice, ...]:
    """Returns the request's slices; empty without any. Loads their suites.

    Raises NotAllowed for another role than admin, because each slice gets a route. Raises
    InputError for several candidates, and the errors of `slice_routes`.
    """
    if not request.slices:
        return ()
    actor.require(Role.ADMIN)
    if request.rivals:
        raise InputError("slices are proposed with one candidate: leave out the others")
    with ctx.store.read() as tx:
        settings = routes.require_route(tx, request.route).settings
    slices = slice_routes.declare_slices(ctx, settings, request.slices)
    slice_routes.check_agreement(ctx, settings, slices)
    for slice_ in slices:
        ctx.suites.groups(slice_.items)
    return slices


def _end_scheduled(
    ctx: ProposalsContext,
    tx: Transaction,
    actor: Actor,
    route: str,
) -> None:
    """Ends the schedule's open proposals, because a person's request takes precedence."""
    for proposal in Proposals(tx).open():
        if proposal.route == route and proposal.yields:
            reason = f"{actor.name} proposed another swap"
            now = ctx.clock.now()
            saved = Proposals(tx).save(
                apply_event(proposal, ProposalEvent.CANCELLED, now, reason)
            )
            eval_queue.stop_unneeded_runs(ctx, tx, saved)
            subject = f"proposal {proposal.id}"
            AuditLog(tx).append(actor, "proposal.cancelled", subject, {"reason": reason})


def _check_rivals(request: ProposalRequest) -> None:
    """Checks the number of candidates, and that only a candidate alone has an ancestor.

    Raises InputError: an ancestor's looks would count for every candidate of the selection.
    """
    if len(request.candidates) > MAX_CANDIDATES:
        raise InputError(
            f"at most {MAX_CANDIDATES} candidates can be proposed together, not "
            f"{len(request.candidates)}, because they share alpha"
        )
    if request.rivals and request.descends_from:
        raise InputError(
            "several candidates cannot share one `descends_from`: propose the candidate that "
            "descends from it alone"
        )


def _register(
    ctx: ProposalsContext,
    tx: Transaction,
    actor: Actor,
    request: ProposalRequest,
    place: SelectionPlace,
) -> Proposal:
    """Checks a candidate and its suites, and builds its proposal without storing it.

    Every check precedes the first eval, so that a refused proposal costs nothing. Registers the
    candidate as a target, and stores the suites' pins.

    Raises RouteBusy during a bake or a break-glass.
    Raises InputError for the incumbent itself, and for an unknown price that the claim needs.
    Raises InputError for a cost that would end the canary, unless an approver accepted it.
    Raises NotAllowed for a data class, a choice beyond the policy, and a spent alpha budget.
    """
    now = ctx.clock.now()
    route = routes.require_route(tx, request.route)
    _check_settled(route)
    candidate = named_models.register_model(ctx, tx, actor, request.candidate)
    if candidate.id == route.incumbent:
        raise InputError(
            f"{candidate.name} serves route {route.name!r} already: nothing to swap"
        )
    targets.check_evaluable(tx, candidate, Targets(tx).all()[route.incumbent])
    data_class_checks.check_targets(ctx, route.settings, [candidate], route=route.name)
    incumbent = Targets(tx).all()[route.incumbent]
    vector_checks.check_vectors(ctx, tx, route.name, route.settings, incumbent, [candidate])
    for suite in route.settings.suites:
        data_class_checks.check_suite(ctx, suite.suite, [incumbent, candidate])
    traffic_suites.check_traffic_suites(ctx, tx, route.settings, incumbent, candidate)
    policy = _build_policy(ctx, route.settings, request)
    _check_reason(policy.gate, request)
    route_rules.check_judge(ctx, tx, route, policy)
    _check_prices(tx, policy.gate, incumbent, candidate)
    accepted = _find_accepted_cost(ctx, tx, actor, request, candidate)
    lineage = look_counts.find_lineage(tx, candidate, request.descends_from)
    registered = suite_plans.plan_suites(ctx, route.settings, policy.gate, ctx.order_seeds)
    for pin, _ in registered:
        Suites(tx).put(pin, now)
    plans = alpha_charges.charge_alpha(
        tx, route, policy.gate, registered, candidate.id, lineage, place
    )
    texts: dict[str, Any] = {name: getattr(request, name).strip() for name in PROPOSAL_TEXTS}
    texts["change_reference"] = parse_change_reference(request.change_reference)
    arms = (incumbent, candidate)
    cost = cost_ratio.find_ratio(ctx, tx, plans, policy.canary, arms, accepted)
    cost.require_acceptance(ACCEPT_AT_PROPOSAL)
    proposal = Proposal(
        id=ctx.chance.token("p_"),
        route=route.name,
        incumbent=route.incumbent,
        candidate=candidate.id,
        claim=policy.gate.claim,
        reason=request.reason,
        proposer=actor.name,
        policy=policy,
        plans=plans,
        widened=_find_second_person_reasons(ctx, tx, route, candidate, actor),
        phase=ProposalPhase.PROPOSED,
        created_at=now,
        updated_at=now,
        proposer_principal=actor.principal,
        proposer_key=actor.key,
        selection=place.selection,
        place=place.place,
        accepted_cost=accepted,
        **texts,
    )
    _check_change_reference(proposal)
    return proposal


def _find_accepted_cost(
    ctx: ProposalsContext,
    tx: Transaction,
    actor: Actor,
    request: ProposalRequest,
    candidate: Target,
) -> CostAcceptance | None:
    """Returns the acceptance in the request, or else an approver's stored acceptance; None
    without one.

    Raises InputError for a reason without a ratio, and NotAllowed for an acceptance by the
    wrong role.
    """
    if request.accept_cost is not None:
        return cost_ratio.accept_cost(actor, request.accept_cost, request.because)
    if request.because.strip():
        raise InputError("a reason to accept a cost needs the accepted ratio (`--accept-cost`)")
    return cost_ratio.find_accepted_cost(ctx, tx, request.route, candidate)


def _check_change_reference(proposal: Proposal) -> None:
    """Raises InputError if a required change request is missing and no approval can add it."""
    is_missing = proposal.needs_change_reference and not proposal.change_reference
    if is_missing and not proposal.needs_approval:
        raise InputError(
            f"the policy {proposal.policy.name!r} requires a change request, and this proposal "
            "needs no approval: give the reference (`--change CHG0012345`)"
        )


def _find_second_person_reasons(
    ctx: ProposalsContext,
    tx: Transaction,
    route: Route,
    candidate: Target | None,
    actor: Actor | None,
) -> dict[str, Any]:
    """Finds the settings that another person must approve, with the present pins of the route's
    suites.
    """
    pins = [ctx.suites.pin(suite.suite) for suite in route.settings.suites]
    return route_rules.find_second_person_reasons(ctx, tx, route, pins, candidate, actor)


def _check_share(subject: str, share: float | None) -> None:
    """Checks a share that a person gives; None is valid. Raises InputError, which names the
    share that a number of points may mean.
    """
    if share is None or SHARE_RANGE.holds(share):
        return
    given = format_bound(share)
    text = f"{subject} must be a share of {SHARE_RANGE.text}, not {given}"
    meant = share / 100
    if SHARE_RANGE.holds(meant):
        text += f". For {given} points, write {format_bound(meant)}"
    raise InputError(text)


def _build_policy(
    ctx: ProposalsContext,
    settings: RouteSettings,
    request: ProposalRequest,
) -> Policy:
    """Returns the route's policy with the request's choices.

    Raises NotAllowed for a choice beyond the policy, and InputError for an invalid one.
    """
    policy = ctx.policy(settings.policy)
    gate = policy.gate
    _check_share("the margin, an allowed loss,", request.margin)
    _check_share("the smallest saving", request.min_saving)
    gate = replace(
        gate,
        claim=request.claim or gate.claim,
        margin=gate.margin if request.margin is None else request.margin,
        min_saving=gate.min_saving if request.min_saving is None else request.min_saving,
    )
    if request.min_saving is not None and gate.claim is not Claim.CHEAPER:
        raise InputError(
            f"a saving needs the claim {Claim.CHEAPER.value}, not {gate.claim.value}"
        )
    if beyond := route_rules.list_choices_beyond(policy.gate, gate):
        raise NotAllowed(
            f"the policy {policy.name!r} does not allow this: {'; '.join(beyond)}. Choose "
            "within the policy, or let an admin change it"
        )
    return replace(policy, gate=gate)


def _check_settled(route: Route) -> None:
    """Requires that the route's incumbent is settled. Raises RouteBusy.

    A target that serves without proof, or that its bake may still roll back, is not the route's
    settled model, so a comparison with it would prove nothing.
    """
    if route.break_glass is not None:
        raise RouteBusy(
            f"route {route.name!r} is served without proof ({route.break_glass}), so it cannot "
            f"be compared: end it with `swapproof route break-glass end {route.break_glass} "
            "--reason …`"
        )
    if route.holdback is not None:
        raise RouteBusy(
            f"route {route.name!r} still bakes its last promotion: wait for the end, or end it "
            f"with `swapproof canary finish {route.name} --reason …`"
        )


def _check_reason(gate: GatePolicy, request: ProposalRequest) -> None:
    """Requires a reason for a claim that accepts a small loss. Raises InputError."""
    if gate.claim is Claim.NON_INFERIOR and not request.reason.strip():
        raise InputError(
            "the claim non_inferior accepts a small loss, so it needs a reason: "
            "cheaper, faster, end of life …"
        )


def _check_prices(
    tx: Transaction,
    gate: GatePolicy,
    *arms: Target,
) -> None:
    """Checks prices before any cost, because a saving needs known prices."""
    if gate.claim is not Claim.CHEAPER:
        return
    unpriced = list_unpriced(Providers(tx).all(), (arm.name for arm in arms))
    if unpriced:
        raise InputError(
            f"the claim {gate.claim.value} needs both models' prices, and "
            f"{describe_missing(*unpriced)}"
        )


@dataclass(frozen=True, slots=True)
class ProposalPreview:
    """The terms that a submission would register now, and facts for the person who decides
    about it.

    plans: with the alpha that this look would spend.
    risk: with this proposal's candidates.
    """

    plans: tuple[SuitePlan, ...]
    widened: Mapping[str, Any]  # settings that would need another person's approval
    risk: FalsePassRisk
    gate: GatePolicy
    cost: CostRatio  # with the acceptance of an approver, if any
    candidate: str  # full name of the requested model
    unlisted: str  # set if the candidate's provider does not list it
    untaken: Sequence[str]  # sentences about requests that the candidate cannot take


def preview_proposal(
    ctx: ProposalsContext,
    request: ProposalRequest,
    actor: Actor | None = None,
) -> ProposalPreview:
    """Returns the terms that `create_proposal` would register; stores nothing.

    Args:
        actor: None if the proposer is unknown; the preview then finds no restored incumbent.

    Raises NotFound for an unknown route, model or policy.
    Raises NotAllowed for a choice beyond the policy, and for a spent alpha budget. It does not
    check whether the route is free.
    """
    with ctx.store.read() as tx:
        route = routes.require_route(tx, request.route)
    policy = _build_policy(ctx, route.settings, request)
    registered = suite_plans.plan_suites(ctx, route.settings, policy.gate)
    with ctx.store.read() as tx:
        candidate = named_models.find_listed_model(ctx, tx, request.candidate)
        incumbent = Targets(tx).all()[route.incumbent]
        lineage = look_counts.find_lineage(tx, candidate, request.descends_from)
        place = SelectionPlace(candidates=len(request.candidates))
        plans = alpha_charges.charge_alpha(
            tx, route, policy.gate, registered, candidate.id, lineage, place
        )
        accepted = cost_ratio.find_accepted_cost(ctx, tx, route.name, candidate)
        return ProposalPreview(
            plans,
            _find_second_person_reasons(ctx, tx, route, candidate, actor),
            route_risk.risk_of_plans(tx, route.name, plans, policy.gate, ctx.clock.now()),
            policy.gate,
            cost_ratio.find_ratio(
                ctx,
                tx,
                plans,
                policy.canary,
                (incumbent, candidate),
                accepted,
            ),
            candidate.name,
            named_models.describe_missing_in_list(tx, candidate),
            untaken.list_untaken(tx, route.name, incumbent, candidate, ctx.clock.now()),
        )


def get_proposal(ctx: ProposalsContext, proposal: str) -> Proposal:
    with ctx.store.read() as tx:
        return Proposals(tx).get(proposal)


def list_proposals(
    ctx: ProposalsContext,
    *,
    route: str | None = None,
    open_only: bool = False,
) -> Sequence[Proposal]:
    with ctx.store.read() as tx:
        return Proposals(tx).list(route=route, open_only=open_only)


def count_phases(ctx: ProposalsContext) -> Mapping[ProposalPhase, int]:
    """Counts all stored proposals by phase."""
    with ctx.store.read() as tx:
        return Proposals(tx).phases()


def _registration_details(proposal: Proposal) -> dict[str, object]:
    """Lists the registered terms for the audit event, without empty fields."""
    accepted = proposal.accepted_cost
    return {
        "route": proposal.route,
        "incumbent": proposal.incumbent,
        "candidate": proposal.candidate,
        "reason": proposal.reason,
        "policy": proposal.policy.digest,
        "suites": [plan.as_json() for plan in proposal.plans],
        "widened": dict(proposal.widened),
        **({"selection": proposal.selection} if proposal.selection else {}),
        **{word: value for word, _, value in proposal.texts},
        **({"accepted_cost": asdict(accepted)} if accepted else {}),
    }
