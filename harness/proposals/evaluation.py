"""Takes a proposal from its eval runs to its verdict. Proposals may share the incumbent's run
of a suite, but never a candidate's run.

One finds here which runs a proposal needs, which stored answers count, and the call of the
gate. No function here asks a model, or moves a proposal to another phase: `eval_queue` queues
the runs, `harness.gate.offline` decides, and `harness.proposals.driver` applies the
verdict.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from statistics import median

from harness.evals.users_turn import describe_users_turn, find_users_turn
from harness.frame.errors import SignatureInvalid, StaleEvidence
from harness.frame.failures import describe_absence
from harness.frame.records.transaction import Transaction
from harness.gate.incumbent_days import is_mean_run
from harness.gate.offline import verdicts
from harness.gate.offline.served_arms import describe_unconfirmed
from harness.gate.offline.verdicts import read_same_model
from harness.gate.pins import is_mixed, named_models
from harness.gate.run import (
    FIRST_ANSWERS,
    LASTING,
    RUNNABLE_STATES,
    EvalRun,
    RunBudget,
    RunState,
    Sample,
    describe_waits,
    is_nothing_readable,
)
from harness.gate.suite_plan import SuitePlan
from harness.gate.verdict import Verdict
from harness.proposals import scheduled_runs
from harness.proposals.context import ProposalsContext
from harness.providers.registry import targets
from harness.routing.proposal import (
    NONCE_CHARACTERS,
    Proposal,
    ProposalPhase,
    SuiteRuns,
    name_candidate_run,
)
from harness.routing.records.runs import EvalRuns, Suites
from harness.routing.records.verdicts import Verdicts

Answers = tuple[Sequence[Sample], Sequence[Sample]]
STUCK = (RunState.FAILED, RunState.OVER_BUDGET)
MAY_GO_ON = (*RUNNABLE_STATES, RunState.STOPPED)


def attach_runs(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
) -> Proposal:
    """Returns the proposal with a run of both arms for each suite.

    The incumbent's run is the mean of its scheduled runs (`scheduled_runs`), or one run that
    proposals share. A candidate's run is never shared, because answers seen
    before the registration must not decide. A proposal that already has runs gets new runs with
    its existing answers, because repeating a question would be another look.
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
    ours = _run(ctx, proposal, plan, proposal.incumbent)
    mean = scheduled_runs.store_mean(ctx, tx, plan, ours)
    return SuiteRuns(
        incumbent=mean.run if mean else _share_run(ctx, tx, proposal, plan),
        candidate=_new(ctx, tx, proposal, plan, proposal.candidate),
        days=mean.days if mean else None,
    )


def _resume_pair(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
    plan: SuitePlan,
    before: SuiteRuns,
) -> SuiteRuns:
    """Returns the runs of both arms for another attempt at one suite.

    The mean of scheduled runs stays, so that a further attempt cannot choose other days.
    """
    ours = _continue_run(ctx, tx, proposal, plan, before.incumbent, proposal.incumbent)
    return SuiteRuns(
        incumbent=ours,
        days=before.days if ours == before.incumbent else None,
        candidate=_continue_run(ctx, tx, proposal, plan, before.candidate, proposal.candidate),
    )


def _continue_run(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
    plan: SuitePlan,
    before: str,
    target: str,
) -> str:
    """Returns the run itself if every answer has a score; otherwise a new run with the scored
    answers. The new run is empty if two models answered, or if the provider has moved since.
    """
    if targets.find_move_since(ctx, tx, target, EvalRuns(tx).get(before).created_at):
        return _new(ctx, tx, proposal, plan, target)
    samples = EvalRuns(tx).samples(before)
    scored = _scored(samples)
    if is_mixed((sample.served for sample in scored), plan.served_pin):
        scored = []
    if len(scored) == len(samples) and EvalRuns(tx).get(before).state not in STUCK:
        EvalRuns(tx).want(before, plan.planned_items)
        return before
    run = _new(ctx, tx, proposal, plan, target)
    for sample in scored:
        EvalRuns(tx).store_sample(replace(sample, run=run))
    return run


