"""Chooses the eval runs of a proposal's suites. Proposals may share the incumbent's run of a
suite, but never a candidate's run.

It stores new runs, with the answers that still count, and asks no model: `eval_queue` queues
the runs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from harness.frame.records.transaction import Transaction
from harness.gate.incumbent_days import is_mean_run
from harness.gate.pins import is_mixed
from harness.gate.run import (
    LASTING,
    EvalRun,
    RunBudget,
    RunState,
    Sample,
    is_nothing_readable,
)
from harness.gate.suite_plan import SuitePlan
from harness.proposals import scheduled_runs, slice_attempts
from harness.proposals.context import ProposalsContext
from harness.providers.registry import targets
from harness.routing.proposal import (
    NONCE_CHARACTERS,
    Proposal,
    SuiteRuns,
    build_candidate_run_id,
)
from harness.routing.records.runs import EvalRuns, Suites

FAILED_STATES = (RunState.FAILED, RunState.OVER_BUDGET)


def attach_runs(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
) -> Proposal:
    """Returns the proposal with a run of both arms for each suite.

    The incumbent's run is the mean of its scheduled runs (`scheduled_runs`), or one run that
    proposals share. A candidate's run is never shared, because answers that existed
    before the registration must not decide. A proposal that already has runs gets new runs with
    its existing answers, because a repeated question would be another look.
    """
    runs = {
        plan.suite: (
            _resume_pair(ctx, tx, proposal, plan, proposal.runs[plan.suite])
            if plan.suite in proposal.runs
            else _begin_pair(ctx, tx, proposal, plan)
        )
        for plan in proposal.plans
    }
    return replace(proposal, runs=runs)


def _begin_pair(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
    plan: SuitePlan,
) -> SuiteRuns:
    if (answers := slice_attempts.find_whole_answers(ctx, tx, plan)) is not None:
        # A repeated question would be another look at the slice's items.
        runs = [
            _add_run(ctx, tx, proposal, plan, target)
            for target in (proposal.incumbent, proposal.candidate)
        ]
        for run, samples in zip(runs, answers, strict=True):
            for sample in lasting_samples(samples):
                EvalRuns(tx).store_sample(replace(sample, run=run))
        return SuiteRuns(incumbent=runs[0], candidate=runs[1])
    incumbent_run = _build_run(ctx, proposal, plan, proposal.incumbent)
    mean = scheduled_runs.store_mean(ctx, tx, plan, incumbent_run)
    return SuiteRuns(
        incumbent=mean.run if mean else _share_run(ctx, tx, proposal, plan),
        candidate=_add_run(ctx, tx, proposal, plan, proposal.candidate),
        days=mean.days if mean else None,
    )


def _resume_pair(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
    plan: SuitePlan,
    earlier_runs: SuiteRuns,
) -> SuiteRuns:
    """Returns the runs of both arms for another attempt at one suite.

    The mean of scheduled runs stays, so that a further attempt cannot choose other days.
    """
    incumbent_run = _continue_run(
        ctx, tx, proposal, plan, earlier_runs.incumbent, proposal.incumbent
    )
    return SuiteRuns(
        incumbent=incumbent_run,
        days=earlier_runs.days if incumbent_run == earlier_runs.incumbent else None,
        candidate=_continue_run(
            ctx, tx, proposal, plan, earlier_runs.candidate, proposal.candidate
        ),
    )


def _continue_run(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
    plan: SuitePlan,
    earlier_run: str,
    target: str,
) -> str:
    """Returns the run itself if every answer has a score; otherwise a new run with the scored
    answers. The new run is empty if two models answered, or if the provider has moved since.
    """
    if targets.find_move_since(ctx, tx, target, EvalRuns(tx).get(earlier_run).created_at):
        return _add_run(ctx, tx, proposal, plan, target)
    samples = EvalRuns(tx).samples(earlier_run)
    scored = lasting_samples(samples)
    if is_mixed((sample.served for sample in scored), plan.served_pin):
        scored = []
    if len(scored) == len(samples) and EvalRuns(tx).get(earlier_run).state not in FAILED_STATES:
        EvalRuns(tx).want(earlier_run, plan.planned_items)
        return earlier_run
    run = _add_run(ctx, tx, proposal, plan, target)
    for sample in scored:
        EvalRuns(tx).store_sample(replace(sample, run=run))
    return run


def _share_run(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
    plan: SuitePlan,
) -> str:
    """Returns the id of the incumbent's run: a stored run if it fits, otherwise a new one.

    A stored run fits if it is younger than the policy's `run_max_age_s` and `_can_share`
    agrees. A new run starts with the answers of `_load_refused_samples`.
    """
    gate = proposal.policy.gate
    new_run = _build_run(ctx, proposal, plan, proposal.incumbent)
    since = ctx.clock.now() - timedelta(seconds=gate.run_max_age_s)
    stored_run = EvalRuns(tx).shared(new_run.fingerprint, not_before=since)
    if stored_run is None or not _can_share(ctx, tx, stored_run, new_run, plan):
        refused_samples = _load_refused_samples(tx, new_run, since)
        EvalRuns(tx).add(new_run)
        for sample in refused_samples:
            EvalRuns(tx).store_sample(replace(sample, run=new_run.id))
        return new_run.id
    EvalRuns(tx).want(stored_run.id, plan.planned_items)
    return stored_run.id


def _can_share(
    ctx: ProposalsContext,
    tx: Transaction,
    run: EvalRun,
    new_run: EvalRun,
    plan: SuitePlan,
) -> bool:
    """Tells whether a stored run can replace `new_run`.

    The budgets must fit, and each sample must have a score. One model must have answered, which
    its provider still serves at the same address.
    """
    judge = Suites(tx).get(plan.suite_digest).judge
    if any(
        targets.find_move_since(ctx, tx, target, run.created_at)
        for target in (run.target, judge)
    ):
        return False
    is_complete = run.state is RunState.DONE and run.wanted >= new_run.wanted
    if run.state in FAILED_STATES or not (is_complete or run.budget == new_run.budget):
        return False
    samples = EvalRuns(tx).outcomes(run.id, below=new_run.wanted)
    if any(sample.error not in LASTING for sample in samples):
        return False
    return all(
        scheduled_runs.is_still_served(tx, target, plan.served_pin, served)
        for target, served in (
            (run.target, [sample.served for sample in samples]),
            (judge, [sample.judge for sample in samples]),
        )
    )


def _load_refused_samples(
    tx: Transaction,
    new_run: EvalRun,
    since: datetime,
) -> Sequence[Sample]:
    """Returns the answers of an earlier run that ended because they were unreadable.

    A person who proposes again may have seen these answers. The new run therefore starts with
    them.
    """
    suite_runs = EvalRuns(tx).of_suite(new_run.target, new_run.suite, new_run.suite_digest)
    equal_runs = (run for run in suite_runs if run.fingerprint == new_run.fingerprint)
    newest = next((run for run in equal_runs if not is_mean_run(run.id)), None)
    if newest is None or newest.created_at < since:
        return ()
    return (
        lasting_samples(EvalRuns(tx).samples(newest.id)) if find_refused(tx, [newest]) else ()
    )


def find_refused(tx: Transaction, runs: Iterable[EvalRun]) -> EvalRun | None:
    """Finds a run that ended because its model's first answers were unreadable.

    Returns None if no run ended for this reason.
    """
    failed = (run for run in runs if run.state is RunState.FAILED)
    return next(
        (
            run
            for run in failed
            if is_unreadable(EvalRuns(tx).outcomes(run.id, below=run.wanted))
        ),
        None,
    )


def is_unreadable(answers: Iterable[Sample]) -> bool:
    return is_nothing_readable((answer.error, answer.rule) for answer in answers)


def lasting_samples(samples: Sequence[Sample]) -> list[Sample]:
    """Keeps the samples that another attempt cannot change."""
    return [sample for sample in samples if sample.error in LASTING]


def _add_run(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
    plan: SuitePlan,
    target: str,
) -> str:
    """Creates a run without answers, and stores it. Returns its id.

    A candidate's run has an id that covers the registered plans (`build_candidate_run_id`), so
    that its signed answers prove that the plans came first.
    """
    run = _build_run(ctx, proposal, plan, target)
    if target == proposal.candidate:
        nonce = ctx.chance.token("")[-NONCE_CHARACTERS:]
        run = replace(run, id=build_candidate_run_id(proposal, nonce))
    EvalRuns(tx).add(run)
    return run.id


def _build_run(
    ctx: ProposalsContext,
    proposal: Proposal,
    plan: SuitePlan,
    target: str,
) -> EvalRun:
    """Builds a queued run of a plan, with the policy's budget, without storing it."""
    gate = proposal.policy.gate
    return EvalRun(
        id=ctx.chance.token("run_"),
        suite=plan.suite,
        suite_digest=plan.suite_digest,
        target=target,
        order_seed=plan.order_seed,
        epochs=plan.epochs,
        wanted=plan.planned_items,
        state=RunState.QUEUED,
        created_at=ctx.clock.now(),
        budget=RunBudget(gate.max_tokens, gate.max_cost_usd),
    )
