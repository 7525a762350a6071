"""Reads and writes proposals, approvals, verdicts and rollouts; a save of a version that
somebody else changed since is refused, and so is a second open proposal or live rollout on a
route.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from harness.domain.canary.rollout import Rollout, RolloutState
from harness.domain.errors import Conflict, NotFound
from harness.domain.evals.verdict import Verdict
from harness.domain.pagination import MOST_LISTED
from harness.domain.proposals.proposal import Approval, Proposal, ProposalPhase
from harness.store.database_errors import RowRefused
from harness.store.refusals import has_live_rollout, has_open_proposal, stale, verdict_used
from harness.store.rules import (
    MOST_LET_IN,
    check_approval,
    check_change_reference,
    check_four_eyes,
    check_let_in,
    check_unchanged,
)
from harness.store.schema.columns import Row, Values
from harness.store.schema.proposals import (
    HAS_NOT_ENDED,
    LIVE_STATE_VALUES,
    PROPOSAL_REGISTERED,
    ROLLOUT_REGISTERED,
    approval,
    approval_from_row,
    approval_to_row,
    proposal,
    proposal_from_row,
    proposal_to_row,
    rollout,
    rollout_from_row,
    rollout_to_row,
    verdict,
    verdict_from_row,
    verdict_to_row,
)
from harness.store.schema.stored_row import stored_columns
from harness.store.sql.json_rows import json_rows, look_up
from harness.store.sql.pages import newest
from harness.store.sql.preload import newest_key, row_key
from harness.store.unit_of_work import Unit

OPEN = (
    sa.select(*stored_columns(proposal))
    .where(HAS_NOT_ENDED)
    .order_by(proposal.c.created_at, proposal.c.id)
)
PROPOSALS = sa.select(proposal).order_by(proposal.c.created_at.desc(), proposal.c.id.desc())
PHASES = sa.select(proposal.c.phase, sa.func.count().label("n")).group_by(proposal.c.phase)
ONE_PROPOSAL = PROPOSALS.where(proposal.c.id == sa.bindparam("proposal"))
OPEN_ON_ROUTE = sa.select(proposal.c.id).where(
    HAS_NOT_ENDED, proposal.c.route == sa.bindparam("route")
)
WAS_LET_IN = proposal.c.approver.is_not(None) | proposal.c.rollout.is_not(None)
VERDICTS = sa.select(verdict).order_by(verdict.c.decided_at.desc(), verdict.c.id.desc())
APPROVALS_OF = (
    sa.select(approval)
    .where(approval.c.proposal == sa.bindparam("proposal"))
    .order_by(approval.c.at, approval.c.id)
)
IS_LIVE = rollout.c.state.in_(LIVE_STATE_VALUES)
LIVE = sa.select(rollout).where(IS_LIVE).order_by(rollout.c.started_at, rollout.c.id)
ROLLOUTS = sa.select(rollout).order_by(rollout.c.started_at.desc(), rollout.c.id.desc())
ONE_ROLLOUT = ROLLOUTS.where(rollout.c.id == sa.bindparam("rollout"))
BAKING = (
    sa.select(rollout)
    .where(
        rollout.c.state == RolloutState.PROMOTED,
        rollout.c.bake_ends_at.is_not(None),
    )
    .order_by(rollout.c.started_at, rollout.c.id)
)
_STORED_LIVE = LIVE.with_only_columns(*stored_columns(rollout))
_STORED_BAKING = BAKING.with_only_columns(*stored_columns(rollout))
LIVE_ON_ROUTE = sa.select(rollout.c.id).where(IS_LIVE, rollout.c.route == sa.bindparam("route"))


@cache
def followed(dialect: str) -> sa.Select[Any]:
    """Builds the query of whom each candidate was to follow, on the routes that `names` has as
    JSON.
    """
    names, of = json_rows("names", {"name": sa.Text()}, dialect), rollout.c
    return (
        sa.select(of.route, of.candidate, of.incumbent)
        .select_from(look_up(names, rollout, of.route == names.c.name))
        .distinct()
    )


# What never changes is not written again.
_FIXED: Final = (*PROPOSAL_REGISTERED, "widened")


def _unchanged(table: sa.Table, record: Proposal | Rollout) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.id == record.id, table.c.version == record.version)


def _without(values: Values, names: Collection[str]) -> Values:
    return {name: value for name, value in values.items() if name not in names}


class Proposals:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: Proposal) -> None:
        """Adds a proposal. Raises RouteBusy when the route has an open one; the error names
        it.
        """
        check_four_eyes(new)
        self._unit.serialize()
        try:
            with self._unit.attempt():
                self._unit.insert(proposal, proposal_to_row(new))
        except RowRefused as error:
            busy = self._unit.read(OPEN_ON_ROUTE, {"route": new.route}).scalar()
            if busy is None or not new.open:
                raise
            raise has_open_proposal(new.route, busy) from error

    def get(self, proposal_: str) -> Proposal:
        row = self._unit.read(ONE_PROPOSAL, {"proposal": proposal_}).first()
        if row is None:
            raise NotFound(
                f"there is no proposal {proposal_}; `swapgate proposal list` shows them"
            )
        self._unit.checked(proposal, [row])
        return proposal_from_row(row)

    def save(self, changed: Proposal) -> Proposal:
        """Stores a proposal at version + 1. Raises StaleWrite if the stored version is
        another.
        """
        check_four_eyes(changed)
        self._unit.serialize()
        found = self.get(changed.id)
        if found.version != changed.version:
            raise stale(f"proposal {changed.id}", changed.version, found.version)
        check_unchanged(found, changed)
        check_let_in(changed)
        saved = replace(changed, version=changed.version + 1)
        fixed = _FIXED if found.phase is ProposalPhase.PROPOSED else (*_FIXED, "plans")
        values = _without(proposal_to_row(saved), fixed)
        if not self._unit.amend(proposal, _unchanged(proposal, changed), values):
            raise stale(f"proposal {changed.id}", changed.version, found.version)
        return saved

    def open(self, *, route: str | None = None) -> Sequence[Proposal]:
        """Lists the open proposals, oldest first; of one route, if it is given."""
        query = OPEN if route is None else OPEN.where(proposal.c.route == route)
        found = self._unit.believed(proposal, self._unit.read_stored(proposal, query))
        return [proposal_from_row(row) for row in found]

    def list(
        self,
        *,
        route: str | None = None,
        open_only: bool = False,
        limit: int = MOST_LISTED,
        after: str | None = None,
    ) -> Sequence[Proposal]:
        """Lists the proposals, newest first, `limit` at the most. after: the id of the last one
        of the page before.

        Raises NotFound for an `after` that is not stored.
        """
        query = PROPOSALS if route is None else PROPOSALS.where(proposal.c.route == route)
        if open_only:
            query = query.where(HAS_NOT_ENDED)
        if after is not None:
            order = newest(proposal.c.created_at, proposal.c.id)
            query = query.where(order.behind(self._unit, after))
        return self._all(query.limit(limit))

    def phases(self) -> Mapping[ProposalPhase, int]:
        """How many are in each; none is left out for its signature."""
        known = set(ProposalPhase)
        counts = self._unit.read(PHASES)
        return {ProposalPhase(row.phase): row.n for row in counts if row.phase in known}

    def of_pair(self, route: str, incumbent: str, candidate: str) -> Sequence[Proposal]:
        pair = (proposal.c.incumbent == incumbent, proposal.c.candidate == candidate)
        return self._all(PROPOSALS.where(proposal.c.route == route, *pair))

    def _all(self, query: sa.Select[tuple[object, ...]]) -> "Sequence[Proposal]":
        """Raises SignatureInvalid."""
        found = self._unit.checked(proposal, self._unit.read(query))
        return [proposal_from_row(row) for row in found]

    def since(self, route: str, at: datetime) -> Sequence[Proposal]:
        query = PROPOSALS.where(proposal.c.route == route, proposal.c.created_at >= at)
        return self._all(query)

    def let_in(self, route: str) -> Sequence[Proposal]:
        query = PROPOSALS.where(proposal.c.route == route, WAS_LET_IN).limit(MOST_LET_IN)
        return self._all(query)

    def of_selection(self, selection: str) -> Sequence[Proposal]:
        """Lists the proposals of a selection in the order in which they were named. Raises
        SignatureInvalid where one is not as it was signed.
        """
        found = self._all(PROPOSALS.where(proposal.c.selection == selection))
        return sorted(found, key=lambda member: member.place)

    def of_candidates(self, targets: Collection[str]) -> Sequence[Proposal]:
        query = PROPOSALS.where(proposal.c.candidate.in_(sorted(targets)))
        return self._all(query)


class Approvals:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: Approval) -> None:
        """Adds an approval. Raises NotAllowed for the proposer's own, unless the policy says
        `self_approval`.
        """
        self._unit.serialize()
        proposal = Proposals(self._unit).get(new.proposal)
        check_approval(new, proposal)
        check_change_reference(new, proposal)
        self._unit.insert(approval, approval_to_row(new))

    def for_proposal(self, proposal_: str) -> Sequence[Approval]:
        found = self._unit.read(APPROVALS_OF, {"proposal": proposal_})
        return [approval_from_row(row) for row in self._unit.checked(approval, found)]


class Verdicts:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: Verdict, proposal_: str) -> None:
        self._unit.serialize()
        if self._unit.read(VERDICTS.where(verdict.c.id == new.id)).first() is not None:
            raise Conflict(f"verdict {new.id} is stored already: verdicts never change")
        self._unit.insert(verdict, verdict_to_row(new, proposal_))

    def get(self, verdict_: str) -> Verdict:
        row = self._row(verdict_)
        self._unit.checked(verdict, [row])
        return verdict_from_row(row)

    def _row(self, verdict_: str) -> Row:
        def read() -> Row | None:
            return self._unit.read(VERDICTS.where(verdict.c.id == verdict_)).first()

        row = self._unit.once(row_key(verdict, verdict_), read)
        if row is None:
            raise NotFound(f"there is no verdict {verdict_}")
        return row

    def newest(self, route: str) -> Verdict | None:
        """Finds a route's newest verdict; None where it has none."""

        def read() -> Row | None:
            return self._unit.read(VERDICTS.where(verdict.c.route == route).limit(1)).first()

        row = self._unit.once(newest_key(verdict, route), read)
        if row is None:
            return None
        self._unit.keep(row_key(verdict, row.id), row)
        self._unit.checked(verdict, [row])
        return verdict_from_row(row)

    def for_proposal(self, proposal_: str) -> Sequence[Verdict]:
        query = VERDICTS.where(verdict.c.proposal == proposal_)
        return self._all(query)

    def proposal_of(self, verdict_: str) -> str:
        """Returns the id of the proposal that a verdict is of. Raises NotFound."""
        return str(self._row(verdict_).proposal)

    def list(self, *, route: str | None = None, limit: int = MOST_LISTED) -> Sequence[Verdict]:
        if route is None:
            return self._all(VERDICTS.limit(limit))
        return self._all(VERDICTS.where(verdict.c.route == route).limit(limit))

    def _all(self, query: sa.Select[tuple[object, ...]]) -> "Sequence[Verdict]":
        """Raises SignatureInvalid."""
        found = self._unit.checked(verdict, self._unit.read(query))
        return [verdict_from_row(row) for row in found]


