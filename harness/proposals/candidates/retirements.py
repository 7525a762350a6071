"""Replaces a route's model before it ends, and alerts people if nothing replaces it.

Under a policy with `retire: auto`, `run_once`, a job of the control process, proposes the first
proven spare, alone, in time for a canary beside the model that ends. The proposal is measured
afresh, and takes the way of any other: verdict, approval, freezes, canary (ADR 54). From
ALERT_FROM before the end, an alert says what a route waits for.

This module approves nothing and opens no canary: `harness.proposals.driver` does. It proposes
nothing once the model has ended, because no verdict could compare with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from shlex import quote
from typing import Final

from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.alerts import AlertNotice
from harness.frame.errors import StoreUnavailable, SwapproofError
from harness.frame.people.access import SYSTEM
from harness.frame.records.transaction import Transaction
from harness.gate.policy import Policy, Retirement
from harness.gate.suite_plan import Claim
from harness.proposals import submission
from harness.proposals.candidates import candidates, spares
from harness.proposals.context import ProposalsContext
from harness.proposals.submission import ProposalRequest, ScheduleTerms
from harness.providers.models.model_ends import ModelEnd, find_end
from harness.providers.models.successors import ALERT_AHEAD
from harness.providers.records import Targets
from harness.routing.candidate_schedule import OnBetter, round_alpha
from harness.routing.control import end_sources, freezes
from harness.routing.control.deprecations import route_end
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Proposals
from harness.routing.records.routes import Routing
from harness.routing.spare import Spare
from harness.routing.table import Route

ALERT_FROM: Final = timedelta(days=30)
# Time for the comparison, and for a person's approval, before the canary must open.
PROPOSE_AHEAD: Final = timedelta(days=7)
KIND: Final = AlertKind.RETIREMENT_WAITS


@dataclass(frozen=True, slots=True)
class EndingRoute:
    """A route whose model ends soon, with the facts that decide its next step."""

    route: Route
    incumbent: str  # the name of the model that ends
    day: date  # the first day on which it may be gone
    days: int  # until that day; 0 or less once the model has ended
    policy: Policy
    spares: Sequence[Spare]  # without models that end soon themselves
    tried: Sequence[Proposal]  # Swapproof's proposals because of this end, the newest first
    open: Proposal | None
    freeze: str  # why a freeze delays the next step; empty without one

    @property
    def reason(self) -> str:
        """The reason of a proposal because of this end."""
        return f"{self.incumbent} ends on {self.day.isoformat()}"

    @property
    def settled(self) -> bool:
        """Whether a canary, a bake, a break-glass or a comparison is on the way already."""
        busy = self.route.experiment is not None or self.route.break_glass is not None
        comparing = (ProposalPhase.PROPOSED, ProposalPhase.EVALUATING)
        return busy or (self.open is not None and self.open.phase in comparing)

    @property
    def next(self) -> Spare | None:
        """The first proven spare that was not proposed because of this end; None without
        one.
        """
        tried = {proposal.candidate for proposal in self.tried}
        return next(
            (spare for spare in self.spares if spare.proven and spare.target not in tried), None
        )

    @property
    def proposes(self) -> bool:
        """Whether Swapproof proposes the next spare now, by the policy."""
        ahead = timedelta(days=self.policy.retire_before_d) + PROPOSE_AHEAD
        is_due = 0 < self.days <= ahead.days
        is_free = self.open is None and not self.settled
        return self.policy.retire is Retirement.AUTO and is_due and is_free


def describe_wait(ending: EndingRoute, fault: str = "") -> AlertNotice | None:
    """Describes what a route waits for whose model ends soon; None if it waits for nothing.

    Args:
        fault: why Swapproof could not propose the next spare; empty without a fault.
    """
    if ending.settled or ending.days > ALERT_FROM.days:
        return None
    name = ending.route.name
    ends = f"{ending.incumbent}, which ends on {ending.day.isoformat()},"
    if ending.open is not None:
        return _describe_open(ending, ending.open, ends)
    spare = ending.next
    if spare is None:
        return _notice(name, f"no proven spare can replace {ends}", _describe_missing(ending))
    command = _propose_command(ending, spare.name)
    if fault:
        return _notice(name, f"no proposal replaces {ends}", f"{fault}. {command}")
    is_automatic = ending.policy.retire is Retirement.AUTO
    if is_automatic and ending.days > 0:
        return None  # Swapproof proposes the spare when it is due
    because = f"The policy {ending.policy.name} has `retire: manual`."
    if is_automatic:
        because = "Swapproof proposes nothing after the end."
    title = f"a person must replace {ends} by a proven spare"
    return _notice(name, title, f"{spare.text}. {command} {because}")


def _describe_open(ending: EndingRoute, proposal: Proposal, ends: str) -> AlertNotice:
    """Describes what a passed proposal waits for: a person, or the end of a freeze."""
    name = ending.route.name
    if proposal.approver is None:
        command = f"`swapproof proposal approve {proposal.id} --reason …`"
        title = f"the swap from {ends} waits for a person"
        return _notice(name, title, f"{command} lets its canary open.")
    wait = ending.freeze or "its canary opens next"
    return _notice(name, f"the swap from {ends} waits for the end of a freeze", f"{wait}.")


def _notice(route: str, title: str, text: str) -> AlertNotice:
    subject = f"route {route}"
    return AlertNotice(subject, f"{subject}: {title}".removesuffix(","), text)


def _describe_missing(ending: EndingRoute) -> str:
    """Says why no spare can replace the model, and names the command that measures one."""
    tried = {proposal.candidate: proposal for proposal in ending.tried}
    lines = []
    for spare in ending.spares:
        proposal = tried.get(spare.target)
        ended = proposal.closed_because or proposal.phase_text if proposal else ""
        lines.append(
            f"{spare.name}: proposal {proposal.id}: {ended}" if proposal else spare.text
        )
    reasons = "; ".join(lines) or "the route has no fallback"
    name = ending.spares[0].name if ending.spares else "PROVIDER/MODEL"
    return f"{reasons}. {_propose_command(ending, name)}"


def _propose_command(ending: EndingRoute, name: str) -> str:
    claim = choose_claim(ending.policy).value
    command = f"swapproof proposal create {quote(ending.route.name)} {quote(name)}"
    return f"`{command} --claim {claim} --reason {quote(ending.reason)}` compares it."


def choose_claim(policy: Policy) -> Claim:
    """Chooses the claim of a replacement: not worse, if the policy allows that."""
    allowed = policy.gate.allowed_claims
    return Claim.NON_INFERIOR if Claim.NON_INFERIOR in allowed else policy.gate.claim


def run_once(ctx: ProposalsContext) -> list[str]:
    """Proposes the spares that are due, and updates the alerts. Returns log lines."""
    lines = []
    notices = {}
    for ending in load_endings(ctx):
        fault = ""
        spare = ending.next
        if ending.proposes and spare is not None:
            try:
                lines.append(_propose(ctx, ending, spare))
                continue
            except StoreUnavailable:
                raise
            except SwapproofError as error:
                fault = str(error).rstrip(".")
        if notice := describe_wait(ending, fault):
            notices[KIND, ending.route.name] = notice
    alerts.update_alerts(ctx, [KIND], notices)
    return lines


def _propose(ctx: ProposalsContext, ending: EndingRoute, spare: Spare) -> str:
    """Proposes a spare alone, at most at the alpha that the schedule's rounds have left."""
    with ctx.store.read() as tx:
        spent = candidates.sum_spent_alpha(tx, ending.route.name, ctx.clock.now())
    request = ProposalRequest(
        ending.route.name, spare.name, reason=ending.reason, claim=choose_claim(ending.policy)
    )
    terms = ScheduleTerms(OnBetter.CANARY, round_alpha(spent, candidates=1))
    (proposal,) = submission.create_selection(ctx, SYSTEM, request, terms)
    return f"{proposal.id}: proposed {spare.name}, because {ending.reason}"


