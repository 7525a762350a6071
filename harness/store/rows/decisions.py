"""Converts proposals, verdicts, approvals and rollouts to column values and back."""

from dataclasses import asdict

from harness.domain.canary.rollout import Rollout, RolloutState
from harness.domain.evals.run import VERDICTS, Claim, Verdict
from harness.domain.proposals.proposal import (
    Approval,
    ApprovalKind,
    Proposal,
    ProposalPhase,
    SuiteRuns,
)
from harness.store.rows import Row, Values, plain
from harness.store.schema import policies


def proposal_to_row(proposal: Proposal) -> Values:
    return {
        "id": proposal.id,
        "route": proposal.route,
        "incumbent": proposal.incumbent,
        "candidate": proposal.candidate,
        "claim": proposal.claim.value,
        "reason": proposal.reason,
        "proposer": proposal.proposer,
        "policy": proposal.policy.as_json(),
        "self_approval": proposal.self_approval,
        "plans": [plan.as_json() for plan in proposal.plans],
        "phase": proposal.phase.value,
        "created_at": proposal.created_at,
        "updated_at": proposal.updated_at,
        "runs": {suite: asdict(pair) for suite, pair in proposal.runs.items()},
        "verdict": proposal.verdict,
        "rollout": proposal.rollout,
        "infra_errors": proposal.infra_errors,
        "retry_at": proposal.retry_at,
        "approver": proposal.approver,
        "approved_verdict": proposal.approved_verdict,
        "closed_because": proposal.closed_because,
        "version": proposal.version,
        "widened": dict(proposal.widened),
        "proposer_principal": proposal.proposer_principal,
        "proposer_key": proposal.proposer_key,
    }


def proposal_from_row(row: Row) -> Proposal:
    values = plain(row, "self_approval")
    values |= {
        "claim": Claim(row.claim),
        "policy": policies.policy_from_json(row.policy),
        "plans": tuple(policies.plan(plan) for plan in row.plans),
        "phase": ProposalPhase(row.phase),
        "runs": {suite: SuiteRuns(**pair) for suite, pair in row.runs.items()},
    }
    return Proposal(**values)


def verdict_to_row(verdict: Verdict, proposal: str) -> Values:
    return {
        "id": verdict.id,
        "proposal": proposal,
        "route": verdict.route,
        "incumbent": verdict.incumbent,
        "candidate": verdict.candidate,
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "suites": policies.reports_to_json(verdict.suites),
        "inputs": dict(verdict.inputs),
        "decided_at": verdict.decided_at,
        "expires_at": verdict.expires_at,
    }


def verdict_from_row(row: Row) -> Verdict:
    return VERDICTS[row.outcome](
        id=row.id,
        route=row.route,
        incumbent=row.incumbent,
        candidate=row.candidate,
        reason=row.reason,
        suites=policies.reports_from_json(row.suites),
        inputs=row.inputs,
        decided_at=row.decided_at,
        expires_at=row.expires_at,
    )


def approval_to_row(approval: Approval) -> Values:
    return {
        **{name: getattr(approval, name) for name in approval.__slots__},
        "kind": approval.kind.value,
        "widened": dict(approval.widened),
    }


def approval_from_row(row: Row) -> Approval:
    return Approval(**plain(row) | {"kind": ApprovalKind(row.kind)})


def rollout_to_row(rollout: Rollout) -> Values:
    return {
        **{name: getattr(rollout, name) for name in rollout.__dataclass_fields__},
        "policy": asdict(rollout.policy),
        "state": rollout.state.value,
    }


def rollout_from_row(row: Row) -> Rollout:
    values = plain(row)
    values |= {
        "policy": policies.canary_policy_from_json(row.policy),
        "state": RolloutState(row.state),
    }
    return Rollout(**values)
