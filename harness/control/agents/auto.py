"""`AutoTargets` finds the target that answers a session's next message where its model is
`auto`, of the route's incumbent and fallbacks. Another one than the incumbent is opened by a
short grant that control signs itself, bound to the evidence.

The canary is never chosen, nor what a verdict speaks for that nobody let into the route: who
proposes a candidate could else bring it into traffic by asking for `auto`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from harness.control.agents.agents import (
    add_grant,
    end_grants,
    owner_of,
    require_route,
)
from harness.control.agents.target_scores import ScoreTerms, TargetScore, TargetScores
from harness.control.context import Context
from harness.control.evals import proof_validity
from harness.control.providers.provider_secrets import keys_of_provider
from harness.control.routing import data_class_checks, routes
from harness.domain.agents.agent import Agent, AgentGrant, GrantKind
from harness.domain.agents.auto_choice import (
    AutoCandidate,
    AutoChoice,
    choose_target,
    keep_incumbent,
)
from harness.domain.agents.message import SessionMessage
from harness.domain.agents.transcript import list_misfits
from harness.domain.errors import ConfigError, NotAllowed, NotFound, SignatureInvalid
from harness.domain.evals.verdict import Passed
from harness.domain.operations.access import SYSTEM
from harness.domain.providers.credentials import lacks_key
from harness.domain.routing.evidence import EvidenceKind, TargetEvidence
from harness.domain.routing.kill_switch import KillSwitch, active_switches, ruling_switch
from harness.domain.routing.table import Route, Stakes
from harness.domain.routing.target import Provider, Target, may_see
from harness.domain.settings import AutoFloor
from harness.store.transaction import Transaction

LASTS: Final = timedelta(days=1)
# A grant that ends sooner is not begun with: the answer, and routers, take a while.
LEAST_LEFT: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class AutoRequest:
    """What is to be answered."""

    agent: Agent
    route: Route
    messages: Sequence[SessionMessage]  # of the session, with the one that asks


# Agent, route and target to the id of a grant.
RenewAuto = Callable[[Context, str, str, str], str]


class AutoTargets:
    """Chooses who answers for the model `auto`: the cheapest target above the route's floor,
    else the incumbent. floors: by route. standing: kill switches of the environment and the
    file. renew: of a process that has no signing key; by default this one's own.
    """

    def __init__(
        self,
        floors: Mapping[str, AutoFloor],
        standing: Sequence[KillSwitch] = (),
        renew: RenewAuto | None = None,
    ) -> None:
        self._floors, self._standing = floors, standing
        self._renew = renew or self.renew
        self._scores = TargetScores()

    def find(self, ctx: Context, request: AutoRequest) -> AutoChoice:
        """Who answers the message, with the grant that opens it. The route itself where no
        grant can be signed, or a stored one is not what was signed.
        """
        with ctx.store.read() as tx:
            incumbent, others = self._candidates(ctx, tx, request)
            obstacle = self._find_obstacle(ctx, tx, request.route)
        if obstacle:
            choice = keep_incumbent(incumbent, obstacle)
        else:
            floor = self._floors[request.route.name]
            choice = choose_target(incumbent, others, floor.floor, floor.suite)
        wanted, fault = "" if choice.is_incumbent else choice.chosen.target, ""
        try:
            with ctx.store.read() as tx:
                stored = _list_grants(tx, request)
            if not _list_stale(stored, others):
                if choice.is_incumbent:
                    return choice
                if (known := _find_grant(ctx, request, choice.chosen, stored)) is not None:
                    return replace(choice, grant=known.id)
            grant = self._renew(ctx, request.agent.id, request.route.name, wanted)
        except (ConfigError, NotAllowed, SignatureInvalid) as error:
            grant, fault = "", f" ({error})"
        if choice.is_incumbent:
            return choice
        if not grant:
            return keep_incumbent(incumbent, f"no grant for another target{fault}")
        return replace(choice, grant=grant)

    def renew(self, ctx: Context, agent: str, route: str, target: str) -> str:
        """Revokes the agent's grants of `auto` whose evidence has ended, and grants it a target
        that reaches the floor. Returns the grant's id; empty for a target that does not.

        target: its id; empty for none. Raises ConfigError without control's signing key,
        NotAllowed where the agent may not use the route.
        """
        with ctx.store.read() as tx:
            owner = tx.agents.get(agent)
            owner_of(tx, owner).require_route(route)
            # Without the conversation: the agents process judges whether the target fits.
            request = AutoRequest(owner, require_route(ctx, tx, owner, route), ())
            _, others = self._candidates(ctx, tx, request)
            obstacle = self._find_obstacle(ctx, tx, request.route)
            stale = _list_stale(_list_grants(tx, request), others)
        if stale:
            end_grants(ctx, stale, "evidence ended")
        chosen = next((other for other in others if other.target == target), None)
        if chosen is None or obstacle or not chosen.reaches(self._floors[route].floor):
            return ""
        floor = self._floors[route]
        reason = f"reaches {floor.floor:g} on {floor.suite}: {chosen.measured_text}"
        return _grant(ctx, request, chosen, reason).id

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
            holds, ends = _assess_evidence(ctx, tx, request.route, entry)
            score = TargetScore()
            if terms and holds:
                score = self._scores.load(ctx, tx, target, terms)
            found.append(
                AutoCandidate(
                    target.id,
                    target.name,
                    entry.id if holds else "",
                    ends,
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


def _assess_evidence(
    ctx: Context, tx: Transaction, route: Route, entry: TargetEvidence
) -> tuple[bool, datetime | None]:
    """Whether the evidence holds, and when it ends; None for what does not expire. The
    incumbent's holds while it is the incumbent.
    """
    if entry.target == route.incumbent:
        return True, None
    if entry.kind is EvidenceKind.WAIVER:
        own, now = (entry.proof, entry.target), ctx.clock.now()
        waivers = tx.waivers.list(route=route.name)
        valid = [w for w in waivers if (w.id, w.target) == own and not w.expired(now)]
        return bool(valid), valid[0].expires_at if valid else None
    history = tx.routing.history(route.name)
    if routes.find_taken_back(tx, route.name, entry.target, history) is not None:
        return False, None
    if entry.kind is not EvidenceKind.VERDICT:
        return True, None
    try:
        verdict = tx.verdicts.get(entry.proof)
    except NotFound:
        return False, None
    is_own = (verdict.route, verdict.candidate) == (entry.route, entry.target)
    is_proof = isinstance(verdict, Passed) and is_own
    holds = is_proof and proof_validity.assess_proof(ctx, tx, verdict).holds
    return holds, verdict.expires_at


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


def _prefix(route: Route) -> str:
    return f"auto of route {route.name}: "


def _evidence_of(grant: AgentGrant) -> str:
    """The id of the evidence that it was given by: route names have no blanks."""
    return grant.reason.split()[4]


def _list_grants(tx: Transaction, request: AutoRequest) -> Sequence[AgentGrant]:
    """The agent's grants of `auto` on this route that are not revoked."""
    return [
        grant
        for grant in tx.agent_grants.not_revoked(agent=request.agent.id)
        if grant.kind is GrantKind.AUTO and grant.reason.startswith(_prefix(request.route))
    ]


