"""Takes a proposal from its eval runs to its verdict.

This module reads the runs' state, chooses the stored answers that count, and calls the gate.
It calls no model, and moves no proposal to another phase: `driving.suite_runs` chooses the
runs, `harness.gate.offline` decides, and `harness.proposals.driver` applies the verdict.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from statistics import median

from harness.frame.errors import StaleEvidence
from harness.frame.failures import describe_absence
from harness.frame.records.transaction import Transaction
from harness.gate.offline import verdicts
from harness.gate.offline.people_claims import SuiteLabels
from harness.gate.pins import is_mixed, named_models
from harness.gate.run import (
    FIRST_ANSWERS,
    RUNNABLE_STATES,
    EvalRun,
    RunState,
    Sample,
)
from harness.gate.suite_plan import SuitePlan
from harness.gate.verdict import Verdict
from harness.proposals.context import ProposalsContext
from harness.proposals.driving import suite_runs
from harness.providers.registry import targets
from harness.routing.proposal import (
    Proposal,
)
from harness.routing.records.runs import EvalRuns, Suites

Answers = tuple[Sequence[Sample], Sequence[Sample]]
UNFINISHED_STATES = (*RUNNABLE_STATES, RunState.STOPPED)


def find_replacement(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
) -> str:
    """Returns the reason why the candidate's scores cannot form one measurement; empty if they
    can.

    Two models may have answered under one name, or a provider may have moved meanwhile. A
    proposal never repeats a scored question, because that would be an uncounted look. After a
    replacement, only the incumbent is therefore measured again. The models' names come from
    samples, which are signed; sightings are not.
    """
    answers = load_answers(tx, proposal)
    for plan in proposal.plans:
        if move := _find_move(ctx, tx, proposal, plan):
            return move
        arms = answers.get(plan.suite, ((), ()))
        incumbent, candidate = (suite_runs.lasting_samples(samples) for samples in arms)
        for role, served in (
            ("the candidate", [sample.served for sample in candidate]),
            (
                "the judge",
                [sample.judge for sample in (*incumbent, *candidate)],
            ),
        ):
            if is_mixed(served, plan.served_pin):
                labels = ", ".join(model.label for model in named_models(served))
                return f"several models answered as {role} of suite {plan.suite}: {labels}"
    return ""


def _find_move(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
    plan: SuitePlan,
) -> str:
    """Returns a sentence if the provider of the candidate or the judge moved since the runs
    began; else empty.
    """
    if plan.suite not in proposal.runs:
        return ""
    pair = proposal.runs[plan.suite]
    judge = Suites(tx).get(plan.suite_digest).judge
    for target, run in (
        (proposal.candidate, pair.candidate),
        (judge, pair.incumbent),
        (judge, pair.candidate),
    ):
        provider = targets.find_move_since(ctx, tx, target, EvalRuns(tx).get(run).created_at)
        if provider is not None:
            return f"provider {provider.name} was moved while suite {plan.suite} was measured"
    return ""


def check_arms(proposal: Proposal, runs: Mapping[str, EvalRun]) -> None:
    """Requires the registered runs. Raises StaleEvidence for any other run.

    Compares suite, target, order of items and epochs: answers to other questions, or in another
    order, do not belong to the registered test.
    """
    for plan in proposal.plans:
        pair = proposal.runs[plan.suite]
        for run, target in (
            (runs[pair.incumbent], proposal.incumbent),
            (runs[pair.candidate], proposal.candidate),
        ):
            pinned = (
                ("suite", run.suite_digest, plan.suite_digest),
                ("target", run.target, target),
                ("order of items", run.order_seed, plan.order_seed),
                ("epochs", run.epochs, plan.epochs),
            )
            for name, actual, registered in pinned:
                if actual != registered:
                    raise StaleEvidence(
                        f"suite {plan.suite}: run {run.id} has another {name} than the "
                        f"proposal: {actual}, not {registered}; propose again"
                    )


def list_run_ids(proposal: Proposal) -> frozenset[str]:
    """Returns the ids of a proposal's runs, of both arms and all suites."""
    return frozenset(
        run for pair in proposal.runs.values() for run in (pair.incumbent, pair.candidate)
    )


