"""People label pairs of answers, blind, through use cases, command line and API."""

import errno
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from harness.frame.errors import Conflict, InputError, NotAllowed, NotFound, SignatureInvalid
from harness.frame.people.access import OPERATOR, Actor, Role
from harness.interfaces.cli.program import program
from harness.operations import keys
from harness.proposals.labels import label_pairs
from harness.proposals.labels.label_items import is_equal
from harness.proposals.labels.label_pairs import ShownPair
from harness.proposals.labels.label_progress import LabelProgress
from harness.proposals.labels.labelling import LabelChoice, ShownAnswer
from harness.proposals.labels.records import LabelDraws, Labellings, Labels
from harness.proposals.labels.records import label as label_table
from harness.routing.proposal import Proposal
from harness.routing.records.runs import EvalRuns
from tests.support.control.control_plane import SmallInstallation
from tests.support.site.command_line import CommandLine, installed

pytestmark = pytest.mark.req("F2", "F13")


@pytest.fixture
def world(tmp_path: Path) -> SmallInstallation:
    made = SmallInstallation(tmp_path)
    made.set_up()
    return made


@pytest.fixture
def proposal(world: SmallInstallation) -> Proposal:
    return world.decided()


@pytest.fixture
def ada(world: SmallInstallation) -> Actor:
    return world.person("ada", Role.PROPOSER)


def answers_by_model(world: SmallInstallation, pair: ShownPair) -> dict[str, str]:
    """Tells which shown answer is the candidate's, as only the test knows."""
    with world.store.read() as tx:
        labelling = Labellings(tx).get(pair.labelling)
        draw = next(
            d for d in LabelDraws(tx).of_labelling(labelling.id) if d.number == pair.number
        )
    person = labelling.people[0] if len(labelling.people) == 1 else draw.people[0]
    first = labelling.shows_candidate_first(pair.number, person)
    return {"candidate": "a" if first else "b", "incumbent": "b" if first else "a"}


def label_all(
    world: SmallInstallation,
    actor: Actor,
    labelling: str,
    prefers: str,
    most: int = 500,
) -> LabelProgress:
    """Labels until the end, always for one model."""
    ctx = world.context()
    for _ in range(most):
        found = label_pairs.show_next_pair(ctx, actor, labelling)
        if found.pair is None:
            return found.progress
        choice = LabelChoice(answers_by_model(world, found.pair)[prefers])
        label_pairs.give_label(ctx, actor, labelling, found.pair.number, choice)
    return label_pairs.load_progress(ctx, labelling)


def test_people_who_prefer_the_candidate_pass_it_and_the_verdict_names_the_person(
    world: SmallInstallation, proposal: Proposal, ada: Actor
) -> None:
    started = label_pairs.start_labelling(world.context(), ada, proposal.id)

    ended = label_all(world, ada, started.id, "candidate")

    assert ended.ended
    assert ended.passed
    assert f"By {ada.name}'s preference ({ended.labels} labels): PASSED" in ended.verdict
    assert "+" not in ended.verdict


@pytest.mark.spine
def test_people_who_prefer_the_incumbent_fail_what_the_judge_likes(
    world: SmallInstallation, proposal: Proposal, ada: Actor
) -> None:
    started = label_pairs.start_labelling(world.context(), ada, proposal.id)

    ended = label_all(world, ada, started.id, "incumbent")

    assert ended.ended
    assert not ended.passed
    assert "FAILED" in ended.verdict


def test_a_labeller_sees_neither_model_nor_score_nor_evidence(
    world: SmallInstallation, proposal: Proposal, ada: Actor
) -> None:
    ctx = world.context()
    started = label_pairs.start_labelling(ctx, ada, proposal.id)
    shown = label_pairs.show_next_pair(ctx, ada, started.id)
    again = label_pairs.show_next_pair(ctx, ada, started.id)

    assert shown.pair is not None
    assert shown.pair == again.pair  # a closed terminal continues with the same pair
    assert set(ShownPair.__dataclass_fields__) == {
        "labelling",
        "number",
        "request",
        "a",
        "b",
        "labelled",
    }
    assert shown.progress.verdict == ""
    assert not shown.progress.ended
    text = json.dumps(shown.progress.forecast) + shown.progress.verdict
    for secret in ("better", "base", "log_e", "estimate"):
        assert secret not in text


