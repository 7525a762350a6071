"""People try to get a worse model through by labels: by other pairs, people or moments."""

from dataclasses import replace

import pytest

from evals.runner.provider_client import ProviderFailed
from evals.suites.items import Item, file_sha256
from evals.suites.suite import load_suite
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import Conflict
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.frame.signing.audit_log import AuditLog
from harness.gate.offline.decision_intervals import decision_intervals
from harness.gate.run import EvalRun
from harness.gate.verdict import Passed
from harness.proposals import decisions, eval_queue, proposal_waits
from harness.proposals.labels import label_pairs
from harness.proposals.labels.blindness import find_blind_suites, find_why_hidden
from harness.proposals.labels.labelling import LabelChoice
from harness.proposals.labels.records import LabelDraws
from harness.proposals.report.comparison import load_comparison
from harness.proposals.report.document import describe_comparison
from harness.proposals.report.page import render_html
from harness.providers.records import Targets
from harness.providers.target import Target
from harness.routing.control import routes
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.runs import EvalRuns, Suites
from harness.routing.route_settings import RouteSuite
from tests.integration.test_people_verdicts import (
    candidate,
    incumbent,
    judge_says,
    label,
    measured,
)
from tests.integration.test_traffic_verdicts import draw_of, number_of, use
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import ANN

pytestmark = pytest.mark.req("F2", "F13")


@pytest.fixture
def world(plain_world: SmallInstallation) -> SmallInstallation:
    use(plain_world, draw_of(plain_world, callers=60))
    judge_says(plain_world, "1.0")
    return plain_world


@pytest.fixture
def ada(world: SmallInstallation) -> Actor:
    return world.person("ada", Role.PROPOSER)


def test_a_cancelled_labelling_is_a_look(world: SmallInstallation, ada: Actor) -> None:
    first = measured(world)
    label(world, ada, first, incumbent, most=3)
    decisions.cancel_proposal(world.context(), ANN, first.id, "bad labels")

    second = world.propose("sim/good")

    assert [plan.look for plan in second.plans] == [2]
    assert second.plans[0].alpha < first.plans[0].alpha / 5


def test_people_label_a_proposal_that_was_measured_again(
    world: SmallInstallation, ada: Actor
) -> None:
    is_down = [True]

    def answers(target: Target, item: Item, _epoch: int) -> str:
        if is_down[0] and target.model == "good":
            raise ProviderFailed("it is down")
        return "1.0" if number_of(item) % 3 else "0.5"

    world.script = answers
    proposal = world.propose("sim/good")
    world.run_once(turns=4)
    assert world.get(proposal.id).retry_at is not None
    is_down[0] = False
    world.clock.advance(3_600)
    world.run_once(turns=6)

    with world.store.read() as tx:
        waits = proposal_waits.describe_proposal_waits(tx, world.get(proposal.id))
    assert waits == "waits for people's labels: `swapproof label chat`"
    assert label(world, ada, world.get(proposal.id), candidate).passed
    world.run_once(turns=2)
    assert world.get(proposal.id).phase is ProposalPhase.CANARY


def with_two_suites(world: SmallInstallation) -> None:
    suite = replace(draw_of(world, "second", callers=60), name="second")
    assert suite.path is not None
    world.suites["second"] = suite
    with world.store.write() as tx:
        details = {"sha256": file_sha256(suite.path)}
        AuditLog(tx).append(SYSTEM, "suite.draw", "suite second", details)
    suites = (RouteSuite("traffic"), RouteSuite("second"))
    routes.change_settings(
        world.context(), SYSTEM, "chat", lambda now: replace(now, suites=suites)
    )


def test_the_suites_of_a_proposal_are_labelled_in_turn_and_hidden_until_the_last_has_ended(
    world: SmallInstallation, ada: Actor
) -> None:
    with_two_suites(world)
    proposal = measured(world)
    ctx = world.context()

    def blind() -> frozenset[str]:
        with world.store.read() as tx:
            return find_blind_suites(tx, world.get(proposal.id))

    assert label_pairs.plan_labelling(ctx, ada, proposal.id).suite == "traffic"
    assert label_pairs.find_proposal(ctx, "second") == (proposal.id, "second")
    first = label_pairs.start_labelling(ctx, ada, proposal.id, suite="second")
    assert label_pairs.find_labelling(ctx, "chat") == first.id
    assert label_pairs.find_labelling(ctx, "chat", "traffic") == ""
    assert label(world, ada, proposal, candidate).passed
    assert blind() == {"traffic", "second"}

    assert label_pairs.find_labelling(ctx, "chat") == ""
    second = label_pairs.start_labelling(ctx, ada, proposal.id)
    assert second.suite == "traffic"
    assert label_pairs.find_labelling(ctx, "chat") == second.id
    assert label(world, ada, proposal, candidate, labelling=second.id).passed
    assert blind() == frozenset()
    assert label_pairs.find_labelling(ctx, proposal.id) == second.id

    world.run_once(turns=2)
    comparison = load_comparison(ctx, proposal.id)
    verdict = comparison.verdict
    assert isinstance(verdict, Passed)
    # No interval of the judge's scores stands beside the verdict of the labels.
    assert decision_intervals(verdict) == {}
    page = render_html(describe_comparison(comparison))
    assert "Wins, ties and losses of traffic, second count the pairs that people" in page
    assert "too few for an interval" not in page
    for report in verdict.suites:
        assert report.figures.labels is not None
        assert report.wins + report.ties + report.losses == report.figures.labels.labels


