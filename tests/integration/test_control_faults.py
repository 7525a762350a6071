from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from evals.runner.provider_client import ProviderFailed
from evals.suites.items import Item
from harness.canary import decision, operations
from harness.canary.audit import RolloutTransaction
from harness.evals.settings import SuiteSettings
from harness.frame.errors import InputError, NotFound, StaleWrite
from harness.frame.formatting import DASH
from harness.frame.people.access import SYSTEM
from harness.gate.online.rollout import RolloutSignal, RolloutState
from harness.gate.policy import GatePolicy
from harness.gate.run import FIRST_ANSWERS, LEASE_S, RunState
from harness.gate.sentences import difference_cells
from harness.gate.suite_plan import Claim
from harness.operations import control_jobs, route_queries
from harness.operations.context import Context
from harness.proposals import decisions, eval_queue, evaluation
from harness.proposals.report.comparison import load_comparison
from harness.providers.registry import targets
from harness.providers.target import Provider, Target
from harness.routing.control import routes
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Rollouts
from harness.routing.records.runs import EvalRuns
from harness.routing.records.verdicts import Verdicts
from harness.routing.route_settings import RouteSettings, RouteSuite
from tests.support.control.bare_installation import read_history
from tests.support.control.colours_suite import ITEMS, answer, suite_file
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.inline_workers import InlineWorkers
from tests.support.control.people import ANN, BEN
from tests.support.control.short_policies import approved


def until_closed(
    world: SmallInstallation,
    proposal: str,
    ctx: Context,
    turns: int = 200,
) -> None:
    for _ in range(turns):
        world.run_once(ctx)
        if not world.get(proposal).open:
            return
    raise AssertionError(f"{proposal} is still {world.get(proposal).phase}")


def elsewhere(world: SmallInstallation) -> Proposal:
    folder = world.folder / "mail"
    folder.mkdir()
    world.suites["mail"] = SuiteSettings(name="mail", path=suite_file(folder), scorer="exact")
    settings = RouteSettings(suites=(RouteSuite("mail"),))
    routes.create_route(world.context(), SYSTEM, "mail", "sim/base", settings=settings)
    return world.propose("sim/better", route="mail")


def states(world: SmallInstallation) -> Mapping[str, RunState]:
    with world.store.read() as tx:
        return {run.id: run.state for run in EvalRuns(tx).list()}


def test_a_worker_that_dies_before_it_takes_its_run_is_counted(
    world: SmallInstallation,
) -> None:
    def no_memory(_run: str) -> None:
        raise OSError("cannot allocate memory")

    world.boot = no_memory
    proposal = world.propose("sim/better")
    until_closed(world, proposal.id, world.context())

    after = world.get(proposal.id)
    assert after.phase is ProposalPhase.REJECTED
    assert "not measured" in after.closed_because
    assert "cannot allocate memory" in after.closed_because


class Unstartable(InlineWorkers):
    """Workers of one target cannot be started at all."""

    def __init__(self, world: SmallInstallation, target: str) -> None:
        super().__init__(lambda run, owner: world._work(world.store, run, owner))
        self._world = world
        self._target = target

    def start(self, run: str) -> str:
        with self._world.store.read() as tx:
            if EvalRuns(tx).get(run).target == self._target:
                raise KeyError("no such provider")
        return super().start(run)


def test_a_run_whose_worker_cannot_start_does_not_keep_others_from_theirs(
    world: SmallInstallation,
) -> None:
    first = world.propose("sim/worse")
    second = elsewhere(world)
    workers = Unstartable(world, first.candidate)
    ctx = replace(world.context(), workers=workers, eval_workers=1)
    until_closed(world, first.id, ctx)

    assert "not measured" in world.get(first.id).closed_because
    assert world.get(second.id).phase is ProposalPhase.CANARY


def test_a_provider_that_is_gone_ends_in_not_measured(world: SmallInstallation) -> None:
    targets.put_provider(
        world.context(),
        SYSTEM,
        Provider("gone", "sim", "http://127.0.0.1:9"),
    )
    proposal = world.propose("gone/better")
    with world.store._writing.begin() as db:
        db.execute(sa.text("DELETE FROM provider WHERE name = 'gone'"))
    until_closed(world, proposal.id, world.context())

    assert "provider 'gone' no longer exists" in world.get(proposal.id).closed_because


def test_a_suite_that_vanishes_ends_its_proposal_alone(world: SmallInstallation) -> None:
    first = world.propose("sim/better")
    second = elsewhere(world)
    control_jobs.reconcile(replace(world.context(), workers=None))
    file = world.suites["colours"].path
    assert file is not None
    file.unlink()
    world.run_once(turns=10)

    after = world.get(first.id)
    assert after.phase is ProposalPhase.REJECTED
    assert "colours can no longer be loaded" in after.closed_because
    assert world.get(second.id).phase is ProposalPhase.CANARY


