"""Tables of proposals, verdicts, approvals, rollouts and rounds of candidates."""

import math
from dataclasses import asdict
from typing import Final, cast

import sqlalchemy as sa

from harness.domain.canary.rollout import LIVE_STATES, Rollout, RolloutState
from harness.domain.evals.suite_plan import Claim
from harness.domain.evals.verdict import VERDICTS, BaseVerdict, SuiteReport, Verdict
from harness.domain.proposals.proposal import (
    OPEN_PHASES,
    PAST_GATE_PHASES,
    Approval,
    ApprovalKind,
    Proposal,
    ProposalPhase,
)
from harness.domain.routing.candidate_schedule import CandidateRound, OnBetter
from harness.store.schema.columns import (
    FreeText,
    Json,
    Row,
    Values,
    added_count,
    at_least,
    index_where,
    not_blank,
    one_of,
    text,
    unique_where,
)
from harness.store.schema.evals import target
from harness.store.schema.stored_row import record, record_of, values_of

OPEN_PHASE_VALUES = tuple(phase.value for phase in ProposalPhase if phase in OPEN_PHASES)
DECIDED_PHASE_VALUES = tuple(p.value for p in ProposalPhase if p not in OPEN_PHASES)
PAST_GATE_VALUES = tuple(phase.value for phase in ProposalPhase if phase in PAST_GATE_PHASES)
LIVE_STATE_VALUES = tuple(state.value for state in RolloutState if state in LIVE_STATES)
# Columns that never change after the row was written; a proposal's `plans` have a rule of their
# own.
PROPOSAL_REGISTERED = (
    *("id", "route", "incumbent", "candidate", "claim", "proposer", "policy", "self_approval"),
    *("created_at", "on_better", "widened"),
)
ROLLOUT_REGISTERED = (
    *("id", "proposal", "route", "incumbent", "candidate", "verdict", "policy", "salt"),
    "started_at",
)


def _among(column: str, values: tuple[str, ...]) -> sa.TextClause:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.text(f"{column} IN ({listed})")


def change_reference() -> sa.Column[str]:
    return sa.Column("change_reference", FreeText, nullable=False, server_default="")


# Literal values, so that the planner finds the partial index with the same condition.
HAS_NOT_ENDED: sa.ColumnElement[bool] = sa.column("phase").not_in(
    [sa.literal_column(f"'{value}'") for value in DECIDED_PHASE_VALUES]
)
IS_BAKING = sa.text("bake_ends_at IS NOT NULL")

# Route, targets, claim, proposer and policy never change (trigger).
PROPOSAL: Final = record(
    Proposal,
    "proposal",
    sa.Column("self_approval", sa.Boolean, nullable=False),
    sa.Column("widened", Json, nullable=False, server_default="{}"),
    sa.Column("proposer_principal", FreeText, nullable=False, server_default=""),
    sa.Column("selection", FreeText, nullable=False, server_default=""),
    added_count("place"),
    change_reference(),
    one_of("claim", Claim),
    one_of("phase", ProposalPhase),
    one_of("on_better", OnBetter),
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
    refers={"incumbent": target, "candidate": target},
    signed=True,
    free="reason closed_because",
    also=lambda one: {"self_approval": one.self_approval},
)
proposal = PROPOSAL.table


def _read_verdict(row: Row) -> Verdict:
    return record_of(VERDICTS[row.outcome], row, verdict)


# Append-only (trigger).
VERDICT: Final = record(
    cast("type[Verdict]", BaseVerdict),
    "verdict",
    text("proposal"),
    text("outcome"),
    one_of("outcome", VERDICTS),
    # The foreign keys of evidence and route_version refer to the whole proof.
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
    refers={"proposal": "proposal", "incumbent": target, "candidate": target},
    signed=True,
    free="reason",
    without="words",
    read=_read_verdict,
)
verdict = VERDICT.table

# Append-only (trigger).
APPROVAL: Final = record(
    Approval,
    "approval",
    # key: NULL for the local operator.
    sa.Column("widened", Json, nullable=False, server_default="{}"),
    change_reference(),
    one_of("kind", ApprovalKind),
    not_blank("principal"),
    not_blank("name"),
    sa.Index("ix_approval_proposal", "proposal", "at"),
    sa.Index("ix_approval_verdict", "verdict"),
    refers={"proposal": proposal, "verdict": verdict, "key": "api_key"},
    signed=True,
    free="principal name reason",
)
approval = APPROVAL.table

ROLLOUT: Final = record(
    Rollout,
    "rollout",
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
    refers={
        "proposal": "proposal",
        "incumbent": target,
        "candidate": target,
        "verdict": verdict,
    },
    signed=True,
    free="ended_because",
)
rollout = ROLLOUT.table


# One round for a route and a time, whichever control process begins it.
CANDIDATE_ROUND: Final = record(
    CandidateRound,
    "candidate_round",
    sa.UniqueConstraint("route", "due_at"),
    refers={"incumbent": target},
    free="because",
)
candidate_round = CANDIDATE_ROUND.table


def verdict_to_row(verdict_: Verdict, proposal: str) -> Values:
    suites = [_report(report) for report in verdict_.suites]
    return values_of(
        verdict_, verdict, proposal=proposal, outcome=verdict_.outcome, suites=suites
    )


def _report(report: SuiteReport) -> Values:
    """JSON has no infinity, and the evidence against a certain loser is infinite."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(report).items()
    }
