"""Shows an approver the facts about a proposal. Lets people approve it for its canary, reject
it, or take it back.

Each act checks the actor's role, and writes an audit event in its transaction. An approval also
needs another person than the proposer (`harness.frame.people.four_eyes`). No function here
opens a canary or changes a route: `harness.proposals.driver` does both on the next turn
of the reconcile loop. `route_rules` finds the settings that need a second person.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

from harness.evals import proof_validity
from harness.frame.errors import (
    Conflict,
    IllegalTransition,
    InputError,
    NotFound,
    ProofRefused,
    StaleWrite,
)
from harness.frame.people import four_eyes
from harness.frame.people.access import Actor, ApiKey, PrincipalKind, Role
from harness.frame.people.four_eyes import (
    NEW_FOR,
    Hands,
    load_declarers,
    load_key_creators,
    person_name,
)
from harness.frame.people.records import ApiKeys, PersonLinks, Principals
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import require_reason
from harness.frame.signing.audit_log import AuditLog
from harness.gate.policy import (
    CostAcceptance,
    Policy,
    SameModelConfirmation,
    parse_change_reference,
)
from harness.proposals import (
    eval_queue,
    evaluation,
    registration,
    route_rules,
)
from harness.proposals.candidates import cost_ratio
from harness.proposals.context import ProposalsContext
from harness.proposals.registration import WINDOW, FalsePassRisk
from harness.providers.records import Providers, Targets
from harness.providers.registry import named_models
from harness.routing.control import routes
from harness.routing.proposal import (
    REFUSED_BY,
    Approval,
    ApprovalKind,
    Proposal,
    ProposalEvent,
    ProposalPhase,
    apply_event,
    next_phase,
)
from harness.routing.records.proposals import Approvals, Proposals
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns, Suites
from harness.routing.records.verdicts import Verdicts
from harness.routing.route_changes import CHANGE_KINDS, RestoreIncumbent

ACCEPT_AT_APPROVAL: Final = (
    "Accept it with the approval (`--accept-cost {} --reason …`), or reject the proposal"
)


def approve_proposal(
    ctx: ProposalsContext,
    actor: Actor,
    proposal: str,
    reason: str = "",
    *,
    expected_verdict: str | None = None,
    change_reference: str = "",
    accept_cost: float | None = None,
) -> Proposal:
    """Approves a passed proposal for its canary, bound to the verdict that the approver saw.
    Needs an approver other than the proposer.

    expected_verdict: id of that verdict; None takes the stored verdict. change_reference: the
    change request, if the proposal names none. accept_cost: the accepted cost as a multiple of
    the incumbent's; the approval's reason applies to it, too.

    Raises InputError if the policy requires a change request and none is named, or if the
    canary would end for a cost that no approver accepted. Raises NotAllowed for the proposer
    (unless the policy allows `self_approval` and nothing is widened). Raises StaleWrite if the
    verdict has changed, ProofRefused if the verdict or the time to approve has expired, and
    IllegalTransition if the proposal does not wait for approval.
    """
    actor.require(Role.APPROVER)
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        found = Proposals(tx).get(proposal)
        four_eyes.check_four_eyes(tx, actor, found, "approve")
        next_phase(found.phase, ProposalEvent.APPROVED)
        if expected_verdict not in (None, found.verdict):
            raise StaleWrite(
                f"{found.id} has verdict {found.verdict}, not {expected_verdict}: review it "
                "again"
            )
        if found.approver is not None:
            raise Conflict(f"{found.id} is approved already, by {found.approver}")
        if found.approval_ends_at <= now:
            raise ProofRefused(f"{found.id} has waited too long for an approval: propose again")
        proof_validity.require_proof(ctx, tx, Verdicts(tx).get(found.verdict or ""))
        saved = Proposals(tx).save(
            # The reconciler opens the canary, in one transaction with the routing table.
            replace(
                found,
                approver=actor.name,
                approved_verdict=found.verdict,
                updated_at=now,
                change_reference=_name_change(found, change_reference),
                accepted_cost=_accept_cost(ctx, tx, actor, found, accept_cost, reason),
            )
        )
        approval = record_approval(ctx, tx, actor, saved, ApprovalKind.CANARY, reason)
        details: dict[str, object] = {
            "verdict": found.verdict,
            "reason": reason,
            "widened": dict(found.widened),
        }
        if saved.change_reference:
            details["change"] = saved.change_reference
        if saved.accepted_cost:
            details["accepted_cost"] = asdict(saved.accepted_cost)
        remarks = list_key_remarks(tx, saved, approval)
        if remarks:
            details["remarks"] = [*remarks]
        AuditLog(tx).append(actor, "proposal.approve", f"proposal {saved.id}", details)
    return saved


def _accept_cost(
    ctx: ProposalsContext,
    tx: Transaction,
    actor: Actor,
    proposal: Proposal,
    ratio: float | None,
    reason: str,
) -> CostAcceptance | None:
    """Returns the accepted cost of an approval, and refuses a cost that would end the canary.

    ratio: the cost that the approver accepts, in costs of the incumbent; None keeps the
    acceptance that was registered with the proposal. Raises Conflict for a second acceptance,
    and InputError if the canary would still end for its cost.
    """
    accepted = proposal.accepted_cost
    if ratio is not None:
        if accepted is not None:
            raise Conflict(f"{accepted.text}. An accepted cost cannot change: omit the cost")
        accepted = cost_ratio.accept_cost(actor, ratio, reason)
    cost = cost_ratio.load_ratio(ctx, tx, replace(proposal, accepted_cost=accepted))
    cost.require_acceptance(ACCEPT_AT_APPROVAL)
    return accepted


def _name_change(proposal: Proposal, given: str) -> str:
    """Returns the reference of the change request, from the approval or from the proposal.

    Raises Conflict if both differ, and InputError if the policy requires one and both are
    missing.
    """
    reference = parse_change_reference(given) or proposal.change_reference
    if proposal.change_reference not in ("", reference):
        raise Conflict(
            f"{proposal.id} was proposed under change {proposal.change_reference}, not "
            f"{reference}: omit the reference, or cancel the proposal and propose again"
        )
    if proposal.needs_change_reference and not reference:
        raise InputError(
            f"the policy {proposal.policy.name!r} requires a change request, and {proposal.id} "
            "names none: give its reference (`swapgate proposal approve … --change CHG0012345`)"
        )
    return reference


def refuse_proposal(
    ctx: ProposalsContext,
    actor: Actor,
    proposal: str,
    reason: str,
) -> Proposal:
    """Ends a proposal that waits for approval, with a reason for its proposer. Raises
    IllegalTransition in any other phase.
    """
    actor.require(Role.APPROVER)
    require_reason(reason, "a refusal")
    return _end_proposal(
        ctx,
        actor,
        proposal,
        ProposalEvent.REFUSED,
        f"{REFUSED_BY}{actor.name}: {reason}",
    )


def cancel_proposal(
    ctx: ProposalsContext,
    actor: Actor,
    proposal: str,
    reason: str = "",
) -> Proposal:
    """Take an open proposal back before its canary. With a canary: `canary abort`.

    Raises NotAllowed for another person's proposal, unless the actor may refuse it.
    """
    with ctx.store.read() as tx:
        _require_own(actor, Proposals(tx).get(proposal))
    because = f"cancelled by {actor.name}" + (f": {reason}" if reason else "")
    return _end_proposal(ctx, actor, proposal, ProposalEvent.CANCELLED, because)


def retry_proposal(
    ctx: ProposalsContext,
    actor: Actor,
    proposal: str,
    reason: str = "",
) -> Proposal:
    """Retries a proposal's provider at once; the time limit of the wait restarts.

    Raises IllegalTransition if it waits for no provider, and NotAllowed for another person's
    proposal, unless the actor may refuse it.
    """
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        found = Proposals(tx).get(proposal)
        _require_own(actor, found)
        runs = evaluation.load_runs(tx, found)
        waiting = [run for run in runs.values() if run.waits_since is not None]
        if not found.open or not (waiting or found.retry_at):
            raise IllegalTransition(
                f"{found.id} {found.predicate} and waits for no provider: nothing to retry"
            )
        for run in waiting:
            EvalRuns(tx).ask_again(run.id, now)
        retry_at = now if found.retry_at else None
        again = replace(
            found,
            retry_at=retry_at,
            infra_errors=0,
            updated_at=now,
        )
        saved = Proposals(tx).save(again)
        details = {"reason": reason, "route": found.route}
        AuditLog(tx).append(actor, "proposal.retry", f"proposal {saved.id}", details)
    return saved


def confirm_same_model(
    ctx: ProposalsContext,
    actor: Actor,
    proposal: str,
    reason: str,
) -> Proposal:
    """Confirms that both models of a proposal may be served by the same, such as for a new key
    or deployment. Its stored scores then decide the verdict. Needs an approver.

    Raises InputError without a reason, Conflict for a second confirmation, and
    IllegalTransition once the proposal has passed or ended.
    """
    actor.require(Role.APPROVER)
    require_reason(reason, "a confirmation")
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        found = Proposals(tx).get(proposal)
        if found.phase not in (
            ProposalPhase.PROPOSED,
            ProposalPhase.EVALUATING,
        ):
            raise IllegalTransition(
                f"{found.id} {found.predicate}: the same model can be confirmed only before "
                "the verdict"
            )
        if found.same_model is not None:
            raise Conflict(f"{found.same_model.text}. A confirmation cannot change")
        confirmed = replace(
            found,
            same_model=SameModelConfirmation(reason.strip(), actor.name),
            retry_at=now if found.retry_at else None,
            updated_at=now,
        )
        saved = Proposals(tx).save(confirmed)
        details = {
            "reason": reason,
            "route": found.route,
            "verdict": found.verdict,
        }
        AuditLog(tx).append(
            actor,
            "proposal.confirm_same_model",
            f"proposal {saved.id}",
            details,
        )
    return saved


def _require_own(actor: Actor, proposal: Proposal) -> None:
    """Requires that the actor proposed it, or may refuse it. Raises NotAllowed."""
    actor.require(Role.PROPOSER)
    if proposal.proposer_principal != actor.principal:
        actor.require(Role.APPROVER)


def _end_proposal(
    ctx: ProposalsContext,
    actor: Actor,
    proposal: str,
    event: ProposalEvent,
    because: str,
) -> Proposal:
    """Ends a proposal before its canary, and stops the runs that no other proposal needs.

    event: REFUSED or CANCELLED. Raises InputError for a proposal in its canary, because only
    `canary abort` also takes the candidate's traffic away.
    """
    with ctx.store.write() as tx:
        found = Proposals(tx).get(proposal)
        if found.phase is ProposalPhase.CANARY:
            raise InputError(
                f"{found.id} is in its canary: `swapgate canary abort {found.route} "
                "--reason …` ends it"
            )
        saved = Proposals(tx).save(apply_event(found, event, ctx.clock.now(), because))
        eval_queue.stop_unneeded_runs(ctx, tx, saved)
        AuditLog(tx).append(
            actor,
            f"proposal.{event.value}",
            f"proposal {saved.id}",
            {"reason": because},
        )
    return saved


def record_approval(
    ctx: ProposalsContext,
    tx: Transaction,
    actor: Actor,
    proposal: Proposal,
    kind: ApprovalKind,
    reason: str,
) -> Approval:
    """Stores the actor's approval of the present verdict. Raises as `check_four_eyes`.

    The approval keeps the widened rules and the change request that the person saw.

    kind: the act that it allows, a canary or a promotion before the last step's evidence.
    """
    act = "approve" if kind is ApprovalKind.CANARY else "promote"
    four_eyes.check_four_eyes(tx, actor, proposal, act)
    made = Approval(
        id=ctx.chance.token("a_"),
        proposal=proposal.id,
        verdict=proposal.verdict,
        kind=kind,
        principal=actor.principal,
        name=actor.name,
        key=actor.key,
        at=ctx.clock.now(),
        reason=reason,
        widened=dict(proposal.widened),
        change_reference=proposal.change_reference,
    )
    Approvals(tx).add(made)
    return made


def find_revocation(tx: Transaction, proposal: Proposal) -> str:
    """Explains why a stored approval no longer counts; empty if it counts.

    An approval ends with its key, and with a declaration that approver and proposer are one
    person. The driver asks on each turn while a passed proposal waits for its canary.
    """
    for approval in Approvals(tx).for_proposal(proposal.id):
        key = ApiKeys(tx).find(approval.key) if approval.key is not None else None
        if key is not None and key.revoked_at is not None:
            return (
                f"the key with which {approval.name} approved it has since been revoked: "
                "propose again"
            )
        people = PersonLinks(tx).people()
        whose = proposal.proposer_principal
        one = people.person(approval.principal) == people.person(whose)
        if one and not proposal.self_approval:
            return (
                f"an admin has since declared {approval.name}, who approved it, and "
                f"{proposal.proposer}, who proposed it, to be one person: propose again"
            )
    return ""


@dataclass(frozen=True, slots=True)
class ApprovalView(Approval):
    """An approval as people see it, with remarks about the person's key."""

    remarks: tuple[str, ...] = ()  # facts about its keys that everybody should know


