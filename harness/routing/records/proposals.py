"""Records of proposals, rollouts, approvals and candidate rounds. `save` refuses a record that
another process changed meanwhile, so that two processes never move one rollout.

The registered columns never change: both the code and triggers refuse a change.
`harness.routing.proposal` and `harness.gate.online.rollout` move the states; this module only
stores them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from harness.frame.errors import (
    InputError,
    ProofRefused,
    RouteBusy,
    StaleWrite,
)
from harness.frame.pagination import MOST_LISTED
from harness.frame.records.columns import (
    FreeText,
    Json,
    Values,
    added_count,
    at_least,
    index_where,
    not_blank,
    one_of,
    unique_where,
)
from harness.frame.records.record import record
from harness.frame.records.repository import Records, given, newest
from harness.frame.records.signed_tables import stored_columns
from harness.frame.records.transaction import RowRefused
from harness.gate.online.rollout import LIVE_STATES, Rollout, RolloutState
from harness.gate.suite_plan import Claim
from harness.providers.records import target
from harness.routing.candidate_schedule import CandidateRound, OnBetter
from harness.routing.proposal import (
    OPEN_PHASES,
    PAST_GATE_PHASES,
    PROPOSAL_TEXTS,
    Approval,
    ApprovalKind,
    Proposal,
    ProposalPhase,
)
from harness.routing.records.verdicts import verdict

OPEN_PHASE_VALUES = tuple(phase.value for phase in ProposalPhase if phase in OPEN_PHASES)

DECIDED_PHASE_VALUES = tuple(p.value for p in ProposalPhase if p not in OPEN_PHASES)

PAST_GATE_VALUES = tuple(phase.value for phase in ProposalPhase if phase in PAST_GATE_PHASES)

# Columns that never change after the row is written. A separate rule protects `plans`.
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
    "on_better",
    "widened",
)


def _among(column: str, values: tuple[str, ...]) -> sa.TextClause:
    literals = ", ".join(f"'{value}'" for value in values)
    return sa.text(f"{column} IN ({literals})")


def added_text(name: str) -> sa.Column[str]:
    """Builds a text column. Older databases get it with an empty value."""
    return sa.Column(
        name,
        FreeText,
        nullable=False,
        server_default="",
    )


# With literal values, so that the condition matches that of the partial index.
HAS_NOT_ENDED: sa.ColumnElement[bool] = sa.column("phase").not_in(
    [sa.literal_column(f"'{value}'") for value in DECIDED_PHASE_VALUES]
)

# Route, targets, claim, proposer and policy never change (trigger).
PROPOSAL: Final = record(
    Proposal,
    "proposal",
    sa.Column("self_approval", sa.Boolean, nullable=False),
    sa.Column(
        "widened",
        Json,
        nullable=False,
        server_default="{}",
    ),
    *map(added_text, ("proposer_principal", "selection", *PROPOSAL_TEXTS)),
    added_count("place"),
    one_of("claim", Claim),
    one_of("phase", ProposalPhase),
    one_of("on_better", OnBetter),
    not_blank("proposer"),
    at_least("infra_errors", 0),
    at_least("version", 1),
    sa.CheckConstraint(
        "approver IS NULL OR approver <> proposer OR self_approval",
        name="four_eyes",
    ),
    unique_where(
        "ux_proposal_open_route",
        _among("phase", OPEN_PHASE_VALUES),
        "route",
        "place",
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
    also=lambda new: {"self_approval": new.self_approval},
)

proposal = PROPOSAL.table

# Append-only (trigger).
APPROVAL: Final = record(
    Approval,
    "approval",
    sa.Column(
        "widened",
        Json,
        nullable=False,
        server_default="{}",
    ),
    added_text("change_reference"),
    one_of("kind", ApprovalKind),
    not_blank("principal"),
    not_blank("name"),
    sa.Index("ix_approval_proposal", "proposal", "at"),
    sa.Index("ix_approval_verdict", "verdict"),
    refers={
        "proposal": proposal,
        "verdict": verdict,
        "key": "api_key",
    },
    signed=True,
)

approval = APPROVAL.table

# The key allows one round for each route and time, even if several control processes begin it.
CANDIDATE_ROUND: Final = record(
    CandidateRound,
    "candidate_round",
    sa.UniqueConstraint("route", "due_at"),
    refers={"incumbent": target},
)

candidate_round = CANDIDATE_ROUND.table

OPEN = (
    sa.select(*stored_columns(proposal))
    .where(HAS_NOT_ENDED)
    .order_by(proposal.c.created_at, proposal.c.id)
)

PHASES = sa.select(proposal.c.phase, sa.func.count().label("n")).group_by(proposal.c.phase)

OPEN_ON_ROUTE = sa.select(proposal.c.id).where(
    HAS_NOT_ENDED, proposal.c.route == sa.bindparam("route")
)

WAS_APPROVED_OR_STARTED = proposal.c.approver.is_not(None) | proposal.c.rollout.is_not(None)

MAX_COMPARED: Final = 20  # proposals with which a new proposal's suites are compared


def _is_unchanged(table: sa.Table, record: Proposal | Rollout) -> sa.ColumnElement[bool]:
    """Returns the condition that a row still has the loaded version."""
    return sa.and_(table.c.id == record.id, table.c.version == record.version)


def _without(values: Values, names: Collection[str]) -> Values:
    return {name: value for name, value in values.items() if name not in names}


class Proposals(Records[Proposal]):
    record = PROPOSAL
    order = (proposal.c.created_at.desc(), proposal.c.id.desc())
    missing = "there is no proposal {}; `swapproof proposal list` shows them"

    def add(self, new: Proposal) -> None:
        """Adds a proposal. Raises RouteBusy if the route has an open proposal."""
        self._tx.serialize()
        try:
            with self._tx.attempt():
                super().add(new)
        except RowRefused as error:
            open_ = self._tx.read(OPEN_ON_ROUTE, {"route": new.route}).scalar()
            if open_ is None or not new.open:
                raise
            raise RouteBusy(
                f"route {new.route!r} has the open proposal {open_}: wait for its end or "
                f"cancel it with `swapproof proposal cancel {open_}`"
            ) from error

    def save(self, changed: Proposal) -> Proposal:
        """Stores a moved proposal with the next version number, and returns it.

        Raises StaleWrite if another process saved it since it was loaded, InputError if a
        registered field differs.
        """
        self._tx.serialize()
        stored = self.get(changed.id)
        if stored.version != changed.version:
            raise _stale_write("proposal", changed, stored)
        saved = replace(changed, version=changed.version + 1)
        fixed_plans = () if stored.phase is ProposalPhase.PROPOSED else ("plans",)
        fixed_columns = (*PROPOSAL_REGISTERED, *fixed_plans)
        if self.record.only(stored, *fixed_columns) != self.record.only(saved, *fixed_columns):
            raise InputError(
                f"proposal {changed.id}: its registered fields cannot change; cancel it and "
                "propose again"
            )
        values = _without(self.record.write(saved), fixed_columns)
        if not self._tx.amend(proposal, _is_unchanged(proposal, changed), values):
            raise _stale_write("proposal", changed, stored)
        return saved

    def open(self, *, route: str | None = None) -> Sequence[Proposal]:
        """Lists open proposals, oldest first, without forged rows."""
        query = OPEN if route is None else OPEN.where(proposal.c.route == route)
        return self._trusted(self._tx.read_stored(proposal, query))

    def list(
        self,
        *,
        route: str | None = None,
        open_only: bool = False,
        limit: int = MOST_LISTED,
        after: str | None = None,
    ) -> Sequence[Proposal]:
        """Lists proposals.

        Args:
            after: the id of the previous page's last proposal.
        """
        order = newest(proposal.c.created_at, proposal.c.id)
        conditions = (
            HAS_NOT_ENDED if open_only else None,
            given(proposal.c.route, route),
            None if after is None else order.behind(self._tx, after),
        )
        return self._all(self._select(*conditions).limit(limit))

    def phases(self) -> Mapping[ProposalPhase, int]:
        """Counts the proposals in each phase, including forged rows."""
        known_phases = set(ProposalPhase)
        counts = self._tx.read(PHASES)
        return {ProposalPhase(row.phase): row.n for row in counts if row.phase in known_phases}

    def of_pair(
        self,
        route: str,
        incumbent: str,
        candidate: str,
    ) -> Sequence[Proposal]:
        """Lists proposals that compare these two targets on a route, newest first."""
        pair = (
            proposal.c.incumbent == incumbent,
            proposal.c.candidate == candidate,
        )
        return self._all(self._select(proposal.c.route == route, *pair))

    def since(self, route: str, at: datetime) -> Sequence[Proposal]:
        """Lists a route's proposals since a moment, newest first."""
        return self._all(self._select(proposal.c.route == route, proposal.c.created_at >= at))

    def approved_or_started(self, route: str) -> Sequence[Proposal]:
        """Lists the last 20 proposals that were approved or had a canary."""
        return self._all(
            self._select(proposal.c.route == route, WAS_APPROVED_OR_STARTED).limit(MAX_COMPARED)
        )

    def of_selection(self, selection: str) -> Sequence[Proposal]:
        """Lists a selection's proposals by their place."""
        members = self._all(self._select(proposal.c.selection == selection))
        return sorted(members, key=lambda member: member.place)

    def of_candidates(self, targets: Collection[str]) -> Sequence[Proposal]:
        """Lists proposals of these candidates on any route, newest first."""
        return self._all(self._select(proposal.c.candidate.in_(sorted(targets))))

    def of_slices(
        self, targets: Collection[str], whole_proposals: Collection[str]
    ) -> Sequence[Proposal]:
        """Lists the slices' proposals that were registered with these proposals for whole
        routes.

        Args:
            targets: the candidates of these proposals.
        """
        return [
            member
            for member in self.of_candidates(targets)
            if (terms := member.slice_terms) is not None and terms.proposal in whole_proposals
        ]


