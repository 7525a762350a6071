"""From a proposal to its verdict: the runs it needs, and what the gate says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from harness.control.context import Context
from harness.domain.evaluation import (
    Budget,
    EvalRun,
    RunState,
    Sample,
    SuitePlan,
    Verdict,
)
from harness.domain.proposal import Proposal, SuiteRuns
from harness.gate import verdicts
from harness.ports import Transaction

Answers = tuple[Sequence[Sample], Sequence[Sample]]
STUCK = (RunState.FAILED, RunState.OVER_BUDGET)
RUNNABLE = (RunState.QUEUED, RunState.RUNNING)


def with_runs(ctx: Context, tx: Transaction, proposal: Proposal) -> Proposal:
    """The proposal with a run of both arms for each suite.

    The incumbent's run is shared between proposals; a candidate's never is: what was seen of it
    before this registration must not decide.
    """
    runs = {
        plan.suite: SuiteRuns(
            incumbent=_shared(ctx, tx, proposal, plan),
            candidate=_new(ctx, tx, proposal, plan, proposal.candidate),
        )
        for plan in proposal.plans
    }
    return replace(proposal, runs=runs)


def _shared(ctx: Context, tx: Transaction, proposal: Proposal, plan: SuitePlan) -> str:
    gate = proposal.policy.gate
    fingerprint = _run(ctx, proposal, plan, proposal.incumbent).fingerprint
    since = ctx.clock.now() - timedelta(seconds=gate.run_max_age_s)
    found = tx.runs.shared(fingerprint, not_before=since)
    if found is None or found.state in STUCK:
        return _new(ctx, tx, proposal, plan, proposal.incumbent)
    tx.runs.want(found.id, plan.n_max)
    return found.id


def _new(
    ctx: Context, tx: Transaction, proposal: Proposal, plan: SuitePlan, target: str
) -> str:
    run = _run(ctx, proposal, plan, target)
    tx.runs.add(run)
    return run.id


def _run(ctx: Context, proposal: Proposal, plan: SuitePlan, target: str) -> EvalRun:
    gate = proposal.policy.gate
    return EvalRun(
        id=ctx.chance.token("run_"),
        suite=plan.suite,
        suite_digest=plan.suite_digest,
        target=target,
        order_seed=plan.order_seed,
        epochs=plan.epochs,
        wanted=plan.n_max,
        state=RunState.QUEUED,
        created_at=ctx.clock.now(),
        budget=Budget(gate.max_tokens, gate.max_cost_usd),
    )


def changed_suites(ctx: Context, proposal: Proposal) -> str:
    """Names of the suites whose content is no longer what was registered; empty when none."""
    changed = [
        plan.suite
        for plan in proposal.plans
        if ctx.suites.pin(plan.suite).digest != plan.suite_digest
    ]
    return ", ".join(changed)


def run_ids(proposal: Proposal) -> frozenset[str]:
    return frozenset(
        run for pair in proposal.runs.values() for run in (pair.incumbent, pair.candidate)
    )


def answers(tx: Transaction, proposal: Proposal) -> dict[str, Answers]:
    """By suite: the stored samples of (incumbent, candidate), in the run's order."""
    limit = {plan.suite: plan.n_max for plan in proposal.plans}
    return {
        suite: (
            tx.runs.samples(pair.incumbent, below=limit[suite]),
            tx.runs.samples(pair.candidate, below=limit[suite]),
        )
        for suite, pair in proposal.runs.items()
    }


def stuck(proposal: Proposal, runs: Mapping[str, EvalRun]) -> list[EvalRun]:
    """Failed runs, and those over budget once the other arm brings no more samples either."""
    found = []
    for pair in proposal.runs.values():
        arms = (runs[pair.incumbent], runs[pair.candidate])
        both_ended = not any(arm.state in RUNNABLE for arm in arms)
        found += [
            arm
            for arm in arms
            if arm.state is RunState.FAILED
            or (arm.state is RunState.OVER_BUDGET and both_ended)
        ]
    return found


def judge(
    ctx: Context,
    proposal: Proposal,
    found: Mapping[str, Answers],
    halted: Sequence[EvalRun],
) -> Verdict | None:
    """The verdict, or None while the gate needs more samples and can still get them.

    halted: runs that bring no more samples though some are missing. A failed one means "not
    measured"; one over budget means "not enough evidence". Neither is ever a pass.
    """
    stopped: dict[str, tuple[str, str]] = {}
    for run in halted:
        outcome = "infra_error" if run.state is RunState.FAILED else "inconclusive"
        stopped[run.suite] = (outcome, run.message or run.state.value)
    return verdicts.verdict(
        route=proposal.route,
        incumbent=proposal.incumbent,
        candidate=proposal.candidate,
        plans=proposal.plans,
        samples_by_suite=found,
        stopped=stopped,
        now=ctx.clock.now(),
        ttl_s=proposal.policy.gate.verdict_ttl_s,
    )