def list_approvals(ctx: ProposalsContext, proposal: str) -> Sequence[ApprovalView]:
    with ctx.store.read() as tx:
        found = Proposals(tx).get(proposal)
        return [
            ApprovalView(
                **{field.name: getattr(approval, field.name) for field in fields(Approval)},
                remarks=tuple(list_key_remarks(tx, found, approval)),
            )
            for approval in Approvals(tx).for_proposal(proposal)
        ]


DEFAULT: Final = "the default"

# Differences that promotions cause. The proposals are listed anyway.
TRAFFIC: Final = frozenset({"incumbent", "canary", "canary share", "held back"})


@dataclass(frozen=True, slots=True)
class RouteChange:
    """One change that an approver should know, because it may favour the candidate."""

    at: datetime
    by: str  # who changed it, or who made the first proposal with the change
    what: str  # settings | incumbent | policy | suite | provider
    text: str


@dataclass(frozen=True, slots=True)
class ProposalReview:
    """Facts for an approver besides the verdict (`review_proposal`)."""

    proposal: Proposal
    widened: Sequence[str]  # one sentence for each setting
    risk: FalsePassRisk
    changes: Sequence[RouteChange]  # of the last 90 days, newest first
    unlisted: str = ""  # set if the candidate's provider does not list it


def review_proposal(ctx: ProposalsContext, proposal: str) -> ProposalReview:
    """Gathers facts for an approver besides the verdict: changed settings, other proposals and
    moved providers. Raises NotFound.
    """
    since = ctx.clock.now() - WINDOW
    with ctx.store.read() as tx:
        found = Proposals(tx).get(proposal)
        changes = [
            *_settings(tx, found.route, since),
            *_proposed(tx, found.route, since),
            *_moved_providers(ctx, tx, found, since),
        ]
        return ProposalReview(
            proposal=found,
            widened=route_rules.describe_second_person_reasons(found.widened),
            risk=registration.risk_of_proposal(tx, found),
            changes=sorted(changes, key=lambda change: change.at, reverse=True),
            unlisted=named_models.find_unlisted(tx, Targets(tx).all()[found.candidate]),
        )


