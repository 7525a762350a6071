"""Read models show people what is going on: each route at a glance, a comparison of two
models, a canary with its history. They decide nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median, quantiles
from typing import Final

from harness.control.canary import decision, holds
from harness.control.context import Context
from harness.control.evals import proof_validity
from harness.control.evals.proof_validity import ProofValidity
from harness.control.evals.run_costs import (
    ArmSamples,
    JudgingCost,
    Savings,
    compute_savings,
    sum_judging_cost,
)
from harness.control.routing import monthly_bill, routes
from harness.control.shadow.stage import ShadowStage, find_stage
from harness.domain.canary.observation import ObservationBlock, TrafficMinute
from harness.domain.canary.rollout import Rollout
from harness.domain.errors import NotFound, SignatureInvalid
from harness.domain.evals.cost_forecast import CostForecast
from harness.domain.evals.pins import ServedModels, named_models
from harness.domain.evals.run import EvalRun, Sample, SampleError, SuitePin, SuitePlan, Verdict
from harness.domain.operations.audit import AuditEvent
from harness.domain.proposals.proposal import Proposal
from harness.domain.routing.table import Route
from harness.domain.routing.target import Target
from harness.gate.offline.intervals import mean_interval, median_interval
from harness.gate.offline.pairs import UNSCORED_HIGH
from harness.gate.online.next_step import decide_action
from harness.gate.online.rollout_action import RolloutAction
from harness.gate.text.explain import RolloutExplanation, explain_rollout
from harness.gate.text.sentences import unscored_text
from harness.ports import Transaction

MAX_AUDIT_EVENTS: Final = 2_000
# What ends without these ran out of money, items or infrastructure: that saves nothing.
DECIDED_OUTCOMES: Final = frozenset({"passed", "failed", "harness_mismatch"})


@dataclass(frozen=True)
class ArmFigures:
    """One arm's answers in an eval."""

    samples: int
    cost_usd_per_1000: float | None  # None where a price is unknown
    p50_s: float | None  # p50_s, p95_s: of the answers' wall time, None without answers
    p95_s: float | None
    # Share of calls that ended in an infrastructure error. The intervals are 95 %, None where
    # they say nothing.
    failed: float
    cost_interval_usd_per_1000: tuple[float, float] | None = None
    p50_interval_s: tuple[float, float] | None = None


@dataclass(frozen=True)
class SuiteAnswers:
    """The two runs of one suite, as far as they are."""

    plan: SuitePlan
    incumbent_run: EvalRun
    candidate_run: EvalRun
    incumbent: Sequence[Sample]
    candidate: Sequence[Sample]
    pin: SuitePin

    @property
    def judging(self) -> JudgingCost:
        """Of both runs."""
        return sum_judging_cost([*self.incumbent, *self.candidate], judged=self.pin.judged)

    @property
    def served(self) -> ServedModels:
        """What the providers said that they served, over all answers."""
        return ServedModels(
            incumbent=named_models(sample.served for sample in self.incumbent),
            candidate=named_models(sample.served for sample in self.candidate),
            judge=named_models(sample.judge for sample in (*self.incumbent, *self.candidate)),
        )


@dataclass(frozen=True)
class Comparison:
    """One proposal with both models' answers."""

    proposal: Proposal
    incumbent: Target
    candidate: Target
    verdict: Verdict | None  # None while the gate is open
    suites: Sequence[SuiteAnswers]
    incumbent_figures: ArmFigures
    candidate_figures: ArmFigures
    forecast: CostForecast
    standing: ProofValidity | None = None  # whether it is proof still
    shadow: ShadowStage | None = None  # what came before the canary, None for nothing

    @property
    def savings(self) -> Savings | None:
        """What the gate saved by deciding early; None where it did not."""
        if self.verdict is None or self.verdict.outcome not in DECIDED_OUTCOMES:
            return None
        return compute_savings(
            [
                ArmSamples(side.plan.n_max * side.plan.epochs, samples)
                for side in self.suites
                for samples in (side.incumbent, side.candidate)
            ]
        )

    @property
    def stopped_early(self) -> str:
        """In words; empty where the gate needed everything that was planned."""
        if self.savings is None or self.verdict is None:
            return ""
        used = sum(report.n_used for report in self.verdict.suites)
        planned = sum(report.n_max for report in self.verdict.suites)
        return f"Stopped after {used:,} of {planned:,} items: {self.savings.words}."

    @property
    def unscored(self) -> Sequence[str]:
        """Of each suite with many answers without a score, how they counted.

        A verdict's reason is one suite's; what it says already is left out.
        """
        if self.verdict is None:
            return ()
        epochs = {side.plan.suite: side.plan.epochs for side in self.suites}
        said = [
            (
                suite.suite,
                unscored_text(suite.details, suite.n_used * epochs[suite.suite]).strip(),
            )
            for suite in self.verdict.suites
            if UNSCORED_HIGH in suite.flags and suite.suite in epochs
        ]
        alone = len(self.verdict.suites) == 1
        reason = self.verdict.reason
        return [
            f"{suite}: {words}"
            for suite, words in said
            if not (words in reason and (alone or f"{suite}: " in reason))
        ]


