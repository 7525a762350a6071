"""Finds an incumbent's scheduled runs of a suite, and stores their mean as a run that proposals
use like any other run. Compares a stored mean with its scheduled runs again.

The drift watch schedules the runs. Only its complete runs of the whole suite count, not runs
that a person started. `harness.gate.incumbent_days` has the rules of the mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from harness.evals import drift_watches
from harness.frame.records.transaction import Transaction
from harness.gate import pins
from harness.gate.drift import DriftCheck
from harness.gate.incumbent_days import (
    SPREAD_DAYS,
    IncumbentDays,
    ScheduledRun,
    choose_days,
    find_mean_faults,
    mean_samples,
    name_mean_run,
    uses_days,
)
from harness.gate.pins import ServedModel, ServedPin, is_mixed, named_models
from harness.gate.run import LASTING, EvalRun, RunState, Sample
from harness.gate.suite_plan import SuitePlan
from harness.proposals.context import ProposalsContext
from harness.providers.records import Sightings
from harness.providers.registry import targets
from harness.routing.proposal import Proposal, SuiteRuns
from harness.routing.records.runs import EvalRuns, Suites

Samples = Sequence[Sample]


@dataclass(frozen=True, slots=True)
class MeanRun:
    """A run of the mean scores of scheduled runs, and these runs."""

    run: str
    days: IncumbentDays


def store_mean(
    ctx: ProposalsContext,
    tx: Transaction,
    plan: SuitePlan,
    new_run: EvalRun,
) -> MeanRun | None:
    """Stores the mean of the target's scheduled runs; None if it has too few of them.

    Args:
        new_run: a new run of the plan on the incumbent.

    The stored run has another id and all items of the suite. Equal scheduled runs give the same
    run, which proposals then share.
    """
    if not uses_days(plan, judged=Suites(tx).get(plan.suite_digest).judged):
        return None
    samples = dict(_find_samples(ctx, tx, plan, new_run))
    scheduled = [ScheduledRun(run, EvalRuns(tx).get(run).created_at) for run in samples]
    chosen, recent = choose_days(scheduled, ctx.clock.now())
    if not chosen:
        return None
    days = IncumbentDays.measure(chosen, recent, samples)
    order = ctx.suites.groups(plan.suite).order(plan.order_seed)
    positions = {item: position for position, item in enumerate(order)}
    run = replace(
        new_run,
        id=name_mean_run(days, plan),
        wanted=len(order),
        state=RunState.DONE,
    )
    if EvalRuns(tx).add_new(run):
        newest = days.recent[-1].runs[-1]
        texts = {**samples, newest: EvalRuns(tx).samples(newest)}
        for sample in mean_samples(days.recent, texts, run.id, positions):
            EvalRuns(tx).store_sample(sample)
    return MeanRun(run.id, days)


def _find_samples(
    ctx: ProposalsContext,
    tx: Transaction,
    plan: SuitePlan,
    new_run: EvalRun,
) -> Iterator[tuple[str, Samples]]:
    """Yields the valid scheduled runs with their samples, the newest first.

    Stops at a baseline, at a move of the provider, at another served model, and at a scheduled
    run that an approver cancelled. Yields nothing for a watch that found drift.
    """
    watch = drift_watches.find_open_watches(tx).get((new_run.target, plan.suite))
    items = Suites(tx).get(plan.suite_digest).items
    if watch is None or watch.is_drifted:
        return
    if (watch.plan.suite_digest, watch.plan.items, watch.plan.epochs) != (
        plan.suite_digest,
        items,
        plan.epochs,
    ):
        return
    served: list[ServedModel] = []
    oldest = ctx.clock.now() - timedelta(days=SPREAD_DAYS)
    for check in reversed(watch.ended):
        if check.started_at <= oldest:
            return
        run = EvalRuns(tx).get(check.run)
        if _begins_anew(ctx, tx, check, run):
            return
        samples = EvalRuns(tx).outcomes(run.id, below=items)
        served_models = named_models([*served, *(sample.served for sample in samples)])
        if not is_still_served(tx, run.target, plan.served_pin, served_models):
            return
        served = [*served_models]
        if check.is_scheduled and _is_complete(run, samples, items * plan.epochs):
            yield run.id, samples


def _begins_anew(
    ctx: ProposalsContext, tx: Transaction, check: DriftCheck, run: EvalRun
) -> bool:
    """Tells whether this run and all earlier runs are invalid."""
    # A person could cancel runs after their first answers, and so choose among them.
    was_cancelled = check.is_scheduled and run.state is RunState.STOPPED
    return was_cancelled or bool(targets.find_move_since(ctx, tx, run.target, run.created_at))


def _is_complete(run: EvalRun, samples: Samples, answers: int) -> bool:
    has_all_answers = run.state is RunState.DONE and len(samples) == answers
    return has_all_answers and all(sample.error in LASTING for sample in samples)


def is_still_served(
    tx: Transaction,
    target: str,
    pin: ServedPin,
    served: Sequence[ServedModel],
) -> bool:
    """Tells whether one model gave the answers, and the target's provider still serves it."""
    sighting = Sightings(tx).for_target(target)
    replaced = pins.find_replacement(named_models(served), sighting, pin)
    return not is_mixed(served, pin) and replaced is None