def _scored(samples: Sequence[Sample]) -> list[Sample]:
    """Keeps the samples that another attempt cannot change."""
    return [sample for sample in samples if sample.error in LASTING]


def find_replacement(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
) -> str:
    """Explains why the candidate's scores cannot form one measurement; empty if they can.

    Two models may have answered under one name, or a provider may have moved meanwhile. A
    proposal never repeats a scored question, which would be an uncounted look. So only a
    replaced incumbent is measured again. The samples name the models that answered: samples are
    signed, sightings are not.
    """
    answers = load_answers(tx, proposal)
    for plan in proposal.plans:
        if why := _find_move(ctx, tx, proposal, plan):
            return why
        incumbent, candidate = map(_scored, answers.get(plan.suite, ((), ())))
        for whose, served in (
            ("the candidate", [sample.served for sample in candidate]),
            (
                "the judge",
                [sample.judge for sample in (*incumbent, *candidate)],
            ),
        ):
            if is_mixed(served, plan.served_pin):
                labels = ", ".join(model.label for model in named_models(served))
                return f"several models answered as {whose} of suite {plan.suite}: {labels}"
    return ""


def _find_move(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
    plan: SuitePlan,
) -> str:
    """Explains that a provider of the candidate or judge moved since the runs began; else
    empty.
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
        moved = targets.find_move_since(ctx, tx, target, EvalRuns(tx).get(run).created_at)
        if moved is not None:
            return f"provider {moved.name} was moved while suite {plan.suite} was measured"
    return ""


def _share_run(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
    plan: SuitePlan,
) -> str:
    """Returns the id of the incumbent's run: a stored run if it fits, otherwise a new one.

    A stored run fits if it is younger than the policy's `run_max_age_s` and `_can_share`
    agrees. A new run starts with the answers of `_refused_before`.
    """
    gate = proposal.policy.gate
    ours = _run(ctx, proposal, plan, proposal.incumbent)
    since = ctx.clock.now() - timedelta(seconds=gate.run_max_age_s)
    found = EvalRuns(tx).shared(ours.fingerprint, not_before=since)
    if found is None or not _can_share(ctx, tx, found, ours, plan):
        before = _refused_before(tx, ours, since)
        EvalRuns(tx).add(ours)
        for sample in before:
            EvalRuns(tx).store_sample(replace(sample, run=ours.id))
        return ours.id
    EvalRuns(tx).want(found.id, plan.planned_items)
    return found.id


def _refused_before(
    tx: Transaction,
    ours: EvalRun,
    since: datetime,
) -> Sequence[Sample]:
    """Returns the unreadable first answers that ended an earlier run. A person who proposes
    again knows about them, so the new run starts with these answers and continues.
    """
    same = EvalRuns(tx).of_suite(ours.target, ours.suite, ours.suite_digest)
    alike = (run for run in same if run.fingerprint == ours.fingerprint)
    newest = next((run for run in alike if not is_mean_run(run.id)), None)
    if newest is None or newest.created_at < since:
        return ()
    return _scored(EvalRuns(tx).samples(newest.id)) if find_refused(tx, [newest]) else ()


def find_refused(tx: Transaction, runs: Iterable[EvalRun]) -> EvalRun | None:
    """Finds a run that ended because its model's first answers were unreadable.

    Returns None if no run ended for this reason.
    """
    failed = (run for run in runs if run.state is RunState.FAILED)
    return next(
        (
            run
            for run in failed
            if _is_unreadable(EvalRuns(tx).outcomes(run.id, below=run.wanted))
        ),
        None,
    )


def _is_unreadable(answers: Iterable[Sample]) -> bool:
    return is_nothing_readable((answer.error, answer.rule) for answer in answers)


def _can_share(
    ctx: ProposalsContext,
    tx: Transaction,
    run: EvalRun,
    ours: EvalRun,
    plan: SuitePlan,
) -> bool:
    """Tells whether a stored run can replace `ours`, including its budget: each sample has a
    score, from one model that its provider still serves at the same address.
    """
    judge = Suites(tx).get(plan.suite_digest).judge
    if any(
        targets.find_move_since(ctx, tx, target, run.created_at)
        for target in (run.target, judge)
    ):
        return False
    enough = run.state is RunState.DONE and run.wanted >= ours.wanted
    if run.state in STUCK or not (enough or run.budget == ours.budget):
        return False
    samples = EvalRuns(tx).outcomes(run.id, below=ours.wanted)
    if any(sample.error not in LASTING for sample in samples):
        return False
    return all(
        scheduled_runs.is_still_served(tx, target, plan.served_pin, served)
        for target, served in (
            (run.target, [sample.served for sample in samples]),
            (judge, [sample.judge for sample in samples]),
        )
    )


def _new(
    ctx: ProposalsContext,
    tx: Transaction,
    proposal: Proposal,
    plan: SuitePlan,
    target: str,
) -> str:
    """Creates a run without answers, and stores it. Returns its id.

    A candidate's run has an id that covers the registered plans (`name_candidate_run`), so that
    its signed answers prove that the plans came first.
    """
    run = _run(ctx, proposal, plan, target)
    if target == proposal.candidate:
        nonce = ctx.chance.token("")[-NONCE_CHARACTERS:]
        run = replace(run, id=name_candidate_run(proposal, nonce))
    EvalRuns(tx).add(run)
    return run.id


def _run(
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


def run_ids(proposal: Proposal) -> frozenset[str]:
    """Returns the ids of a proposal's runs, of both arms and all suites."""
    return frozenset(
        run for pair in proposal.runs.values() for run in (pair.incumbent, pair.candidate)
    )


