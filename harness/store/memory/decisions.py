"""Proposals, verdicts and rollouts."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from harness.domain.canary.rollout import Rollout
from harness.domain.errors import Conflict, InputError, NotFound
from harness.domain.evals.run import Verdict
from harness.domain.proposals.proposal import Approval, Proposal, ProposalPhase
from harness.ports import MOST_LISTED
from harness.store import rules
from harness.store.memory.state import Unit, need
from harness.store.rules import MOST_LET_IN


class MemoryProposals:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: Proposal) -> None:
        state = self._unit.writing
        rules.check_four_eyes(new)
        need(state.targets, "target", new.incumbent, new.candidate)
        if new.id in state.proposals:
            raise InputError(f"the proposal {new.id} is stored already")
        for each in state.proposals.values():
            if new.open and each.open and each.route == new.route:
                raise rules.has_open_proposal(new.route, each.id)
        state.proposals[new.id] = new

    def get(self, proposal: str) -> Proposal:
        try:
            return self._unit.state.proposals[proposal]
        except KeyError:
            raise NotFound(
                f"there is no proposal {proposal}; `swapgate proposal list` shows them"
            ) from None

    def save(self, changed: Proposal) -> Proposal:
        state = self._unit.writing
        rules.check_four_eyes(changed)
        found = self.get(changed.id)
        if found.version != changed.version:
            raise rules.stale(f"proposal {changed.id}", changed.version, found.version)
        rules.check_unchanged(found, changed)
        rules.check_let_in(changed)
        state.proposals[changed.id] = saved = replace(changed, version=changed.version + 1)
        return saved

    def open(self) -> Sequence[Proposal]:
        return list(reversed(self._newest(open_only=True)))

    def list(
        self,
        *,
        route: str | None = None,
        open_only: bool = False,
        limit: int = MOST_LISTED,
        after: str | None = None,
    ) -> Sequence[Proposal]:
        found = self._newest(route=route, open_only=open_only)
        if after is not None:
            last = self.get(after)
            found = [e for e in found if (e.created_at, e.id) < (last.created_at, last.id)]
        return found[:limit]

    def phases(self) -> Mapping[ProposalPhase, int]:
        return Counter(each.phase for each in self._unit.state.proposals.values())

    def of_pair(self, route: str, incumbent: str, candidate: str) -> Sequence[Proposal]:
        found = self._newest(route=route)
        return [e for e in found if (e.incumbent, e.candidate) == (incumbent, candidate)]

    def _newest(
        self, *, route: str | None = None, open_only: bool = False
    ) -> "Sequence[Proposal]":
        found = [
            each
            for each in self._unit.state.proposals.values()
            if route in (None, each.route) and (each.open or not open_only)
        ]
        return sorted(found, key=lambda each: (each.created_at, each.id), reverse=True)

    def since(self, route: str, at: datetime) -> Sequence[Proposal]:
        return [each for each in self._newest(route=route) if each.created_at >= at]

    def let_in(self, route: str) -> Sequence[Proposal]:
        found = self._newest(route=route)
        return [each for each in found if each.approver or each.rollout][:MOST_LET_IN]

    def of_candidates(self, targets: Collection[str]) -> Sequence[Proposal]:
        return [each for each in self._newest() if each.candidate in targets]


class MemoryApprovals:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: Approval) -> None:
        state = self._unit.writing
        rules.check_approval(new, MemoryProposals(self._unit).get(new.proposal))
        if new.id in state.approvals:
            raise InputError(f"the approval {new.id} is stored already")
        if new.verdict is not None:
            need(state.verdicts, "verdict", new.verdict)
        if new.key is not None:
            need(state.keys, "key", new.key)
            if state.keys[new.key].principal != new.principal:
                raise InputError(f"the key {new.key} belongs to another principal")
        state.approvals[new.id] = new

    def of(self, proposal: str) -> Sequence[Approval]:
        found = [a for a in self._unit.state.approvals.values() if a.proposal == proposal]
        return sorted(found, key=lambda each: (each.at, each.id))


class MemoryVerdicts:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, verdict: Verdict, proposal: str) -> None:
        state = self._unit.writing
        if verdict.id in state.verdicts:
            raise Conflict(f"verdict {verdict.id} is stored already: verdicts never change")
        need(state.proposals, "proposal", proposal)
        need(state.targets, "target", verdict.incumbent, verdict.candidate)
        state.verdicts[verdict.id] = (rules.as_stored(verdict), proposal)

    def get(self, verdict: str) -> Verdict:
        try:
            return self._unit.state.verdicts[verdict][0]
        except KeyError:
            raise NotFound(f"there is no verdict {verdict}") from None

    def of(self, proposal: str) -> Sequence[Verdict]:
        return [each for each, whose in self._newest() if whose == proposal]

    def list(self, *, route: str | None = None, limit: int = MOST_LISTED) -> Sequence[Verdict]:
        found = [each for each, _ in self._newest() if route in (None, each.route)]
        return found[:limit]

    def _newest(self) -> Sequence[tuple[Verdict, str]]:
        return sorted(
            self._unit.state.verdicts.values(),
            key=lambda each: (each[0].decided_at, each[0].id),
            reverse=True,
        )


class MemoryRollouts:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, new: Rollout) -> None:
        state = self._unit.writing
        need(state.targets, "target", new.incumbent, new.candidate)
        need(state.proposals, "proposal", new.proposal)
        need(state.verdicts, "verdict", new.verdict)
        if new.id in state.rollouts:
            raise InputError(f"the rollout {new.id} is stored already")
        for each in state.rollouts.values():
            if new.live and each.live and each.route == new.route:
                raise rules.has_live_rollout(new.route, each.id)
            if each.verdict == new.verdict:
                raise rules.verdict_used(new.verdict)
        state.rollouts[new.id] = new

    def get(self, rollout: str) -> Rollout:
        try:
            return self._unit.state.rollouts[rollout]
        except KeyError:
            raise NotFound(f"there is no rollout {rollout}") from None

    def save(self, changed: Rollout) -> Rollout:
        state = self._unit.writing
        found = self.get(changed.id)
        if found.version != changed.version:
            raise rules.stale(f"rollout {changed.id}", changed.version, found.version)
        state.rollouts[changed.id] = saved = replace(changed, version=changed.version + 1)
        return saved

    def live(self) -> Sequence[Rollout]:
        return [each for each in reversed(self._newest()) if each.live]

    def baking(self) -> Sequence[Rollout]:
        return [each for each in reversed(self._newest()) if each.baking]

    def list(
        self,
        *,
        route: str | None = None,
        candidate: str | None = None,
        limit: int = MOST_LISTED,
    ) -> Sequence[Rollout]:
        return [
            each
            for each in self._newest()
            if route in (None, each.route) and candidate in (None, each.candidate)
        ][:limit]

    def _newest(self) -> "Sequence[Rollout]":
        found = self._unit.state.rollouts.values()
        return sorted(found, key=lambda each: (each.started_at, each.id), reverse=True)
