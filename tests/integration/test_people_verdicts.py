"""Under `proof: people`, people's labels decide about a suite of traffic, whatever its judge
says: verdict, canary, replay and proof.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from evals.suites.items import Item
from harness.app.proof import check_proof
from harness.app.store.proof_rows import ProvenRows, build_proven, find_faults, read_proof
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import Conflict
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.frame.signing.audit_log import AuditLog
from harness.frame.signing.ed25519 import Ed25519Signatures
from harness.gate.suite_plan import SuiteRole
from harness.gate.verdict import Failed, Inconclusive, Passed, Verdict
from harness.interfaces.cli.operations.status import next_command
from harness.operations import route_queries
from harness.operations.route_status import RouteState, describe_needs
from harness.proposals import evaluation, proposal_waits, recomputation, submission
from harness.proposals.labels import label_pairs, label_verdicts
from harness.proposals.labels.blindness import hide_evidence
from harness.proposals.labels.label_progress import LabelProgress
from harness.proposals.labels.labelling import LabelChoice, LabelDraw, Labelling, PairLabel
from harness.proposals.labels.records import LabelDraws, Labellings, Labels
from harness.proposals.labels.records import label as label_table
from harness.proposals.report.blocks import Heading, plain_text
from harness.proposals.report.comparison import load_comparison
from harness.proposals.report.document import describe_comparison
from harness.proposals.submission import ProposalRequest
from harness.providers.target import Target
from harness.routing.control import routes
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Proposals
from harness.routing.records.runs import EvalRuns
from harness.routing.route_settings import RouteSuite
from tests.integration.test_labelling import answers_by_model
from tests.integration.test_traffic_verdicts import draw_of, number_of, use, verdict_of
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import ANN
from tests.support.site.signing_keys import KEYRING
from tests.support.store.tampering import owned

pytestmark = pytest.mark.req("F2", "F6", "F13")

Prefers = Callable[[str], str]
"""The item's id → which model a person prefers, or a tie."""


def candidate(_item: str) -> str:
    return "candidate"


def incumbent(_item: str) -> str:
    return "incumbent"


def tie(_item: str) -> str:
    return "tie"


@pytest.fixture
def world(plain_world: SmallInstallation) -> SmallInstallation:
    use(plain_world, draw_of(plain_world, callers=60))
    judge_says(plain_world, "1.0")
    return plain_world


@pytest.fixture
def ada(world: SmallInstallation) -> Actor:
    return world.person("ada", Role.PROPOSER)


def judge_says(world: SmallInstallation, share: str) -> None:
    """The judge gives most pairs this share, and every third to neither."""
    world.script = lambda _target, item, _epoch: share if number_of(item) % 3 else "0.5"


def measured(world: SmallInstallation) -> Proposal:
    """A proposal with all answers, which waits for people."""
    proposal = world.until_decided(world.propose("sim/good").id)
    assert proposal.verdict is None, verdict_of(world, proposal).reason
    return proposal


def label(
    world: SmallInstallation,
    actor: Actor,
    proposal: Proposal,
    prefers: Prefers,
    most: int = 500,
    labelling: str = "",
) -> LabelProgress:
    """Labels a proposal's pairs until the end.

    Args:
        labelling: an id; empty for the only one.
    """
    ctx = world.context()
    with world.store.read() as tx:
        known = [found.id for found in Labellings(tx).of_proposal(proposal.id)]
        known = [labelling] if labelling else known
    started = known[0] if known else label_pairs.start_labelling(ctx, actor, proposal.id).id
    for _ in range(most):
        pair = label_pairs.show_next_pair(ctx, actor, started).pair
        if pair is None:
            break
        with world.store.read() as tx:
            draws = {draw.number: draw for draw in LabelDraws(tx).of_labelling(started)}
        preferred = prefers(draws[pair.number].item)
        letters = answers_by_model(world, pair) | {"tie": "tie"}
        label_pairs.give_label(
            ctx, actor, started, pair.number, LabelChoice(letters[preferred])
        )
    return label_pairs.load_progress(ctx, started)


def decided(world: SmallInstallation, ada: Actor, prefers: Prefers) -> tuple[Proposal, Verdict]:
    proposal = measured(world)
    assert label(world, ada, proposal, prefers).ended
    after = world.until_decided(proposal.id)
    return after, verdict_of(world, after)


