"""Ends proposals before their canary, and finds why a proposal no longer fits its route."""

from harness.evals.proof_validity import ProofValidity
from harness.frame.people.access import SYSTEM
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.gate.online.rollout import rollout_id
from harness.gate.verdict import Verdict
from harness.proposals import eval_queue, route_rules
from harness.proposals.context import ProposalsContext
from harness.routing.proposal import Proposal, ProposalEvent, apply_event
from harness.routing.records.proposals import Proposals
from harness.routing.records.routes import Routing

_INCUMBENT_CHANGED = (
    "somebody changed the route's incumbent: this proof compares with the former one"
)
_CANARY_IN_HISTORY = (
    "the route's signed history already has this proposal's canary: the stored proposal is an "
    "older copy"
)


def describe_base_change(tx: Transaction, proposal: Proposal) -> str:
    """Returns the reason why the verdict's comparison no longer fits the route; empty if it
    fits.

    The second reason protects against a restored backup: a canary in the signed history must
    not start again.
    """
    route = Routing(tx).route(proposal.route)
    if route is None or route.incumbent != proposal.incumbent:
        return _INCUMBENT_CHANGED
    had_canary = Routing(tx).has_had_rollout(proposal.route, rollout_id(proposal.id))
    return _CANARY_IN_HISTORY if had_canary else ""


def describe_rule_differences(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
) -> str:
    """Describes the differences between the proposal's rules and the route's present rules;
    else empty.
    """
    rule_differences = route_rules.list_rule_differences(ctx, tx, proposal)
    return (
        f"{route_rules.OTHER_RULES} ({'; '.join(rule_differences)}): propose again"
        if rule_differences
        else ""
    )


def describe_invalid_proof(verdict: Verdict, validity: ProofValidity) -> str:
    return f"verdict {verdict.id} is {validity.proof.value}: {validity.why}; propose again"


def reject_in_transaction(
    ctx: ProposalsContext,
    proposal: Proposal,
    event: ProposalEvent,
    reason: str,
) -> list[str]:
    with ctx.store.write() as tx:
        return reject(ctx, tx, proposal, event, reason)


def reject(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
    event: ProposalEvent,
    reason: str,
) -> list[str]:
    """Ends the proposal, stops the runs that no other proposal needs, and writes the audit
    event.
    """
    saved = Proposals(tx).save(apply_event(proposal, event, ctx.clock.now(), reason))
    eval_queue.stop_unneeded_runs(ctx, tx, saved)
    record_step(tx, saved, f"proposal.{event.value}", {"reason": reason})
    return [f"{proposal.id}: {saved.phase.value}: {reason}"]


def record_step(
    tx: Transaction,
    proposal: Proposal,
    action: str,
    details: dict[str, object],
) -> None:
    AuditLog(tx).append(
        SYSTEM,
        action,
        f"proposal {proposal.id}",
        {"route": proposal.route, **details},
    )
