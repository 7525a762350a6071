"""The routing table, providers and waivers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import assert_never

from harness.domain.canary.rollout import RolloutState
from harness.domain.errors import InputError, NotFound, ProofRefused
from harness.domain.evals.run import Passed
from harness.domain.routing.evidence import (
    ChainProof,
    FormerTarget,
    RouteEvidence,
    TargetEvidence,
    Waiver,
    baseline_evidence,
    verdict_evidence,
    waiver_evidence,
)
from harness.domain.routing.route_changes import (
    CHANGE_KINDS,
    AbortCanary,
    CreateRoute,
    PromoteCanary,
    RestoreIncumbent,
    SetChain,
    StartCanary,
    TableChange,
    apply_change,
)
from harness.domain.routing.table import Route, RoutingTable
from harness.domain.routing.target import Provider, Target
from harness.ports import RouteRecord
from harness.store import rules
from harness.store.memory.state import State, Unit, need


class MemoryRouting:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def table(self) -> RoutingTable:
        state = self._unit.state
        routes = {name: state.routes[name][-1].route for name in sorted(state.routes)}
        used = frozenset[str]().union(*(route.targets for route in routes.values()))
        return RoutingTable(state.revision, routes, {t: state.targets[t] for t in used})

    def route(self, name: str) -> Route | None:
        versions = self._unit.state.routes.get(name)
        return versions[-1].route if versions else None

    def history(self, name: str) -> Sequence[RouteRecord]:
        return self._unit.state.routes.get(name, ())[::-1]

    def commit(
        self,
        change: TableChange,
        *,
        expected_version: int,
        actor: str,
        reason: str,
        now: datetime,
    ) -> int:
        state = self._unit.writing
        before = self.route(change.route)
        version = before.version if before else 0
        if version != expected_version:
            raise rules.moved_on(change.route, version, expected_version)
        rules.check_targets(change, state.targets)
        after = apply_change(before, change)
        verdict = self._proof(state, change)
        after_evidence = self._evidence(state, change, after)
        chain = after_evidence.fallbacks
        rules.check_waivers(change, chain, state.waivers.values(), now)
        state.evidence[change.route] = (
            *state.evidence.get(change.route, ()),
            after_evidence,
        )
        state.revision = max(state.revision, state.revision_floor) + 1
        earlier = state.routes.get(change.route, ())
        at = rules.time_of_version(change, now, earlier[-1].at if earlier else None)
        record = RouteRecord(
            after, state.revision, CHANGE_KINDS[type(change)], at, actor, reason, verdict
        )
        state.routes[change.route] = (*state.routes.get(change.route, ()), record)
        return state.revision

    def _proof(self, state: State, change: TableChange) -> str | None:
        """The verdict's id. Raises ProofRefused where the databases would."""
        if isinstance(change, StartCanary | PromoteCanary):
            self._check_stored(state, change.proof)
            rolled_back = (
                each.verdict
                for each in state.rollouts.values()
                if each.state is RolloutState.ROLLED_BACK
            )
            if change.proof.id in rolled_back:
                raise rules.verdict_used(change.proof.id)
            return change.proof.id
        if isinstance(change, RestoreIncumbent):
            records = state.routes[change.route]
            if change.incumbent not in {record.route.incumbent for record in records}:
                raise rules.never_incumbent(change)
        return None

    def _evidence(  # noqa: PLR0911 - one per kind of change
        self, state: State, change: TableChange, after: Route
    ) -> RouteEvidence:
        """Raises ProofRefused for a target that never served, and an unknown proof."""
        if isinstance(change, CreateRoute):
            chain = tuple(baseline_evidence(after.name, each) for each in after.fallbacks)
            return RouteEvidence(baseline_evidence(after.name, after.incumbent), None, chain)
        earlier = state.evidence[change.route]
        last = earlier[-1]
        match change:
            case StartCanary(proof=proof):
                return replace(last, canary=verdict_evidence(proof))
            case PromoteCanary(proof=proof):
                return replace(last, incumbent=verdict_evidence(proof), canary=None)
            case RestoreIncumbent(incumbent=target):
                were = [each.incumbent for each in earlier if each.incumbent.target == target]
                return replace(last, incumbent=were[-1], canary=None)
            case AbortCanary():
                return replace(last, canary=None)
            case SetChain(proofs=proofs):
                known = {each.target: each for each in last.fallbacks}
                new = {t: self._chain_proof(state, after.name, p) for t, p in proofs.items()}
                return replace(
                    last, fallbacks=tuple((known | new)[each] for each in after.fallbacks)
                )
            case _:
                return last

    def _chain_proof(self, state: State, route: str, proof: ChainProof) -> TargetEvidence:
        match proof:
            case Passed():
                self._check_stored(state, proof)
                return verdict_evidence(proof)
            case Waiver():
                if state.waivers.get(proof.id) != proof:
                    raise ProofRefused(f"the waiver {proof.id} is not stored")
                return waiver_evidence(proof)
            case FormerTarget(target):
                for version in reversed(state.evidence[route]):
                    for each in (version.incumbent, *version.fallbacks):
                        if each.target == target:
                            return each
                raise rules.never_served(route, target)
            case _:
                assert_never(proof)

    def changed_at(self, name: str) -> datetime | None:
        versions = self._unit.state.routes.get(name)
        return versions[-1].at if versions else None

    def evidence(self, name: str) -> RouteEvidence | None:
        versions = self._unit.state.evidence.get(name)
        return versions[-1] if versions else None

    def add_target(self, target: Target) -> str:
        self._unit.writing.targets.setdefault(target.id, target)
        return target.id

    def _check_stored(self, state: State, proof: Passed) -> None:
        stored, _ = state.verdicts.get(proof.id, (None, ""))
        if not isinstance(stored, Passed) or _claims(stored) != _claims(proof):
            raise ProofRefused(
                f"no passed verdict {proof.id} for exactly this route, incumbent and "
                f"candidate is stored: route {proof.route!r} stays as it is"
            )

    def targets(self) -> Mapping[str, Target]:
        return dict(self._unit.state.targets)


def _claims(proof: Passed) -> tuple[str, str, str]:
    return proof.route, proof.incumbent, proof.candidate


class MemoryProviders:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def put(self, provider: Provider) -> None:
        state = self._unit.writing
        if state.providers.get(provider.name) != provider:
            state.providers[provider.name] = provider
            state.serving_changes += 1

    def remove(self, name: str) -> None:
        state = self._unit.writing
        if name not in state.providers:
            raise NotFound(f"there is no provider {name!r}")
        del state.providers[name]
        state.serving_changes += 1

    def all(self) -> Mapping[str, Provider]:
        providers = self._unit.state.providers
        return {name: providers[name] for name in sorted(providers)}


class MemoryWaivers:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, waiver: Waiver) -> None:
        state = self._unit.writing
        rules.check_waiver(waiver)
        need(state.targets, "target", waiver.target)
        if waiver.id in state.waivers:
            raise InputError(f"the waiver {waiver.id} is stored already")
        state.waivers[waiver.id] = waiver

    def list(self, *, route: str | None = None) -> Sequence[Waiver]:
        found = [w for w in self._unit.state.waivers.values() if route in (None, w.route)]
        return sorted(found, key=lambda waiver: (waiver.expires_at, waiver.id))