@pytest.mark.spine
def test_the_order_of_the_answers_is_random(
    world: SmallInstallation, proposal: Proposal, ada: Actor
) -> None:
    started = label_pairs.start_labelling(world.context(), ada, proposal.id)
    with world.store.read() as tx:
        labelling = Labellings(tx).get(started.id)
    firsts = [labelling.shows_candidate_first(number, "pr_x") for number in range(400)]

    assert 150 < sum(firsts) < 250


def test_the_step_is_stored_before_the_label_and_never_changes(
    world: SmallInstallation, proposal: Proposal, ada: Actor
) -> None:
    ctx = world.context()
    started = label_pairs.start_labelling(ctx, ada, proposal.id)
    found = label_pairs.show_next_pair(ctx, ada, started.id)
    assert found.pair is not None
    with world.store.read() as tx:
        (draw,) = LabelDraws(tx).of_labelling(started.id)
        assert Labels(tx).of_labelling(started.id) == []
    label_pairs.give_label(ctx, ada, started.id, found.pair.number, LabelChoice.A)

    assert set(draw.step) == {"predicted", "passing", "failing"}
    with world.store.read() as tx:
        assert LabelDraws(tx).of_labelling(started.id) == [draw]


def test_a_label_is_final_but_a_skip_is_not(
    world: SmallInstallation, proposal: Proposal, ada: Actor
) -> None:
    ctx = world.context()
    started = label_pairs.start_labelling(ctx, ada, proposal.id)
    first = label_pairs.show_next_pair(ctx, ada, started.id).pair
    assert first is not None
    skipped = label_pairs.give_label(ctx, ada, started.id, first.number, LabelChoice.SKIP)
    second = label_pairs.show_next_pair(ctx, ada, started.id).pair
    assert second is not None
    again = label_pairs.show_next_pair(ctx, ada, started.id, skipped=True).pair
    late = label_pairs.give_label(ctx, ada, started.id, first.number, LabelChoice.TIE)

    assert skipped.skipped == 1
    assert skipped.missing == {ada.name: 1}
    assert second.number != first.number
    assert again is not None
    assert again.number == first.number
    assert late.skipped == 0
    with pytest.raises(Conflict, match="a label never changes"):
        label_pairs.give_label(ctx, ada, started.id, first.number, LabelChoice.A)
    with pytest.raises(NotFound, match="no pair 99"):
        label_pairs.give_label(ctx, ada, started.id, 99, LabelChoice.A)


def test_unacceptable_answers_fail_a_preferred_candidate(
    world: SmallInstallation, proposal: Proposal, ada: Actor
) -> None:
    ctx = world.context()
    started = label_pairs.start_labelling(ctx, ada, proposal.id)
    for _ in range(200):
        found = label_pairs.show_next_pair(ctx, ada, started.id)
        if found.pair is None:
            break
        ours = answers_by_model(world, found.pair)["candidate"]
        label_pairs.give_label(
            ctx,
            ada,
            started.id,
            found.pair.number,
            LabelChoice(ours),
            unacceptable=[ShownAnswer(ours)],
        )

    ended = label_pairs.load_progress(ctx, started.id)
    assert ended.ended
    assert not ended.passed
    assert "unacceptable" in ended.verdict


def test_a_pair_that_is_only_shown_hides_no_unacceptable_answers(
    world: SmallInstallation, proposal: Proposal, ada: Actor
) -> None:
    ctx = world.context()
    started = label_pairs.start_labelling(ctx, ada, proposal.id)
    for _ in range(200):
        found = label_pairs.show_next_pair(ctx, ada, started.id)
        if found.pair is None:
            break
        assert not label_pairs.load_progress(ctx, started.id).passed
        ours = answers_by_model(world, found.pair)["candidate"]
        label_pairs.give_label(
            ctx,
            ada,
            started.id,
            found.pair.number,
            LabelChoice(ours),
            unacceptable=[ShownAnswer(ours)],
        )


def test_no_late_label_changes_a_verdict(
    world: SmallInstallation, proposal: Proposal, ada: Actor
) -> None:
    ctx = world.context()
    started = label_pairs.start_labelling(ctx, ada, proposal.id)
    skipped = label_pairs.show_next_pair(ctx, ada, started.id).pair
    assert skipped is not None
    label_pairs.give_label(ctx, ada, started.id, skipped.number, LabelChoice.SKIP)
    assert label_all(world, ada, started.id, "incumbent").ended

    with pytest.raises(Conflict, match="has ended"):
        label_pairs.give_label(ctx, ada, started.id, skipped.number, LabelChoice.A)


