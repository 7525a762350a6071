"""A comparison shows people one proposal with both models' answers; it makes no decision.

`load_comparison` reads everything that pages, reports and the API show about a proposal. It
does not write, call a model or test a hypothesis: the verdict's figures come from the gate, and
all other intervals are descriptive. `content` selects from a comparison, and `findings`
explains it.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import median, quantiles
from typing import Final

from harness.evals import proof_validity
from harness.evals.proof_validity import ProofValidity
from harness.evals.spending import JudgingCost, sum_judging_cost
from harness.frame.errors import SwapproofError
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.gate.canary_sentences import end_reason
from harness.gate.incumbent_days import describe_fresh_run
from harness.gate.offline.intervals import (
    mean_interval,
    median_interval,
    quantile_interval,
    share_interval,
)
from harness.gate.online.rollout import Rollout, RolloutSignal
from harness.gate.order_seeds import SeedOrigin
from harness.gate.pins import ServedModels, named_models
from harness.gate.run import AnswerColumns, EvalRun, Sample, describe_faults
from harness.gate.suite_plan import SuitePin, SuitePlan
from harness.gate.verdict import Verdict, VerdictBasis
from harness.proposals import proposal_waits
from harness.proposals.candidates import cost_ratio
from harness.proposals.candidates.cost_ratio import CostRatio
from harness.proposals.context import ProposalsContext
from harness.proposals.labels.blindness import hide_evidence
from harness.proposals.report.next_steps import (
    DecidedProposal,
    describe_next_step,
)
from harness.proposals.report.recorded_runs import FirstDifferences, load_first_differences
from harness.providers.records import Targets
from harness.providers.registry.target_life import describe_no_way_back
from harness.providers.target import Target
from harness.routing.control import freezes
from harness.routing.control.routes import find_later_rollback, read_later_end
from harness.routing.proposal import Proposal, ProposalPhase, ProposalView
from harness.routing.records.proposals import Proposals, Rollouts
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns, Suites
from harness.routing.records.verdicts import Verdicts
from harness.routing.reports import monthly_bill
from harness.routing.reports.monthly_bill import CostForecast

# Checking and sending more answers takes long.
MOST_TEXTS: Final = 4_000
MOST_PROMOTIONS: Final = 100  # promotions of a route that a report looks through


@dataclass(frozen=True)
class ArmFigures:
    """Figures of one arm's answers in an eval. Durations are seconds, costs are US dollars."""

    samples: int
    # None if a price was unknown when the answers came. A price that became known later changes
    # no recorded cost.
    cost_usd_per_1000: float | None
    p50_s: float | None  # p50_s, p95_s: of the answers' wall time; None without answers
    p95_s: float | None
    # Share of calls that ended in an infrastructure error; None without calls. The intervals
    # are 95 %; None with too few values.
    failed: float | None
    cost_interval_usd_per_1000: tuple[float, float] | None = None
    p50_interval_s: tuple[float, float] | None = None
    p95_interval_s: tuple[float, float] | None = None
    failed_interval: tuple[float, float] | None = None
    tokens_per_s: float | None = None  # output tokens per second of a call's total time


@dataclass(frozen=True, slots=True)
class SuiteColumns:
    """The figures of both arms' answers to one suite, in columns."""

    incumbent: AnswerColumns
    candidate: AnswerColumns


@dataclass(frozen=True)
class SuiteAnswers:
    """One suite of a comparison, with both runs and the answers that were loaded."""

    plan: SuitePlan
    incumbent_run: EvalRun
    candidate_run: EvalRun
    # incumbent, candidate: whole answers; in a comparison without texts, only answers that the
    # verdict names.
    incumbent: Sequence[Sample]
    candidate: Sequence[Sample]
    pin: SuitePin
    read: SuiteColumns | None = None  # only in a comparison without texts

    @cached_property
    def figures(self) -> SuiteColumns:
        """The figures of all answers, also if their texts were not loaded."""
        if self.read is not None:
            return self.read
        return SuiteColumns(*map(AnswerColumns.from_samples, (self.incumbent, self.candidate)))

    def describe_faults(self, incumbent: str, candidate: str) -> Sequence[str]:
        """Lists reasons why answers may not be evidence.

        Args:
            incumbent: its name for the sentences.
            candidate: its name for the sentences.
        """
        return (
            *describe_faults(self.figures.incumbent, incumbent),
            *describe_faults(self.figures.candidate, candidate),
        )

    @property
    def judging(self) -> JudgingCost:
        """The calls and the cost of the suite's judge, for both arms."""
        both = self.figures.incumbent, self.figures.candidate
        return sum_judging_cost(AnswerColumns.join(both), judged=self.pin.judged)

    @property
    def served(self) -> ServedModels:
        """The models that providers reported serving, for both arms and the judge."""
        incumbent_columns = self.figures.incumbent
        candidate_columns = self.figures.candidate
        return ServedModels(
            incumbent=named_models(incumbent_columns.served),
            candidate=named_models(candidate_columns.served),
            judge=named_models(incumbent_columns.judges | candidate_columns.judges),
        )