def test_a_proposal_that_breaks_the_loop_stops_no_other(
    world: SmallInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.propose("sim/better")
    second = elsewhere(world)
    judge = evaluation.decide_verdict

    def broken(proposal: object, *rest: object) -> object:
        if getattr(proposal, "id", "") == first.id:
            raise ZeroDivisionError("a bug")
        return judge(proposal, *rest)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(evaluation, "decide_verdict", broken)
    told = [words for _ in range(10) for words in world.run_once().failed]

    assert f"{first.id}: ZeroDivisionError: a bug" in told
    assert world.get(second.id).phase is ProposalPhase.CANARY


@pytest.mark.req("A5", "F8")
def test_a_clock_that_was_set_back_further_than_a_verdict_lasts_holds_no_canary_up(
    world: SmallInstallation,
) -> None:
    world.clock.advance(30 * 86_400)
    routes.change_settings(
        world.context(),
        SYSTEM,
        "chat",
        lambda now: replace(now, total_timeout_s=9.0),
    )
    (newest, *_) = read_history(world.context(), "chat")
    world.clock.jump(-30 * 86_400)

    proposal = world.decided("sim/better")

    assert proposal.phase is ProposalPhase.CANARY
    assert read_history(world.context(), "chat")[0].at == newest.at


def test_the_runs_of_a_cancelled_proposal_stop(world: SmallInstallation) -> None:
    proposal = world.propose("sim/better")
    control_jobs.reconcile(replace(world.context(), workers=None))
    assert set(states(world).values()) == {RunState.QUEUED}

    decisions.cancel_proposal(world.context(), ANN, proposal.id)
    assert set(states(world).values()) == {RunState.STOPPED}
    with world.store.read() as tx:
        reasons = {EvalRuns(tx).get(run).message for run in states(world)}
    assert reasons == {"its proposal had ended"}
    for run in states(world):
        world._work(world.store, run, "a worker that comes too late")
    assert set(states(world).values()) == {RunState.STOPPED}
    world.run_once()
    with world.store.read() as tx:
        assert not any(EvalRuns(tx).done(run) for run in states(world))


def test_a_shared_run_goes_on_for_the_proposal_that_still_needs_it(
    world: SmallInstallation,
) -> None:
    world.add_route("mail")
    first = world.propose("sim/better")
    second = world.propose("sim/better", route="mail")
    control_jobs.reconcile(replace(world.context(), workers=None))
    decisions.cancel_proposal(world.context(), ANN, first.id)

    shared = world.get(second.id).runs["colours"]
    ended = world.get(first.id).runs["colours"]
    assert shared.incumbent == ended.incumbent
    assert shared.candidate != ended.candidate
    assert states(world)[shared.incumbent] is RunState.QUEUED
    assert world.until_decided(second.id).phase is ProposalPhase.CANARY


def down_once(model: str) -> Callable[[Target, Item, int], str]:
    """The first questions to `model` fail in the provider's infrastructure."""
    failed: list[str] = []

    def script(
        target: Target,
        item: Item,
        epoch: int,
    ) -> str:
        if target.model == model and len(failed) < FIRST_ANSWERS:
            failed.append(item.id)
            raise ProviderFailed("overloaded")
        return answer(target, item, epoch)

    return script


def silent(model: str) -> Callable[[Target, Item, int], str]:
    """Answers of `model` are empty."""
    return lambda target, item, epoch: (
        "" if target.model == model else answer(target, item, epoch)
    )


@pytest.mark.req("F2")
@pytest.mark.parametrize("jump_s", [0.0, -3600.0, 3600.0])
def test_an_incumbents_run_with_a_hole_is_measured_anew_after_a_pause_by_no_clock_that_jumps(
    world: SmallInstallation, jump_s: float
) -> None:
    world.script = down_once("base")
    proposal = world.propose("sim/better")
    ctx = world.context()
    for _ in range(4):
        world.run_once(ctx)
    assert world.get(proposal.id).retry_at is not None
    world.clock.jump(jump_s)
    for _ in range(10):
        world.run_once(ctx)

    assert world.get(proposal.id).phase is ProposalPhase.CANARY
    with world.store.read() as tx:
        outcomes = {verdict.outcome for verdict in Verdicts(tx).for_proposal(proposal.id)}
    assert outcomes == {"infra_error", "passed"}


@pytest.mark.req("F2")
@pytest.mark.parametrize("model", ["base", "better"])
def test_a_model_that_cannot_be_read_is_named_and_tried_again_by_the_next_proposal(
    world: SmallInstallation, model: str
) -> None:
    world.script = silent(model)
    first = world.propose("sim/better")
    until_closed(world, first.id, world.context())
    refused = world.get(first.id)
    assert refused.infra_errors == 0
    assert f"after 1 attempt: {model}'s first 5 answers are empty" in refused.closed_because
    shown = load_comparison(world.context(), first.id)
    assert shown.verdict is not None
    assert difference_cells(shown.verdict.suites[0]) == (DASH, DASH)
    # What is not measured is no proof that could hold until a day.
    assert shown.standing is None
    assert "propose" in shown.next_step

    second = world.decided("sim/better")
    assert second.plans[0].look == 1
    with world.store.read() as tx:
        verdict = Verdicts(tx).get(second.verdict or "")
    assert verdict.outcome == ("passed" if model == "base" else "infra_error")


@pytest.mark.req("F2")
@pytest.mark.parametrize(("model", "outcome"), [("base", "passed"), ("better", "failed")])
def test_unreadable_answers_count_as_wrong_at_once_where_the_policy_says_so(
    world: SmallInstallation,
    model: str,
    outcome: str,
) -> None:
    world.script = silent(model)
    gate = replace(world.policy.gate, unreadable_is_wrong=True)
    world.policy = replace(world.policy, gate=gate)
    proposal = world.propose("sim/better")
    world.run_once(turns=10)

    with world.store.read() as tx:
        said = [verdict.outcome for verdict in Verdicts(tx).for_proposal(proposal.id)]
    assert said == [outcome, "infra_error"]


def test_a_run_by_hand_is_nobodys_evidence_and_nobody_stops_it(
    world: SmallInstallation,
) -> None:
    ours = eval_queue.start_run(world.context(), ANN, "colours", "sim/base")
    proposal = world.decided("sim/better")

    assert ours.id not in evaluation.list_run_ids(world.get(proposal.id))
    with world.store.read() as tx:
        assert EvalRuns(tx).get(ours.id).state is RunState.DONE
        assert len(EvalRuns(tx).done(ours.id)) == ITEMS


def over(policy: GatePolicy, tokens: int) -> GatePolicy:
    return replace(policy, max_tokens=tokens)


def test_one_proposals_budget_does_not_cut_anothers_evidence(world: SmallInstallation) -> None:
    world.add_route("mail")
    frugal = replace(world.policy, gate=over(world.policy.gate, 30))
    ctx = replace(world.context(), policies={"default": frugal})
    first = world.propose(ctx=ctx)
    second = world.propose("sim/better", route="mail")
    world.run_once(turns=10)

    assert world.get(first.id).phase is ProposalPhase.REJECTED
    assert world.get(second.id).phase is ProposalPhase.CANARY


def test_a_run_over_budget_waits_for_the_other_arm_that_another_proposal_stopped(
    world: SmallInstallation,
) -> None:
    proposal = world.propose("sim/better")
    control_jobs.reconcile(replace(world.context(), workers=None))
    runs = world.get(proposal.id).runs["colours"]
    with world.store.write() as tx:
        EvalRuns(tx).set_state(runs.incumbent, RunState.STOPPED)
        EvalRuns(tx).set_state(runs.candidate, RunState.OVER_BUDGET, "no money left")
    control_jobs.reconcile(replace(world.context(), workers=None))

    assert world.get(proposal.id).phase is ProposalPhase.EVALUATING
    assert states(world)[runs.incumbent] is RunState.QUEUED


def test_a_run_that_ended_while_more_was_wanted_of_it_goes_on(world: SmallInstallation) -> None:
    proposal = world.propose("sim/better")
    control_jobs.reconcile(replace(world.context(), workers=None))
    for run in states(world):
        with world.store.write() as tx:
            EvalRuns(tx).set_state(run, RunState.DONE)

    assert world.until_decided(proposal.id).phase is ProposalPhase.CANARY


class FrozenInMidRun:
    """The first worker waits for one answer until its lease has ended."""

    def __init__(self, world: SmallInstallation, successor: str) -> None:
        self._world = world
        self._successor = successor
        self.run = ""
        self.stored = frozenset[tuple[str, int]]()

    def __call__(
        self,
        target: Target,
        item: Item,
        epoch: int,
    ) -> str:
        with self._world.store.read() as tx:
            run = next(run for run in EvalRuns(tx).list() if run.target == target.id)
            stored = EvalRuns(tx).done(run.id)
        if not self.run and len(stored) == ITEMS // 4:
            self.run = run.id
            self.stored = stored
            self._take_away(str(run.lease_owner))
        return answer(target, item, epoch)

    def _take_away(self, owner: str) -> None:
        self._world.clock.advance(LEASE_S)
        now = self._world.clock.now()
        with self._world.store.write() as tx:
            assert list(EvalRuns(tx).release(owner)) == [self.run]
            if self._successor:
                until = now + timedelta(seconds=LEASE_S)
                assert EvalRuns(tx).lease(
                    self.run,
                    self._successor,
                    now=now,
                    until=until,
                )
                EvalRuns(tx).set_state(self.run, RunState.RUNNING)


@pytest.mark.both_databases
@pytest.mark.req("F2")
@pytest.mark.parametrize("successor", ["", "worker of another host"])
def test_a_frozen_worker_that_comes_back_stores_nothing_more_and_the_verdicts_pairs_are_whole(
    world: SmallInstallation, successor: str
) -> None:
    world.script = frozen = FrozenInMidRun(world, successor)
    proposal = world.propose("sim/better")
    world.run_once()
    with world.store.read() as tx:
        left = EvalRuns(tx).get(frozen.run)
        assert EvalRuns(tx).done(frozen.run) == frozen.stored
    assert (left.lease_owner or "") == successor

    if successor:
        with world.store.write() as tx:
            EvalRuns(tx).release(successor)
    decided = world.until_decided(proposal.id).verdict
    assert decided is not None
    with world.store.read() as tx:
        [report] = Verdicts(tx).get(decided).suites
        samples = [EvalRuns(tx).samples(run.id) for run in EvalRuns(tx).list()]
    for scored in samples:
        assert len({sample.item for sample in scored}) == len(scored) == ITEMS
    assert report.n_used == report.wins + report.ties + report.losses
    assert len(frozen.stored) < report.n_used <= ITEMS


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0])
def test_a_lease_survives_no_clock_that_jumps(world: SmallInstallation, jump_s: float) -> None:
    proposal = world.propose("sim/better")
    control_jobs.reconcile(replace(world.context(), workers=None))
    # Workers of a control process that died with them.
    for run in states(world):
        with world.store.write() as tx:
            until = world.clock.now() + timedelta(seconds=LEASE_S)
            assert EvalRuns(tx).lease(
                run,
                "dead",
                now=world.clock.now(),
                until=until,
            )
            EvalRuns(tx).set_state(run, RunState.RUNNING)
    world.clock.jump(jump_s)

    assert world.until_decided(proposal.id).phase is ProposalPhase.CANARY