def test_people_pass_what_the_judge_fails_and_the_canary_opens(
    world: SmallInstallation, ada: Actor
) -> None:
    judge_says(world, "0.0")

    proposal, verdict = decided(world, ada, candidate)

    assert isinstance(verdict, Passed)
    assert proposal.phase is ProposalPhase.CANARY
    (report,) = verdict.suites
    assert verdict.reason.startswith(f"By ada's preference ({report.figures.labels.labels}")  # type: ignore[union-attr] # people decided
    assert "PASSED, the candidate is preferred" in verdict.reason
    assert "For information: by the judge sim/judge" in verdict.reason
    assert "wins a share of 0.17" in verdict.reason
    assert report.delta > 0.1


def test_people_fail_what_the_judge_passes(world: SmallInstallation, ada: Actor) -> None:
    proposal, verdict = decided(world, ada, incumbent)

    assert isinstance(verdict, Failed)
    assert proposal.phase is ProposalPhase.REJECTED
    assert "FAILED, the incumbent is preferred" in verdict.reason


def test_labels_of_all_pairs_without_a_result_are_not_enough_evidence(
    world: SmallInstallation, ada: Actor
) -> None:
    proposal, verdict = decided(world, ada, tie)

    assert isinstance(verdict, Inconclusive)
    assert proposal.phase is ProposalPhase.REJECTED
    assert "NOT ENOUGH EVIDENCE, because ada preferred no answer in any of 60" in verdict.reason


def test_a_guard_that_fails_ends_the_proposal_without_labels(world: SmallInstallation) -> None:
    suites = (RouteSuite("traffic"), RouteSuite("colours", role=SuiteRole.GUARD))
    routes.change_settings(
        world.context(), SYSTEM, "chat", lambda now: replace(now, suites=suites)
    )

    def answers(target: Target, item: Item, _epoch: int) -> str:
        if item.id.startswith("drw_"):
            return "1.0"
        return str(item.target) if target.model == "base" else "wrong"

    world.script = answers
    proposal = world.until_decided(world.propose("sim/good").id)

    verdict = verdict_of(world, proposal)
    assert isinstance(verdict, Failed)
    assert verdict.reason.startswith("colours: ")
    (traffic,) = (report for report in verdict.suites if report.suite == "traffic")
    assert (traffic.delta, traffic.wins) == (0.0, 0)
    assert recomputation.replay_verdict(world.context(), verdict.id).agrees
    with world.store.read() as tx:
        again = recomputation.recompute_stored(world.context(), tx, verdict, proposal)
    assert again.agrees, again.text


@pytest.mark.parametrize("share", ["0.0", "1.0"])
def test_no_verdict_is_stored_before_the_labels_end_and_the_wait_names_the_command(
    world: SmallInstallation, ada: Actor, share: str
) -> None:
    judge_says(world, share)
    proposal = measured(world)
    world.run_once(turns=3)

    with world.store.read() as tx:
        waits = proposal_waits.describe_proposal_waits(tx, world.get(proposal.id))
        alert = Alerts(tx).newest(f"{AlertKind.LABELS_WAIT.value}:{proposal.id}")
    assert world.get(proposal.id).phase is ProposalPhase.EVALUATING
    assert waits == "waits for people's labels: `swapproof label chat`"
    assert alert is not None
    assert alert.open
    assert "waits for people's labels" in alert.title
    with world.store.read() as tx:
        (waiting,) = label_verdicts.list_waiting(tx)
    assert (waiting.proposal, waiting.suite) == (proposal.id, "traffic")
    status = route_queries.load_status(world.context(), "chat")
    assert status.state is RouteState.LABELS
    assert next_command(status) == "swapproof label chat"
    assert describe_needs([status], 1, world.clock.now()).startswith("1 route needs a decision")
    label(world, ada, proposal, tie, most=5)
    world.run_once()
    assert world.get(proposal.id).verdict is None
    with world.store.read() as tx:
        assert label_verdicts.list_waiting(tx) == []


