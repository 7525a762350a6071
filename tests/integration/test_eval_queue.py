import asyncio
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace

import pytest

from harness.app import gate_run
from harness.app.configuration.model import ControlSettings, Settings
from harness.app.gate_run import ComparisonRequest, run_until_decided
from harness.app.store import job_queue
from harness.evals.month_spending import SpendingPurpose
from harness.evals.ports import QueuedJob
from harness.evals.spending_meter import SpendingMeter, StoredSpending
from harness.frame.database import engine
from harness.frame.errors import (
    IllegalTransition,
    InputError,
    NotAllowed,
    NotFound,
    SpendingPaused,
)
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.gate.run import EvalRun, RunState, Sample
from harness.operations import control_jobs
from harness.operations.context import Context
from harness.proposals import eval_queue, submission
from harness.proposals.registration import look_counts
from harness.providers.records import Providers
from harness.providers.registry import targets
from harness.providers.target import Provider, Target
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts
from harness.routing.settings import RouterSettings, UiSettings
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import ANN
from tests.support.control.short_policies import POLICY


class Held:
    """Workers that start nothing: what is asked of them is kept."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.stopped: list[str] = []

    def start(self, run: str) -> str:
        self.started.append(run)
        return f"w-{run}"

    def alive(self) -> dict[str, str]:
        return {}

    def reap(self) -> list[tuple[str, str, int, str]]:
        return []

    def stop(self, run: str) -> None:
        self.stopped.append(run)

    def stop_all(self) -> None: ...


@pytest.mark.req("A7")
def test_a_schedule_skips_a_run_whose_twin_is_queued_or_running(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    [first] = control_jobs.evaluate_incumbents(
        ctx, world.clock.now(), "schedule", suite="colours"
    )
    assert (
        control_jobs.evaluate_incumbents(ctx, world.clock.now(), "schedule", suite="colours")
        == []
    )
    with world.store.write() as tx:
        EvalRuns(tx).set_state(first.id, RunState.RUNNING)
    assert (
        control_jobs.evaluate_incumbents(ctx, world.clock.now(), "schedule", suite="colours")
        == []
    )
    with world.store.write() as tx:
        EvalRuns(tx).set_state(first.id, RunState.DONE)
    assert (
        control_jobs.evaluate_incumbents(ctx, world.clock.now(), "schedule", suite="colours")
        == []
    )  # in this minute
    world.clock.advance(60)
    [again] = control_jobs.evaluate_incumbents(
        ctx, world.clock.now(), "schedule", suite="colours"
    )
    assert again.id != first.id
    # Who asks by hand gets what he asks for.
    assert eval_queue.start_run(ctx, ANN, "colours", "sim/base").id != again.id


@pytest.mark.req("A7")
def test_what_a_proposal_waits_for_goes_before_a_schedule(world: SmallInstallation) -> None:
    held = Held()
    [scheduled] = control_jobs.evaluate_incumbents(
        world.context(), world.clock.now(), "schedule", suite="colours"
    )
    world.clock.advance(60)
    proposal = world.propose("sim/better")
    ctx = replace_workers(world, held)
    world.run_once(ctx)
    pairs = world.get(proposal.id).runs.values()
    ours = {run for pair in pairs for run in (pair.incumbent, pair.candidate)}
    eval_queue.run_once(ctx)
    assert set(held.started[:2]) == ours
    assert scheduled.id not in held.started[:2]
    queue = eval_queue.load_queue(ctx)
    assert {queue[run].needed_by for run in ours} == {(proposal.id,)}
    assert queue[scheduled.id].text == (
        "waits behind 2 runs; runs that proposals need come first"
    )


@pytest.mark.req("A7")
def test_a_run_is_cancelled_with_a_reason_and_its_proposal_with_it(
    world: SmallInstallation,
) -> None:
    held = Held()
    ctx = replace_workers(world, held)
    proposal = world.propose("sim/better")
    world.run_once(ctx)
    [pair] = world.get(proposal.id).runs.values()

    with pytest.raises(InputError, match="needs a reason"):
        eval_queue.cancel_run(ctx, ANN, pair.candidate, " ")
    with pytest.raises(NotFound):
        eval_queue.cancel_run(ctx, ANN, "run_nothing", "why not")
    with pytest.raises(NotAllowed):
        eval_queue.cancel_run(
            ctx,
            Actor("dan", Role.PROPOSER, "pr_dan"),
            pair.candidate,
            "a rival",
        )
    ended = eval_queue.cancel_run(ctx, ANN, pair.candidate, "the wrong model")

    assert ended.state is RunState.STOPPED
    assert "cancelled by ann: the wrong model" in ended.message
    assert pair.candidate in held.stopped
    after = world.get(proposal.id)
    assert after.phase is ProposalPhase.CANCELLED
    assert f"its run {pair.candidate} was cancelled by ann: the wrong model" in (
        after.closed_because
    )
    with world.store.read() as tx:
        assert EvalRuns(tx).get(pair.incumbent).state is RunState.STOPPED
        assert not look_counts.has_looked(tx, after)  # nothing of the candidate was scored
    with pytest.raises(IllegalTransition, match="ended already"):
        eval_queue.cancel_run(ctx, ANN, pair.candidate, "again")
    world.run_once(ctx)
    assert (
        submission.get_proposal(ctx, world.propose("sim/better").id).phase
        is ProposalPhase.PROPOSED
    )


def replace_workers(world: SmallInstallation, held: Held) -> Context:
    return replace(world.context(), workers=held)


def limited(world: SmallInstallation, **limits: float) -> Proposal:
    world.policy = replace(POLICY, gate=replace(POLICY.gate, **limits))  # type: ignore[arg-type]
    return world.propose("sim/equal")


def candidate_run(world: SmallInstallation, proposal: Proposal) -> tuple[EvalRun, list[Sample]]:
    run = proposal.runs["colours"].candidate
    with world.store.read() as tx:
        return EvalRuns(tx).get(run), list(EvalRuns(tx).samples(run, below=1000))


@pytest.mark.req("F2")
def test_a_run_stops_at_the_answer_that_reaches_its_budget(world: SmallInstallation) -> None:
    after = world.until_decided(limited(world, max_tokens=40).id)
    run, samples = candidate_run(world, after)

    assert (after.phase, run.state) == (
        ProposalPhase.REJECTED,
        RunState.OVER_BUDGET,
    )
    used = [sample.input_tokens + sample.output_tokens for sample in samples]
    assert sum(used) >= 40 > sum(used) - max(used)
    assert f"used {sum(used)} of 40 tokens" in run.message
    assert run.message in after.closed_because
    with world.store.read() as tx:
        assert [v.outcome for v in Verdicts(tx).for_proposal(after.id)] == ["inconclusive"]


@pytest.mark.req("F2")
def test_a_run_whose_budget_is_used_already_asks_nothing_more(world: SmallInstallation) -> None:
    after = world.until_decided(limited(world, max_tokens=40).id)
    run, before = candidate_run(world, after)
    with world.store.write() as tx:
        EvalRuns(tx).set_state(run.id, RunState.QUEUED)

    world.context().workers.start(run.id)  # type: ignore[union-attr]

    run, samples = candidate_run(world, after)
    assert (run.state, len(samples)) == (RunState.OVER_BUDGET, len(before))


@pytest.mark.req("F2")
def test_money_is_not_spent_where_its_sum_could_not_be_known(world: SmallInstallation) -> None:
    unpriced = Provider("sim", "sim", "http://127.0.0.1:9/v1")
    targets.put_provider(world.context(), SYSTEM, unpriced)
    after = world.until_decided(limited(world, max_cost_usd=1.0).id)
    run, samples = candidate_run(world, after)

    assert (run.state, samples) == (RunState.OVER_BUDGET, [])
    assert "`swapproof model price sim/equal INPUT OUTPUT` sets it" in run.message


CAP_USD = 0.01


def compare(
    world: SmallInstallation,
    ctx: Context,
    *suites: str,
) -> Proposal:
    with world.store.read() as tx:
        providers = Providers(tx).all()
    parts = (
        RouterSettings(),
        ControlSettings(),
        UiSettings(),
    )
    settings = Settings("", world.folder, None, *parts, providers, {}, {}, {})
    seeds = (Target("sim", "base"), Target("sim", "better"))
    return gate_run.register_comparison(
        ctx, SYSTEM, settings, ComparisonRequest(suites, *seeds)
    )


def waits(_: Proposal) -> bool:
    raise AssertionError("it waits, and the cap cannot be raised here")


@pytest.mark.req("F10")
def test_a_comparison_whose_model_has_no_price_ends_and_says_so(
    world: SmallInstallation,
) -> None:
    targets.put_provider(
        world.context(),
        SYSTEM,
        Provider("sim", "sim", "http://127.0.0.1:9/v1"),
    )
    ctx = replace(world.context(), monthly_cap_usd=CAP_USD)

    with pytest.raises(
        SpendingPaused,
        match="not measured: the price of sim/base is unknown",
    ):
        run_until_decided(ctx, compare(world, ctx, "colours").id, waits)


@pytest.mark.req("F10")
def test_a_comparison_at_the_monthly_cap_ends_and_says_so(world: SmallInstallation) -> None:
    ctx = replace(world.context(), monthly_cap_usd=CAP_USD)

    proposal = compare(world, ctx, "colours")
    world.run_once(replace(ctx, workers=None))  # puts the cap into the database
    meter = SpendingMeter(StoredSpending(world.store), world.clock, SpendingPurpose.EVALS)
    meter.pay(CAP_USD)
    meter.refresh()

    with pytest.raises(SpendingPaused, match=r"the monthly cap of \$0\.01 is reached"):
        run_until_decided(ctx, proposal.id, waits)


def take(
    url: str,
    count: int,
    *,
    providers: Iterable[str] = (),
) -> list[str]:
    """The runs that one slot takes, in order, until it has so many."""
    taken: list[str] = []

    async def consume() -> None:
        ended = asyncio.Event()

        async def work(run: str) -> None:
            taken.append(run)
            if len(taken) == count:
                ended.set()

        await job_queue.consume(
            url,
            providers=list(providers),
            slots=1,
            work=work,
            ended=ended,
        )

    asyncio.run(consume())
    return taken


@pytest.fixture
def queue_url(postgres_url: str) -> str:
    job_queue.install(postgres_url)
    job_queue.install(postgres_url)  # a second time changes nothing
    return postgres_url


def jobs(*runs: str, provider: str = "a") -> list[QueuedJob]:
    return [QueuedJob(run, provider, -place) for place, run in enumerate(runs)]


def test_workers_take_runs_in_the_order_last_given_and_only_those_of_their_providers(
    queue_url: str,
) -> None:
    with closing(job_queue.JobQueue(queue_url)) as queue:
        assert queue.replace(jobs("r1", "r2", "r3")) == ["r1", "r2", "r3"]
        added = queue.replace([*jobs("r4", "r3", "r1"), *jobs("other", provider="b")])
        assert added == ["r4", "other"]
        assert take(queue_url, 3, providers=["a"]) == ["r4", "r3", "r1"]
        assert take(queue_url, 1) == ["other"]
        # What has been taken is gone, and may be queued again.
        assert queue.replace(jobs("r1")) == ["r1"]


def test_a_run_is_taken_back_from_a_host_without_a_heartbeat_and_from_no_other(
    queue_url: str,
) -> None:
    with closing(job_queue.JobQueue(queue_url)) as queue:
        queue.replace(jobs("r1"))
        _change(queue_url, "SELECT procrastinate_register_worker_v1()")
        _change(queue_url, "SELECT procrastinate_fetch_job_v2(NULL, 1)")
        assert list(queue.remove_dead_jobs()) == []
        age = job_queue.DEAD_AFTER_S + 5
        _change(
            queue_url,
            f"UPDATE procrastinate_workers SET last_heartbeat = now() - interval '{age} s'",  # noqa: S608 - a number
        )
        # Its worker may still be at work, so no other worker gets it meanwhile.
        assert queue.replace(jobs("r1")) == []
        assert list(queue.remove_dead_jobs()) == ["r1"]
        assert queue.replace(jobs("r1")) == ["r1"]


def _change(url: str, statement: str) -> None:
    made = engine.make(engine.parse(url))
    with made.begin() as db:
        db.exec_driver_sql(f"SET LOCAL search_path TO {job_queue.SCHEMA}")
        db.exec_driver_sql(statement)
    made.dispose()
