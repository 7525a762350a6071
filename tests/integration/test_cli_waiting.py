"""`--wait`: a proposal or a run followed to its end, and the exit code that a script reads."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from harness.canary import operations
from harness.frame.people.access import Actor, Role
from harness.frame.runtime.clock import SystemClock
from harness.gate.online.rollout import RolloutSignal
from harness.gate.run import RunState
from harness.interfaces.cli.frame import waiting
from harness.interfaces.cli.frame.waiting import Progress, ProgressLine
from harness.proposals import decisions, submission
from harness.routing.records.proposals import Rollouts
from harness.routing.records.runs import EvalRuns
from tests.support.site.command_line import CommandLine


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """What happens in each pause of the command that waits."""

    def during(what: Callable[[], object]) -> None:
        monkeypatch.setattr(waiting, "sleep", lambda _: what())

    return during


Meanwhile = Callable[[Callable[[], object]], None]
OTTO = Actor("otto", Role.ADMIN, "pr_otto")


@pytest.mark.parametrize(
    ("candidate", "code", "words"),
    [
        ("better", 0, "PASSED"),
        ("worse", 3, "FAILED"),
        ("equal", 4, "NOT ENOUGH EVIDENCE"),
    ],
)
def test_the_exit_code_is_the_verdict(
    cli: CommandLine,
    meanwhile: Meanwhile,
    candidate: str,
    code: int,
    words: str,
) -> None:
    meanwhile(cli.world.run_once)

    done = cli.run(
        "proposal",
        "create",
        "chat",
        f"sim/{candidate}",
        "--wait",
        exits=code,
    )

    assert words in done.stdout
    assert "evaluating" in done.stderr
    # The candidate has no price, so nobody knows what was spent.
    assert "so far" not in done.stderr


def test_a_pass_that_waits_for_a_person_says_who_goes_on(
    cli: CommandLine, meanwhile: Meanwhile
) -> None:
    cli.run("route", "create", "mail", "--incumbent", "sim/base", "--suite", "colours")
    cli.run("route", "settings", "mail", "--policy", "approved", "--reason", "four eyes")
    meanwhile(cli.world.run_once)

    done = cli.run("proposal", "create", "mail", "sim/better", "--wait")

    assert "must approve or reject the canary" in done.stderr.splitlines()[-1]


def test_several_candidates_are_waited_for_and_the_best_sets_the_exit_code(
    cli: CommandLine, meanwhile: Meanwhile
) -> None:
    meanwhile(cli.world.run_once)

    done = cli.run(
        "proposal",
        "create",
        "chat",
        "sim/equal",
        "sim/better",
        "--wait",
        exits=0,
    )

    assert "2 candidates at once: each is tested at 1/2 of alpha" in done.stderr
    assert "PASSED" in done.stdout
    assert "NOT ENOUGH EVIDENCE" in done.stdout
    newest = cli.json("proposal", "list")[0]["id"]
    assert "`swapproof route candidates chat`" in cli.run("proposal", "show", newest).stderr
    table = cli.text("route", "candidates", "chat")
    assert "sim/equal" in table
    assert "sim/better" in table


def test_several_candidates_are_planned_one_by_one_and_nothing_is_stored(
    cli: CommandLine,
) -> None:
    words = (
        "proposal",
        "create",
        "chat",
        "sim/equal",
        "sim/better",
        "--dry-run",
    )

    planned = cli.json(*words)

    assert [row["plans"][0]["candidates"] for row in planned["candidates"]] == [2, 2]
    assert planned["risk"]["number"] == 2
    assert cli.json("proposal", "list") == []


def test_until_the_end_means_until_the_canary_has_ended(
    cli: CommandLine, meanwhile: Meanwhile
) -> None:
    def goes_on() -> None:
        cli.world.run_once()
        cli.world.feed()

    meanwhile(goes_on)

    done = cli.run(
        "proposal",
        "create",
        "chat",
        "sim/better",
        "--wait",
        "--until",
        "end",
    )

    assert "is promoted" in done.stdout
    assert "canary at 1 %" in done.stderr
    assert "canary at 25 %" in done.stderr


def test_what_is_watched_says_each_change_and_ends_by_itself(
    cli: CommandLine, meanwhile: Meanwhile
) -> None:
    def goes_on() -> None:
        cli.world.run_once()
        cli.world.feed()

    meanwhile(goes_on)
    proposal = cli.json("proposal", "create", "chat", "sim/better")["proposal"]["id"]
    lines = cli.text("proposal", "show", proposal, "--watch").splitlines()
    assert f"{proposal}: proposed" in lines[0]
    assert f"{proposal}: promoted" in lines[-1]
    assert len(lines) == len({line[19:] for line in lines})

    cli.world.clock.advance(60)
    documents = cli.text("canary", "status", "--watch", "--json").splitlines()
    assert [row["rollout"]["state"] for row in json.loads(documents[-1])] == ["promoted"]
    assert "promoted" in cli.text("canary", "status", "chat", "--watch")

    def stops() -> None:
        raise KeyboardInterrupt

    meanwhile(stops)
    assert "chat: sim/better" in cli.text("route", "measured", "--watch", exits=130)
    assert cli.text("route", "traffic", "chat", "--watch", exits=130) == ""  # no request
    assert "No request on chat in the last hour" in cli.text("route", "traffic", "chat")
    assert "No route needs you now" in cli.text("status", "--watch", exits=130)


@pytest.mark.parametrize(
    ("candidate", "failing", "code", "ends"),
    [
        ("better", False, 0, "chat: promoted"),
        (
            "better",
            True,
            3,
            "chat: rolled back: The candidate fails more often",
        ),
        ("worse", False, 3, "chat: no canary opened: {id}: closed: "),
    ],
)
def test_a_watch_that_begins_before_the_canary_waits_for_it_and_ends_with_its_code(
    cli: CommandLine,
    meanwhile: Meanwhile,
    candidate: str,
    failing: bool,  # noqa: FBT001 - a case
    code: int,
    ends: str,
) -> None:
    def goes_on() -> None:
        cli.world.run_once()
        cli.world.feed(failing=failing)

    meanwhile(goes_on)
    made = cli.json("proposal", "create", "chat", f"sim/{candidate}")["proposal"]["id"]

    lines = cli.text("canary", "status", "chat", "--watch", exits=code).splitlines()

    assert lines[0].endswith(f"chat: waits for a canary: {made}: proposed")
    assert any(f"waits for a canary: {made}: evaluating, " in line for line in lines)
    assert ends.format(id=made) in lines[-1]
    assert cli.run("canary", "status", "chat", "--watch").exit_code == 0  # nothing under way


def test_the_time_left_is_reckoned_from_the_pace_since_the_first_look(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = ProgressLine()
    for now_s, done in (
        (0.0, 0),
        (2.0, 6),
        (10.0, 10),
    ):
        line.say(
            Progress(
                "run_1: running",
                done,
                100,
                at_most=True,
                cost_usd=0.5,
            ),
            now_s,
        )

    first, early, said = capsys.readouterr().err.splitlines()
    assert first == "run_1: running, 0 of up to 100 samples"
    assert early == "run_1: running, 6 of up to 100 samples, $0.50 so far"
    assert said == "run_1: running, 10 of up to 100 samples, $0.50 so far, at most 1.5 min left"


def feed_harm(cli: CommandLine) -> None:
    cli.world.feed(failing=True)


def abort(cli: CommandLine) -> None:
    ctx = cli.world.context()
    with ctx.store.read() as tx:
        live = Rollouts(tx).live()
    if live:
        operations.operate(ctx, OTTO, "chat", RolloutSignal.ABORT, "no")


def decide(decision: Callable[..., object], cli: CommandLine) -> None:
    ctx = cli.world.context()
    for proposal in submission.list_proposals(ctx, open_only=True):
        if proposal.verdict is not None:
            decision(ctx, OTTO, proposal.id, "no need")


@pytest.mark.parametrize(
    ("policy", "happens", "code", "words"),
    [
        ("default", feed_harm, 3, " was rolled back)"),
        ("default", abort, 3, " was aborted)"),
        (
            "approved",
            partial(decide, decisions.refuse_proposal),
            7,
            " rejected",
        ),
        (
            "approved",
            partial(decide, decisions.cancel_proposal),
            1,
            " cancelled",
        ),
    ],
)
def test_each_end_of_a_proposal_has_its_code(
    cli: CommandLine,
    meanwhile: Meanwhile,
    policy: str,
    happens: Callable[[CommandLine], None],
    code: int,
    words: str,
) -> None:
    cli.run(
        "route",
        "settings",
        "chat",
        "--policy",
        policy,
        "--reason",
        "four eyes",
    )

    def goes_on() -> None:
        cli.world.run_once()
        happens(cli)

    meanwhile(goes_on)

    waited = (
        "proposal",
        "create",
        "chat",
        "sim/better",
        "--wait",
        "--until",
        "end",
    )
    assert words in cli.text(*waited, exits=code)


def test_when_the_time_is_up_the_code_is_5(cli: CommandLine) -> None:
    for words in (
        ("proposal", "create", "chat", "sim/better"),
        ("eval", "run", "colours", "sim/base"),
    ):
        cli.run(*words, "--wait", "--timeout", "0", exits=5)
    assert cli.json("proposal", "list")[0]["phase"] == "proposed"


def test_several_candidates_have_one_deadline_together(
    cli: CommandLine,
    meanwhile: Meanwhile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passed: list[float] = []
    monkeypatch.setattr(SystemClock, "monotonic", lambda _: float(len(passed)))
    meanwhile(lambda: passed.append(1.0))
    words = (
        "proposal",
        "create",
        "chat",
        "sim/equal",
        "sim/better",
        "--wait",
    )

    cli.run(*words, "--timeout", "3", exits=5)

    assert len(passed) == 3


def test_a_run_is_followed_to_its_end(cli: CommandLine, meanwhile: Meanwhile) -> None:
    meanwhile(cli.world.run_once)

    done = cli.run("eval", "run", "colours", "sim/base", "--wait")

    assert "60 of 60" in done.stdout
    assert "queued, 0 of 60 samples: next in line" in done.stderr
    assert "done, 60 of 60 samples, $" in done.stderr
    assert "no control process answers" in done.stderr


@pytest.mark.parametrize(("state", "code"), [("failed", 1), ("over_budget", 4)])
def test_a_run_that_ends_early_says_how(
    cli: CommandLine,
    meanwhile: Meanwhile,
    state: str,
    code: int,
) -> None:
    def ends() -> None:
        with cli.world.store.write() as tx:
            for run in EvalRuns(tx).list():
                EvalRuns(tx).set_state(run.id, RunState(state), "as the test says")

    meanwhile(ends)

    done = cli.run("eval", "run", "colours", "sim/base", "--wait", exits=code)

    assert "as the test says" in done.stdout


def test_a_run_that_makes_no_sense_is_not_queued(cli: CommandLine) -> None:
    for items, target, code, words in (
        ("0", "sim/base", 2, "at least one item"),
        ("3", "nope/base", 1, "no provider"),
    ):
        run = ("eval", "run", "colours", target, "--items", items)
        assert words in cli.error(*run, exits=code)
    assert cli.json("eval", "list") == []


@pytest.mark.verify
def test_a_terminal_gets_a_drawn_table_and_one_line_of_progress(cli: CommandLine) -> None:
    """On a real pseudo-terminal."""
    cli.run("model", "add", "sim/better")

    table = on_a_terminal(cli.folder, "model", "list")
    waited = on_a_terminal(
        cli.folder,
        "eval",
        "run",
        "colours",
        "sim/base",
        "--wait",
        "--timeout",
        "0",
    )

    assert "━" in table or "─" in table
    assert "sim/better" in table
    assert "\r\x1b[K" in waited
    proposal = cli.world.propose("sim/better").id
    cli.run("proposal", "cancel", proposal, "--reason", "a rehearsal")
    assert "cancelled" in on_a_terminal(cli.folder, "proposal", "show", proposal, "--watch")


def on_a_terminal(folder: Path, *words: str) -> str:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(  # noqa: S603 - our own command
        [Path(sys.executable).with_name("swapproof"), *words],
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={
            **os.environ,
            "TERM": "xterm",
            "COLUMNS": "200",
        },
    )
    os.close(theirs)
    said = b""
    while piece := read_piece(ours):
        said += piece
    os.close(ours)
    process.wait()
    return said.decode()


def read_piece(file: int) -> bytes:
    try:
        return os.read(file, 65536)
    except OSError:  # Linux says so when the other side is closed
        return b""