@dataclass(frozen=True)
class Comparison:
    """One proposal with everything that people read before they decide about it."""

    proposal: ProposalView
    incumbent: Target
    candidate: Target
    verdict: Verdict | None  # None while the gate is open
    suites: Sequence[SuiteAnswers]
    incumbent_figures: ArmFigures
    candidate_figures: ArmFigures
    forecast: CostForecast
    cost: CostRatio  # the candidate's cost, and whether its canary ends for it
    # Whether the verdict is still valid; None without a verdict and for NOT MEASURED.
    standing: ProofValidity | None = None
    next_step: str = ""  # the next step as text; empty without a verdict
    # Whether the samples' texts are missing, and their signatures unchecked.
    without_texts: bool = False
    # By suite, requests that its sample excludes now.
    left_out: Mapping[str, str] = field(default_factory=dict)
    # Why suites and the verdict are hidden (`blindness`); empty if nothing is.
    hidden: str = ""
    # By suite of agents' runs, when the candidate's calls first differ; empty before a verdict.
    recorded_runs: Mapping[str, FirstDifferences] = field(default_factory=dict)

    @property
    def basis(self) -> VerdictBasis | None:
        return VerdictBasis.from_verdict(self.verdict) if self.verdict else None

    @property
    def is_measured(self) -> bool:
        """Tells whether its figures are meaningful; after NOT MEASURED they are incomplete."""
        return self.verdict is None or self.verdict.outcome != "infra_error"

    @property
    def faults(self) -> Sequence[str]:
        """Lists reasons why a model's answers, or a suite's items, may not be evidence."""
        models = self.incumbent.model, self.candidate.model
        names = [side.plan.suite for side in self.suites]
        samples = [[self.left_out[name]] if name in self.left_out else [] for name in names]
        faults = [
            (side.plan.suite, [*side.describe_faults(*models), *sample])
            for side, sample in zip(self.suites, samples, strict=True)
        ]
        is_only_suite = len(faults) == 1
        return [
            fault if is_only_suite else f"{suite}: {fault}"
            for suite, suite_faults in faults
            for fault in suite_faults
        ]

    @property
    def decided_on(self) -> str:
        if self.basis is None:
            return ""
        origins = {plan.seed_origin for plan in self.basis.plans}
        notes = [f"Decided on {self.basis.items_text}."]
        if SeedOrigin.RUNNER in origins:
            notes.append("Seed chosen by the runner.")
        elif fresh_suites := sorted(
            name for name, pair in self.proposal.runs.items() if not pair.days
        ):
            suite_text = (
                ""
                if len(fresh_suites) == len(self.suites)
                else f" on {', '.join(fresh_suites)}"
            )
            notes.append(describe_fresh_run(suite_text))
        return " ".join(notes)


