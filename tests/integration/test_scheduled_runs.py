"""The incumbent's evidence is the mean of its scheduled runs, if it has them on three days."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from evals.suites.items import Item
from harness.app.proof import ProofFindings, verify_proof
from harness.app.store.proof_rows import read_proof
from harness.evals import drift_monitor, drift_watches
from harness.evals.records import Drift
from harness.frame.errors import NotAllowed
from harness.frame.signing.keyring import format_keyring
from harness.gate.incumbent_days import is_mean_run
from harness.gate.pins import ServedModel
from harness.gate.policy import DriftPolicy
from harness.gate.verdict import Passed
from harness.proposals import eval_queue, recomputation
from harness.proposals.driving import suite_runs
from harness.proposals.report.comparison import load_comparison
from harness.providers.target import Target
from harness.routing.evidence import format_proof
from harness.routing.proposal import Proposal, SuiteRuns
from harness.routing.records.proposals import Proposals
from harness.routing.records.runs import EvalRuns
from tests.support.control.colours_suite import SKILL
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.manual_clock import ManualClock
from tests.support.control.people import ANN, BEN
from tests.support.site.signing_keys import KEYRING

pytestmark = pytest.mark.req("F1", "F7")

DAY_S = 86_400.0
POLICY = DriftPolicy(every_s=DAY_S, items=None)


class DailyModel:
    """A model whose answers vary from day to day, and whose name a test may change."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.name = "base-1"
        self.luck = 0  # twelfths of right answers more

    def __call__(self, target: Target, item: Item, epoch: int) -> str:  # noqa: ARG002
        number = int(item.id.rpartition("-")[2])
        skill = SKILL[target.model]
        day = self.clock.now().toordinal() if target.model == "base" else 0
        luck = self.luck if target.model == "base" else 0
        right = (number * 5 + day * (number % 3 == 0)) % 12 < skill + luck
        return str(item.target) if right else "wrong"

    def served(self, target: Target, _item: Item) -> ServedModel:
        return ServedModel(self.name if target.model == "base" else target.model)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def model(clock: ManualClock) -> DailyModel:
    return DailyModel(clock)


@pytest.fixture
def world(tmp_path: Path, clock: ManualClock, model: DailyModel) -> SmallInstallation:
    made = SmallInstallation(
        tmp_path,
        clock=clock,
        script=model,
        served=model.served,
        drift={"colours": POLICY},
    )
    made.set_up()
    return made


def run_days(world: SmallInstallation, count: int) -> None:
    """Lets the schedule run on each of `count` days."""
    for _ in range(count):
        world.clock.advance(DAY_S)
        finish_checks(world)


def finish_checks(world: SmallInstallation) -> None:
    ctx = world.context()
    drift_monitor.run_once(ctx)
    eval_queue.run_once(ctx)
    drift_monitor.run_once(ctx)


def measured(
    world: SmallInstallation, candidate: str = "sim/worse"
) -> tuple[Proposal, SuiteRuns]:
    proposal = world.decided(candidate)
    return proposal, proposal.runs["colours"]


def said(world: SmallInstallation, proposal: Proposal) -> str:
    comparison = load_comparison(world.context(), proposal.id)
    assert comparison.verdict is not None
    return f"{comparison.verdict.reason} {comparison.decided_on}"


def test_the_mean_of_the_scheduled_runs_of_a_week_is_the_incumbents_evidence(
    world: SmallInstallation,
) -> None:
    run_days(world, 9)

    proposal, pair = measured(world)

    assert pair.days is not None
    assert len(pair.days.days) == 9
    assert pair.days.spread.recent == 7
    assert pair.days.spread.sd > 0.0
    with world.store.read() as tx:
        mean = {s.item: s.strict for s in EvalRuns(tx).samples(pair.incumbent)}
        runs = [
            {s.item: s.strict for s in EvalRuns(tx).samples(run)}
            for day in pair.days.recent
            for run in day.runs
        ]
    for item, score in mean.items():
        assert score == pytest.approx(sum(run[item] or 0.0 for run in runs) / 7)
    assert "the mean of 7 scheduled runs on 7 days" in said(world, proposal)
    assert "one fresh run" not in said(world, proposal)


def test_with_scheduled_runs_on_two_days_one_fresh_run_counts_and_the_verdict_says_so(
    world: SmallInstallation,
) -> None:
    run_days(world, 2)

    proposal, pair = measured(world)

    assert pair.days is None
    assert not is_mean_run(pair.incumbent)
    assert "are one fresh run, not the mean of scheduled runs on 3" in said(world, proposal)