def load_scheduled(tx: Transaction, days: IncumbentDays) -> dict[str, Samples]:
    """Loads the outcomes of scheduled runs by run id. Raises NotFound, SignatureInvalid."""
    return {
        run: EvalRuns(tx).outcomes(run, below=EvalRuns(tx).get(run).wanted) for run in days.runs
    }


def find_mean_differences(
    proposal: Proposal,
    runs: Mapping[str, EvalRun],
    samples: Mapping[str, Samples],
) -> list[str]:
    """Describes how the incumbent's means differ from their scheduled runs, by suite.

    Args:
        runs: the incumbent's runs and the scheduled runs, by run id.
        samples: of these runs, by run id.

    Empty for a proposal whose incumbent has one run.
    """
    differences: list[str] = []
    for plan in proposal.plans:
        pair = proposal.runs.get(plan.suite)
        if pair is not None and pair.days is not None:
            faults = [
                *_list_run_faults(plan, pair, runs),
                *find_mean_faults(pair.days, samples.get(pair.incumbent, ()), samples),
            ]
            differences += [f"{plan.suite}: {fault}" for fault in faults]
    return differences


def load_mean_differences(tx: Transaction, proposal: Proposal) -> list[str]:
    """Describes how stored means differ from the stored scheduled runs, like
    `find_mean_differences`.

    Raises NotFound, SignatureInvalid.
    """
    ids: list[str] = []
    samples: dict[str, Samples] = {}
    for pair in proposal.runs.values():
        if pair.days is not None:
            ids += [pair.incumbent, *pair.days.runs]
            mean = EvalRuns(tx).get(pair.incumbent)
            samples[mean.id] = EvalRuns(tx).outcomes(mean.id, below=mean.wanted)
            samples |= load_scheduled(tx, pair.days)
    runs = {run: EvalRuns(tx).get(run) for run in ids}
    return find_mean_differences(proposal, runs, samples)


def _list_run_faults(
    plan: SuitePlan,
    pair: SuiteRuns,
    runs: Mapping[str, EvalRun],
) -> Iterator[str]:
    """Yields each scheduled run of another target, suite or number of answers."""
    if pair.days is None:
        return
    if pair.incumbent != name_mean_run(pair.days, plan):
        yield f"the id of run {pair.incumbent} does not match its scheduled runs"
    mean = runs.get(pair.incumbent)
    for name in pair.days.runs:
        run = runs.get(name)
        if run is None or mean is None:
            yield f"the scheduled run {name} is missing"
        elif (run.suite_digest, run.target, run.epochs) != (
            mean.suite_digest,
            mean.target,
            mean.epochs,
        ):
            yield f"the scheduled run {name} has another suite, target or number of answers"
        elif not any(
            run.created_at.date() == day.day for day in pair.days.days if name in day.runs
        ):
            yield f"the scheduled run {name} is of another day"