def test_a_proposal_expires_if_people_do_not_label_it_in_time(
    world: SmallInstallation, ada: Actor
) -> None:
    proposal = measured(world)
    label(world, ada, proposal, tie, most=2)
    world.clock.advance(8 * 86_400)
    world.run_once()

    ended = world.get(proposal.id)
    assert ended.phase is ProposalPhase.REJECTED
    assert "people have not labelled it in time" in ended.closed_because
    with pytest.raises(Conflict, match="is decided"):
        label(world, ada, proposal, candidate)


def test_a_cancelled_proposal_gets_no_further_label(
    world: SmallInstallation, ada: Actor
) -> None:
    proposal = measured(world)
    shown = label(world, ada, proposal, tie, most=2)
    with world.store.write() as tx:
        Proposals(tx).save(replace(world.get(proposal.id), phase=ProposalPhase.CANCELLED))

    with pytest.raises(Conflict, match="is decided"):
        label_pairs.show_next_pair(world.context(), ada, shown.id)


def test_each_candidate_of_a_selection_is_labelled_before_the_best_continues(
    world: SmallInstallation, ada: Actor
) -> None:
    request = ProposalRequest("chat", "sim/good", "a test", rivals=("sim/better",))
    good, better = submission.create_selection(world.context(), ANN, request)
    world.run_once(turns=4)
    with world.store.read() as tx:
        waits = proposal_waits.describe_proposal_waits(tx, world.get(better.id))
        hidden = hide_evidence(tx, world.get(better.id))[1]
    assert waits == f"waits for people's labels: `swapproof label {better.id}`"
    assert hidden == f"hidden until people have labelled: `swapproof label {better.id}`"
    status = route_queries.load_status(world.context(), "chat")
    assert status.label_commands == [f"`swapproof label {one.id}`" for one in (good, better)]

    assert label(world, ada, good, candidate).passed
    world.run_once(turns=2)
    assert world.get(good.id).waits_for_rivals
    assert label(world, ada, better, incumbent).ended
    world.run_once(turns=2)

    assert world.get(good.id).phase is ProposalPhase.CANARY
    assert world.get(better.id).phase is ProposalPhase.REJECTED


def test_the_end_of_the_labels_is_in_the_audit_log_with_its_verdict(
    world: SmallInstallation, ada: Actor
) -> None:
    proposal = measured(world)
    ended = label(world, ada, proposal, candidate)

    with world.store.read() as tx:
        (event,) = AuditLog(tx).for_subject(
            ended.id, since=proposal.created_at, limit=9, actions=["labelling.end"]
        )
    assert event.details["verdict"] == ended.verdict
    assert event.details["labels"] == ended.labels


def test_callers_and_requests_that_disagree_show_nothing(
    world: SmallInstallation, ada: Actor
) -> None:
    suite = draw_of(world, "loud", requests=lambda number: 1 if number % 3 else 400)
    use(world, suite)

    def quiet_callers(item: str) -> str:
        return "candidate" if int(item.rpartition("-")[2]) % 3 else "incumbent"

    _, verdict = decided(world, ada, quiet_callers)

    assert isinstance(verdict, Inconclusive)
    assert "weighted by requests: callers with many requests" in verdict.reason


def test_the_report_names_people_first(world: SmallInstallation, ada: Actor) -> None:
    proposal, _ = decided(world, ada, candidate)

    title, *_ = describe_comparison(load_comparison(world.context(), proposal.id))

    assert isinstance(title, Heading)
    assert plain_text(title.text).startswith("PASSED by people's preference: ")


def test_a_replay_computes_the_same_verdict_from_labels(
    world: SmallInstallation, ada: Actor
) -> None:
    proposal, verdict = decided(world, ada, candidate)
    ctx = world.context()
    assert recomputation.replay_verdict(ctx, verdict.id).agrees

    # Retention deletes the texts, and no label.
    with world.store.write() as tx:
        later = world.clock.now() + timedelta(days=1)
        assert EvalRuns(tx).blank_texts("traffic", later, limit=9)
    replayed = recomputation.replay_verdict(ctx, verdict.id)
    assert replayed.agrees, replayed.differences
    with world.store.read() as tx:
        assert recomputation.recompute_stored(ctx, tx, verdict, proposal).agrees


