"""Verdicts of a judge on a suite of traffic: its name, looks and weights."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from evals.suites.items import Item, file_sha256
from harness.evals.ports import EvalJob
from harness.evals.settings import JudgeSettings, SuiteSettings
from harness.frame.errors import InputError, RecordStale, StaleEvidence
from harness.frame.people.access import SYSTEM
from harness.frame.signing.audit_log import AuditLog
from harness.gate.offline.verdicts import replay_verdict, verdict_bytes
from harness.gate.policy import TrafficProof
from harness.gate.run import RECORD_STALE, RunState
from harness.gate.verdict import Inconclusive, Passed, Verdict
from harness.proposals.report.blocks import Heading, plain_text
from harness.proposals.report.comparison import load_comparison
from harness.proposals.report.document import describe_comparison
from harness.proposals.report.findings import describe_absence, list_drawbacks
from harness.providers.target import Target
from harness.routing.control import routes
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.verdicts import Verdicts
from harness.routing.route_settings import RouteSettings, RouteSuite
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.short_policies import POLICY
from tests.support.evals.scripted_runner import ScriptedRunner

pytestmark = pytest.mark.req("F2", "F6")

CALLERS = 150
WHY = "a simulated model has no maker"


def draw_of(
    world: SmallInstallation,
    name: str = "first",
    *,
    requests: Callable[[int], int] = lambda _: 1,
    judge: str = "sim/judge",
    why: str = WHY,
    callers: int = CALLERS,
) -> SuiteSettings:
    """A drawn suite of one record of each caller, yesterday."""
    file = Path(world.folder) / f"{name}.jsonl"
    at = world.clock.now() - timedelta(days=1)
    lines = [
        {
            "id": f"drw_{name}-{number}",
            "input": f"{name}: caller {number} asks about order {number * 37 % 1009}.",
            "target": "It is on its way.",
            "metadata": {
                "caller": f"caller-{number}",
                "requests": requests(number),
                "production": {"model": "base", "answered": True, "settings": {}},
                "provenance": {"at": at.isoformat()},
            },
        }
        for number in range(callers)
    ]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return SuiteSettings(
        "traffic",
        path=file,
        scorer="preference",
        scorer_options={"answers_of": "sim/base", "draw": name, "judge_anyway": why},
        cluster="caller",
        judge=JudgeSettings(Target.from_name(judge)),
    )


def number_of(item: Item) -> int:
    return int(item.id.rpartition("-")[2])


def wins(_target: Target, item: Item, _epoch: int) -> str:
    """Wins two pairs of three."""
    return "1.0" if number_of(item) % 3 else "0.5"


@pytest.fixture
def world(plain_world: SmallInstallation) -> SmallInstallation:
    world = plain_world
    world.policy = replace(POLICY, proof=TrafficProof.JUDGE)
    world.script = wins
    use(world, draw_of(world))
    return world


def use(world: SmallInstallation, suite: SuiteSettings) -> None:
    world.suites["traffic"] = suite
    assert suite.path is not None
    with world.store.write() as tx:
        AuditLog(tx).append(
            SYSTEM, "suite.draw", "suite traffic", {"sha256": file_sha256(suite.path)}
        )
    settings = RouteSettings(suites=(RouteSuite("traffic"),))
    if world.route().settings != settings:
        routes.change_settings(
            world.context(), SYSTEM, "chat", lambda now: replace(now, suites=settings.suites)
        )


def verdict_of(world: SmallInstallation, proposal: Proposal) -> Verdict:
    with world.store.read() as tx:
        return Verdicts(tx).get(proposal.verdict or "")


def test_the_verdict_names_its_judge_first_and_its_replay_is_the_same(
    world: SmallInstallation,
) -> None:
    verdict = verdict_of(world, world.until_decided(world.propose("sim/good").id))

    assert isinstance(verdict, Passed)
    assert verdict.reason.startswith(
        f"By the judge sim/judge (in spite of its maker: {WHY}), against "
    )
    assert "Weighted by requests, the difference is +" in verdict.reason
    assert verdict_bytes(replay_verdict(verdict)) == verdict_bytes(verdict)


def test_the_report_names_the_judge_first_and_no_time_of_a_logged_answer(
    world: SmallInstallation,
) -> None:
    proposal = world.until_decided(world.propose("sim/good").id)

    comparison = load_comparison(world.context(), proposal.id)
    title, *_ = describe_comparison(comparison)

    assert isinstance(title, Heading)
    assert plain_text(title.text).startswith("PASSED by the judge sim/judge (in spite of")
    assert comparison.incumbent_figures.p50_s is None
    assert comparison.candidate_figures.p50_s is not None
    assert not any("slower" in one.what for one in list_drawbacks(comparison))
    assert "not slower" not in describe_absence(comparison)


def test_a_policy_may_let_the_judge_alone_open_a_canary(world: SmallInstallation) -> None:
    proposal = world.until_decided(world.propose("sim/good").id)

    assert proposal.phase is ProposalPhase.CANARY


def test_callers_and_requests_that_disagree_show_nothing(world: SmallInstallation) -> None:
    use(world, draw_of(world, requests=lambda number: 1 if number % 3 else 400))
    world.script = lambda _target, item, _epoch: "1.0" if number_of(item) % 3 else "0.0"

    verdict = verdict_of(world, world.until_decided(world.propose("sim/good").id))

    assert isinstance(verdict, Inconclusive)
    assert "points weighted by requests" in verdict.reason


def test_each_draw_of_a_route_is_a_look_whatever_it_has_drawn(world: SmallInstallation) -> None:
    world.script = lambda _target, item, _epoch: "1.0" if number_of(item) % 2 else "0.0"
    first = world.until_decided(world.propose("sim/good").id)
    use(world, draw_of(world, "second"))

    second = world.propose("sim/good")

    assert first.plans[0].look == 1
    assert second.plans[0].look == 2
    assert second.plans[0].alpha < first.plans[0].alpha


@pytest.mark.parametrize(
    ("changed", "candidate", "sentence"),
    [
        ({"judge": "sim/good"}, "sim/good", "cannot judge its own answers"),
        ({"why": ""}, "sim/good", "does not show who made the judge"),
    ],
)
def test_a_judge_that_is_compared_or_of_an_unknown_maker_is_refused(
    world: SmallInstallation, changed: dict[str, str], candidate: str, sentence: str
) -> None:
    use(world, draw_of(world, "other", **changed))  # type: ignore[arg-type] # texts alone

    with pytest.raises(InputError, match=sentence):
        world.propose(candidate)


@pytest.mark.spine
@pytest.mark.req("H3")
def test_a_draw_of_another_incumbent_or_of_old_records_is_refused(
    world: SmallInstallation,
) -> None:
    world.clock.advance(15 * 86_400)
    with pytest.raises(StaleEvidence, match="older than 14 days"):
        world.propose("sim/good")

    settings = world.suites["traffic"]
    options = {**settings.scorer_options, "answers_of": "sim/equal"}
    world.suites["traffic"] = replace(settings, scorer_options=options)
    with pytest.raises(StaleEvidence, match="has answers of sim/equal"):
        world.propose("sim/good")


@pytest.mark.parametrize("change", ["a logged answer", "a record"])
def test_a_drawn_file_that_someone_changed_gives_no_verdict(
    world: SmallInstallation, change: str
) -> None:
    file = world.suites["traffic"].path
    assert file is not None
    text = file.read_text(encoding="utf-8")
    changed = (
        text.replace("It is on its way.", "I do not know.")
        if change == "a logged answer"
        else text.partition("\n")[2]
    )
    file.write_text(changed, encoding="utf-8")

    with pytest.raises(StaleEvidence, match="changed since its draw"):
        world.propose("sim/good")


def test_a_suite_under_another_name_than_its_draw_gives_no_verdict(
    world: SmallInstallation,
) -> None:
    world.suites["copy"] = replace(world.suites["traffic"], name="copy")
    routes.change_settings(
        world.context(), SYSTEM, "chat", lambda now: replace(now, suites=(RouteSuite("copy"),))
    )

    with pytest.raises(StaleEvidence, match="has no draw of suite 'copy'"):
        world.propose("sim/good")


def test_a_stale_record_ends_the_proposal_and_is_not_checked_until_it_passes(
    world: SmallInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = []

    def stale(_runner: ScriptedRunner, job: EvalJob, *_: object) -> RunState:
        checks.append(job.run.id)
        raise RecordStale(f"suite traffic: the incumbent wins 70 %, {RECORD_STALE}: draw again")

    monkeypatch.setattr(ScriptedRunner, "run", stale)

    proposal = world.until_decided(world.propose("sim/good").id)
    for _ in range(5):
        world.run_once()
        world.clock.advance(3_600)

    assert world.get(proposal.id).phase is ProposalPhase.REJECTED
    assert RECORD_STALE in world.get(proposal.id).closed_because
    assert len(checks) == len(set(checks))