class Approvals(Records[Approval]):
    record = APPROVAL
    order = (approval.c.at, approval.c.id)

    def for_proposal(self, proposal_: str) -> Sequence[Approval]:
        """Lists a proposal's approvals, oldest first."""
        return self._all(self._select(approval.c.proposal == proposal_))


class CandidateRounds(Records[CandidateRound]):
    record = CANDIDATE_ROUND
    order = (candidate_round.c.due_at.desc(), candidate_round.c.id)

    def begin(self, new: CandidateRound) -> bool:
        """Stores a round. Returns False if the route has a round for that time."""
        self._tx.serialize()
        return self._tx.write_new(candidate_round, CANDIDATE_ROUND.write(new))

    def newest(self, route: str, limit: int = 1) -> Sequence[CandidateRound]:
        """Lists a route's newest rounds, newest first."""
        return self._all(self._select(candidate_round.c.route == route).limit(limit))


def _stale_write(
    kind: str,
    loaded: Proposal | Rollout,
    stored: Proposal | Rollout,
) -> StaleWrite:
    """Builds the error for a record that another process has changed."""
    return StaleWrite(
        f"{kind} {loaded.id} is stored at version {stored.version}, not {loaded.version}: load "
        "it again, then decide"
    )


LIVE_STATE_VALUES = tuple(state.value for state in RolloutState if state in LIVE_STATES)

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