def test_answers_that_retention_deleted_are_no_ties(
    world: SmallInstallation, proposal: Proposal, ada: Actor
) -> None:
    ctx = world.context()
    later = world.clock.now() + timedelta(days=1)
    with world.store.write() as tx:
        assert EvalRuns(tx).blank_texts("colours", later, limit=9)

    with pytest.raises(InputError, match="deleted after their retention"):
        label_pairs.start_labelling(ctx, ada, proposal.id)


def test_pairs_go_to_people_at_random_and_a_tenth_to_two(
    world: SmallInstallation, proposal: Proposal, ada: Actor
) -> None:
    bob = world.person("bob", Role.PROPOSER)
    eve = world.person("eve", Role.PROPOSER)
    started = label_pairs.start_labelling(
        world.context(), ada, proposal.id, people=["bob", "eve"]
    )
    with world.store.read() as tx:
        labelling = Labellings(tx).get(started.id)
    chosen = [labelling.choose_people(number) for number in range(1_000)]

    assert labelling.people == (bob.principal, eve.principal)
    assert 430 < sum(people[0] == bob.principal for people in chosen) < 570
    assert 60 < sum(len(people) == 2 for people in chosen) < 140
    assert all(len(set(people)) == len(people) for people in chosen)
    with pytest.raises(NotAllowed, match="not one of the people"):
        label_pairs.show_next_pair(world.context(), ada, started.id)


def test_a_service_does_not_label_and_one_person_labels_under_one_name(
    world: SmallInstallation, proposal: Proposal, ada: Actor
) -> None:
    ctx = world.context()
    robot = world.person("robot", Role.PROPOSER, service=True)
    with pytest.raises(InputError, match="only people label"):
        label_pairs.start_labelling(ctx, robot, proposal.id)

    world.person("ada2", Role.PROPOSER)
    keys.link_people(ctx, OPERATOR, "ada2", "ada", "one person")
    with pytest.raises(InputError, match="named twice"):
        label_pairs.start_labelling(ctx, ada, proposal.id, people=["ada", "ada2"])


def test_the_pairs_of_a_person_who_stays_away_count_against_the_candidate(
    world: SmallInstallation, proposal: Proposal, ada: Actor
) -> None:
    bob = world.person("bob", Role.PROPOSER)
    world.person("eve", Role.PROPOSER)
    started = label_pairs.start_labelling(
        world.context(), ada, proposal.id, people=["bob", "eve"]
    )
    progress = label_all(world, bob, started.id, "candidate", most=60)

    assert not progress.passed
    assert progress.missing["eve"] > 10


def test_two_people_s_labels_are_one_unit_and_their_agreement_is_shown(
    world: SmallInstallation, proposal: Proposal, ada: Actor
) -> None:
    bob = world.person("bob", Role.PROPOSER)
    eve = world.person("eve", Role.PROPOSER)
    started = label_pairs.start_labelling(
        world.context(), ada, proposal.id, people=["bob", "eve"]
    )
    ctx = world.context()
    progress = started
    for _ in range(300):
        for actor in (bob, eve):
            found = label_pairs.show_next_pair(ctx, actor, started.id)
            if found.pair is not None:
                progress = label_pairs.give_label(
                    ctx, actor, started.id, found.pair.number, LabelChoice.TIE
                )
        if progress.ended:
            break

    assert progress.both > 0
    assert progress.agreed == progress.both
    assert progress.ended
    assert "by 2 people" in progress.verdict


def test_a_second_labelling_of_the_same_pairs_is_refused(
    world: SmallInstallation, proposal: Proposal, ada: Actor
) -> None:
    label_pairs.start_labelling(world.context(), ada, proposal.id)

    with pytest.raises(Conflict, match="a second chance"):
        label_pairs.start_labelling(world.context(), ada, proposal.id)


def test_a_forged_label_is_not_counted(
    world: SmallInstallation, proposal: Proposal, ada: Actor
) -> None:
    ctx = world.context()
    started = label_pairs.start_labelling(ctx, ada, proposal.id)
    found = label_pairs.show_next_pair(ctx, ada, started.id)
    assert found.pair is not None
    with world.store.write() as tx:
        tx.write(
            sa.insert(label_table).values(
                id="l_forged",
                labelling=started.id,
                number=found.pair.number,
                person=ada.principal,
                choice=LabelChoice.A.value,
                preference=1.0,
                unacceptable=0.0,
                at=world.clock.now(),
                signature="forged",
            )
        )

    with pytest.raises(SignatureInvalid):
        label_pairs.load_progress(ctx, started.id)