def test_a_suite_that_is_gone_for_a_time_does_not_end_a_labelling(
    world: SmallInstallation, ada: Actor
) -> None:
    proposal = measured(world)
    started = label(world, ada, proposal, candidate, most=2).id
    path = world.suites["traffic"].path
    assert path is not None
    whole = path.read_bytes()
    path.unlink()
    world.run_once()

    assert world.get(proposal.id).phase is ProposalPhase.EVALUATING
    assert "traffic can no longer be loaded" in waits_alert(world, proposal)

    path.write_bytes(whole)
    world.run_once()
    assert "can no longer be loaded" not in waits_alert(world, proposal)
    assert label(world, ada, proposal, candidate, labelling=started).passed
    path.unlink()
    world.run_once()
    assert world.get(proposal.id).phase is ProposalPhase.EVALUATING  # no verdict without it
    path.write_bytes(whole)
    world.run_once(turns=2)
    assert world.get(proposal.id).phase is ProposalPhase.CANARY


def test_a_comparison_is_shown_after_its_suites_file_is_gone(
    world: SmallInstallation, ada: Actor
) -> None:
    proposal = measured(world)
    label(world, ada, proposal, candidate, most=2)
    path = world.suites["traffic"].path
    assert path is not None
    path.unlink()
    world.clock.advance(proposal.policy.approval_ttl_s + 1)
    world.run_once()

    comparison = load_comparison(world.context(), proposal.id)
    assert "can no longer be loaded" in comparison.proposal.closed_because
    assert "cannot be read" in comparison.left_out["traffic"]
    assert render_html(describe_comparison(comparison))


def waits_alert(world: SmallInstallation, proposal: Proposal) -> str:
    with world.store.read() as tx:
        record = Alerts(tx).newest(f"{AlertKind.LABELS_WAIT.value}:{proposal.id}")
    assert record is not None
    return record.text


def test_another_name_of_the_model_or_of_the_suite_does_not_show_the_evidence(
    world: SmallInstallation,
) -> None:
    proposal = measured(world)
    cooler = Target("sim", "good", {"temperature": 0.1})
    copy = replace(draw_of(world, "first", callers=60), name="copy")
    other = replace(draw_of(world, "other", callers=60), name="other")
    with world.store.write() as tx:
        run = EvalRuns(tx).get(proposal.runs["traffic"].candidate)
        Targets(tx).add(cooler)
        for suite in (copy, other):
            Suites(tx).put(load_suite(suite).pin, world.clock.now())

    def is_hidden(run: EvalRun) -> bool:
        with world.store.read() as tx:
            return bool(find_why_hidden(tx, run))

    copied = replace(run, suite="copy", suite_digest=load_suite(copy).pin.digest)
    assert is_hidden(replace(run, target=cooler.id))
    assert is_hidden(copied)
    assert is_hidden(replace(copied, target=cooler.id))
    assert not is_hidden(replace(run, suite="other", suite_digest=load_suite(other).pin.digest))


def test_each_other_draw_that_a_person_tried_by_hand_is_a_look(
    world: SmallInstallation,
) -> None:
    def try_by_hand(name: str) -> None:
        use(world, draw_of(world, name, callers=60))
        eval_queue.queue_run(world.context(), ANN, "traffic", "sim/good")
        world.run_once(turns=3)

    try_by_hand("second")
    try_by_hand("third")
    use(world, draw_of(world, callers=60))
    assert world.propose("sim/good").plans[0].look == 3


def test_a_pair_that_was_not_shown_yet_takes_no_label(
    world: SmallInstallation, ada: Actor
) -> None:
    ben = world.person("ben", Role.PROPOSER)
    ctx = world.context()
    started = label_pairs.start_labelling(ctx, ada, measured(world).id, people=("ada", "ben"))
    while label_pairs.load_progress(ctx, started.id).missing.get("ben", 0) < 2:
        pair = label_pairs.show_next_pair(ctx, ada, started.id).pair
        assert pair is not None
        label_pairs.give_label(ctx, ada, started.id, pair.number, LabelChoice.TIE)
    with world.store.read() as tx:
        draws = LabelDraws(tx).of_labelling(started.id)
    first, second = [draw.number for draw in draws if ben.principal in draw.people][:2]

    with pytest.raises(Conflict, match=f"pair {second} was not shown to you yet"):
        label_pairs.give_label(ctx, ben, started.id, second, LabelChoice.A)
    label_pairs.give_label(ctx, ben, started.id, first, LabelChoice.SKIP)
    label_pairs.give_label(ctx, ben, started.id, second, LabelChoice.A)
    label_pairs.give_label(ctx, ben, started.id, first, LabelChoice.TIE)