def load_runs(tx: Transaction, proposal: Proposal) -> dict[str, EvalRun]:
    """Loads a proposal's runs by id. Raises NotFound for a deleted run, and
    SignatureInvalid.
    """
    return {run: EvalRuns(tx).get(run) for run in sorted(list_run_ids(proposal))}


def count_answers(tx: Transaction, proposal: Proposal) -> tuple[int, int]:
    """Counts the stored answers of both arms, and the most that the proposal may need.

    Returns (done, wanted), with `done` limited to `wanted`, because a shared run may have more
    answers than the proposal needs.
    """
    wanted = sum(plan.most_answers for plan in proposal.plans)
    done = sum(EvalRuns(tx).progress(run)[0] for run in list_run_ids(proposal))
    return min(done, wanted), wanted


def load_answers(tx: Transaction, proposal: Proposal) -> dict[str, Answers]:
    """Loads the stored outcomes of (incumbent, candidate) by suite, in the run's order.

    Samples have no texts, because the reconciler calls this every second during a run.
    Signatures are verified.
    """
    plans = {plan.suite: plan for plan in proposal.plans}
    return {
        suite: (
            EvalRuns(tx).outcomes(pair.incumbent, below=plans[suite].planned_items),
            EvalRuns(tx).outcomes(pair.candidate, below=plans[suite].planned_items),
        )
        for suite, pair in proposal.runs.items()
    }


def find_counting_targets(tx: Transaction, proposal: Proposal) -> frozenset[str]:
    """Finds the targets of both arms whose stored answers report tokens."""
    arms = (proposal.incumbent, proposal.candidate)
    return frozenset(
        target
        for answers in load_answers(tx, proposal).values()
        for target, samples in zip(arms, answers, strict=True)
        if any(sample.output_tokens for sample in samples)
    )


def find_usual_seconds(tx: Transaction, proposal: Proposal) -> float:
    """Returns the median duration of the slower arm's stored answers; 0 without any."""
    arms = zip(*load_answers(tx, proposal).values(), strict=True)
    durations = (
        [sample.duration_s for run in arm for sample in run if sample.error is None]
        for arm in arms
    )
    return max((median(times) for times in durations if times), default=0.0)


def has_silent_cut(tx: Transaction, proposal: Proposal) -> bool:
    """Tells whether an answer of either arm ended at its token limit while the model still
    thought.

    Another attempt would end there too, so the driver does not measure such a proposal again.
    """
    arms = (arm for answers in load_answers(tx, proposal).values() for arm in answers)
    return any(answer.is_silent_cut for arm in arms for answer in arm)


def drop_unreadable(
    ctx: ProposalsContext,
    proposal: Proposal,
    runs: Mapping[str, EvalRun],
    answers_by_suite: Mapping[str, Answers],
) -> Mapping[str, Answers]:
    """Drops the answers of each suite with a run whose first answers are unreadable.

    Such a run has ended or is about to end. The number of its answers depends on concurrency,
    so no verdict may use them.

    Args:
        answers_by_suite: result of `load_answers`.
        runs: result of `load_runs`.
    """
    max_answers = FIRST_ANSWERS + ctx.eval_connections

    def is_unreadable_run(run: EvalRun, answers: Sequence[Sample]) -> bool:
        may_end = run.state in UNFINISHED_STATES and len(answers) <= max_answers
        return (may_end or run.state is RunState.FAILED) and suite_runs.is_unreadable(answers)

    return {
        suite: arms
        for suite, arms in answers_by_suite.items()
        if not is_unreadable_run(runs[proposal.runs[suite].incumbent], arms[0])
        and not is_unreadable_run(runs[proposal.runs[suite].candidate], arms[1])
    }


