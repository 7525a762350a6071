"""Tables of proposals, verdicts, approvals and rollouts, which of their columns never change
once registered, and their rows as domain objects and back. Unique indexes: one open proposal
per route and place in a selection, one past the gate and one live rollout per route.
"""

from dataclasses import asdict
from typing import Final

import sqlalchemy as sa

from harness.domain.canary.rollout import LIVE_STATES, Rollout, RolloutState
from harness.domain.evals.suite_plan import Claim, plan_from_json
from harness.domain.evals.verdict import VERDICTS, Verdict
from harness.domain.proposals.proposal import (
    OPEN_PHASES,
    PAST_GATE_PHASES,
    Approval,
    ApprovalKind,
    Proposal,
    ProposalPhase,
    SuiteRuns,
)
from harness.store.schema import policies
from harness.store.schema.columns import (
    FreeText,
    Json,
    Row,
    Values,
    added_count,
    at_least,
    count,
    free_text,
    index_where,
    json_value,
    metadata,
    not_blank,
    one_of,
    record_of,
    signature,
    text,
    time,
    unique_where,
    values_of,
)
from harness.store.schema.evals import target
from harness.store.schema.stored_row import Record, parse_json, plain_values

OPEN_PHASE_VALUES = tuple(phase.value for phase in ProposalPhase if phase in OPEN_PHASES)
DECIDED_PHASE_VALUES = tuple(p.value for p in ProposalPhase if p not in OPEN_PHASES)
PAST_GATE_VALUES = tuple(phase.value for phase in ProposalPhase if phase in PAST_GATE_PHASES)
LIVE_STATE_VALUES = tuple(state.value for state in RolloutState if state in LIVE_STATES)
# Columns that never change after the row was written; a proposal's `plans` and `widened` have
# rules of their own.
PROPOSAL_REGISTERED = (
    "id",
    "route",
    "incumbent",
    "candidate",
    "claim",
    "proposer",
    "policy",
    "self_approval",
    "created_at",
)
ROLLOUT_REGISTERED = (
    "id",
    "proposal",
    "route",
    "incumbent",
    "candidate",
    "verdict",
    "policy",
    "salt",
    "started_at",
)


def _among(column: str, values: tuple[str, ...]) -> sa.TextClause:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.text(f"{column} IN ({listed})")


def change_reference() -> sa.Column[str]:
    return sa.Column("change_reference", FreeText, nullable=False, server_default="")


# The values are no parameters, or the condition would not be known for that of the index.
HAS_NOT_ENDED: sa.ColumnElement[bool] = sa.column("phase").not_in(
    [sa.literal_column(f"'{value}'") for value in DECIDED_PHASE_VALUES]
)
IS_BAKING = sa.text("bake_ends_at IS NOT NULL")

# What was registered never changes: route, targets, claim, proposer, policy (trigger).
proposal = sa.Table(
    "proposal",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    text("route"),
    sa.Column("incumbent", sa.ForeignKey(target.c.id), nullable=False),
    sa.Column("candidate", sa.ForeignKey(target.c.id), nullable=False),
    text("claim"),
    free_text("reason"),
    text("proposer"),
    json_value("policy"),
    sa.Column("self_approval", sa.Boolean, nullable=False),
    json_value("plans"),
    text("phase"),
    time("created_at"),
    time("updated_at"),
    json_value("runs"),
    text("verdict", nullable=True),
    text("rollout", nullable=True),
    count("infra_errors"),
    time("retry_at", nullable=True),
    text("approver", nullable=True),
    text("approved_verdict", nullable=True),
    free_text("closed_because"),
    count("version"),
    sa.Column("widened", Json, nullable=False, server_default="{}"),
    sa.Column("proposer_principal", FreeText, nullable=False, server_default=""),
    text("proposer_key", nullable=True),
    sa.Column("selection", FreeText, nullable=False, server_default=""),
    added_count("place"),
    change_reference(),
    signature(),
    one_of("claim", Claim),
    one_of("phase", ProposalPhase),
    not_blank("proposer"),
    at_least("infra_errors", 0),
    at_least("version", 1),
    sa.CheckConstraint(
        "approver IS NULL OR approver <> proposer OR self_approval", name="four_eyes"
    ),
    unique_where(
        "ux_proposal_open_route", _among("phase", OPEN_PHASE_VALUES), "route", "place"
    ),
    unique_where("ux_proposal_past_gate", _among("phase", PAST_GATE_VALUES), "route"),
    index_where("ix_proposal_open", HAS_NOT_ENDED, "created_at", "id"),
    sa.Index("ix_proposal_selection", "selection"),
    sa.Index("ix_proposal_created_at", "created_at", "id"),
    sa.Index("ix_proposal_phase", "phase"),
    sa.Index("ix_proposal_route", "route", "created_at"),
    sa.Index("ix_proposal_candidate", "candidate"),
)