def test_an_action_decided_for_an_older_state_is_not_applied(world: SmallInstallation) -> None:
    world.decided("sim/better")
    ctx = world.context()
    with world.store.read() as tx:
        seen = Rollouts(tx).live()[0]
    world.feed(blocks=5)
    action = decision.decide(ctx, seen)
    assert action.signal is RolloutSignal.ENOUGH
    operations.operate(ctx, BEN, "chat", RolloutSignal.PAUSE, "lunch")
    operations.operate(ctx, BEN, "chat", RolloutSignal.RESUME, "a drill")

    with pytest.raises(StaleWrite), world.store.write() as tx:
        operations.apply_action(RolloutTransaction(ctx, tx, seen), action)
    with world.store.read() as tx:
        assert Rollouts(tx).live()[0].state is RolloutState.WAITING


@pytest.mark.parametrize("why", ["stale", "expired"])
def test_an_approved_proposal_whose_proof_holds_no_more_opens_no_canary(
    world: SmallInstallation, why: str
) -> None:
    gate = replace(world.policy.gate, verdict_ttl_s=60.0)
    world.policy = approved(replace(world.policy, gate=gate))
    proposal = world.decided("sim/better")
    decisions.approve_proposal(world.context(), BEN, proposal.id)
    if why == "expired":
        world.clock.advance(61)
    else:
        del world.suites["colours"]
    step = load_comparison(world.context(), proposal.id).next_step
    waits = route_queries.load_status(world.context(), "chat").reason
    world.run_once()

    assert step.startswith(f"its verdict is {why.upper()}: ")
    assert waits == f"{step[0].upper()}{step[1:]}"
    after = world.get(proposal.id)
    assert after.phase is ProposalPhase.REJECTED
    assert why in after.closed_because
    assert [r.kind for r in read_history(world.context(), "chat")] == ["baseline"]
    with world.store.read() as tx:
        assert list(Rollouts(tx).list()) == []