def load_runs(tx: Transaction, proposal: Proposal) -> dict[str, EvalRun]:
    """Loads a proposal's runs by id. Raises NotFound for a deleted run, and
    SignatureInvalid.
    """
    return {run: EvalRuns(tx).get(run) for run in sorted(run_ids(proposal))}


def describe_proposal_waits(tx: Transaction, proposal: Proposal) -> str:
    """Describes the providers that a comparison waits for, the users that it gives way to, or
    the confirmation; empty for none or a forged row.
    """
    if proposal.phase is not ProposalPhase.EVALUATING:
        return ""
    with suppress(SignatureInvalid):
        if proposal.retry_at is None:
            runs = load_runs(tx, proposal).values()
            users = find_users_turn(tx, runs, tx.now())
            return describe_waits(runs, tx.now()) or describe_users_turn(users)
        if (unconfirmed := find_unconfirmed(tx, proposal)) is not None:
            same = read_same_model(unconfirmed.inputs)
            return f"waits for an approver: {describe_unconfirmed(same)}" if same else ""
    return ""


def find_unconfirmed(tx: Transaction, proposal: Proposal) -> Verdict | None:
    """Finds the verdict of a proposal that waits for `decisions.confirm_same_model`."""
    if proposal.same_model is not None or proposal.verdict is None:
        return None
    verdict = Verdicts(tx).get(proposal.verdict)
    return verdict if read_same_model(verdict.inputs) is not None else None


def count_answers(tx: Transaction, proposal: Proposal) -> tuple[int, int]:
    """Counts the stored answers of both arms, and the most that the proposal may need.

    Returns (done, wanted). A shared run may have more answers than the proposal needs, so
    `done` is never above `wanted`.
    """
    wanted = sum(plan.most_answers for plan in proposal.plans)
    done = sum(EvalRuns(tx).progress(run)[0] for run in run_ids(proposal))
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
    found: Mapping[str, Answers],
) -> Mapping[str, Answers]:
    """Drops the answers of suites if a model's first answers are unreadable, so that its run
    has ended or may yet end.

    How many such answers exist depends on concurrency, so no verdict may use them.

    found: result of `load_answers`. runs: result of `load_runs`.
    """
    most = FIRST_ANSWERS + ctx.eval_connections

    def ends(run: EvalRun, answers: Sequence[Sample]) -> bool:
        begins = run.state in MAY_GO_ON and len(answers) <= most
        return (begins or run.state is RunState.FAILED) and _is_unreadable(answers)

    return {
        suite: arms
        for suite, arms in found.items()
        if not ends(runs[proposal.runs[suite].incumbent], arms[0])
        and not ends(runs[proposal.runs[suite].candidate], arms[1])
    }


