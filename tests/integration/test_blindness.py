"""The evidence of a judge is hidden from everybody until people have labelled: on each page, in
each command and in each answer of the API.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dashboard import current_user
from evals.suites.items import Item
from harness.canary import shadows
from harness.canary.shadow_verdict import ShadowJudge
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.gate.policy import TrafficProof
from harness.gate.run import RunState
from harness.proposals.candidates.expected_spread import find_recorded_spread
from harness.proposals.labels import label_pairs
from harness.proposals.labels.blindness import (
    find_blind_suites,
    find_why_hidden,
    find_why_shadow_hidden,
)
from harness.providers.target import Target
from harness.routing.control import routes
from harness.routing.proposal import Proposal
from harness.routing.records.interventions import Shadows
from harness.routing.records.runs import EvalRuns
from harness.routing.records.shadow_scores import ShadowScores
from harness.routing.shadow import Shadow, ShadowLimits, ShadowTally
from harness.routing.shadow_score import ScoreReason, ShadowScore
from tests.integration.test_labelling import label_all
from tests.integration.test_traffic_verdicts import draw_of, use
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import BEN
from tests.support.control.short_policies import POLICY
from tests.support.site.command_line import CommandLine, installed
from tests.support.site.management_api import Door
from tests.support.store.records import NOW
from tests.unit.test_dashboard_page_states import dialog, forget, shown, signed_in_as, text

pytestmark = pytest.mark.req("F2", "F13")

# The candidate's answer to each request, and its score by the judge.
ANSWER = "0.7391"
LOGGED = "It is on its way."
SECRETS = re.compile(rf"{re.escape(LOGGED)}|\b0?\.739|\b73\.9|\+23\.9")
WHY = "hidden until people have labelled: `swapproof label chat`"


def win(_target: Target, _item: Item, _epoch: int) -> str:
    return ANSWER


@pytest.fixture
def world(plain_world: SmallInstallation) -> SmallInstallation:
    plain_world.script = win
    use(plain_world, draw_of(plain_world))
    return plain_world


@pytest.fixture
def ada(world: SmallInstallation) -> Actor:
    return world.person("ada", Role.PROPOSER)


def blind_suites(world: SmallInstallation, proposal: Proposal) -> frozenset[str]:
    with world.store.read() as tx:
        return find_blind_suites(tx, world.get(proposal.id))


def answered(world: SmallInstallation, candidate: str = "sim/good") -> Proposal:
    """Proposes, and turns until both models have answered, but no verdict is stored."""
    proposal = world.propose(candidate)
    for _ in range(10):
        world.run_once()
        stored = world.get(proposal.id)
        with world.store.read() as tx:
            runs = [run for pair in stored.runs.values() for run in (pair.candidate,)]
            if runs and all(EvalRuns(tx).get(run).state is RunState.DONE for run in runs):
                break
    assert stored.verdict is None
    return stored


def test_a_judged_suite_is_hidden_until_the_labels_end(
    world: SmallInstallation, ada: Actor
) -> None:
    proposal = answered(world)
    pair = proposal.runs["traffic"]
    assert blind_suites(world, proposal) == {"traffic"}
    with world.store.read() as tx:
        runs = [EvalRuns(tx).get(run) for run in (pair.incumbent, pair.candidate)]
        for run in runs:
            assert find_why_hidden(tx, run) == WHY
            assert find_why_hidden(tx, replace(run, suite="traffic[team = billing]")) == WHY
            assert find_why_hidden(tx, replace(run, suite_digest="of another draw")) == ""
            assert find_why_hidden(tx, replace(run, target="t_another")) == ""

    started = label_pairs.start_labelling(world.context(), ada, proposal.id)
    assert blind_suites(world, proposal) == {"traffic"}

    assert label_all(world, ada, started.id, "candidate").ended
    assert blind_suites(world, proposal) == frozenset()
    with world.store.read() as tx:
        assert [find_why_hidden(tx, run) for run in runs] == ["", ""]


def test_a_policy_that_asks_the_judge_alone_hides_nothing(world: SmallInstallation) -> None:
    world.policy = replace(POLICY, proof=TrafficProof.JUDGE)

    assert blind_suites(world, world.propose("sim/good")) == frozenset()


def test_a_proposal_without_a_judge_hides_nothing(plain_world: SmallInstallation) -> None:
    assert blind_suites(plain_world, plain_world.propose()) == frozenset()


def test_a_later_plan_learns_no_spread_from_hidden_scores(
    world: SmallInstallation, ada: Actor
) -> None:
    proposal = answered(world)

    def spread() -> object:
        with world.store.read() as tx:
            return find_recorded_spread(
                tx, proposal.plans[0], proposal.incumbent, [world.get(proposal.id)]
            )

    assert spread() is None
    started = label_pairs.start_labelling(world.context(), ada, proposal.id)
    label_all(world, ada, started.id, "candidate")
    assert spread() is not None


def shadowed(world: SmallInstallation) -> Shadow:
    """A shadow of the candidate whose judge has reached its verdict. Its words and its mean
    match SECRETS.
    """
    routes.change_settings(
        world.context(), SYSTEM, "chat", lambda now: replace(now, capture_bps=100)
    )
    judge = ShadowJudge("sim/judge", "Better is better.", anyway="a simulation")
    limits = ShadowLimits(usd_per_day=None)
    shadow = shadows.start_shadow(
        world.context(), BEN, "chat", "sim/good", limits, reason="a look", judge=judge
    )
    assert shadow.terms
    score = ShadowScore(
        shadow.id, 1, shadow.id, "", "", ScoreReason.JUDGED, 0.739, 0.739, 2, 0.0, NOW
    )
    counts = {"mirrored": 1, "pairs": 1, "json.incumbent_only": 1}
    sums = {"candidate.output_tokens": 73.9, "candidate.ms": 739.0}
    tally = ShadowTally(shadow.id, world.clock.now().date(), "w", counts, sums)
    with world.store.write() as tx:
        for number in range(1, 61):
            name = f"c{number}"
            ShadowScores(tx).add(replace(score, number=number, pair=name, caller=name))
        Shadows(tx).append([tally])
        assert shadows.end_decided(tx, shadow)
    return shadow


def test_a_shadow_of_the_candidate_hides_its_verdict_and_figures_while_people_label(
    world: SmallInstallation, ada: Actor
) -> None:
    shadow = shadowed(world)
    shown_before = shadows.load_status(world.context(), "chat")
    assert shown_before.verdict
    assert "wins 73.9 %" in shown_before.verdict.words
    assert shown_before.checks
    assert shown_before.candidate

    proposal = answered(world)
    hidden = shadows.load_status(world.context(), "chat")
    assert hidden.hidden == WHY
    assert hidden.verdict
    assert (hidden.verdict.outcome, hidden.verdict.evidence) == ("hidden", None)
    assert (hidden.verdict.words, hidden.verdict.next_step) == (WHY, "")
    assert (hidden.checks, hidden.share_of_level, hidden.harm) == ((), None, None)
    assert (hidden.incumbent, hidden.candidate) == (None, None)
    assert (hidden.mirrored, hidden.pairs) == (1, 1)
    with world.store.read() as tx:
        assert find_why_shadow_hidden(tx, "mail", shadow.candidate.id) == ""
        assert find_why_shadow_hidden(tx, "chat", "t_another") == ""

    started = label_pairs.start_labelling(world.context(), ada, proposal.id)
    label_all(world, ada, started.id, "candidate")
    assert shadows.load_status(world.context(), "chat") == shown_before


@pytest.fixture
def cli(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CommandLine]:
    with installed(tmp_path, database_url, monkeypatch) as made:
        made.world.script = win
        suite = draw_of(made.world)
        use(made.world, suite)
        config = made.folder / "swapproof.yaml"
        entry = {
            "path": str(suite.path),
            "scorer": "preference",
            "scorer_options": dict(suite.scorer_options),
            "cluster": "caller",
            "judge": {"target": "sim/judge"},
        }
        config.write_text(
            config.read_text("utf-8").replace(
                "suites:\n", f"suites:\n  traffic: {json.dumps(entry)}\n"
            ),
            "utf-8",
        )
        yield made


def say_by_commands(cli: CommandLine, proposal: Proposal) -> Mapping[str, str]:
    """Says what each command shows about the proposal."""
    pair = proposal.runs["traffic"]
    commands = [
        ("proposal", "show", proposal.id),
        ("proposal", "list"),
        ("eval", "list"),
        *(
            ("eval", "show", run, *samples)
            for run in (pair.incumbent, pair.candidate)
            for samples in ((), ("--samples",))
        ),
        ("route", "show", "chat"),
        ("route", "candidates", "chat"),
        ("route", "measured"),
        ("status",),
        ("model", "list"),
        ("suite", "list"),
        ("alert", "list"),
        ("audit", "tail"),
        ("label", "chat", "--status"),
        ("shadow", "status"),
        ("shadow", "status", "chat"),
        ("proposal", "report", proposal.id),
    ]
    said = {}
    for words in commands:
        for format_ in ((), ("--json",)):
            done = cli.run(*words, *format_)
            said[" ".join((*words, *format_))] = done.output
    return said


def say_by_api(door: Door, proposal: Proposal, labelling: str) -> Mapping[str, str]:
    """Says what each path of the API shows about the proposal."""
    pair = proposal.runs["traffic"]
    said = {}
    for template, operations in door.document["paths"].items():
        if "get" not in operations:
            continue
        for run in (pair.incumbent, pair.candidate):
            path = template.removeprefix("/api/v1").format_map(
                Known(
                    proposal=proposal.id,
                    run=run,
                    route="chat",
                    labelling=labelling,
                    suite="traffic",
                    model="sim/good",
                )
            )
            said[path] = door.send("GET", path).text
    return said


class Known(dict[str, str]):
    """Fills in a parameter that the test does not know."""

    def __missing__(self, key: str) -> str:
        return "nothing"


def say_by_pages(
    config: Path, proposal: Proposal, monkeypatch: pytest.MonkeyPatch
) -> Mapping[str, str]:
    forget()
    queries: Mapping[str, dict[str, str]] = {
        "overview": {},
        "compare": {"id": proposal.id},
        "proposals": {},
        "suites": {"route": "chat"},
        "routes": {"route": "chat"},
        "labels": {},
        "shadows": {},
        "audit": {},
    }
    said = {
        page: whole_text(shown(monkeypatch, config, page, queries[page])) for page in queries
    }
    forget()
    return said


def start_by_page(config: Path, proposal: Proposal, monkeypatch: pytest.MonkeyPatch) -> Actor:
    """Starts a labelling by the dialog of the page Labels. Returns the actor, who labels."""
    forget()
    signed_in_as(monkeypatch, "lena", Role.PROPOSER)
    lena, _ = current_user._find_actor()
    assert lena is not None
    app = shown(monkeypatch, config, "labels")
    assert "1 labelling to start" in text(app)
    assert app.button(key=f"open-start-labels-{proposal.id}-traffic")
    waiting = f"WaitingSuite({proposal.id!r}, 'chat', 'traffic')"
    app = dialog(
        "from dashboard import current_user",
        "from dashboard.views import labels",
        "from harness.proposals.labels.label_verdicts import WaitingSuite",
        "st.session_state[page_frame.ACTOR_KEY] = current_user._find_actor()[0]",
        f"labels.start_labelling({waiting})",
    )
    assert " pairs; " in text(app)
    app.button(key=f"start-labels-now-{proposal.id}-traffic").click().run()
    assert not app.exception
    forget()
    return lena


def whole_text(app: Any) -> str:
    return "\n".join([text(app), *(str(element) for element in app.main)])


@pytest.mark.slow
def test_no_surface_shows_an_answer_or_a_score_before_the_labels_end_and_all_do_afterwards(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = cli.world
    shadowed(world)
    proposal = answered(world)
    world.run_once()
    config = cli.folder / "swapproof.yaml"
    with monkeypatch.context() as signed_in:
        lena = start_by_page(config, proposal, signed_in)
    (started,) = label_pairs.list_labellings(world.context())
    door = Door(world)

    def say() -> dict[str, str]:
        return {
            **say_by_commands(cli, proposal),
            **say_by_api(door, proposal, started.id),
            **say_by_pages(config, proposal, monkeypatch),
        }

    before = say()
    assert {
        name: found[0] for name, one in before.items() if (found := SECRETS.findall(one))
    } == {}
    pair = proposal.runs["traffic"]
    shows = {
        f"proposal show {proposal.id}",
        f"proposal report {proposal.id}",
        f"eval show {pair.candidate}",
        f"eval show {pair.candidate} --samples",
        "route show chat",
        "route candidates chat",
        f"/proposals/{proposal.id}/comparison",
        f"/evals/{pair.candidate}/samples",
        f"/evals/{pair.incumbent}/samples",
        "/routes/chat/candidates",
        "shadow status chat",
        "/shadows/chat",
        "/shadows",
        "shadows",
        "compare",
        "suites",
    }
    assert {name for name in shows if "until people have labelled" not in before[name]} == set()
    assert {name for name, one in before.items() if "No run has started" in one} == set()

    label_all(world, lena, started.id, "candidate")
    after = say()
    assert ["✓ passed" in said["shadows"] for said in (before, after)] == [False, True]
    evidence = {
        f"eval show {pair.candidate} --samples",
        f"/evals/{pair.candidate}/samples",
        f"/evals/{pair.incumbent}/samples",
        "/routes/chat/candidates",
        "shadow status chat",
        "/shadows/chat",
    }
    assert {name for name in evidence if not SECRETS.search(after[name])} == set()
    assert {name for name, one in after.items() if "until people have labelled" in one} == set()
