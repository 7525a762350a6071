"""Proposals, verdicts and rollouts."""

from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa

from harness.domain.errors import Conflict, NotFound
from harness.domain.evaluation import Verdict
from harness.domain.proposal import Proposal
from harness.domain.rollout import Rollout, RolloutState
from harness.store.rows import decisions as rows
from harness.store.rules import (
    check_four_eyes,
    check_unchanged,
    has_live_rollout,
    has_open_proposal,
    stale,
    verdict_used,
)
from harness.store.sql.failures import RowRefused
from harness.store.sql.unit import Unit
from harness.store.tables.decisions import (
    LIVE_STATES,
    OPEN_PHASES,
    proposal,
    rollout,
    verdict,
)

IS_OPEN = proposal.c.phase.in_(OPEN_PHASES)
OPEN = sa.select(proposal).where(IS_OPEN).order_by(proposal.c.created_at, proposal.c.id)
PROPOSALS = sa.select(proposal).order_by(proposal.c.created_at.desc(), proposal.c.id.desc())
ONE_PROPOSAL = sa.select(proposal).where(proposal.c.id == sa.bindparam("proposal"))
OPEN_ON_ROUTE = sa.select(proposal.c.id).where(
    IS_OPEN, proposal.c.route == sa.bindparam("route")
)
SAVE_PROPOSAL = sa.update(proposal).where(
    proposal.c.id == sa.bindparam("key"), proposal.c.version == sa.bindparam("expected")
)
VERDICTS = sa.select(*(c for c in verdict.c if c.name != "proposal")).order_by(
    verdict.c.decided_at.desc(), verdict.c.id.desc()
)
IS_LIVE = rollout.c.state.in_(LIVE_STATES)
LIVE = sa.select(rollout).where(IS_LIVE).order_by(rollout.c.started_at, rollout.c.id)
ROLLOUTS = sa.select(rollout).order_by(rollout.c.started_at.desc(), rollout.c.id.desc())
ONE_ROLLOUT = sa.select(rollout).where(rollout.c.id == sa.bindparam("rollout"))
BAKING = (
    sa.select(rollout)
    .where(rollout.c.state == RolloutState.PROMOTED, rollout.c.bake_ends_at.is_not(None))
    .order_by(rollout.c.started_at, rollout.c.id)
)
LIVE_ON_ROUTE = sa.select(rollout.c.id).where(IS_LIVE, rollout.c.route == sa.bindparam("route"))
SAVE_ROLLOUT = sa.update(rollout).where(
    rollout.c.id == sa.bindparam("key"), rollout.c.version == sa.bindparam("expected")
)


class SqlProposals:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: Proposal) -> None:
        check_four_eyes(new)
        self._unit.serialize()
        try:
            with self._unit.attempt():
                self._unit.write(sa.insert(proposal), rows.of_proposal(new))
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
        return rows.proposal(row)

    def save(self, changed: Proposal) -> Proposal:
        check_four_eyes(changed)
        self._unit.serialize()
        found = self.get(changed.id)
        if found.version != changed.version:
            raise stale(f"proposal {changed.id}", changed.version, found.version)
        check_unchanged(found, changed)
        saved = replace(changed, version=changed.version + 1)
        key = {"key": changed.id, "expected": changed.version}
        if not self._unit.write(SAVE_PROPOSAL, rows.of_proposal(saved) | key):
            raise stale(f"proposal {changed.id}", changed.version, found.version)
        return saved

    def open(self) -> Sequence[Proposal]:
        return [rows.proposal(row) for row in self._unit.read(OPEN)]

    def list(self, *, route: str | None = None, open_only: bool = False) -> Sequence[Proposal]:
        query = PROPOSALS if route is None else PROPOSALS.where(proposal.c.route == route)
        if open_only:
            query = query.where(IS_OPEN)
        return [rows.proposal(row) for row in self._unit.read(query)]


class SqlVerdicts:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: Verdict, proposal_: str) -> None:
        self._unit.serialize()
        if self._unit.read(VERDICTS.where(verdict.c.id == new.id)).first() is not None:
            raise Conflict(f"verdict {new.id} is stored already: verdicts never change")
        self._unit.write(sa.insert(verdict), rows.of_verdict(new, proposal_))

    def get(self, verdict_: str) -> Verdict:
        row = self._unit.read(VERDICTS.where(verdict.c.id == verdict_)).first()
        if row is None:
            raise NotFound(f"there is no verdict {verdict_}")
        return rows.verdict(row)

    def of(self, proposal_: str) -> Sequence[Verdict]:
        query = VERDICTS.where(verdict.c.proposal == proposal_)
        return [rows.verdict(row) for row in self._unit.read(query)]

    def list(self, *, route: str | None = None) -> Sequence[Verdict]:
        query = VERDICTS if route is None else VERDICTS.where(verdict.c.route == route)
        return [rows.verdict(row) for row in self._unit.read(query)]


class SqlRollouts:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: Rollout) -> None:
        self._unit.serialize()
        try:
            with self._unit.attempt():
                self._unit.write(sa.insert(rollout), rows.of_rollout(new))
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
        return rows.rollout(row)

    def save(self, changed: Rollout) -> Rollout:
        self._unit.serialize()
        saved = replace(changed, version=changed.version + 1)
        key = {"key": changed.id, "expected": changed.version}
        if not self._unit.write(SAVE_ROLLOUT, rows.of_rollout(saved) | key):
            found = self.get(changed.id)
            raise stale(f"rollout {changed.id}", changed.version, found.version)
        return saved

    def live(self) -> Sequence[Rollout]:
        return [rows.rollout(row) for row in self._unit.read(LIVE)]

    def baking(self) -> Sequence[Rollout]:
        return [rows.rollout(row) for row in self._unit.read(BAKING)]

    def list(self, *, route: str | None = None) -> Sequence[Rollout]:
        query = ROLLOUTS if route is None else ROLLOUTS.where(rollout.c.route == route)
        return [rows.rollout(row) for row in self._unit.read(query)]
