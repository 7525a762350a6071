"""Gathers facts for an approver besides the verdict: what changed lately that may favour the
candidate.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

from harness.evals import proof_validity
from harness.frame.errors import NotFound
from harness.frame.records.transaction import Transaction
from harness.gate.policy import Policy
from harness.proposals import registration, route_rules
from harness.proposals.context import ProposalsContext
from harness.proposals.registration import WINDOW, FalsePassRisk
from harness.providers.records import Providers, Targets
from harness.providers.registry import named_models
from harness.routing.control import routes
from harness.routing.proposal import Proposal
from harness.routing.records.proposals import Proposals
from harness.routing.records.routes import Routing
from harness.routing.records.runs import Suites
from harness.routing.route_changes import CHANGE_KINDS, RestoreIncumbent

DEFAULT: Final = "the default"

# Differences that promotions cause. The proposals are listed anyway.
TRAFFIC: Final = frozenset({"incumbent", "canary", "canary share", "held back"})


@dataclass(frozen=True, slots=True)
class RouteChange:
    """One change that an approver should know, because it may favour the candidate."""

    at: datetime
    by: str  # who changed it, or who made the first proposal with the change
    what: str  # settings | incumbent | policy | suite | provider
    text: str


@dataclass(frozen=True, slots=True)
class ProposalReview:
    """Facts for an approver besides the verdict (`review_proposal`)."""

    proposal: Proposal
    widened: Sequence[str]  # one sentence for each setting
    risk: FalsePassRisk
    changes: Sequence[RouteChange]  # of the last 90 days, newest first
    unlisted: str = ""  # set if the candidate's provider does not list it


def review_proposal(ctx: ProposalsContext, proposal: str) -> ProposalReview:
    """Gathers facts for an approver besides the verdict: changed settings, other proposals and
    moved providers. Raises NotFound.
    """
    since = ctx.clock.now() - WINDOW
    with ctx.store.read() as tx:
        found = Proposals(tx).get(proposal)
        changes = [
            *_settings(tx, found.route, since),
            *_proposed(tx, found.route, since),
            *_moved_providers(ctx, tx, found, since),
        ]
        return ProposalReview(
            proposal=found,
            widened=route_rules.describe_second_person_reasons(found.widened),
            risk=registration.risk_of_proposal(tx, found),
            changes=sorted(changes, key=lambda change: change.at, reverse=True),
            unlisted=named_models.describe_missing_in_list(
                tx, Targets(tx).all()[found.candidate]
            ),
        )


def _settings(
    tx: Transaction,
    route: str,
    since: datetime,
) -> Iterator[RouteChange]:
    """Yields changed settings, newest first, from the route's signed history.

    A restored incumbent counts too. Changes of traffic that every promotion causes do not.
    """
    names = Targets(tx).all()
    for newer, older in pairwise(Routing(tx).history(route)):
        if newer.at < since:
            return
        if (
            newer.kind == CHANGE_KINDS[RestoreIncumbent]
            and newer.route.incumbent != older.route.incumbent
        ):
            # A rollback changes the model that a candidate must beat, without any proof.
            was = names[older.route.incumbent].name
            is_ = names[newer.route.incumbent].name
            text = f"{was} → {is_}: {newer.reason}"
            yield RouteChange(newer.at, newer.actor, "incumbent", text)
        differences = [
            f"{name}: {before or 'none'} → {after or 'none'}"
            for name, (before, after) in routes.describe_difference(
                older.route, newer.route
            ).items()
            if name not in TRAFFIC
        ]
        digests = [
            {suite.suite: suite.digest for suite in record.route.settings.suites}
            for record in (older, newer)
        ]
        differences += [
            f"suite {suite}: its content was accepted again"
            for suite, digest in digests[1].items()
            if suite in digests[0] and digests[0][suite] != digest
        ]
        if differences:
            yield RouteChange(newer.at, newer.actor, "settings", "; ".join(differences))


def _proposed(
    tx: Transaction,
    route: str,
    since: datetime,
) -> Iterator[RouteChange]:
    """Compares proposals, because changes of policies and suites record no author.

    Yields a change for each policy or suite that differs between two consecutive proposals. The
    first proposal since `since` is compared with the last one before it, or else with the last
    admitted proposal.
    """
    found = Proposals(tx).since(route, since - WINDOW)
    lately = [proposal for proposal in found if proposal.created_at >= since]
    before = [*found[len(lately) :], *Proposals(tx).approved_or_started(route)]
    first = [proposal for proposal in before if proposal.created_at < since][:1]
    for older, newer in pairwise([*first, *reversed(lately)]):
        by = f"{newer.proposer} ({newer.id})"
        at = newer.created_at
        if said := _policies(older.policy, newer.policy):
            yield RouteChange(at, by, "policy", "; ".join(said))
        known = {plan.suite: plan.suite_digest for plan in older.plans}
        for plan in newer.plans:
            was = known.get(plan.suite, plan.suite_digest)
            if was != plan.suite_digest:
                text = "; ".join(_pieces(tx, was, plan.suite_digest))
                yield RouteChange(at, by, "suite", f"{plan.suite}: {text}")


def _moved_providers(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
    since: datetime,
) -> Iterator[RouteChange]:
    """Yields the providers of the route's targets, the candidate and the judges that moved
    since `since`.
    """
    targets = Targets(tx).all()
    providers = Providers(tx).all()
    route = routes.require_route(tx, proposal.route)
    asked = [targets[target] for target in (*route.targets, proposal.candidate)]
    asked += [ctx.judges[plan.suite] for plan in proposal.plans if plan.suite in ctx.judges]
    for name in sorted({target.provider for target in asked}):
        moved = providers[name].moved if name in providers else None
        if moved is not None and moved.at >= since:
            text = f"{name} has a new address since then: {moved.reason or 'no reason'}"
            yield RouteChange(moved.at, moved.by, "provider", text)


def _pieces(
    tx: Transaction,
    before: str,
    after: str,
) -> list[str]:
    """Describes the difference between two versions of a suite.

    A pin that is no longer stored leaves only the digests to compare.
    """
    try:
        return list(
            proof_validity.list_pin_differences(Suites(tx).get(before), Suites(tx).get(after))
        )
    except NotFound:
        return [f"content {before[:12]} → {after[:12]}"]


def _policies(before: Policy, after: Policy) -> list[str]:
    """Lists the settings that differ, as `name: before → after`."""
    ours = _flat(asdict(before))
    theirs = _flat(asdict(after))
    return [
        f"{name}: {ours.get(name, DEFAULT)} → {theirs.get(name, DEFAULT)}"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]


def _flat(policy: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Flattens nested settings to dotted names, such as `gate.margin`."""
    found: dict[str, Any] = {}
    for name, value in policy.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{place}{name}.")
        else:
            found[f"{place}{name}"] = value
    return found
