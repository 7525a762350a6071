"""Proposals, verdicts and rollouts."""

from collections.abc import Sequence
from dataclasses import replace

from harness.domain.errors import Conflict, InputError, NotFound
from harness.domain.evaluation import Verdict
from harness.domain.proposal import Proposal
from harness.domain.rollout import Rollout
from harness.store import rules
from harness.store.memory.state import Unit, need


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
        state.proposals[changed.id] = saved = replace(changed, version=changed.version + 1)
        return saved

    def open(self) -> Sequence[Proposal]:
        return list(reversed(self.list(open_only=True)))

    def list(self, *, route: str | None = None, open_only: bool = False) -> Sequence[Proposal]:
        found = [
            each
            for each in self._unit.state.proposals.values()
            if route in (None, each.route) and (each.open or not open_only)
        ]
        return sorted(found, key=lambda each: (each.created_at, each.id), reverse=True)


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

    def list(self, *, route: str | None = None) -> Sequence[Verdict]:
        return [each for each, _ in self._newest() if route in (None, each.route)]

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
        return [each for each in reversed(self.list()) if each.live]

    def baking(self) -> Sequence[Rollout]:
        return [each for each in reversed(self.list()) if each.baking]

    def list(self, *, route: str | None = None) -> Sequence[Rollout]:
        found = [
            each for each in self._unit.state.rollouts.values() if route in (None, each.route)
        ]
        return sorted(found, key=lambda each: (each.started_at, each.id), reverse=True)