def test_nothing_can_be_labelled_before_the_evals(world: SmallInstallation, ada: Actor) -> None:
    proposal = world.propose()

    with pytest.raises(InputError, match="has"):
        label_pairs.start_labelling(world.context(), ada, proposal.id)
    with pytest.raises(NotFound, match="no route, suite or proposal"):
        label_pairs.find_proposal(world.context(), "nowhere")


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("yes", " yes\n", True),
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}', True),
        ("[1]", "[2]", False),
        ("{not JSON", "{not json", False),
        ("yes", "no", False),
        ('{"refund": true}', '{"refund": 1}', False),
    ],
)
def test_equal_answers_need_no_person(one: str, other: str, *, equal: bool) -> None:
    assert is_equal(one, other) is equal


@pytest.fixture
def cli(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CommandLine]:
    with installed(tmp_path, database_url, monkeypatch) as made:
        yield made


def press(keys: str, *words: str, exits: int = 0) -> str:
    """Runs `swapproof label` in a terminal in which a person presses these keys."""
    done = CliRunner().invoke(program, ["label", *words], input=keys, prog_name="swapproof")
    assert done.exit_code == exits, done.output
    return done.output


def test_a_person_labels_in_the_terminal_stops_and_continues_until_it_ends(
    cli: CommandLine,
) -> None:
    cli.run("route", "create", "mail", "--incumbent", "sim/base", "--suite", "colours")
    proposal = cli.json("proposal", "create", "mail", "sim/better")["proposal"]["id"]
    cli.world.until_decided(proposal)

    refused = press("n", "mail")
    plan = press("", "mail", "--plan")
    assert cli.json("label", "mail")["labels"] == 0
    cli.error("label", "mail", "--status", exits=1)
    first = press("yxsuntq", "mail")
    status = cli.json("label", "mail", "--status")
    rest = press("t" * 200, "colours")
    last = press("t", "colours", "--skipped", exits=4)

    for shown in (refused, plan, first):
        assert "% of labellings of so few callers" in shown
        assert "at the usual correlation of 0.6 between judge and people" in shown
    assert "nothing was started" in refused
    assert first.count("── answer A") == first.count("── answer B") == 3
    for secret in ("sim/", "sim-", "incumbent", "candidate"):
        assert secret not in first
    assert "stopped after 1 label of yours" in first
    assert status["labels"] == 1
    assert status["skipped"] == 1
    assert status["verdict"] == ""
    assert "Pairs without a label count against the candidate: local (1)" in rest
    assert "The labels have ended. By local's preference" in last
    assert "NOT ENOUGH EVIDENCE" in last


def test_without_a_terminal_the_command_says_where_to_label(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> str:
        raise OSError(errno.ENXIO, "No such device or address", "/dev/tty")

    monkeypatch.setattr("click.getchar", refuse)

    cli.run("route", "create", "mail", "--incumbent", "sim/base", "--suite", "colours")
    proposal = cli.json("proposal", "create", "mail", "sim/better")["proposal"]["id"]
    cli.world.until_decided(proposal)

    refused = press("", "mail", exits=2)

    assert "`swapproof label ROUTE` continues it in a terminal" in refused
    assert "use the dashboard's page Labels, or the API" in refused
    assert label_pairs.list_labellings(cli.world.context()) == []


def test_the_people_of_a_labelling_are_fixed_at_its_start(cli: CommandLine) -> None:
    cli.run("route", "create", "mail", "--incumbent", "sim/base", "--suite", "colours")
    proposal = cli.json("proposal", "create", "mail", "sim/better")["proposal"]["id"]
    cli.world.until_decided(proposal)
    cli.acting("bob", "proposer")
    started = press("", "mail", "--person", "bob", "--yes")

    again = cli.error("label", "mail", "--person", "local", exits=2)
    other = cli.error("label", "mail", exits=7)

    assert "labelled by bob" in started
    assert "── answer A" not in started
    assert "its people and its claim were fixed then" in again
    assert "is not one of the people" in other
