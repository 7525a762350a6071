"""`AutoTargets` finds the target that answers a session's next message where its model is
`auto`, of the route's incumbent and fallbacks. The router asks it first, and then the route's
other targets.

The canary is never chosen, nor what a verdict speaks for that nobody let into the route: who
proposes a candidate could else bring it into traffic by asking for `auto`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from harness.control.agents.target_scores import ScoreTerms, TargetScore, TargetScores
from harness.control.context import Context
from harness.control.evals import proof_validity
from harness.control.providers.provider_secrets import keys_of_provider
from harness.control.routing import data_class_checks, routes
from harness.domain.agents.agent import Agent
from harness.domain.agents.auto_choice import (
    AutoCandidate,
    AutoChoice,
    choose_target,
    keep_incumbent,
)
from harness.domain.agents.message import SessionMessage
from harness.domain.agents.transcript import list_misfits
from harness.domain.errors import NotFound
from harness.domain.evals.verdict import Passed
from harness.domain.providers.credentials import lacks_key
from harness.domain.routing.evidence import EvidenceKind, TargetEvidence
from harness.domain.routing.kill_switch import KillSwitch, active_switches, ruling_switch
from harness.domain.routing.table import Route, Stakes
from harness.domain.routing.target import Provider, Target, may_see
from harness.domain.settings import AutoFloor
from harness.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class AutoRequest:
    """What is to be answered."""

    agent: Agent
    route: Route
    messages: Sequence[SessionMessage]  # of the session, with the one that asks


class AutoTargets:
    """Chooses who answers for the model `auto`: the cheapest target above the route's floor,
    else the incumbent. floors: by route. standing: kill switches of the environment and the
    file.
    """

    def __init__(
        self, floors: Mapping[str, AutoFloor], standing: Sequence[KillSwitch] = ()
    ) -> None:
        self._floors, self._standing = floors, standing
        self._scores = TargetScores()

    def find(self, ctx: Context, request: AutoRequest) -> AutoChoice:
        with ctx.store.read() as tx:
            incumbent, others = self._candidates(ctx, tx, request)
            obstacle = self._find_obstacle(ctx, tx, request.route)
        if obstacle:
            return keep_incumbent(incumbent, obstacle)
        floor = self._floors[request.route.name]
        return choose_target(incumbent, others, floor.floor, floor.suite)

    def _find_obstacle(self, ctx: Context, tx: Transaction, route: Route) -> str:
        """Why the incumbent alone may answer; empty where another target may."""
        if route.name not in self._floors:
            return f"route {route.name} has no floor (agents.floors)"
        now = ctx.clock.now()
        standing = active_switches((*self._standing, *tx.switches.not_lifted()), now)
        is_ruled = ruling_switch(standing, route.name) is not None
        return "a kill switch is in force" if is_ruled else ""

    def _candidates(
        self, ctx: Context, tx: Transaction, request: AutoRequest
    ) -> tuple[AutoCandidate, list[AutoCandidate]]:
        """The incumbent, and the fallbacks."""
        evidence = tx.routing.evidence(request.route.name)
        targets, providers = tx.routing.targets(), tx.providers.all()
        own = targets[request.route.incumbent]
        if evidence is None or request.route.name not in self._floors:
            return AutoCandidate(own.id, own.name), []
        terms = self._terms(ctx, request.route)
        found = []
        for entry in (evidence.incumbent, *evidence.fallbacks):
            target = targets[entry.target]
            holds = _has_evidence(ctx, tx, request.route, entry)
            score = TargetScore()
            if terms and holds:
                score = self._scores.load(ctx, tx, target, terms)
            found.append(
                AutoCandidate(
                    target.id,
                    target.name,
                    holds,
                    score.low,
                    score.usd,
                    _can_answer(ctx, request, target, providers.get(target.provider)),
                )
            )
        return found[0], found[1:]

    def _terms(self, ctx: Context, route: Route) -> ScoreTerms | None:
        """None where the suite cannot be read: then nothing is known."""
        try:
            gate = ctx.policy(route.settings.policy).gate
            pin = ctx.suites.pin(self._floors[route.name].suite)
        except Exception:  # noqa: BLE001 - a suite may be a Python file of the user's
            return None
        return ScoreTerms(pin, gate.served_pin, timedelta(seconds=gate.verdict_ttl_s))


def _has_evidence(ctx: Context, tx: Transaction, route: Route, entry: TargetEvidence) -> bool:
    """Whether the evidence holds. The incumbent's holds while it is the incumbent."""
    if entry.target == route.incumbent:
        return True
    if entry.kind is EvidenceKind.WAIVER:
        own, now = (entry.proof, entry.target), ctx.clock.now()
        waivers = tx.waivers.list(route=route.name)
        return any((w.id, w.target) == own and not w.expired(now) for w in waivers)
    history = tx.routing.history(route.name)
    if routes.find_taken_back(tx, route.name, entry.target, history) is not None:
        return False
    if entry.kind is not EvidenceKind.VERDICT:
        return True
    try:
        verdict = tx.verdicts.get(entry.proof)
    except NotFound:
        return False
    is_own = (verdict.route, verdict.candidate) == (entry.route, entry.target)
    is_proof = isinstance(verdict, Passed) and is_own
    return is_proof and proof_validity.assess_proof(ctx, tx, verdict).holds


def _can_answer(
    ctx: Context, request: AutoRequest, target: Target, provider: Provider | None
) -> bool:
    """Whether the target has a key, may see the data, and can hold the conversation, by its
    provider's settings and by the catalogue.
    """
    agent, route, settings = request.agent, request.route, request.route.settings
    if provider is None or lacks_key(provider, keys_of_provider(ctx, provider)):
        return False
    is_capable = target.id in (route.incumbent, *settings.capable)
    if settings.stakes is Stakes.HIGH and not is_capable:
        return False
    if not may_see(ctx.data_classes, agent.data_class, target.provider):
        return False
    if data_class_checks.find_refusal(ctx, settings, target, route=route.name):
        return False
    entry = ctx.catalogue.find(provider.kind, target.model)
    known = (provider.can(target.model), *([entry.capabilities] if entry else ()))
    has_tools = bool(agent.tools)
    return all(
        has.chat and not list_misfits(request.messages, has, tools=has_tools, target="")
        for has in known
    )