def list_stuck_runs(
    proposal: Proposal,
    runs: Mapping[str, EvalRun],
    now: datetime,
) -> list[EvalRun]:
    """Lists the runs that cannot continue: failed runs, and runs over budget once the other arm
    has ended too. A run that waited for its provider longer than the policy allows has failed.
    """
    stuck_runs = [
        replace(
            run,
            state=RunState.FAILED,
            message=f"waited for {describe_absence(run.message, run.waits_since or now, now)}",
        )
        for run in list_overdue_runs(proposal, runs, now)
    ]
    for pair in proposal.runs.values():
        arms = (runs[pair.incumbent], runs[pair.candidate])
        both_ended = not any(arm.state in UNFINISHED_STATES for arm in arms)
        stuck_runs += [
            arm
            for arm in arms
            if arm.state is RunState.FAILED
            or (arm.state is RunState.OVER_BUDGET and both_ended)
        ]
    return stuck_runs


def list_overdue_runs(
    proposal: Proposal,
    runs: Mapping[str, EvalRun],
    now: datetime,
) -> Sequence[EvalRun]:
    """Lists the runs that waited for their provider for longer than the policy allows."""
    patience_s = proposal.policy.gate.infra_patience_s
    return [runs[run] for run in sorted(runs) if runs[run].has_waited(patience_s, now)]


def find_short_runs(tx: Transaction, proposal: Proposal) -> dict[str, int]:
    """Finds runs that ended with fewer items than this proposal may need.

    Another proposal may have stopped a shared run because its own verdict needed no more
    answers. Returns the number of items that this proposal may need, by run id.
    """
    needed = [
        (run, plan.planned_items, plan.epochs)
        for plan in proposal.plans
        for pair in (proposal.runs[plan.suite],)
        for run in (pair.incumbent, pair.candidate)
    ]
    return {
        run: items
        for run, items, epochs in needed
        if _is_short(tx, EvalRuns(tx).get(run), items, epochs)
    }


def _is_short(
    tx: Transaction,
    run: EvalRun,
    items: int,
    epochs: int,
) -> bool:
    """Tells whether a run lacks answers to its first `items` items, and will not get them."""
    if run.state is RunState.DONE:
        # The run may have ended at the moment when another proposal extended it.
        return len(EvalRuns(tx).outcomes(run.id, below=items)) < items * epochs
    return run.state is RunState.STOPPED


def decide_verdict(
    proposal: Proposal,
    answers_by_suite: Mapping[str, Answers],
    stuck_runs: Sequence[EvalRun],
    now: datetime,
    models: tuple[str, str] = ("", ""),
    passed_slices: Sequence[str] = (),
    labels: Mapping[str, SuiteLabels | None] | None = None,
) -> Verdict | None:
    """Returns the verdict; None while the gate needs more samples and can still get them.

    Pure: uses only the samples and the registered plans.

    Args:
        stuck_runs: result of `list_stuck_runs`.
        now: the time of the decision (`proof_validity.route_time`).
        models: the names of the incumbent's and the candidate's model.
        passed_slices: for a slice, the proposals of the other slices that have passed.
        labels: result of `label_verdicts.load_suite_labels`.

    A failed run means "not measured", a run over budget "not enough evidence"; neither can
    pass.
    Raises StaleEvidence if the two arms of a suite do not match.
    """
    outcome_by_suite: dict[str, tuple[str, str]] = {}
    # Failed runs come last and win: a suite with a failed run and a run over budget is not
    # measured.
    for run in sorted(stuck_runs, key=lambda run: run.state is RunState.FAILED):
        outcome = "infra_error" if run.state is RunState.FAILED else "inconclusive"
        outcome_by_suite[run.suite] = (outcome, run.message or run.state.value)
    return verdicts.decide_verdict(
        route=proposal.route,
        incumbent=proposal.incumbent,
        candidate=proposal.candidate,
        plans=proposal.plans,
        samples_by_suite=answers_by_suite,
        stopped=outcome_by_suite,
        now=now,
        ttl_s=proposal.policy.gate.verdict_ttl_s,
        models=models,
        same_model_confirmed=proposal.same_model is not None,
        days={suite: pair.days for suite, pair in proposal.runs.items() if pair.days},
        passed_slices=passed_slices,
        labels=labels,
    )