# Append-only (trigger).
verdict = sa.Table(
    "verdict",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("proposal", sa.ForeignKey(proposal.c.id), nullable=False),
    text("route"),
    sa.Column("incumbent", sa.ForeignKey(target.c.id), nullable=False),
    sa.Column("candidate", sa.ForeignKey(target.c.id), nullable=False),
    text("outcome"),
    free_text("reason"),
    json_value("suites"),
    json_value("inputs"),
    time("decided_at"),
    time("expires_at"),
    signature(),
    one_of("outcome", VERDICTS),
    # What the foreign keys of evidence and route_version point at: the proof as a whole.
    sa.UniqueConstraint(
        "id",
        "route",
        "incumbent",
        "candidate",
        "outcome",
        name="uq_verdict_proof",
    ),
    sa.Index("ix_verdict_proposal", "proposal"),
    sa.Index("ix_verdict_decided_at", "decided_at", "id"),
    sa.Index("ix_verdict_route", "route", "decided_at"),
)

# Append-only (trigger).
approval = sa.Table(
    "approval",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("proposal", sa.ForeignKey(proposal.c.id), nullable=False),
    sa.Column("verdict", sa.ForeignKey(verdict.c.id), nullable=True),
    text("kind"),
    free_text("principal"),
    free_text("name"),
    # NULL: the local operator.
    sa.Column("key", sa.ForeignKey("api_key.id"), nullable=True),
    free_text("reason"),
    sa.Column("widened", Json, nullable=False, server_default="{}"),
    time("at"),
    change_reference(),
    signature(),
    one_of("kind", ApprovalKind),
    not_blank("principal"),
    not_blank("name"),
    sa.Index("ix_approval_proposal", "proposal", "at"),
    sa.Index("ix_approval_verdict", "verdict"),
)

rollout = sa.Table(
    "rollout",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("proposal", sa.ForeignKey(proposal.c.id), nullable=False),
    text("route"),
    sa.Column("incumbent", sa.ForeignKey(target.c.id), nullable=False),
    sa.Column("candidate", sa.ForeignKey(target.c.id), nullable=False),
    sa.Column("verdict", sa.ForeignKey(verdict.c.id), nullable=False),
    json_value("policy"),
    text("salt"),
    count("step"),
    text("state"),
    time("started_at"),
    time("step_started_at"),
    time("updated_at"),
    free_text("ended_because"),
    count("version"),
    time("bake_ends_at", nullable=True),
    signature(),
    one_of("state", RolloutState),
    at_least("step", 0),
    at_least("version", 1),
    unique_where("ux_rollout_live_route", _among("state", LIVE_STATE_VALUES), "route"),
    sa.Index("ix_rollout_state", "state"),
    sa.Index("ix_rollout_route", "route", "started_at"),
    sa.Index("ix_rollout_proposal", "proposal"),
    sa.Index("ix_rollout_started_at", "started_at", "id"),
    sa.Index("ix_rollout_candidate", "candidate", "started_at"),
    index_where("ix_rollout_baking", IS_BAKING, "state", "started_at", "id"),
)


def proposal_to_row(proposal: Proposal) -> Values:
    return values_of(
        proposal,
        policy=proposal.policy.as_json(),
        self_approval=proposal.self_approval,
        plans=[plan.as_json() for plan in proposal.plans],
        runs={suite: asdict(pair) for suite, pair in proposal.runs.items()},
        widened=dict(proposal.widened),
    )


def proposal_from_row(row: Row) -> Proposal:
    values = plain_values(row, "self_approval", "policy")
    values |= {
        "claim": Claim(row.claim),
        "policy": parse_json(row, "policy", policies.policy_from_json),
        "plans": tuple(map(plan_from_json, row.plans)),
        "phase": ProposalPhase(row.phase),
        "runs": {suite: SuiteRuns(**pair) for suite, pair in row.runs.items()},
    }
    return Proposal(**values)


def verdict_to_row(verdict: Verdict, proposal: str) -> Values:
    return values_of(
        verdict,
        proposal=proposal,
        outcome=verdict.outcome,
        suites=policies.reports_to_json(verdict.suites),
        inputs=dict(verdict.inputs),
    )


def verdict_from_row(row: Row) -> Verdict:
    suites = policies.reports_from_json(row.suites)
    return record_of(VERDICTS[row.outcome], row, suites=suites)


def approval_to_row(approval: Approval) -> Values:
    return values_of(approval, widened=dict(approval.widened))


def rollout_to_row(rollout: Rollout) -> Values:
    return values_of(rollout, policy=rollout.policy.as_json())


def rollout_from_row(row: Row) -> Rollout:
    values = plain_values(row, "policy")
    values |= {
        "policy": parse_json(row, "policy", policies.canary_policy_from_json),
        "state": RolloutState(row.state),
    }
    return Rollout(**values)


APPROVAL: Final = Record.by_fields(approval, Approval, approval_to_row)
PROPOSAL: Final = Record(proposal, proposal_from_row, proposal_to_row)
ROLLOUT: Final = Record(rollout, rollout_from_row, rollout_to_row)
VERDICT: Final = Record(verdict, verdict_from_row)
