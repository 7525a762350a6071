"""Gathers what an approver sees of a proposal."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

from harness.control.context import Context
from harness.control.evals import proof_validity
from harness.control.proposals import alpha_spending, route_rules
from harness.control.proposals.alpha_spending import WINDOW, FalsePassRisk
from harness.control.providers import named_models
from harness.control.routing import routes
from harness.domain.errors import NotFound
from harness.domain.proposals.policy import Policy
from harness.domain.proposals.proposal import Proposal
from harness.domain.routing.route_changes import CHANGE_KINDS, RestoreIncumbent
from harness.store.sql.evals import Suites
from harness.store.sql.proposals import Proposals
from harness.store.sql.providers import Providers
from harness.store.sql.routing import Routing
from harness.store.transaction import Transaction

DEFAULT: Final = "the default"
# Of a route's version, what promotions change, and proposals say for themselves.
TRAFFIC: Final = frozenset({"incumbent", "canary", "canary share", "held back"})


@dataclass(frozen=True, slots=True)
class RouteChange:
    at: datetime
    by: str  # who changed it, or first proposed with it so
    what: str  # settings | incumbent | policy | suite | provider
    text: str


@dataclass(frozen=True, slots=True)
class ProposalReview:
    proposal: Proposal
    widened: Sequence[str]  # in words, one line for each
    risk: FalsePassRisk
    changes: Sequence[RouteChange]  # of the last 90 days, newest first
    unlisted: str = ""  # that the candidate's provider does not list it


def review_proposal(ctx: Context, proposal: str) -> ProposalReview:
    """Gathers what an approver should know beside the verdict: changed settings, other
    proposals and moved providers. Raises NotFound.
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
            risk=alpha_spending.risk_of_proposal(tx, found),
            changes=sorted(changes, key=lambda change: change.at, reverse=True),
            unlisted=named_models.find_unlisted(tx, Routing(tx).targets()[found.candidate]),
        )


def _settings(tx: Transaction, route: str, since: datetime) -> Iterator[RouteChange]:
    names = Routing(tx).targets()
    for newer, older in pairwise(Routing(tx).history(route)):
        if newer.at < since:
            return
        if (
            newer.kind == CHANGE_KINDS[RestoreIncumbent]
            and newer.route.incumbent != older.route.incumbent
        ):
            # No promotion, so no proof: it chose what a candidate is compared with.
            was, is_ = (names[version.route.incumbent].name for version in (older, newer))
            text = f"{was} → {is_}: {newer.reason}"
            yield RouteChange(newer.at, newer.actor, "incumbent", text)
        said = [
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
        said += [
            f"suite {suite}: accepted as it was then"
            for suite, digest in digests[1].items()
            if suite in digests[0] and digests[0][suite] != digest
        ]
        if said:
            yield RouteChange(newer.at, newer.actor, "settings", "; ".join(said))


def _proposed(tx: Transaction, route: str, since: datetime) -> Iterator[RouteChange]:
    """Against the proposal before it, since a policy or a suite has no author of its own."""
    found = Proposals(tx).since(route, since - WINDOW)
    lately = [proposal for proposal in found if proposal.created_at >= since]
    before = [*found[len(lately) :], *Proposals(tx).let_in(route)]
    first = [proposal for proposal in before if proposal.created_at < since][:1]
    for older, newer in pairwise([*first, *reversed(lately)]):
        by, at = f"{newer.proposer} ({newer.id})", newer.created_at
        if said := _policies(older.policy, newer.policy):
            yield RouteChange(at, by, "policy", "; ".join(said))
        known = {plan.suite: plan.suite_digest for plan in older.plans}
        for plan in newer.plans:
            was = known.get(plan.suite, plan.suite_digest)
            if was != plan.suite_digest:
                text = "; ".join(_pieces(tx, was, plan.suite_digest))
                yield RouteChange(at, by, "suite", f"{plan.suite}: {text}")


def _moved_providers(
    ctx: Context, tx: Transaction, proposal: Proposal, since: datetime
) -> Iterator[RouteChange]:
    targets, providers = Routing(tx).targets(), Providers(tx).all()
    route = routes.require_route(tx, proposal.route)
    asked = [targets[target] for target in (*route.targets, proposal.candidate)]
    asked += [ctx.judges[plan.suite] for plan in proposal.plans if plan.suite in ctx.judges]
    for name in sorted({target.provider for target in asked}):
        moved = providers[name].moved if name in providers else None
        if moved is not None and moved.at >= since:
            text = (
                f"{name} answers from another place since then: {moved.reason or 'no reason'}"
            )
            yield RouteChange(moved.at, moved.by, "provider", text)


def _pieces(tx: Transaction, before: str, after: str) -> list[str]:
    try:
        return list(
            proof_validity.list_pin_differences(Suites(tx).get(before), Suites(tx).get(after))
        )
    except NotFound:
        return [f"content {before[:12]} then and {after[:12]} now"]


def _policies(before: Policy, after: Policy) -> list[str]:
    ours, theirs = _flat(asdict(before)), _flat(asdict(after))
    return [
        f"{name}: {ours.get(name, DEFAULT)} → {theirs.get(name, DEFAULT)}"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]


def _flat(policy: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in policy.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{place}{name}.")
        else:
            found[f"{place}{name}"] = value
    return found
