"""`AutoTargets` finds the target that answers a session's next message where its model is
`auto`, of the route's incumbent and fallbacks. Another one than the incumbent is opened by a
short grant that control signs itself, bound to the evidence.

The canary is never chosen, nor what a verdict speaks for that nobody let into the route: who
proposes a candidate could else bring it into traffic by asking for `auto`.

`auto` answers with the cheapest target that may serve a route and is known to be good enough
for it: with evidence that holds, and a score on the floor's suite whose lower 95 % bound
reaches the floor. What is not known, no number, or barred never beats the incumbent. Pure.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from harness.control.agents.agents import add_grant, end_grants
from harness.control.agents.target_scores import ScoreTerms, TargetScores
from harness.control.context import Context
from harness.control.evals import proof_validity
from harness.control.providers import provider_secrets
from harness.control.routing import data_class_checks, routes
from harness.domain.agents.agent import Agent, AgentGrant, GrantKind
from harness.domain.agents.message import SessionMessage
from harness.domain.agents.transcript import list_misfits
from harness.domain.errors import ConfigError, NotFound, SignatureInvalid
from harness.domain.evals.verdict import Passed
from harness.domain.formatting import format_number, format_thousand_price
from harness.domain.operations.access import SYSTEM
from harness.domain.providers.credentials import lacks_key
from harness.domain.routing.evidence import EvidenceKind, TargetEvidence
from harness.domain.routing.kill_switch import KillSwitch, active_switches, ruling_switch
from harness.domain.routing.table import Route, Stakes
from harness.domain.routing.target import Provider, Target, may_see
from harness.domain.settings import AutoFloor
from harness.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class AutoCandidate:
    """A target that a route names, with what is known of it at this moment."""

    target: str  # id
    name: str  # `provider/model`
    evidence: str = ""  # id of the evidence that lets it serve; empty where none holds now
    ends: datetime | None = None  # of that evidence; None for one that does not expire
    low: float | None = None  # lower 95 % bound of its score, from 0 to 1; None without one
    usd: float | None = None  # of 1,000 answers like those that were scored; None if unknown
    fault: str = ""  # why it cannot answer this message, in words; empty if it can

    def reaches(self, floor: float) -> bool:
        return bool(self.evidence) and not self.fault and _number(self.low) >= floor

    @property
    def has_price(self) -> bool:
        return _number(self.usd) >= 0.0


@dataclass(frozen=True, slots=True)
class AutoChoice:
    chosen: AutoCandidate
    reason: str  # one sentence, without the target's name
    is_incumbent: bool = True
    grant: str = ""  # the id of the one that opens it; empty where the route itself answers


def choose_target(
    incumbent: AutoCandidate, others: Sequence[AutoCandidate], floor: float, suite: str
) -> AutoChoice:
    """The cheapest of those that reach the floor; of equal ones the incumbent, then the first
    by name. One that reaches it without a price stays: nobody is known to be cheaper.
    """
    if incumbent.reaches(floor) and not incumbent.has_price:
        return keep_incumbent(
            incumbent, f"it reaches {floor:g} on {suite}; its price is unknown"
        )
    fits = [
        candidate
        for candidate in (incumbent, *others)
        if candidate.reaches(floor) and candidate.has_price
    ]
    if not fits:
        return keep_incumbent(incumbent, f"nothing is known to reach {floor:g} on {suite}")
    best = min(fits, key=lambda fit: (_number(fit.usd), fit is not incumbent, fit.name))
    among = f"the cheapest of {len(fits)}" if len(fits) > 1 else "the only one"
    reason = (
        f"{among} known to reach {floor:g} on {suite}: {format_number(_number(best.low))} with "
        f"95 percent confidence, {format_thousand_price(best.usd)} for 1,000 answers"
    )
    return AutoChoice(best, reason, is_incumbent=best is incumbent)


def keep_incumbent(incumbent: AutoCandidate, reason: str) -> AutoChoice:
    return AutoChoice(incumbent, f"the incumbent: {reason}")


def _number(value: float | None) -> float:
    """Sorts a missing or infinite value below every other."""
    return value if value is not None and math.isfinite(value) else -math.inf


LASTS: Final = timedelta(days=1)
# A grant that ends sooner is not begun with: the answer, and routers, take a while.
LEAST_LEFT: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class AutoRequest:
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
        """Who answers the message, with the grant that opens it. The route itself where no
        grant can be signed, or a stored one is not what was signed.
        """
        with ctx.store.read() as tx:
            incumbent, others = self._candidates(ctx, tx, request)
            choice = self._choose(ctx, tx, request.route, incumbent, others)
        try:
            with ctx.store.read() as tx:
                stored = _list_grants(tx, request)
            sound = {candidate.evidence for candidate in others}
            if stale := [grant for grant in stored if _evidence_of(grant) not in sound]:
                # What nobody chooses opens nothing, but for a process that is taken over.
                with suppress(ConfigError):
                    end_grants(ctx, stale, "evidence ended")
            if choice.is_incumbent:
                return choice
            grant = _find_grant(ctx, request, choice, stored) or _grant(ctx, request, choice)
        except (ConfigError, SignatureInvalid) as error:
            reason = f"no grant for another target ({error})"
            return choice if choice.is_incumbent else keep_incumbent(incumbent, reason)
        return replace(choice, grant=grant.id)

    def _choose(
        self,
        ctx: Context,
        tx: Transaction,
        route: Route,
        incumbent: AutoCandidate,
        others: Sequence[AutoCandidate],
    ) -> AutoChoice:
        floor = self._floors.get(route.name)
        if floor is None:
            return keep_incumbent(incumbent, f"route {route.name} has no floor (agents.floors)")
        now = ctx.clock.now()
        standing = active_switches((*self._standing, *tx.switches.not_lifted()), now)
        if ruling_switch(standing, route.name) is not None:
            return keep_incumbent(incumbent, "a kill switch is in force")
        return choose_target(incumbent, others, floor.floor, floor.suite)

    def _candidates(
        self, ctx: Context, tx: Transaction, request: AutoRequest
    ) -> tuple[AutoCandidate, list[AutoCandidate]]:
        evidence = tx.routing.evidence(request.route.name)
        targets, providers = tx.routing.targets(), tx.providers.all()
        own = targets[request.route.incumbent]
        if evidence is None or request.route.name not in self._floors:
            return AutoCandidate(own.id, own.name), []
        terms = self._terms(ctx, request.route)
        found = []
        for entry in (evidence.incumbent, *evidence.fallbacks):
            target = targets[entry.target]
            ends, fault = _assess_evidence(ctx, tx, request.route, entry)
            score = self._scores.load(ctx, tx, target, terms) if terms and not fault else None
            found.append(
                AutoCandidate(
                    target.id,
                    target.name,
                    "" if fault else entry.id,
                    ends,
                    score.low if score else None,
                    score.usd if score else None,
                    fault or _find_fault(ctx, request, target, providers.get(target.provider)),
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
) -> tuple[datetime | None, str]:
    """When the evidence ends, and why it does not hold; empty where it does. The incumbent's
    holds while it is the incumbent.
    """
    if entry.target == route.incumbent:
        return None, ""
    if entry.kind is EvidenceKind.WAIVER:
        for waiver in tx.waivers.list(route=route.name):
            is_own = (waiver.id, waiver.target) == (entry.proof, entry.target)
            if is_own and not waiver.expired(ctx.clock.now()):
                return waiver.expires_at, ""
        return None, "its waiver has expired"
    history = tx.routing.history(route.name)
    if routes.find_taken_back(tx, route.name, entry.target, history) is not None:
        return None, "it was taken back from the route"
    if entry.kind is EvidenceKind.VERDICT:
        return _assess_verdict(ctx, tx, entry)
    return None, ""


def _assess_verdict(
    ctx: Context, tx: Transaction, entry: TargetEvidence
) -> tuple[datetime | None, str]:
    try:
        verdict = tx.verdicts.get(entry.proof)
    except NotFound:
        return None, "its verdict is gone"
    is_own = (verdict.route, verdict.candidate) == (entry.route, entry.target)
    if not isinstance(verdict, Passed) or not is_own:
        return None, "its verdict is none for it on this route"
    validity = proof_validity.assess_proof(ctx, tx, verdict)
    return verdict.expires_at, "" if validity.holds else validity.text


def _find_fault(
    ctx: Context, request: AutoRequest, target: Target, provider: Provider | None
) -> str:
    """Why the target cannot answer this message, in words; empty if it can."""
    agent, settings = request.agent, request.route.settings
    is_capable = target.id in (request.route.incumbent, *settings.capable)
    if provider is None:
        return "its provider is not configured"
    if lacks_key(provider, provider_secrets.keys_of_provider(ctx, provider)):
        return "its provider has no key"
    if not may_see(ctx.data_classes, agent.data_class, target.provider):
        return f"its provider may not see {agent.data_class} data"
    if settings.stakes is Stakes.HIGH and not is_capable:
        return "the route's stakes are high, and it is not marked as capable"
    refusal = data_class_checks.find_refusal(ctx, settings, target, route=request.route.name)
    return refusal or _find_misfit(ctx, request, target, provider)


def _find_misfit(ctx: Context, request: AutoRequest, target: Target, provider: Provider) -> str:
    """What the conversation needs and the target lacks: by its settings, or the catalogue."""
    entry = ctx.catalogue.find(provider.kind, target.model)
    for has in (provider.can(target.model), *([entry.capabilities] if entry else [])):
        misfits = list_misfits(
            request.messages, has, tools=bool(request.agent.tools), target=target.name
        )
        if misfits or not has.chat:
            return misfits[0] if misfits else "it answers no chat"
    return ""


def _prefix(route: Route) -> str:
    return f"auto of route {route.name}: "


def _evidence_of(grant: AgentGrant) -> str:
    """The id of the evidence that it was given by: route names have no blanks."""
    return grant.reason.split()[4]


def _list_grants(tx: Transaction, request: AutoRequest) -> Sequence[AgentGrant]:
    return [
        grant
        for grant in tx.agent_grants.not_revoked(agent=request.agent.id)
        if grant.kind is GrantKind.AUTO and grant.reason.startswith(_prefix(request.route))
    ]


def _find_grant(
    ctx: Context, request: AutoRequest, choice: AutoChoice, stored: Sequence[AgentGrant]
) -> AgentGrant | None:
    """One of the same target, evidence and class of data that lasts long enough."""
    wanted = (choice.chosen.target, choice.chosen.evidence, _data_class(request))
    until = ctx.clock.now() + LEAST_LEFT
    fits = (
        grant
        for grant in stored
        if (grant.target, _evidence_of(grant), grant.data_class) == wanted
        and (until < grant.expires_at or grant.expires_at == choice.chosen.ends)
        and grant.opens(request.agent.id, "", ctx.clock.now())
    )
    return max(fits, key=lambda grant: grant.expires_at, default=None)


def _grant(ctx: Context, request: AutoRequest, choice: AutoChoice) -> AgentGrant:
    now, chosen = ctx.clock.now(), choice.chosen
    longest = now + LASTS
    grant = AgentGrant(
        id=ctx.chance.token("gr_"),
        agent=request.agent.id,
        target=chosen.target,
        target_name=chosen.name,
        kind=GrantKind.AUTO,
        granted_by=SYSTEM.name,
        granted_with=None,
        reason=f"{_prefix(request.route)}{chosen.evidence} {choice.reason}",
        created_at=now,
        expires_at=longest if chosen.ends is None else min(chosen.ends, longest),
        data_class=_data_class(request),
    )
    with ctx.store.write() as tx:
        # Of two messages at once, the second finds the first one's.
        stored = _list_grants(tx, request)
        if (known := _find_grant(ctx, request, choice, stored)) is not None:
            return known
        add_grant(ctx, tx, SYSTEM, grant)
    return grant


def _data_class(request: AutoRequest) -> str:
    """The route's, which is at least as strict as the agent's."""
    return request.route.settings.data_class or request.agent.data_class
