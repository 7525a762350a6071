"""Stores proposals, approvals, verdicts and rollouts. A save of a version that somebody else
changed since is refused.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from harness.domain.canary.rollout import Rollout, RolloutState
from harness.domain.errors import Conflict, InputError, ProofRefused, RouteBusy, StaleWrite
from harness.domain.evals.verdict import Verdict
from harness.domain.pagination import MOST_LISTED
from harness.domain.proposals.proposal import Approval, Proposal, ProposalPhase
from harness.domain.routing.candidate_schedule import CandidateRound
from harness.store.database_errors import RowRefused
from harness.store.schema.columns import Row, Values
from harness.store.schema.proposals import (
    APPROVAL,
    CANDIDATE_ROUND,
    HAS_NOT_ENDED,
    LIVE_STATE_VALUES,
    PROPOSAL,
    PROPOSAL_REGISTERED,
    ROLLOUT,
    ROLLOUT_REGISTERED,
    VERDICT,
    approval,
    candidate_round,
    proposal,
    rollout,
    verdict,
    verdict_to_row,
)
from harness.store.schema.stored_row import stored_columns
from harness.store.sql.pages import given, newest
from harness.store.sql.preload import row_key
from harness.store.sql.records import Records

OPEN = (
    sa.select(*stored_columns(proposal))
    .where(HAS_NOT_ENDED)
    .order_by(proposal.c.created_at, proposal.c.id)
)
PHASES = sa.select(proposal.c.phase, sa.func.count().label("n")).group_by(proposal.c.phase)
OPEN_ON_ROUTE = sa.select(proposal.c.id).where(
    HAS_NOT_ENDED, proposal.c.route == sa.bindparam("route")
)
WAS_LET_IN = proposal.c.approver.is_not(None) | proposal.c.rollout.is_not(None)
IS_LIVE = rollout.c.state.in_(LIVE_STATE_VALUES)
_STORED = sa.select(*stored_columns(rollout)).order_by(rollout.c.started_at, rollout.c.id)
LIVE = _STORED.where(IS_LIVE)
BAKING = _STORED.where(
    rollout.c.state == RolloutState.PROMOTED, rollout.c.bake_ends_at.is_not(None)
)
LIVE_ON_ROUTE = sa.select(rollout.c.id).where(IS_LIVE, rollout.c.route == sa.bindparam("route"))


MOST_LET_IN: Final = 20  # proposals that a new one's suites are compared with


def _unchanged(table: sa.Table, record: Proposal | Rollout) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.id == record.id, table.c.version == record.version)


def _without(values: Values, names: Collection[str]) -> Values:
    return {name: value for name, value in values.items() if name not in names}


class Proposals(Records[Proposal]):
    record = PROPOSAL
    order = (proposal.c.created_at.desc(), proposal.c.id.desc())
    missing = "there is no proposal {}; `swapgate proposal list` shows them"

    def add(self, new: Proposal) -> None:
        """Adds a proposal. Raises RouteBusy, which names the route's open one."""
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
                f"cancel it with `swapgate proposal cancel {open_}`"
            ) from error

    def save(self, changed: Proposal) -> Proposal:
        self._tx.serialize()
        found = self.get(changed.id)
        if found.version != changed.version:
            raise _stale("proposal", changed, found)
        saved = replace(changed, version=changed.version + 1)
        planned = () if found.phase is ProposalPhase.PROPOSED else ("plans",)
        fixed = (*PROPOSAL_REGISTERED, *planned)
        if self.record.only(found, *fixed) != self.record.only(saved, *fixed):
            raise InputError(
                f"proposal {changed.id}: what was registered cannot change; cancel it and "
                "propose again"
            )
        values = _without(self.record.write(saved), fixed)
        if not self._tx.amend(proposal, _unchanged(proposal, changed), values):
            raise _stale("proposal", changed, found)
        return saved

    def open(self, *, route: str | None = None) -> Sequence[Proposal]:
        query = OPEN if route is None else OPEN.where(proposal.c.route == route)
        return self._believed(self._tx.read_stored(proposal, query))

    def list(
        self,
        *,
        route: str | None = None,
        open_only: bool = False,
        limit: int = MOST_LISTED,
        after: str | None = None,
    ) -> Sequence[Proposal]:
        """Lists the proposals. after: the id of the last one of the page before."""
        order = newest(proposal.c.created_at, proposal.c.id)
        where = (
            HAS_NOT_ENDED if open_only else None,
            given(proposal.c.route, route),
            None if after is None else order.behind(self._tx, after),
        )
        return self._all(self._select(*where).limit(limit))

    def phases(self) -> Mapping[ProposalPhase, int]:
        """Counts the proposals in each phase; forged rows count as well."""
        known = set(ProposalPhase)
        counts = self._tx.read(PHASES)
        return {ProposalPhase(row.phase): row.n for row in counts if row.phase in known}

    def of_pair(self, route: str, incumbent: str, candidate: str) -> Sequence[Proposal]:
        pair = (proposal.c.incumbent == incumbent, proposal.c.candidate == candidate)
        return self._all(self._select(proposal.c.route == route, *pair))

    def since(self, route: str, at: datetime) -> Sequence[Proposal]:
        return self._all(self._select(proposal.c.route == route, proposal.c.created_at >= at))

    def let_in(self, route: str) -> Sequence[Proposal]:
        """Lists the last 20 proposals that a person approved or that had a canary."""
        return self._all(self._select(proposal.c.route == route, WAS_LET_IN).limit(MOST_LET_IN))

    def of_selection(self, selection: str) -> Sequence[Proposal]:
        """Lists a selection's proposals in the order in which they were named."""
        found = self._all(self._select(proposal.c.selection == selection))
        return sorted(found, key=lambda member: member.place)

    def of_candidates(self, targets: Collection[str]) -> Sequence[Proposal]:
        return self._all(self._select(proposal.c.candidate.in_(sorted(targets))))