@dataclass(frozen=True)
class CanaryStatus:
    """Where a rollout is and why."""

    rollout: Rollout
    incumbent: Target
    candidate: Target
    action: RolloutAction  # what the evidence asks for now
    blocks: Sequence[ObservationBlock]
    explanation: RolloutExplanation  # the same for people
    # moved, faults: what keeps it from going on, whatever the evidence says, until a person
    # acts; empty for nothing.
    moved: str = ""
    faults: str = ""

    @property
    def held(self) -> Sequence[str]:
        return [*filter(None, (self.moved, self.faults))]


@dataclass(frozen=True)
class RouteStatus:
    """One route at a glance."""

    route: Route
    incumbent: Target
    candidate: Target | None
    open_proposal: Proposal | None
    last_verdict: Verdict | None
    rollout: Rollout | None
    traffic: Sequence[TrafficMinute]  # of the last hour
    standing: ProofValidity | None = None

    @property
    def needs_decision(self) -> bool:
        """Whether a person is waited for: an approval, or a paused canary."""
        waiting = self.open_proposal is not None and self.open_proposal.phase.value
        paused = self.rollout is not None and self.rollout.state.value == "paused"
        return waiting == "awaiting_approval" or paused


@dataclass(frozen=True)
class CurrentActivity:
    """What goes on on all routes, by route."""

    proposals: Mapping[str, Proposal]
    rollouts: Mapping[str, Rollout]
    traffic: Sequence[TrafficMinute]  # of the last hour


def load_current_activity(ctx: Context) -> CurrentActivity:
    since = ctx.clock.now() - timedelta(hours=1)
    with ctx.store.read() as tx:
        return CurrentActivity(
            {p.route: p for p in tx.proposals.open()},
            {r.route: r for r in (*tx.rollouts.baking(), *tx.rollouts.live())},
            tx.observations.traffic(since=since),
        )


def build_route_status(
    ctx: Context, route: Route, targets: Mapping[str, Target], now: CurrentActivity
) -> RouteStatus:
    """targets: by id, those of the route. Raises SignatureInvalid."""
    for id_ in route.targets - targets.keys():
        raise SignatureInvalid(f"its target {id_} is not as it was signed")
    with ctx.store.read() as tx:
        verdict = next(iter(tx.verdicts.list(route=route.name, limit=1)), None)
        return RouteStatus(
            route=route,
            incumbent=targets[route.incumbent],
            candidate=targets[route.canary.target] if route.canary else None,
            open_proposal=now.proposals.get(route.name),
            last_verdict=verdict,
            rollout=now.rollouts.get(route.name),
            traffic=[minute for minute in now.traffic if minute.route == route.name],
            standing=proof_validity.assess_proof(ctx, tx, verdict) if verdict else None,
        )


def load_comparison(ctx: Context, proposal: str) -> Comparison:
    """Raises NotFound."""
    with ctx.store.read() as tx:
        found = tx.proposals.get(proposal)
        targets = tx.routing.targets()
        suites = [_side(tx, found, plan) for plan in found.plans if plan.suite in found.runs]
        verdict = tx.verdicts.get(found.verdict) if found.verdict else None
        arms = targets[found.incumbent], targets[found.candidate]
        answers = [(side.incumbent, side.candidate) for side in suites]
        money = monthly_bill.forecast_from_answers(ctx, tx, found.route, arms, answers)
        standing_ = proof_validity.assess_proof(ctx, tx, verdict) if verdict else None
        stage = find_stage(ctx, tx, found)
    return Comparison(
        proposal=found,
        incumbent=arms[0],
        candidate=arms[1],
        verdict=verdict,
        suites=suites,
        incumbent_figures=compute_arm_figures([s for side in suites for s in side.incumbent]),
        candidate_figures=compute_arm_figures([s for side in suites for s in side.candidate]),
        forecast=money,
        standing=standing_,
        shadow=stage,
    )


