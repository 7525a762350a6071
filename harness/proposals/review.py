"""Gathers facts for an approver besides the verdict: recent changes that may favour the
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
from harness.gate.policy import CanaryPolicy, Policy
from harness.proposals import route_rules
from harness.proposals.context import ProposalsContext
from harness.proposals.registration import route_risk
from harness.proposals.registration.route_risk import WINDOW, FalsePassRisk
from harness.providers.records import Providers, Targets
from harness.providers.registry import named_models
from harness.routing.control import routes
from harness.routing.proposal import Proposal
from harness.routing.records.proposals import Proposals
from harness.routing.records.routes import Routing
from harness.routing.records.runs import Suites
from harness.routing.route_changes import CHANGE_KINDS, RestoreIncumbent

DEFAULT: Final = "the default"

# Differences that promotions cause. The review lists the proposals themselves.
TRAFFIC_FIELDS: Final = frozenset({"incumbent", "canary", "canary share", "held back"})


@dataclass(frozen=True, slots=True)
class RouteChange:
    """One change that an approver should know, because it may favour the candidate."""

    at: datetime
    by: str  # the author of the change, or of the first proposal with it
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

    @property
    def never_measured(self) -> str:
        """Names the callers that get the candidate without a comparison; empty without any."""
        return describe_never_measured(self.proposal.policy.canary)


def describe_never_measured(canary: CanaryPolicy) -> str:
    """Names the callers that a canary never gets, and what a promotion does for them."""
    callers = canary.never_measured
    if not callers:
        return ""
    return (
        f"Never measured: {callers}. These callers keep the incumbent until the bake ends. "
        "Then they get the candidate, although no canary compared it with their requests"
    )


def review_proposal(ctx: ProposalsContext, proposal: str) -> ProposalReview:
    """Gathers facts for an approver besides the verdict: changed settings, other proposals and
    moved providers. Raises NotFound.
    """
    since = ctx.clock.now() - WINDOW
    with ctx.store.read() as tx:
        current = Proposals(tx).get(proposal)
        changes = [
            *_list_setting_changes(tx, current.route, since),
            *_list_registration_changes(tx, current.route, since),
            *_list_moved_providers(ctx, tx, current, since),
        ]
        return ProposalReview(
            proposal=current,
            widened=route_rules.describe_second_person_reasons(current.widened),
            risk=route_risk.risk_of_proposal(tx, current),
            changes=sorted(changes, key=lambda change: change.at, reverse=True),
            unlisted=named_models.describe_missing_in_list(
                tx, Targets(tx).all()[current.candidate]
            ),
        )


def _list_setting_changes(
    tx: Transaction,
    route: str,
    since: datetime,
) -> Iterator[RouteChange]:
    """Yields changed settings, newest first, from the route's signed history.

    Includes a restored incumbent. Omits the changes of traffic that every promotion causes.
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
            old_name = names[older.route.incumbent].name
            new_name = names[newer.route.incumbent].name
            text = f"{old_name} → {new_name}: {newer.reason}"
            yield RouteChange(newer.at, newer.actor, "incumbent", text)
        differences = [
            f"{name}: {old or 'none'} → {new or 'none'}"
            for name, (old, new) in routes.describe_difference(older.route, newer.route).items()
            if name not in TRAFFIC_FIELDS
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


def _list_registration_changes(
    tx: Transaction,
    route: str,
    since: datetime,
) -> Iterator[RouteChange]:
    """Yields changes of policies and suites. It compares proposals, because the configuration
    records no author.

    Yields a change for each policy or suite that differs between two consecutive proposals. The
    first proposal since `since` is compared with the last one before it, or else with the last
    admitted proposal.
    """
    all_proposals = Proposals(tx).since(route, since - WINDOW)
    recent = [proposal for proposal in all_proposals if proposal.created_at >= since]
    earlier = [*all_proposals[len(recent) :], *Proposals(tx).approved_or_started(route)]
    last_before = [proposal for proposal in earlier if proposal.created_at < since][:1]
    for older, newer in pairwise([*last_before, *reversed(recent)]):
        author = f"{newer.proposer} ({newer.id})"
        created_at = newer.created_at
        if differences := _list_policy_differences(older.policy, newer.policy):
            yield RouteChange(created_at, author, "policy", "; ".join(differences))
        digests = {plan.suite: plan.suite_digest for plan in older.plans}
        for plan in newer.plans:
            old_digest = digests.get(plan.suite, plan.suite_digest)
            if old_digest != plan.suite_digest:
                text = "; ".join(_describe_suite_change(tx, old_digest, plan.suite_digest))
                yield RouteChange(created_at, author, "suite", f"{plan.suite}: {text}")


def _list_moved_providers(
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
    targets_and_judges = [targets[target] for target in (*route.targets, proposal.candidate)]
    targets_and_judges += [
        ctx.judges[plan.suite] for plan in proposal.plans if plan.suite in ctx.judges
    ]
    for name in sorted({target.provider for target in targets_and_judges}):
        move = providers[name].moved if name in providers else None
        if move is not None and move.at >= since:
            text = f"{name} has a new address since then: {move.reason or 'no reason'}"
            yield RouteChange(move.at, move.by, "provider", text)


def _describe_suite_change(
    tx: Transaction,
    old_digest: str,
    new_digest: str,
) -> list[str]:
    """Describes the difference between two versions of a suite.

    A pin that is no longer stored leaves only the digests to compare.
    """
    try:
        return list(
            proof_validity.list_pin_differences(
                Suites(tx).get(old_digest), Suites(tx).get(new_digest)
            )
        )
    except NotFound:
        return [f"content {old_digest[:12]} → {new_digest[:12]}"]


def _list_policy_differences(before: Policy, after: Policy) -> list[str]:
    """Lists the settings that differ, as `name: before → after`."""
    old_settings = _flatten(asdict(before))
    new_settings = _flatten(asdict(after))
    return [
        f"{name}: {old_settings.get(name, DEFAULT)} → {new_settings.get(name, DEFAULT)}"
        for name in sorted(old_settings.keys() | new_settings.keys())
        if old_settings.get(name) != new_settings.get(name)
    ]


def _flatten(policy: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested settings to dotted names, such as `gate.margin`."""
    flattened: dict[str, Any] = {}
    for name, value in policy.items():
        if isinstance(value, Mapping):
            flattened |= _flatten(value, f"{prefix}{name}.")
        else:
            flattened[f"{prefix}{name}"] = value
    return flattened