def dead_ends(
    proposal: Proposal,
    runs: Mapping[str, EvalRun],
    now: datetime,
) -> list[EvalRun]:
    """Lists failed runs, and runs over budget once the other arm has ended too. A run that
    waited for its provider longer than the policy's patience counts as failed.
    """
    found = [
        replace(
            run,
            state=RunState.FAILED,
            message=f"waited for {describe_absence(run.message, run.waits_since or now, now)}",
        )
        for run in given_up(proposal, runs, now)
    ]
    for pair in proposal.runs.values():
        arms = (runs[pair.incumbent], runs[pair.candidate])
        both_ended = not any(arm.state in MAY_GO_ON for arm in arms)
        found += [
            arm
            for arm in arms
            if arm.state is RunState.FAILED
            or (arm.state is RunState.OVER_BUDGET and both_ended)
        ]
    return found


def given_up(
    proposal: Proposal,
    runs: Mapping[str, EvalRun],
    now: datetime,
) -> Sequence[EvalRun]:
    """Lists the runs that waited for their provider for longer than the policy allows."""
    patience_s = proposal.policy.gate.infra_patience_s
    return [runs[run] for run in sorted(runs) if runs[run].has_waited(patience_s, now)]


def stopped_early(tx: Transaction, proposal: Proposal) -> dict[str, int]:
    """Finds runs that ended with fewer items than this proposal may need, and that number.

    Another proposal may have stopped a shared run because its own verdict needed no more
    answers.
    Returns the needed number of items by run id.
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
        if _has_stopped_early(tx, EvalRuns(tx).get(run), items, epochs)
    }


def _has_stopped_early(
    tx: Transaction,
    run: EvalRun,
    items: int,
    epochs: int,
) -> bool:
    """Tells whether a run lacks answers to its first `items` items, and will not get them."""
    if run.state is RunState.DONE:
        # It may have ended while another proposal extended it.
        return len(EvalRuns(tx).outcomes(run.id, below=items)) < items * epochs
    return run.state is RunState.STOPPED


def decide_verdict(
    proposal: Proposal,
    found: Mapping[str, Answers],
    halted: Sequence[EvalRun],
    now: datetime,
    models: tuple[str, str] = ("", ""),
) -> Verdict | None:
    """Returns the verdict; None while the gate needs more samples and can still get them.

    Pure: the figures come from the samples, and the terms from the registered plans.

    halted: runs that have ended with missing samples. A failed run means "not measured", a run
    over budget "not enough evidence"; neither can pass.
    now: the route's time (`proof_validity.route_time`), at which the verdict is decided.
    models: their names for incumbent and candidate.
    Raises StaleEvidence if the two arms of a suite do not match.
    """
    stopped: dict[str, tuple[str, str]] = {}
    # Failed runs come last: a suite with both a failed run and one over budget is not measured.
    for run in sorted(halted, key=lambda run: run.state is RunState.FAILED):
        outcome = "infra_error" if run.state is RunState.FAILED else "inconclusive"
        stopped[run.suite] = (outcome, run.message or run.state.value)
    return verdicts.decide_verdict(
        route=proposal.route,
        incumbent=proposal.incumbent,
        candidate=proposal.candidate,
        plans=proposal.plans,
        samples_by_suite=found,
        stopped=stopped,
        now=now,
        ttl_s=proposal.policy.gate.verdict_ttl_s,
        models=models,
        same_model_confirmed=proposal.same_model is not None,
        days={suite: pair.days for suite, pair in proposal.runs.items() if pair.days},
    )