def _side(tx: Transaction, proposal: Proposal, plan: SuitePlan) -> SuiteAnswers:
    pair = proposal.runs[plan.suite]
    return SuiteAnswers(
        plan=plan,
        incumbent_run=tx.runs.get(pair.incumbent),
        candidate_run=tx.runs.get(pair.candidate),
        incumbent=tx.runs.samples(pair.incumbent, below=plan.n_max),
        candidate=tx.runs.samples(pair.candidate, below=plan.n_max),
        pin=tx.suites.get(plan.suite_digest),
    )


def compute_arm_figures(samples: Sequence[Sample]) -> ArmFigures:
    """What one arm cost and how long it took, over all its samples."""
    if not samples:
        return ArmFigures(0, None, None, None, 0.0)
    answered = [s for s in samples if s.error is not SampleError.INFRA]
    costs = [s.cost_usd for s in answered if s.cost_usd is not None]
    times = [s.duration_s for s in answered]
    known = bool(costs) and len(costs) == len(answered)
    cost_interval = mean_interval(costs) if known else None
    return ArmFigures(
        samples=len(samples),
        cost_usd_per_1000=sum(costs) / len(costs) * 1000 if known else None,
        p50_s=median(times) if times else None,
        p95_s=quantiles(times, n=20)[-1] if len(times) > 1 else None,
        failed=1 - len(answered) / len(samples),
        cost_interval_usd_per_1000=(
            (cost_interval[0] * 1000, cost_interval[1] * 1000) if cost_interval else None
        ),
        p50_interval_s=median_interval(times),
    )


def list_canaries(ctx: Context, *, route: str | None = None) -> Sequence[CanaryStatus]:
    """Live canaries; with `route`, that route's newest rollout, live or not.

    Raises NotFound for an unknown route.
    """
    now = ctx.clock.now()
    with ctx.store.read() as tx:
        if route is not None:
            routes.require_route(tx, route)
        rollouts = (
            [*tx.rollouts.live(), *tx.rollouts.baking()]
            if route is None
            else tx.rollouts.list(route=route, limit=1)
        )
        targets = tx.routing.targets()
        return [_status(ctx, tx, targets, rollout, now) for rollout in rollouts]


@dataclass(frozen=True)
class CanaryHistory:
    """A canary's status, and what was done to it."""

    status: CanaryStatus
    # What was done to the rollout, newest first (the last MAX_AUDIT_EVENTS).
    moves: Sequence[AuditEvent]


def explain_canary(ctx: Context, route: str) -> CanaryHistory:
    """The route's newest rollout, live or not, and its moves. Raises NotFound."""
    found = next(iter(list_canaries(ctx, route=route)), None)
    if found is None:
        raise NotFound(f"route {route!r} has had no canary yet: propose a swap first")
    return CanaryHistory(found, list_canary_moves(ctx, found.rollout))


def list_canary_moves(ctx: Context, rollout: Rollout) -> Sequence[AuditEvent]:
    """What was done to a rollout, newest first, of its route's last MAX_AUDIT_EVENTS since."""
    with ctx.store.read() as tx:
        events = tx.audit.of(
            f"route {rollout.route}", since=rollout.started_at, limit=MAX_AUDIT_EVENTS
        )
    return [event for event in events if event.details.get("rollout") == rollout.id]


def _status(
    ctx: Context,
    tx: Transaction,
    targets: Mapping[str, Target],
    rollout: Rollout,
    now: datetime,
) -> CanaryStatus:
    blocks = tx.observations.blocks(rollout.id)
    action = decide_action(rollout, blocks, now)
    return CanaryStatus(
        rollout=rollout,
        incumbent=targets[rollout.incumbent],
        candidate=targets[rollout.candidate],
        action=action,
        blocks=blocks,
        explanation=explain_rollout(rollout, action, blocks, now),
        moved=_moved_provider_reason(ctx, tx, rollout) if rollout.live else "",
        faults=holds.describe_router_faults(tx, rollout)
        if rollout.live or rollout.baking
        else "",
    )


def _moved_provider_reason(ctx: Context, tx: Transaction, rollout: Rollout) -> str:
    verdict = tx.verdicts.get(rollout.verdict)
    return (
        ""
        if proof_validity.find_unreadable(verdict)
        else decision.describe_moved(proof_validity.list_moved_providers(ctx, tx, verdict))
    )


def load_run_progress(ctx: Context, run: str) -> tuple[EvalRun, int, float]:
    """The run, its stored samples, its cost so far in USD."""
    with ctx.store.read() as tx:
        samples, cost, _, _ = tx.runs.progress(run)
        return tx.runs.get(run), samples, cost