IS_BAKING = sa.text("bake_ends_at IS NOT NULL")

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
)

rollout = ROLLOUT.table

IS_LIVE = rollout.c.state.in_(LIVE_STATE_VALUES)

IS_IN_BAKE = sa.and_(
    rollout.c.state == RolloutState.PROMOTED,
    rollout.c.bake_ends_at.is_not(None),
)

_STORED = sa.select(*stored_columns(rollout)).order_by(rollout.c.started_at, rollout.c.id)

LIVE = _STORED.where(IS_LIVE)

BAKING = _STORED.where(IS_IN_BAKE)

LIVE_ON_ROUTE = sa.select(rollout.c.id).where(IS_LIVE, rollout.c.route == sa.bindparam("route"))


class Rollouts(Records[Rollout]):
    record = ROLLOUT
    order = (rollout.c.started_at.desc(), rollout.c.id.desc())
    missing = "there is no rollout {}"

    def add(self, new: Rollout) -> None:
        """Adds a rollout. Raises RouteBusy, or ProofRefused for a used verdict."""
        self._tx.serialize()
        try:
            with self._tx.attempt():
                super().add(new)
        except RowRefused as error:
            live = self._tx.read(LIVE_ON_ROUTE, {"route": new.route}).scalar()
            if live is not None and new.live:
                raise RouteBusy(
                    f"route {new.route!r} has the live rollout {live}: "
                    f"`swapproof canary abort {new.route} --reason …` ends it"
                ) from error
            if error.names("verdict_used"):
                raise ProofRefused(
                    f"verdict {new.verdict} was the proof of a rollout that has ended: propose "
                    "the candidate again, because it needs a new verdict"
                ) from error
            raise

    def save(self, changed: Rollout) -> Rollout:
        """Stores a moved rollout with the next version number, and returns it.

        Raises StaleWrite.
        """
        self._tx.serialize()
        saved = replace(changed, version=changed.version + 1)
        values = _without(self.record.write(saved), ROLLOUT_REGISTERED)
        if not self._tx.amend(rollout, _is_unchanged(rollout, changed), values):
            raise _stale_write("rollout", changed, self.get(changed.id))
        return saved

    def newest(self, route: str) -> Rollout | None:
        """Returns the route's newest rollout, live or ended; None without one."""
        row = self._newest(rollout.c.route, route)
        return None if row is None else self._verified([row])[0]

    def live(self, *, route: str | None = None) -> Sequence[Rollout]:
        """Lists rollouts whose canary is live, oldest first.

        Args:
            route: None for all.
        """
        return self._stored(LIVE, route)

    def baking(self, *, route: str | None = None) -> Sequence[Rollout]:
        """Lists the promoted rollouts whose bake still runs."""
        return self._stored(BAKING, route)

    def _stored(self, query: sa.Select[Any], route: str | None) -> "Sequence[Rollout]":
        if route is not None:
            query = query.where(rollout.c.route == route)
        return self._trusted(self._tx.read_stored(rollout, query))

    def list(
        self,
        *,
        route: str | None = None,
        candidate: str | None = None,
        limit: int = MOST_LISTED,
    ) -> Sequence[Rollout]:
        """Lists rollouts, newest first.

        Args:
            route: None for all.
            candidate: None for all.
        """
        conditions = (
            given(rollout.c.route, route),
            given(rollout.c.candidate, candidate),
        )
        return self._all(self._select(*conditions).limit(limit))