class Approvals(Records[Approval]):
    record = APPROVAL
    order = (approval.c.at, approval.c.id)

    def for_proposal(self, proposal_: str) -> Sequence[Approval]:
        return self._all(self._select(approval.c.proposal == proposal_))


class Verdicts(Records[Verdict]):
    record = VERDICT
    order = (verdict.c.decided_at.desc(), verdict.c.id.desc())
    missing = "there is no verdict {}"

    def store(self, new: Verdict, proposal_: str) -> None:
        self._tx.serialize()
        if self._is_stored(new.id):
            raise Conflict(f"verdict {new.id} is stored already: verdicts never change")
        self._tx.insert(verdict, verdict_to_row(new, proposal_))

    def get(self, id_: str) -> Verdict:
        return self._verified([self._row(id_)])[0]

    def _row(self, id_: str) -> Row:
        def read() -> Row | None:
            return self._tx.read(self._select(self._is(id_))).first()

        row = self._tx.once(row_key(verdict, id_), read)
        if row is None:
            raise self._missing(id_)
        return row

    def newest(self, route: str) -> Verdict | None:
        row = self._newest(verdict.c.route, route)
        if row is None:
            return None
        self._tx.keep(row_key(verdict, row.id), row)
        return self._verified([row])[0]

    def for_proposal(self, proposal_: str) -> Sequence[Verdict]:
        return self._all(self._select(verdict.c.proposal == proposal_))

    def proposal_of(self, verdict_: str) -> str:
        """Returns the id of the proposal that a verdict is of. Raises NotFound."""
        return str(self._row(verdict_).proposal)

    def list(self, *, route: str | None = None, limit: int = MOST_LISTED) -> Sequence[Verdict]:
        return self._all(self._select(given(verdict.c.route, route)).limit(limit))


class Rollouts(Records[Rollout]):
    record = ROLLOUT
    order = (rollout.c.started_at.desc(), rollout.c.id.desc())
    missing = "there is no rollout {}"

    def add(self, new: Rollout) -> None:
        """Adds a rollout. Raises RouteBusy, and ProofRefused for a verdict that was used."""
        self._tx.serialize()
        try:
            with self._tx.attempt():
                super().add(new)
        except RowRefused as error:
            live = self._tx.read(LIVE_ON_ROUTE, {"route": new.route}).scalar()
            if live is not None and new.live:
                raise RouteBusy(
                    f"route {new.route!r} has the live rollout {live}: "
                    f"`swapgate canary abort {new.route}` ends it"
                ) from error
            if error.names("verdict_used"):
                raise ProofRefused(
                    f"verdict {new.verdict} was the proof of a rollout already, and that one "
                    "ended: the same candidate needs a new verdict, so propose it again"
                ) from error
            raise

    def save(self, changed: Rollout) -> Rollout:
        self._tx.serialize()
        saved = replace(changed, version=changed.version + 1)
        values = _without(self.record.write(saved), ROLLOUT_REGISTERED)
        if not self._tx.amend(rollout, _unchanged(rollout, changed), values):
            raise _stale("rollout", changed, self.get(changed.id))
        return saved

    def newest(self, route: str) -> Rollout | None:
        row = self._newest(rollout.c.route, route)
        return None if row is None else self._verified([row])[0]

    def live(self, *, route: str | None = None) -> Sequence[Rollout]:
        return self._stored(LIVE, route)

    def baking(self, *, route: str | None = None) -> Sequence[Rollout]:
        """Lists the promoted rollouts that are still compared with the incumbent before."""
        return self._stored(BAKING, route)

    def _stored(self, query: sa.Select[Any], route: str | None) -> "Sequence[Rollout]":
        if route is not None:
            query = query.where(rollout.c.route == route)
        return self._believed(self._tx.read_stored(rollout, query))

    def list(
        self,
        *,
        route: str | None = None,
        candidate: str | None = None,
        limit: int = MOST_LISTED,
    ) -> Sequence[Rollout]:
        where = (given(rollout.c.route, route), given(rollout.c.candidate, candidate))
        return self._all(self._select(*where).limit(limit))


class CandidateRounds(Records[CandidateRound]):
    record = CANDIDATE_ROUND
    order = (candidate_round.c.due_at.desc(), candidate_round.c.id)

    def begin(self, new: CandidateRound) -> bool:
        """Stores a round; False where that time of the route has one."""
        self._tx.serialize()
        return self._tx.write_new(candidate_round, CANDIDATE_ROUND.write(new))

    def newest(self, route: str, limit: int = 1) -> Sequence[CandidateRound]:
        return self._all(self._select(candidate_round.c.route == route).limit(limit))


def _stale(kind: str, mine: Proposal | Rollout, stored: Proposal | Rollout) -> StaleWrite:
    return StaleWrite(
        f"{kind} {mine.id} is stored at version {stored.version}, not {mine.version}: load it "
        "again, then decide"
    )