def _settings(
    tx: Transaction,
    route: str,
    since: datetime,
) -> Iterator[RouteChange]:
    """Yields changed settings, newest first, from the route's signed history.

    A restored incumbent counts too. Changes of traffic that every promotion causes do not.
    """
    names = Targets(tx).all()
    for newer, older in pairwise(Routing(tx).history(route)):
        if newer.at < since:
            return
        if (
            newer.kind == CHANGE_KINDS[RestoreIncumbent]
            and newer.route.incumbent != older.route.incumbent
        ):
            # A rollback changes the model that a candidate must beat, without any proof.
            was = names[older.route.incumbent].name
            is_ = names[newer.route.incumbent].name
            text = f"{was} → {is_}: {newer.reason}"
            yield RouteChange(newer.at, newer.actor, "incumbent", text)
        differences = [
            f"{name}: {before or 'none'} → {after or 'none'}"
            for name, (before, after) in routes.describe_difference(
                older.route, newer.route
            ).items()
            if name not in TRAFFIC
        ]
        digests = [
            {suite.suite: suite.digest for suite in record.route.settings.suites}
            for record in (older, newer)
        ]
        differences += [
            f"suite {suite}: its content was accepted again"
            for suite, digest in digests[1].items()
            if suite in digests[0] and digests[0][suite] != digest
        ]
        if differences:
            yield RouteChange(newer.at, newer.actor, "settings", "; ".join(differences))