def test_a_rollback_by_hand_during_a_canary_ends_it_and_its_proposal(
    world: SmallInstallation,
) -> None:
    world.promoted("sim/good")
    before = routes.load_table(world.context()).routes["chat"]
    proposal = world.decided("sim/better")
    world.feed()
    world.run_once()
    with pytest.raises(StaleWrite, match="another model or canary by now"):
        operations.roll_back(
            world.context(),
            BEN,
            "chat",
            reason="as I saw it",
            expected=before,
        )
    back = operations.roll_back(world.context(), BEN, "chat", reason="an incident")
    world.run_once()

    after = world.get(proposal.id)
    assert after.phase is ProposalPhase.ROLLED_BACK
    assert "somebody changed" in after.closed_because
    table = routes.load_table(world.context())
    served = table.routes["chat"]
    assert (served.version, served.incumbent) == (
        back.version,
        back.incumbent,
    )
    assert (served.canary, served.settings) == (None, back.settings)
    assert table.targets[back.incumbent].model == "base"
    with world.store.read() as tx:
        assert list(Rollouts(tx).live()) == []


def test_a_second_rollback_goes_further_back_and_never_undoes_the_first(
    world: SmallInstallation,
) -> None:
    world.promoted("sim/good")
    world.promoted("sim/better")
    ctx = world.context()
    served = [world.serving()]
    for _ in range(2):
        operations.roll_back(ctx, BEN, "chat", reason="an incident")
        served.append(world.serving())
    with pytest.raises(NotFound, match="no earlier incumbent"):
        operations.roll_back(ctx, BEN, "chat", reason="an incident")
    assert served == ["better", "good", "base"]

    # Forward again by hand, to a version: then that is what a rollback takes back.
    good = next(r for r in read_history(ctx, "chat") if r.kind == "promotion")
    operations.roll_back(
        ctx,
        BEN,
        "chat",
        to_version=good.route.version,
        reason="a mistake",
    )
    assert world.serving() == "better"
    operations.roll_back(ctx, BEN, "chat", reason="no mistake")
    assert world.serving() == "base"
    with pytest.raises(NotFound, match="no version 99"):
        operations.roll_back(
            ctx,
            BEN,
            "chat",
            to_version=99,
            reason="a typo",
        )


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_a_rollback_by_hand_before_the_canary_ends_the_proposal(
    world: SmallInstallation, turns: int
) -> None:
    world.promoted("sim/good")
    world.policy = approved(world.policy)
    proposal = world.propose("sim/better")
    for _ in range(turns):
        world.run_once()
    operations.roll_back(world.context(), BEN, "chat", reason="an incident")
    world.run_once()

    after = world.get(proposal.id)
    assert after.phase is ProposalPhase.REJECTED
    assert "somebody changed the route's incumbent" in after.closed_because


