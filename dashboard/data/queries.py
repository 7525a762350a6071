"""Loads what each dashboard page shows, through `harness.control`. Decides nothing."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from harness.control.canary.status import CanaryStatus, list_canaries, list_rollouts
from harness.control.context import Context
from harness.control.evals import proof_validity
from harness.control.evals.drift_watches import DriftStatus, list_drift_status
from harness.control.evals.proof_validity import ProofValidity
from harness.control.operations import queries
from harness.control.proposals import comparison as comparisons
from harness.control.proposals import cost_ratio, decisions, evaluation
from harness.control.proposals.comparison import Comparison, load_comparison
from harness.control.providers import named_models
from harness.control.routing import fallback_chain, routes, scorecard
from harness.control.routing.fallback_chain import ChainEntry
from harness.control.routing.scorecard import RouteScorecard
from harness.domain.canary.observation import TrafficMinute
from harness.domain.errors import SignatureInvalid
from harness.domain.evals.verdict import Verdict
from harness.domain.pagination import MOST_LISTED, Page, PageRequest
from harness.domain.proposals.proposal import Proposal, ProposalPhase, ProposalView
from harness.domain.routing.table import Route, RouteRecord
from harness.domain.routing.target import Target

# Without a request for so long, a live canary's figures are called stale.
QUIET = timedelta(minutes=3)


# Of a comparison with more answers, the texts are read for the samples that are shown.
MOST_TEXTS: Final = comparisons.MOST_TEXTS
MOST_PROPOSALS: Final = 100
MOST_VERSIONS: Final = 200


@dataclass(frozen=True)
class ComparisonView:
    comparison: Comparison
    titles: Mapping[str, str]
    differing: Mapping[str, Sequence[str]]  # by suite, which pins the two arms do not share
    now: datetime

    @property
    def id(self) -> str:
        return self.comparison.proposal.id


def titles(ctx: Context) -> Mapping[str, str]:
    return {name: ctx.suites.title(name) for name in ctx.suites.names()}


def comparison(ctx: Context, proposal: str) -> ComparisonView:
    found = load_comparison(ctx, proposal, most_texts=MOST_TEXTS)
    basis = found.basis
    mean = {basis.mean.suite: "Weighted mean"} if basis and basis.mean else {}
    return ComparisonView(
        comparison=found,
        titles={**mean, **titles(ctx)},
        differing={
            side.plan.suite: _pieces(ctx, *digests)
            for side in found.suites
            for digests in [(side.incumbent_run.suite_digest, side.candidate_run.suite_digest)]
            if len(set(digests)) > 1
        },
        now=ctx.clock.now(),
    )


def _pieces(ctx: Context, one: str, other: str) -> Sequence[str]:
    with ctx.store.read() as tx:
        a, b = tx.suites.get(one), tx.suites.get(other)
    names = {
        "version": "version",
        "data_sha256": "data",
        "scorer": "scorer",
        "template": "prompt template",
    }
    return [words for name, words in names.items() if getattr(a, name) != getattr(b, name)]


@dataclass(frozen=True)
class ProposalRow:
    proposal: ProposalView
    incumbent: str
    candidate: str
    verdict: Verdict | None
    standing: ProofValidity | None = None  # of the verdict of one that waits for approval
    remarks: Sequence[str] = ()  # on the keys behind an open one's approval
    # Of one that is being evaluated: answers that are there, and how many there may be.
    answers: tuple[int, int] | None = None
    cost: str = ""  # what its candidate costs, where it is open; else what was accepted


def proposals(ctx: Context, after: str | None = None) -> Page[ProposalRow]:
    """The open ones, what waits for a person first, and a page of the rest, newest first."""
    opened = queries.list_proposals(ctx, PageRequest(MOST_LISTED), open_only=True)
    page = queries.list_proposals(ctx, PageRequest(MOST_PROPOSALS, after))
    found = [*opened, *(proposal for proposal in page if not proposal.open)]
    invalid = [*page.invalid, *(fault for fault in opened.invalid if fault not in page.invalid)]
    verdicts = ctx.store.lists.verdicts(
        {proposal.verdict for proposal in found if proposal.verdict}
    )
    names = queries.load_target_names(
        ctx, {id_ for p in found for id_ in (p.incumbent, p.candidate)}
    )
    standings = _standings(ctx, found, verdicts)
    rows = [
        ProposalRow(
            proposal=proposal,
            incumbent=names.get(proposal.incumbent, proposal.incumbent),
            candidate=names.get(proposal.candidate, proposal.candidate),
            verdict=verdicts.get(proposal.verdict) if proposal.verdict else None,
            standing=standings.get(proposal.id),
            remarks=_remarks(ctx, proposal),
            answers=_answers(ctx, proposal),
            cost=_cost(ctx, proposal),
        )
        for proposal in found
    ]
    rows.sort(key=lambda row: row.proposal.phase is not ProposalPhase.AWAITING_APPROVAL)
    return Page(rows, page.total, page.next, invalid)


def _standings(
    ctx: Context, proposals: Iterable[Proposal], verdicts: Mapping[str, Verdict]
) -> Mapping[str, ProofValidity]:
    waiting = {
        proposal.id: verdicts[proposal.verdict]
        for proposal in proposals
        if proposal.verdict
        and proposal.verdict in verdicts
        and proposal.phase is ProposalPhase.AWAITING_APPROVAL
    }
    found = {}
    with ctx.store.read() as tx:
        tx.preload.routes({verdict.route for verdict in waiting.values()})
        for id_, verdict in waiting.items():
            # What does not hold is said where somebody approves it: that is refused.
            with suppress(SignatureInvalid):
                found[id_] = proof_validity.assess_proof(ctx, tx, verdict)
    return found


def _answers(ctx: Context, proposal: Proposal) -> tuple[int, int] | None:
    if proposal.phase is not ProposalPhase.EVALUATING or not proposal.runs:
        return None
    # As above.
    with suppress(SignatureInvalid), ctx.store.read() as tx:
        return evaluation.count_answers(tx, proposal)
    return None


def _cost(ctx: Context, proposal: Proposal) -> str:
    if not proposal.open:
        return proposal.accepted_cost.text if proposal.accepted_cost else ""
    # As above.
    with suppress(SignatureInvalid), ctx.store.read() as tx:
        return cost_ratio.load_ratio(ctx, tx, proposal).text
    return ""


def _remarks(ctx: Context, proposal: Proposal) -> Sequence[str]:
    if not proposal.open or proposal.approver is None:
        return ()
    # As above.
    with suppress(SignatureInvalid):
        shown = decisions.list_approvals(ctx, proposal.id)
        return [remark for approval in shown for remark in approval.remarks]
    return ()


def awaits_decision(proposal: Proposal) -> bool:
    return proposal.phase is ProposalPhase.AWAITING_APPROVAL and proposal.approver is None


@dataclass(frozen=True)
class CanaryView:
    route: Route
    status: CanaryStatus | None  # None for a route that never had a canary
    traffic: Sequence[TrafficMinute]  # since the canary started
    now: datetime

    @property
    def last_request(self) -> datetime | None:
        minutes = [t.minute for t in self.traffic if t.requests]
        return max(minutes) + timedelta(minutes=1) if minutes else None

    @property
    def quiet_since(self) -> datetime | None:
        last = self.last_request
        live = self.status is not None and self.status.rollout.live
        return last if live and last is not None and self.now - last > QUIET else None


def canary(ctx: Context, route: str) -> CanaryView:
    canaries = list_canaries(ctx, route=route)
    status = canaries[0] if canaries else None
    with ctx.store.read() as tx:
        since = status.rollout.started_at if status else ctx.clock.now()
        start = since.replace(second=0, microsecond=0)
        return CanaryView(
            route=routes.require_route(tx, route),
            status=status,
            traffic=tx.observations.traffic(since=start, route=route) if status else (),
            now=ctx.clock.now(),
        )


def route_names(ctx: Context) -> Sequence[str]:
    return [record.name for record in ctx.store.lists.routes()]


def canary_routes(ctx: Context) -> Sequence[str]:
    order = {rollout.route: 0 if rollout.live else 1 for rollout in list_rollouts(ctx)}
    return sorted(route_names(ctx), key=lambda name: (order.get(name, 2), name))


@dataclass(frozen=True)
class RouteView:
    route: Route
    history: Page[RouteRecord]  # its newest versions
    targets: Mapping[str, Target]
    chain: Sequence[ChainEntry]
    drift: Sequence[DriftStatus]
    serving_revision: int | None  # of the newest recorded request
    measured: RouteScorecard
    now: datetime

    @property
    def id(self) -> str:
        return self.route.name

    @property
    def behind(self) -> bool:
        return self.serving_revision is not None and (
            self.serving_revision < self.history[0].revision
        )

    def name(self, target: str) -> str:
        found = self.targets.get(target)
        return found.name if found else target


def route(ctx: Context, name: str) -> RouteView:
    history = queries.list_route_versions(ctx, name, PageRequest(MOST_VERSIONS))
    chain = fallback_chain.list_fallbacks(ctx, name)
    figures = scorecard.build_scorecard(ctx, name)
    drift = list_drift_status(ctx, route=name)
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        recent = tx.observations.traffic(since=now - timedelta(minutes=10), route=name)
        # The change's own minute may still hold requests from before it.
        after = [t for t in recent if t.minute > history[0].at]
        newest = max(after, key=lambda t: (t.minute, t.revision), default=None)
        return RouteView(
            route=routes.require_route(tx, name),
            history=history,
            targets=tx.routing.targets(),
            chain=chain,
            drift=drift,
            serving_revision=newest.revision if newest else None,
            measured=figures,
            now=now,
        )


def name_target(ctx: Context, id_: str) -> str:
    return queries.load_target_names(ctx, {id_}).get(id_, id_)


def incumbent_name(ctx: Context, route: str) -> str:
    """Names the model that serves a route. Raises NotFound."""
    return name_target(ctx, queries.find_route(ctx, route).incumbent)


def candidates(ctx: Context, route: str) -> Sequence[str]:
    with ctx.store.read() as tx:
        incumbent = routes.require_route(tx, route).incumbent
        found = tx.routing.targets()
    return sorted(target.name for target in found.values() if target.id != incumbent)


def model_names(ctx: Context) -> list[str]:
    with ctx.store.read() as tx:
        known = sorted({target.name for target in tx.routing.targets().values()})
    offered = (name for name, _ in named_models.list_configured_offers(ctx))
    return list(dict.fromkeys((*known, *offered)))


def former_versions(view: RouteView) -> Sequence[RouteRecord]:
    seen = {view.route.incumbent}
    former = []
    for record in view.history:
        if record.route.incumbent not in seen:
            seen.add(record.route.incumbent)
            former.append(record)
    return former