def test_a_skipped_pair_that_gets_its_label_late_is_replayed_with_what_was_known(
    world: SmallInstallation, ada: Actor
) -> None:
    proposal = measured(world)
    ctx = world.context()
    started = label_pairs.start_labelling(ctx, ada, proposal.id)
    first = label_pairs.show_next_pair(ctx, ada, started.id).pair
    assert first is not None
    label_pairs.give_label(ctx, ada, started.id, first.number, LabelChoice.SKIP)
    label(world, ada, proposal, tie, most=4)
    label_pairs.give_label(ctx, ada, started.id, first.number, LabelChoice.TIE)
    label(world, ada, proposal, candidate)
    verdict = verdict_of(world, world.until_decided(proposal.id))

    found = recomputation.replay_verdict(ctx, verdict.id)
    assert found.agrees, found.differences


Rows = tuple[list[LabelDraw], list[PairLabel]]


def other_preference(draws: list[LabelDraw], labels: list[PairLabel]) -> Rows:
    changed = replace(labels[3], choice=LabelChoice.TIE, preference=0.5)
    return draws, [*labels[:3], changed, *labels[4:]]


def no_last_label(draws: list[LabelDraw], labels: list[PairLabel]) -> Rows:
    return draws, labels[:-1]


def no_middle_label(draws: list[LabelDraw], labels: list[PairLabel]) -> Rows:
    return draws, [*labels[:2], *labels[3:]]


def no_middle_draw(draws: list[LabelDraw], labels: list[PairLabel]) -> Rows:
    left = [label for label in labels if label.number != draws[2].number]
    return [*draws[:2], *draws[3:]], left


def no_last_draw(draws: list[LabelDraw], labels: list[PairLabel]) -> Rows:
    return draws[:-1], [label for label in labels if label.number != draws[-1].number]


def further_label(draws: list[LabelDraw], labels: list[PairLabel]) -> Rows:
    late = labels[-1].at + timedelta(seconds=1)
    return draws, [*labels, replace(labels[0], id="l_more", at=late)]


def label_of_another(draws: list[LabelDraw], labels: list[PairLabel]) -> Rows:
    return draws, [replace(labels[0], person="pr_eve"), *labels[1:]]


def draw_of_another_pair(draws: list[LabelDraw], labels: list[PairLabel]) -> Rows:
    unused = "drw_first-0" if draws[2].item != "drw_first-0" else "drw_first-1"
    return [*draws[:2], replace(draws[2], item=unused), *draws[3:]], labels


def draw_for_another_person(draws: list[LabelDraw], labels: list[PairLabel]) -> Rows:
    return [replace(draws[0], people=(*draws[0].people, "pr_eve")), *draws[1:]], labels


def a_larger_stake(draws: list[LabelDraw], labels: list[PairLabel]) -> Rows:
    step = dict(draws[4].step)
    step["passing"] = [2.0 * stake for stake in step["passing"]]
    return [*draws[:4], replace(draws[4], step=step), *draws[5:]], labels


def a_plan_after_its_label(draws: list[LabelDraw], labels: list[PairLabel]) -> Rows:
    return [*draws[:4], replace(draws[4], at=labels[4].at), *draws[5:]], labels


FORGERIES: Mapping[Callable[[list[LabelDraw], list[PairLabel]], Rows], str] = {
    other_preference: "another plan than the labels before it give",
    no_last_label: "the stored labels differ from the labels of the verdict",
    no_middle_label: "another plan than the labels before it give",
    no_middle_draw: "draw 3 is missing",
    no_last_draw: "the stored labels differ from the labels of the verdict",
    further_label: "follows another label",
    label_of_another: "is of a person who did not get pair",
    draw_of_another_pair: "is of another pair than its seed gives",
    draw_for_another_person: "is for other people than its seed gives",
    a_larger_stake: "another plan than the labels before it give",
    a_plan_after_its_label: "the times of its draws and labels have no order",
}


def another_seed(labelling: Labelling) -> Labelling:
    return replace(labelling, seed="f" * 32)


def two_callers_in_exchanged_blocks(labelling: Labelling) -> Labelling:
    first, *others, last = labelling.items
    exchanged = (replace(first, unit=last.unit), *others, replace(last, unit=first.unit))
    return replace(labelling, items=exchanged)