def load_endings(ctx: ProposalsContext) -> Sequence[EndingRoute]:
    """Loads the routes whose model ends soon enough for a proposal or an alert."""
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        table = Routing(tx).table()
        known = Targets(tx).all().values()
        statements = end_sources.list_statements(ctx, tx, known)
    soon = (now + ALERT_AHEAD).date()
    ending_targets = {
        id_
        for id_, stated in statements.items()
        if (end := find_end(stated)) is not None and end.day <= soon
    }
    endings = []
    for name, route in sorted(table.routes.items()):
        end = route_end(route, statements)
        policy = ctx.policy(route.settings.policy)
        first = max(ALERT_FROM, timedelta(days=policy.retire_before_d) + PROPOSE_AHEAD)
        if end is None or end.day - now.date() > first:
            continue
        usable = [s for s in spares.list_spares(ctx, name) if s.target not in ending_targets]
        with ctx.store.read() as tx:
            endings.append(_load_ending(ctx, tx, route, end, policy, usable))
    return endings


def _load_ending(
    ctx: ProposalsContext,
    tx: Transaction,
    route: Route,
    end: ModelEnd,
    policy: Policy,
    usable: Sequence[Spare],
) -> EndingRoute:
    """Loads the facts of one route.

    Args:
        usable: its spares that do not end soon.
    """
    now = ctx.clock.now()
    refusals = freezes.list_refusals_of_step(ctx, tx, route.name)
    ending = EndingRoute(
        route=route,
        incumbent=Targets(tx).all()[route.incumbent].name,
        day=end.day,
        days=(end.day - now.date()).days,
        policy=policy,
        spares=usable,
        tried=(),
        open=next(iter(Proposals(tx).open(route=route.name)), None),
        freeze=next(iter(refusals), ""),
    )
    tried = [
        proposal
        for proposal in Proposals(tx).since(route.name, now - ALERT_AHEAD)
        # Any proposer may write the reason, so only Swapproof's own proposals count.
        if proposal.reason == ending.reason
        and proposal.proposer_principal == SYSTEM.principal
        and proposal.incumbent == route.incumbent
        and not proposal.open
    ]
    return replace(ending, tried=tried)