def test_a_run_that_a_person_started_never_counts_and_delays_no_scheduled_run(
    world: SmallInstallation,
) -> None:
    run_days(world, 2)
    for _ in range(3):
        world.clock.advance(DAY_S / 3)
        drift_watches.start_checks(world.context(), ANN, "chat")
        eval_queue.run_once(world.context())
        drift_monitor.run_once(world.context())
    _, without = measured(world)
    assert without.days is None

    run_days(world, 2)
    _, pair = measured(world, "sim/equal")

    assert pair.days is not None
    with world.store.read() as tx:
        (watch,) = Drift(tx).open_watches()
    scheduled = {check.run for check in watch.checks if check.is_scheduled}
    assert len(watch.checks) > len(scheduled)
    assert set(pair.days.runs) <= scheduled


def test_another_served_model_begins_anew(world: SmallInstallation, model: DailyModel) -> None:
    run_days(world, 5)
    model.name = "base-2"
    run_days(world, 2)
    _, two_days = measured(world)
    assert two_days.days is None

    run_days(world, 1)
    _, pair = measured(world, "sim/equal")

    assert pair.days is not None
    assert len(pair.days.days) == 3


def test_a_found_drift_begins_anew_and_so_does_a_scheduled_run_that_an_approver_cancelled(
    world: SmallInstallation, model: DailyModel
) -> None:
    run_days(world, 4)
    world.clock.advance(DAY_S)
    drift_monitor.run_once(world.context())
    with world.store.read() as tx:
        (watch,) = Drift(tx).open_watches()
    assert watch.running is not None
    with pytest.raises(NotAllowed):
        eval_queue.cancel_run(world.context(), ANN, watch.running.run, "its scores are high")
    eval_queue.cancel_run(world.context(), BEN, watch.running.run, "the provider is ill")
    finish_checks(world)
    run_days(world, 2)
    assert measured(world)[1].days is None

    run_days(world, 1)
    assert measured(world, "sim/equal")[1].days is not None
    model.luck = -7
    run_days(world, 4)
    with world.store.read() as tx:
        (watch,) = Drift(tx).open_watches()
    assert watch.is_drifted
    assert measured(world, "sim/equal")[1].days is None


def test_a_mean_is_no_fresh_run_of_another_proposal(world: SmallInstallation) -> None:
    run_days(world, 3)
    _, pair = measured(world)
    with world.store.read() as tx:
        mean = EvalRuns(tx).get(pair.incumbent)
        found = EvalRuns(tx).shared(
            mean.fingerprint, not_before=mean.created_at - timedelta(days=1)
        )

    assert is_mean_run(mean.id)
    assert found is None


def test_proposals_share_the_mean_of_equal_runs_and_further_attempts_keep_it(
    world: SmallInstallation,
) -> None:
    run_days(world, 3)
    proposal, pair = measured(world)
    _, other = measured(world, "sim/equal")

    assert (other.incumbent, other.days) == (pair.incumbent, pair.days)
    run_days(world, 2)
    with world.store.write() as tx:
        again = suite_runs.attach_runs(world.context(), tx, proposal).runs["colours"]
    assert (again.incumbent, again.days) == (pair.incumbent, pair.days)


def verified(world: SmallInstallation, proposal: Proposal, folder: Path) -> ProofFindings:
    with world.store.write() as tx:
        proof = read_proof(tx, Proposals(tx).get(proposal.id), world.clock.now())
    (folder / "proof.json").write_text(format_proof(proof), encoding="utf-8")
    (folder / "signing.pub").write_text(format_keyring(KEYRING.values()), encoding="utf-8")
    return verify_proof(folder / "proof.json", folder / "signing.pub")


def test_a_verdict_on_days_replays_and_its_proof_is_verified_elsewhere(
    world: SmallInstallation, tmp_path: Path
) -> None:
    run_days(world, 8)
    proposal, _ = measured(world, "sim/better")
    with world.store.read() as tx:
        verdict = recomputation._load_verdict(tx, proposal.id)
        again = recomputation.recompute_stored(world.context(), tx, verdict, proposal)
    replayed = recomputation.replay_verdict(world.context(), proposal.id)
    found = verified(world, proposal, tmp_path)

    assert isinstance(verdict, Passed)
    assert again.agrees, again.text
    assert replayed.agrees, replayed.differences
    assert found.holds, found.faults
    assert "the mean of 7 scheduled runs on 7 days" in "\n".join(found.shown)


def test_a_mean_that_its_scheduled_runs_do_not_give_is_found(
    world: SmallInstallation,
) -> None:
    run_days(world, 4)
    proposal, pair = measured(world)
    assert pair.days is not None
    other = replace(pair.days, spread=replace(pair.days.spread, sd=0.001))
    changed = replace(proposal, runs={"colours": replace(pair, days=other)})
    with world.store.read() as tx:
        verdict = recomputation._load_verdict(tx, proposal.id)
        again = recomputation.recompute_stored(world.context(), tx, verdict, changed)

    assert not again.agrees
    assert "the spread of the incumbent's days differs from its scheduled runs" in again.text