def a_pair_without_its_caller(labelling: Labelling) -> Labelling:
    return replace(labelling, items=labelling.items[1:])


def a_lost_pair_as_equal_answers(labelling: Labelling) -> Labelling:
    at = next(n for n, item in enumerate(labelling.items) if item.judged not in (None, 0.5))
    items = [*labelling.items]
    items[at] = replace(items[at], judged=None)
    return replace(labelling, items=tuple(items))


def another_person(labelling: Labelling) -> Labelling:
    return replace(labelling, people=("pr_eve",))


def a_larger_margin(labelling: Labelling) -> Labelling:
    return replace(labelling, design=replace(labelling.design, margin=0.2))


def other_stakes(labelling: Labelling) -> Labelling:
    return replace(labelling, design=replace(labelling.design, correlation=0.9))


START_FORGERIES: Mapping[Callable[[Labelling], Labelling], str] = {
    another_seed: "does not say what its person chose",
    two_callers_in_exchanged_blocks: "its pairs do not follow from the stored answers",
    a_pair_without_its_caller: "its pairs do not follow from the stored answers",
    a_lost_pair_as_equal_answers: "counts as equal answers, but has another score",
    another_person: "is for other people than its seed gives",
    a_larger_margin: "its claim differs from the registration",
    other_stakes: "another plan than the labels before it give",
}


def proven(world: SmallInstallation, proposal: Proposal) -> ProvenRows:
    with world.store.write() as tx:
        proof = read_proof(tx, Proposals(tx).get(proposal.id), world.clock.now())
    assert find_faults(proof, Ed25519Signatures(lambda: KEYRING)) == []
    return build_proven(proof, KEYRING)


def test_a_proof_has_the_labels_and_finds_each_forgery(
    world: SmallInstallation, ada: Actor
) -> None:
    proposal, verdict = decided(world, ada, candidate)
    rows = proven(world, proposal)
    found = check_proof(rows)
    assert found.holds, found.faults
    labels = verdict.suites[0].figures.labels
    assert labels is not None
    assert f"Suite traffic: {labels.labels} signed labels by 1 person of 1" in "\n".join(
        found.shown
    )

    state = rows.labellings["traffic"]
    for forge, named in FORGERIES.items():
        draws, given = forge([*state.draws], [*state.labels])
        forged = replace(state, draws=draws, labels=given)
        faults = check_proof(replace(rows, labellings={"traffic": forged})).faults
        assert any(named in fault for fault in faults), (forge.__name__, faults)
    for change, named in START_FORGERIES.items():
        forged = replace(state, labelling=change(state.labelling))
        faults = check_proof(replace(rows, labellings={"traffic": forged})).faults
        assert any(named in fault for fault in faults), (change.__name__, faults)
    missing = check_proof(replace(rows, labellings={})).faults
    assert any("labelling lb_" in fault and "is missing" in fault for fault in missing)


def test_a_deleted_label_stops_the_canary_and_is_found_by_a_replay(
    world: SmallInstallation, ada: Actor
) -> None:
    proposal, verdict = decided(world, ada, candidate)
    with world.store.read() as tx:
        labelling = Labellings(tx).of_proposal(proposal.id)[0]
        last = max(Labels(tx).of_labelling(labelling.id), key=lambda one: one.at)
    with owned(world.store) as db:
        db.execute(sa.delete(label_table).where(label_table.c.id == last.id))

    ctx = world.context()
    replayed = recomputation.replay_verdict(ctx, verdict.id)
    with world.store.read() as tx:
        again = recomputation.recompute_stored(ctx, tx, verdict, world.get(proposal.id))
    assert not replayed.agrees
    assert not again.agrees
    assert "labels" in again.text


def test_a_judge_verdict_under_the_policy_of_people_is_no_proof(
    world: SmallInstallation, ada: Actor
) -> None:
    proposal, verdict = decided(world, ada, candidate)
    inputs = {name: value for name, value in verdict.inputs.items() if name != "labels"}

    with world.store.read() as tx:
        samples = evaluation.load_answers(tx, proposal)
    again = recomputation.recompute_verdict(
        replace(verdict, inputs=inputs), proposal, samples, {}
    )

    assert not again.agrees
    assert "asks for another verdict" in again.text
