"""Agents' runs from a log to a verdict: the draw, the unit, the sentence, the description."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import pytest

from evals.suites.items import Item
from harness.app.installation import load_settings
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.frame.runtime.clock import SystemClock
from harness.gate.offline.verdicts import replay_verdict, verdict_bytes
from harness.gate.policy import TrafficProof
from harness.gate.sentences import RECORDED_HISTORY
from harness.gate.verdict import Passed
from harness.proposals.labels import label_pairs
from harness.proposals.labels.labelling import LabelChoice
from harness.proposals.labels.records import Labellings
from harness.proposals.report.blocks import Sentence, plain_text
from harness.proposals.report.comparison import load_comparison
from harness.proposals.report.document import describe_comparison
from harness.providers.target import Target
from harness.routing.control import routes
from harness.routing.proposal import Proposal
from harness.routing.records.verdicts import Verdicts
from harness.routing.route_settings import RouteSettings, RouteSuite
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.short_policies import POLICY
from tests.support.evals.spend_log import Row, spend_row, write_spend_log
from tests.support.site.command_line import CommandLine

pytestmark = pytest.mark.req("F2", "F9", "D8")

NOW = SystemClock().now()
WHY: Final = "a simulated model has no maker"
TOOLS: Final = [{"type": "function", "function": {"name": "find", "parameters": {}}}]
RUNS: Final = 90
# The runs have 1 to 6 turns.
LENGTHS: Final = [1 + number % 6 for number in range(RUNS)]


def run_rows(number: int, turns: int, at: datetime) -> Iterator[Row]:
    """LiteLLM's rows of one run: each turn but the last calls a function."""
    question = f"Please find parcel {number * 37 % 1009} of customer {number}."
    messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
    for turn in range(turns):
        row = dict(
            spend_row(number * 100 + turn, at, caller=f"user-{number}", tools=TOOLS),
            session_id=f"session-{number}",
            startTime=(at + timedelta(seconds=turn)).isoformat(),
        )
        body = {**json.loads(str(row["proxy_server_request"])), "messages": [*messages]}
        answer: dict[str, Any] = {"role": "assistant", "content": f"Parcel {number} is here."}
        if turn < turns - 1:
            arguments = json.dumps({"number": number, "step": turn})
            function = {"name": "find", "arguments": arguments}
            calls = [{"id": f"c{turn}", "type": "function", "function": function}]
            answer = {"role": "assistant", "content": None, "tool_calls": calls}
        choice = {"index": 0, "message": answer, "finish_reason": "stop"}
        row["proxy_server_request"] = json.dumps(body)
        row["response"] = json.dumps({"choices": [choice]})
        yield row
        result = f"step {turn} of {number}: looked on shelf {number * 11 + turn}"
        messages += [answer, {"role": "tool", "tool_call_id": f"c{turn}", "content": result}]


def agents_log() -> list[Row]:
    midnight = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    return [
        row
        for number, turns in enumerate(LENGTHS)
        for row in run_rows(
            number, turns, midnight - timedelta(days=1 + number % 5) + timedelta(hours=1)
        )
    ]


def draw(cli: CommandLine, *words: str) -> Any:
    return cli.json(
        *("suite", "draw", "traffic", "--route", "chat", "--from", "spend.jsonl"),
        *("--judge", "sim/judge", "--judge-anyway", WHY, *words),
    )


@pytest.fixture
def cli(cli: CommandLine) -> CommandLine:
    file = cli.folder / "swapproof.yaml"
    classes = "data_classes:\n  personal: [sim]\n"
    file.write_text(file.read_text(encoding="utf-8").replace(classes, ""), encoding="utf-8")
    return cli


def wins_long_runs(_target: Target, item: Item, _epoch: int) -> str:
    """Wins each turn of the longest runs, and loses some of the others: a mean over turns
    would be far higher than the mean over runs.
    """
    turn = item.metadata["turn"]
    return "1.0" if turn["of"] >= 5 or turn["number"] == 1 else "0.5"


@pytest.fixture
def world(cli: CommandLine) -> SmallInstallation:
    write_spend_log(cli.folder / "spend.jsonl", agents_log())
    draw(cli)
    world = cli.world
    world.policy = replace(POLICY, proof=TrafficProof.JUDGE)
    world.suites["traffic"] = load_settings(cli.folder / "swapproof.yaml").suites["traffic"]
    world.script = wins_long_runs
    routes.change_settings(
        world.context(),
        SYSTEM,
        "chat",
        lambda _: RouteSettings(suites=(RouteSuite("traffic"),)),
    )
    return world


@pytest.fixture
def proposal(world: SmallInstallation) -> Proposal:
    return world.until_decided(world.propose("sim/good").id)