def _proposed(
    tx: Transaction,
    route: str,
    since: datetime,
) -> Iterator[RouteChange]:
    """Compares proposals, because changes of policies and suites record no author.

    Yields a change for each policy or suite that differs between two consecutive proposals. The
    first proposal since `since` is compared with the last one before it, or else with the last
    admitted proposal.
    """
    found = Proposals(tx).since(route, since - WINDOW)
    lately = [proposal for proposal in found if proposal.created_at >= since]
    before = [*found[len(lately) :], *Proposals(tx).let_in(route)]
    first = [proposal for proposal in before if proposal.created_at < since][:1]
    for older, newer in pairwise([*first, *reversed(lately)]):
        by = f"{newer.proposer} ({newer.id})"
        at = newer.created_at
        if said := _policies(older.policy, newer.policy):
            yield RouteChange(at, by, "policy", "; ".join(said))
        known = {plan.suite: plan.suite_digest for plan in older.plans}
        for plan in newer.plans:
            was = known.get(plan.suite, plan.suite_digest)
            if was != plan.suite_digest:
                text = "; ".join(_pieces(tx, was, plan.suite_digest))
                yield RouteChange(at, by, "suite", f"{plan.suite}: {text}")


def _moved_providers(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
    since: datetime,
) -> Iterator[RouteChange]:
    """Yields the providers of the route's targets, the candidate and the judges that moved
    since `since`.
    """
    targets = Targets(tx).all()
    providers = Providers(tx).all()
    route = routes.require_route(tx, proposal.route)
    asked = [targets[target] for target in (*route.targets, proposal.candidate)]
    asked += [ctx.judges[plan.suite] for plan in proposal.plans if plan.suite in ctx.judges]
    for name in sorted({target.provider for target in asked}):
        moved = providers[name].moved if name in providers else None
        if moved is not None and moved.at >= since:
            text = f"{name} has a new address since then: {moved.reason or 'no reason'}"
            yield RouteChange(moved.at, moved.by, "provider", text)