def load_comparison(
    ctx: ProposalsContext,
    proposal: str,
    *,
    most_texts: int | None = None,
) -> Comparison:
    """Loads a proposal with both models' answers, their costs and its verdict. Raises NotFound.

    Loading whole answers verifies their signatures, which takes long for many answers.

    Args:
        most_texts: for more answers, loads only figures; `load_texts` adds the texts of some
            items.
    """
    with ctx.store.read() as tx:
        stored, hidden = hide_evidence(tx, Proposals(tx).get(proposal))
        targets = Targets(tx).all()
        is_light = most_texts is not None and is_large(stored, most_texts)
        verdict = Verdicts(tx).get(stored.verdict) if stored.verdict else None
        suites = [
            _load_suite(tx, stored, plan, verdict, is_light=is_light)
            for plan in stored.plans
            if plan.suite in stored.runs
        ]
        arms = targets[stored.incumbent], targets[stored.candidate]
        answers = [(side.figures.incumbent, side.figures.candidate) for side in suites]
        forecast = monthly_bill.forecast_from_answers(tx, stored.route, arms, answers)
        standing = None
        if verdict and verdict.outcome != "infra_error":
            standing = proof_validity.assess_proof(ctx, tx, verdict)
        rollout = Rollouts(tx).get(stored.rollout) if stored.rollout else None
        ratio = cost_ratio.load_ratio(ctx, tx, stored)
        recorded_runs = _describe_recorded_runs(ctx, tx, stored, verdict) if verdict else {}
        view = proposal_waits.build_view(tx, stored, Routing(tx).route)
    return Comparison(
        proposal=view,
        incumbent=arms[0],
        candidate=arms[1],
        verdict=verdict,
        suites=suites,
        incumbent_figures=_compute_incumbent_figures(suites),
        candidate_figures=compute_arm_figures(AnswerColumns.join(arm for _, arm in answers)),
        forecast=forecast,
        cost=ratio,
        standing=standing,
        next_step=(standing and standing.describe_end(stored))
        or _next_step(ctx, stored, verdict, rollout, suites),
        without_texts=is_light,
        left_out=_describe_excluded_requests(ctx, stored),
        hidden=hidden,
        recorded_runs=recorded_runs,
    )


def _describe_recorded_runs(
    ctx: ProposalsContext, tx: Transaction, proposal: Proposal, verdict: Verdict
) -> Mapping[str, FirstDifferences]:
    """Describes, by suite, the agents' runs behind a verdict."""
    items = VerdictBasis.from_verdict(verdict).items
    found = {
        plan.suite: load_first_differences(
            ctx, tx, plan, proposal.runs[plan.suite], items.get(plan.suite, 0)
        )
        for plan in proposal.plans
        if plan.suite in proposal.runs
    }
    return {suite: runs for suite, runs in found.items() if runs is not None}


def _describe_excluded_requests(ctx: ProposalsContext, proposal: Proposal) -> Mapping[str, str]:
    """Describes, by suite, the requests that the suite's sample excludes now, or why its data
    cannot be read now.
    """
    known_suites = set(ctx.suites.names())
    sentences = {}
    for plan in proposal.plans:
        if plan.suite not in known_suites:
            continue
        try:
            sentence = ctx.suites.describe_sample(plan.suite)
        except SwapproofError as error:  # a past comparison does not need the file
            sentence = str(error)
        sentences[plan.suite] = sentence.rstrip(".")
    return {suite: sentence for suite, sentence in sentences.items() if sentence}


def is_large(proposal: Proposal, most_texts: int = MOST_TEXTS) -> bool:
    """Tells whether a proposal may have too many answers to check all signatures."""
    return sum(plan.most_answers for plan in proposal.plans) > most_texts


def load_texts(
    ctx: ProposalsContext,
    comparison: Comparison,
    items: Mapping[str, Collection[str]],
) -> Comparison:
    """Loads only the answers to some items, whole and checked.

    Args:
        items: by suite.

    The returned comparison omits suites without a named item.
    """
    with ctx.store.read() as tx:
        suites = [
            replace(
                side,
                incumbent=EvalRuns(tx).samples_of(
                    side.incumbent_run.id, items[side.plan.suite]
                ),
                candidate=EvalRuns(tx).samples_of(
                    side.candidate_run.id, items[side.plan.suite]
                ),
                read=None,
            )
            for side in comparison.suites
            if items.get(side.plan.suite)
        ]
    return replace(comparison, suites=suites, without_texts=False)


def _next_step(
    ctx: ProposalsContext,
    proposal: Proposal,
    verdict: Verdict | None,
    rollout: Rollout | None,
    suites: Sequence[SuiteAnswers],
) -> str:
    if verdict is None:
        return ""
    answers = {
        side.plan.suite: (side.figures.incumbent, side.figures.candidate) for side in suites
    }
    freeze_text = absence_text = no_way_back = ""
    if proposal.phase is ProposalPhase.AWAITING_APPROVAL:
        with ctx.store.read() as tx:
            freeze_text = "; ".join(freezes.list_refusals_of_step(ctx, tx, proposal.route))
    elif proposal.phase is ProposalPhase.PROMOTED and rollout is not None:
        with ctx.store.read() as tx:
            absence_text = _describe_replacement(tx, rollout)
            no_way_back = find_no_way_back(tx, rollout)
    connections = ctx.eval_connections
    return describe_next_step(
        DecidedProposal(
            proposal,
            verdict,
            rollout,
            answers,
            connections,
            freeze_text,
            absence_text,
            no_way_back,
        )
    )