def test_runs_stop_when_the_gate_has_decided(world: SmallInstallation) -> None:
    proposal = world.decided("sim/worse")
    with world.store.read() as tx:
        states = {run.state for run in EvalRuns(tx).list()}
        verdict = Verdicts(tx).for_proposal(proposal.id)[0]
    assert states <= {RunState.DONE, RunState.STOPPED}
    assert verdict.suites[0].n_used < verdict.suites[0].n_max


@pytest.mark.req("A7")
def test_the_claim_non_inferior_needs_a_reason(world: SmallInstallation) -> None:
    with pytest.raises(InputError, match="reason"):
        world.propose(reason="", claim=Claim.NON_INFERIOR)


class Killed(InlineWorkers):
    """Whose workers die by signal 9 where others fail."""

    def __init__(self, others: InlineWorkers) -> None:
        super().__init__(others._work)

    def reap(self) -> Sequence[tuple[str, str, int, str]]:
        return [
            (run, owner, -9 if code else 0, words) for run, owner, code, words in super().reap()
        ]


@pytest.mark.req("F5")
def test_a_worker_that_is_killed_again_and_again_costs_no_verdict(
    world: SmallInstallation,
) -> None:
    calls = deaths = 0

    def dies(
        target: Target,
        item: Item,
        epoch: int,
    ) -> str:
        nonlocal calls, deaths
        calls += 1
        if deaths < 9 and calls % 3 == 0:
            deaths += 1
            raise RuntimeError("killed")
        return answer(target, item, epoch)

    world.script = dies
    proposal = world.propose("sim/better")
    ctx = world.context()
    assert isinstance(ctx.workers, InlineWorkers)
    ctx = replace(ctx, workers=Killed(ctx.workers))
    for _ in range(60):
        world.run_once(ctx)
        if world.get(proposal.id).verdict:
            break

    assert deaths == 9
    with world.store.read() as tx:
        assert [v.outcome for v in Verdicts(tx).for_proposal(proposal.id)] == ["passed"]