def _list_stale(
    stored: Sequence[AgentGrant], others: Sequence[AutoCandidate]
) -> Sequence[AgentGrant]:
    sound = {candidate.evidence for candidate in others}
    return [grant for grant in stored if _evidence_of(grant) not in sound]


def _find_grant(
    ctx: Context, request: AutoRequest, chosen: AutoCandidate, stored: Sequence[AgentGrant]
) -> AgentGrant | None:
    """One of the same target, evidence and class of data that lasts long enough."""
    wanted = (chosen.target, chosen.evidence, _data_class(request))
    until = ctx.clock.now() + LEAST_LEFT
    fits = (
        grant
        for grant in stored
        if (grant.target, _evidence_of(grant), grant.data_class) == wanted
        and (until < grant.expires_at or grant.expires_at == chosen.ends)
        and grant.opens(request.agent.id, "", ctx.clock.now())
    )
    return max(fits, key=lambda grant: grant.expires_at, default=None)


def _grant(
    ctx: Context, request: AutoRequest, chosen: AutoCandidate, reason: str
) -> AgentGrant:
    """Raises ConfigError where this process has no key of control's."""
    now = ctx.clock.now()
    longest = now + LASTS
    grant = AgentGrant(
        id=ctx.chance.token("gr_"),
        agent=request.agent.id,
        target=chosen.target,
        target_name=chosen.name,
        kind=GrantKind.AUTO,
        granted_by=SYSTEM.name,
        granted_with=None,
        reason=f"{_prefix(request.route)}{chosen.evidence} {reason}",
        created_at=now,
        expires_at=longest if chosen.ends is None else min(chosen.ends, longest),
        data_class=_data_class(request),
    )
    with ctx.store.write() as tx:
        # Of two messages at once, the second finds the first one's.
        stored = _list_grants(tx, request)
        if (known := _find_grant(ctx, request, chosen, stored)) is not None:
            return known
        add_grant(tx, SYSTEM, grant)
    return grant


def _data_class(request: AutoRequest) -> str:
    """The route's, which is at least as strict as the agent's."""
    return request.route.settings.data_class or request.agent.data_class