def _pieces(
    tx: Transaction,
    before: str,
    after: str,
) -> list[str]:
    """Describes the difference between two versions of a suite.

    A pin that is no longer stored leaves only the digests to compare.
    """
    try:
        return list(
            proof_validity.list_pin_differences(Suites(tx).get(before), Suites(tx).get(after))
        )
    except NotFound:
        return [f"content {before[:12]} → {after[:12]}"]


def _policies(before: Policy, after: Policy) -> list[str]:
    """Lists the settings that differ, as `name: before → after`."""
    ours = _flat(asdict(before))
    theirs = _flat(asdict(after))
    return [
        f"{name}: {ours.get(name, DEFAULT)} → {theirs.get(name, DEFAULT)}"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]


def _flat(policy: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Flattens nested settings to dotted names, such as `gate.margin`."""
    found: dict[str, Any] = {}
    for name, value in policy.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{place}{name}.")
        else:
            found[f"{place}{name}"] = value
    return found


def list_key_remarks(
    tx: Transaction,
    proposal: Proposal,
    approval: Approval,
) -> Sequence[str]:
    """Lists remarks about the keys and people behind an approval, as sentences for people.

    No remark refuses the approval. Each one tells that the four eyes may be fewer: a key that
    is less than `NEW_FOR` old, a service instead of a person, or a key that the other person
    created.
    """
    found = []
    key = ApiKeys(tx).find(approval.key) if approval.key is not None else None
    if key is not None and approval.at - key.created_at < NEW_FOR:
        age = _age(approval.at, key.created_at)
        by = _creator(tx, key)
        found.append(f"approved with a key created {age} before by {by}")
    person = Principals(tx).among([approval.principal]).get(approval.principal)
    if person is not None and person.kind is PrincipalKind.SERVICE:
        found.append(
            f"approved by {person.name}, which is a service: anybody with its key could do that"
        )
    if (
        approval.key is None
        and person is not None
        and person.issuer is not None
        and approval.at - person.created_at < NEW_FOR
    ):
        age = _age(approval.at, person.created_at)
        found.append(f"approved by {person.name}, who first signed in {age} before")
    hands = Hands(tx)
    link = hands.people.link(proposal.proposer_principal)
    if link is not None and approval.principal in load_declarers(tx, link):
        found.append(
            f"{approval.name}, who approved it, declared the identity of {proposal.proposer}"
        )
    found += [
        f"{person_name(tx, hand)} took part in creating the proposer's and the approver's keys"
        for hand in hands.of_both(proposal.proposer_key, approval.key)
    ]
    used = (
        ApiKeys(tx).find(proposal.proposer_key) if proposal.proposer_key is not None else None
    )
    if used is not None and approval.principal in load_key_creators(tx, used.id):
        age = _age(proposal.created_at, used.created_at)
        found.append(
            f"proposed with a key created {age} before by {_creator(tx, used)}, and "
            f"{approval.name}, who approved it, took part in creating that key"
        )
    return found


def _creator(tx: Transaction, key: ApiKey) -> str:
    return person_name(tx, key.created_by or "")


def _age(at: datetime, created_at: datetime) -> str:
    """Writes a duration in its largest whole unit, such as `3 days`."""
    seconds = max(0, round((at - created_at).total_seconds()))
    for unit, size in (
        ("day", 86_400),
        ("hour", 3_600),
        ("minute", 60),
    ):
        if seconds >= size:
            many = seconds // size
            return f"{many} {unit}{'s' if many != 1 else ''}"
    return f"{seconds} second{'s' if seconds != 1 else ''}"