def test_the_command_draws_one_run_of_each_caller_with_all_turns_and_says_what_it_cannot_show(
    cli: CommandLine,
) -> None:
    rows = agents_log()
    gap = [row for row in rows if row["request_id"] != "chatcmpl-501"]
    write_spend_log(cli.folder / "spend.jsonl", gap)

    drawn = draw(cli)
    said = cli.run(
        *("suite", "draw", "again", "--route", "chat", "--from", "spend.jsonl"),
        *("--judge", "sim/judge", "--judge-anyway", WHY),
    )

    assert drawn["runs"] == {"complete": RUNS - 1, "incomplete": 1}
    assert drawn["items"] == sum(LENGTHS) - 1
    assert f"{RUNS} runs of agents" in drawn["summary"]
    assert RECORDED_HISTORY in said.stderr
    assert "runs in the log: 89 complete, 1 incomplete" in said.stderr
    settings = (cli.folder / "swapproof.yaml").read_text(encoding="utf-8")
    assert 'cluster: "run"' in settings
    manifest = (cli.folder / "suites/manifest.toml").read_text(encoding="utf-8")
    for line in ('runs_by = "conversation"', "runs_incomplete = 1", "without_run = 0"):
        assert line in manifest


def test_a_runs_score_is_the_mean_over_its_turns_and_all_runs_weigh_alike(
    world: SmallInstallation, proposal: Proposal
) -> None:
    with world.store.read() as tx:
        verdict = Verdicts(tx).get(proposal.verdict or "")

    assert isinstance(verdict, Passed)
    (plan,) = proposal.plans
    assert (plan.cluster, plan.n_max) == ("run", RUNS)
    assert sorted(plan.cluster_sizes) == sorted(LENGTHS)
    (report,) = verdict.suites
    used = report.n_used
    runs = [1.0 if of >= 5 else (1.0 + 0.5 * (of - 1)) / of for of in plan.cluster_sizes[:used]]
    assert report.delta == pytest.approx(sum(runs) / used - 0.5)
    assert report.figures.item_delta != pytest.approx(report.delta, abs=0.01)


def test_the_verdict_says_that_the_history_is_the_incumbents_and_its_replay_is_the_same(
    world: SmallInstallation, proposal: Proposal
) -> None:
    with world.store.read() as tx:
        verdict = Verdicts(tx).get(proposal.verdict or "")

    assert verdict.reason.endswith(RECORDED_HISTORY)
    assert verdict_bytes(replay_verdict(verdict)) == verdict_bytes(verdict)


def test_the_report_describes_the_first_call_that_differs_and_the_verdict_does_not_use_it(
    cli: CommandLine, world: SmallInstallation, proposal: Proposal
) -> None:
    comparison = load_comparison(world.context(), proposal.id)
    sentences = [
        plain_text(block.text)
        for block in describe_comparison(comparison)
        if isinstance(block, Sentence)
    ]

    # The scripted candidate calls no function, so that runs with calls differ at once.
    found = comparison.recorded_runs["traffic"]
    (side,) = comparison.suites
    assert comparison.verdict is not None
    assert found.runs == comparison.verdict.suites[0].n_used < RUNS
    one_turn = side.plan.cluster_sizes[: found.runs].count(1)
    assert (found.same, found.differ) == (0, found.runs - one_turn)
    assert found.median_turns == 0
    assert found.unknown == {"neither model calls a function": one_turn}
    assert any(found.text in sentence for sentence in sentences)
    shown = cli.json("proposal", "show", proposal.id)
    assert shown["recorded_runs"]["traffic"]["differ"] == found.differ


def test_a_suite_that_was_drawn_again_leaves_the_description_unknown(
    cli: CommandLine, world: SmallInstallation, proposal: Proposal
) -> None:
    file = cli.folder / "suites/traffic.jsonl"
    file.write_text(file.read_text("utf-8").replace("Parcel", "Package"), "utf-8")

    found = load_comparison(world.context(), proposal.id).recorded_runs["traffic"]

    assert found.unknown == {"the suite's file has changed": found.runs}


def test_a_labeller_sees_the_history_of_a_turn_and_runs_have_equal_weights(
    world: SmallInstallation, proposal: Proposal
) -> None:
    ada: Actor = world.person("ada", Role.PROPOSER)
    ctx = world.context()
    started = label_pairs.start_labelling(ctx, ada, proposal.id)

    with world.store.read() as tx:
        labelling = Labellings(tx).get(started.id)
    turns = ctx.suites.recorded_turns("traffic")
    weights: dict[str, float] = {}
    for item in labelling.items:
        run = turns[item.item].run
        weights[run] = weights.get(run, 0.0) + item.weight
    assert len(set(weights)) == RUNS
    assert [*weights.values()] == pytest.approx([1 / RUNS] * RUNS)

    for _ in range(10):
        pair = label_pairs.show_next_pair(ctx, ada, started.id).pair
        assert pair is not None
        assert "Please find parcel" in pair.request
        if "TOOL" in pair.request:
            assert "calls find({" in pair.request
            last = pair.request.partition("TOOL\n")[2].partition("\n\n")[0]
            assert "looked on shelf" in last
            break
        label_pairs.give_label(ctx, ada, started.id, pair.number, LabelChoice.TIE)
    else:
        pytest.fail("no pair with a function's result in ten")