class Rollouts:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: Rollout) -> None:
        """Adds a rollout. Raises RouteBusy when the route has a live one, ProofRefused when its
        verdict was another rollout's proof already.
        """
        self._unit.serialize()
        try:
            with self._unit.attempt():
                self._unit.insert(rollout, rollout_to_row(new))
        except RowRefused as error:
            busy = self._unit.read(LIVE_ON_ROUTE, {"route": new.route}).scalar()
            if busy is not None and new.live:
                raise has_live_rollout(new.route, busy) from error
            if error.names("verdict_used"):
                raise verdict_used(new.verdict) from error
            raise

    def get(self, rollout_: str) -> Rollout:
        row = self._unit.read(ONE_ROLLOUT, {"rollout": rollout_}).first()
        if row is None:
            raise NotFound(f"there is no rollout {rollout_}")
        self._unit.checked(rollout, [row])
        return rollout_from_row(row)

    def save(self, changed: Rollout) -> Rollout:
        """Stores a rollout at version + 1. Raises StaleWrite."""
        self._unit.serialize()
        saved = replace(changed, version=changed.version + 1)
        values = _without(rollout_to_row(saved), ROLLOUT_REGISTERED)
        if not self._unit.amend(rollout, _unchanged(rollout, changed), values):
            found = self.get(changed.id)
            raise stale(f"rollout {changed.id}", changed.version, found.version)
        return saved

    def newest(self, route: str) -> Rollout | None:
        """Finds a route's newest rollout, live or not; None where it had none."""

        def read() -> Row | None:
            return self._unit.read(ROLLOUTS.where(rollout.c.route == route).limit(1)).first()

        row = self._unit.once(newest_key(rollout, route), read)
        if row is None:
            return None
        self._unit.checked(rollout, [row])
        return rollout_from_row(row)

    def live(self, *, route: str | None = None) -> Sequence[Rollout]:
        """Lists the live rollouts, oldest first; of one route, if it is given."""
        return self._believed(_STORED_LIVE, route)

    def baking(self, *, route: str | None = None) -> Sequence[Rollout]:
        """Lists the rollouts that are promoted, and still compared with the incumbent before;
        of one route, if it is given.
        """
        return self._believed(_STORED_BAKING, route)

    def list(
        self,
        *,
        route: str | None = None,
        candidate: str | None = None,
        limit: int = MOST_LISTED,
    ) -> Sequence[Rollout]:
        query = ROLLOUTS if route is None else ROLLOUTS.where(rollout.c.route == route)
        if candidate is not None:
            query = query.where(rollout.c.candidate == candidate)
        return self._all(query.limit(limit))

    def followed(self, routes: Collection[str]) -> Mapping[str, Mapping[str, Collection[str]]]:
        """Names the incumbents that each candidate was to follow, by route and candidate; for
        figures, so that no signature is checked.
        """
        asked = {"names": json.dumps([{"name": name} for name in sorted(routes)])}
        found: dict[str, dict[str, set[str]]] = {}
        for row in self._unit.read(followed(self._unit.dialect), asked):
            of_route = found.setdefault(row.route, {})
            of_route.setdefault(row.candidate, set()).add(row.incumbent)
        return found

    def _believed(
        self, query: sa.Select[tuple[object, ...]], route: str | None
    ) -> "Sequence[Rollout]":
        if route is not None:
            query = query.where(rollout.c.route == route)
        found = self._unit.believed(rollout, self._unit.read_stored(rollout, query))
        return [rollout_from_row(row) for row in found]

    def _all(self, query: sa.Select[tuple[object, ...]]) -> "Sequence[Rollout]":
        """Raises SignatureInvalid."""
        found = self._unit.checked(rollout, self._unit.read(query))
        return [rollout_from_row(row) for row in found]