def find_no_way_back(tx: Transaction, rollout: Rollout) -> str:
    """Describes a rollback target that could not serve at the promotion, from its audit event;
    else empty.
    """
    events = AuditLog(tx).for_subject(
        f"route {rollout.route}",
        since=rollout.started_at,
        limit=MOST_PROMOTIONS,
        actions=[f"canary.{RolloutSignal.PROMOTE.value}"],
    )
    promotions = (event for event in events if event.details.get("rollout") == rollout.id)
    return next((describe_no_way_back(event.details) for event in promotions), "")


def _describe_replacement(tx: Transaction, rollout: Rollout) -> str:
    """Returns the reason why a promoted candidate does not serve now; empty if it serves."""
    route = Routing(tx).route(rollout.route)
    if route is None or route.incumbent == rollout.candidate:
        return ""
    if ending := read_later_end(find_later_rollback(tx, rollout)):
        return end_reason(ending)
    if route.break_glass:
        return f"another model serves during break-glass {route.break_glass}"
    return "another model took its place"


def _load_suite(
    tx: Transaction,
    proposal: Proposal,
    plan: SuitePlan,
    verdict: Verdict | None,
    *,
    is_light: bool,
) -> SuiteAnswers:
    """Loads a suite's answers.

    Args:
        is_light: without signature checks, and texts only for the examples of a FORMAT
            MISMATCH.
    """
    pair = proposal.runs[plan.suite]
    below = plan.planned_items
    reports = [r for r in (verdict.suites if verdict else ()) if r.suite == plan.suite]
    example_items = [item for report in reports for item in report.figures.examples]

    def figures(run: str) -> AnswerColumns:
        return EvalRuns(tx).figures(run, below=below)

    def load(run: str) -> Sequence[Sample]:
        if not is_light:
            return EvalRuns(tx).samples(run, below=below)
        return EvalRuns(tx).samples_of(run, example_items) if example_items else ()

    return SuiteAnswers(
        plan,
        EvalRuns(tx).get(pair.incumbent),
        EvalRuns(tx).get(pair.candidate),
        load(pair.incumbent),
        load(pair.candidate),
        Suites(tx).get(plan.suite_digest),
        SuiteColumns(figures(pair.incumbent), figures(pair.candidate)) if is_light else None,
    )


def _compute_incumbent_figures(suites: Sequence[SuiteAnswers]) -> ArmFigures:
    """Computes the incumbent's figures. A suite of traffic gives its answers from the log, so
    that their times are unknown.
    """
    figures = compute_arm_figures(AnswerColumns.join(side.figures.incumbent for side in suites))
    if not any(side.plan.judged_by for side in suites):
        return figures
    return replace(
        figures,
        p50_s=None,
        p95_s=None,
        p50_interval_s=None,
        p95_interval_s=None,
        tokens_per_s=None,
    )


def compute_arm_figures(answers: AnswerColumns) -> ArmFigures:
    """Computes an arm's figures from its answers.

    Costs and times count only answers without an infrastructure error; `failed` counts all
    calls. A cost is None if one answer has an unknown cost: a mean of the known ones would
    mislead. The intervals are of `harness.gate.offline.intervals`.
    """
    if not len(answers):
        return ArmFigures(0, None, None, None, None)
    answered = answers.answered
    costs = [cost for cost in answered.cost_usd if cost is not None]
    # Sorted here, because sorting a sorted list again is fast.
    times = sorted(answered.duration_s)
    has_all_costs = bool(costs) and len(costs) == len(answered)
    cost_interval = mean_interval(costs) if has_all_costs else None
    return ArmFigures(
        samples=len(answers),
        cost_usd_per_1000=math.fsum(costs) / len(costs) * 1000 if has_all_costs else None,
        p50_s=median(times) if times else None,
        p95_s=quantiles(times, n=20)[-1] if len(times) > 1 else None,
        failed=1 - len(answered) / len(answers),
        cost_interval_usd_per_1000=(
            (cost_interval[0] * 1000, cost_interval[1] * 1000) if cost_interval else None
        ),
        p50_interval_s=median_interval(times),
        p95_interval_s=quantile_interval(times, 0.95),
        failed_interval=share_interval(len(answers) - len(answered), len(answers)),
        tokens_per_s=sum(answered.output_tokens) / sum(times) if sum(times) else None,
    )
