import json
import math
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog

from evals.sim.server import simulator
from harness.app import data_plane, processes
from harness.app.configuration.model import ControlSettings
from harness.app.demo.traffic import ProposalWatch, describe_approver
from harness.app.installation import load_settings, open_installation
from harness.canary.duration_estimate import estimate_for_route
from harness.frame.errors import NotFound
from harness.frame.runtime import supervisor as supervisor_module
from harness.frame.runtime.supervisor import MISCONFIGURED, Supervisor
from harness.routing.records.proposals import Proposals
from harness.routing.settings import (
    AgentSettings,
    RouterSettings,
    UiSettings,
)
from tests.integration.test_cli_waiting import read_piece
from tests.support.browser.dashboard_data import configured, opened
from tests.support.control.manual_clock import ManualClock
from tests.support.providers.simulator_thread import serve_in_thread
from tests.support.router.router_process import eventually
from tests.support.site.command_line import CommandLine, installed
from tests.support.site.processes import free_port

PARTS = ("ROUTER", "CONTROL", "AGENTS", "UI")


@pytest.fixture
def cli(
    tmp_path: Path,
    sqlite_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[CommandLine]:
    for part in PARTS:
        monkeypatch.setenv(f"SWAPPROOF__{part}__PORT", str(free_port()))
    with installed(tmp_path, sqlite_url, monkeypatch) as made:
        yield made


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_everything_at_once_starts_nothing_while_a_port_is_taken(cli: CommandLine) -> None:
    ports = [int(os.environ[f"SWAPPROOF__{part}__PORT"]) for part in PARTS]
    with socket.create_server(("127.0.0.1", ports[3])):
        one = cli.run("serve", "all", exits=2).stderr
        with socket.create_server(("127.0.0.1", ports[0])):
            two = cli.run("serve", "all", exits=2).stderr
        three = cli.run("sim", "--port", str(ports[3]), exits=2).stderr

    assert f"the simulator cannot listen on 127.0.0.1:{ports[3]}: pid {os.getpid()} (" in three
    assert one.count("\n") == two.count("\n") == 1
    assert f"the dashboard cannot listen on 127.0.0.1:{ports[3]}: pid {os.getpid()} (" in one
    assert "pytest" in one or "python" in one  # the command that holds it
    assert f"127.0.0.1:{ports[0]} for the router by pid {os.getpid()}" in two
    assert two.endswith("set router.port, ui.port in swapproof.yaml\n")
    assert one.endswith("set ui.port in swapproof.yaml\n")


def test_the_addresses_are_told_once_all_parts_answer(cli: CommandLine) -> None:
    said: list[str] = []
    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_port
        settings = replace(
            load_settings(cli.folder / "swapproof.yaml"),
            router=RouterSettings(port=port),
            control=ControlSettings(port=port),
            agents=AgentSettings(port=port),
            ui=UiSettings(port=port),
        )
        with processes.announce_when_serving(
            settings, list(processes.HEALTH_PATHS), said.append
        ):
            eventually(lambda: len(said) >= 5)
        server.shutdown()

    assert [line.split()[:2] for line in said] == [
        ["dashboard", f"http://127.0.0.1:{port}"],
        ["router", f"http://127.0.0.1:{port}/v1"],
        ["control", f"http://127.0.0.1:{port}"],
        ["agents", f"http://127.0.0.1:{port}"],
        ["note:", "no"],
    ]
    assert "add a sink under `alerts.sinks`" in said[-1]


def test_a_part_that_is_started_alone_on_a_terminal_says_where_it_is(cli: CommandLine) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(  # noqa: S603 - our own command
        [Path(sys.executable).with_name("swapproof"), "serve", "control"],
        cwd=cli.folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    port = os.environ["SWAPPROOF__CONTROL__PORT"]
    said = ""
    while "the management API" not in said and (piece := read_piece(ours)):
        said += piece.decode(errors="replace")
    process.terminate()
    process.wait()
    os.close(ours)

    assert f"control    http://127.0.0.1:{port}" in said
    assert "dashboard" not in said


def test_a_part_that_cannot_start_by_its_configuration_ends_all() -> None:
    said: list[str] = []
    wrong = [sys.executable, "-c", f"raise SystemExit({MISCONFIGURED})"]
    lasting = [sys.executable, "-c", "import time; time.sleep(600)"]
    before = signal.getsignal(signal.SIGTERM)
    supervisor = Supervisor({"router": lasting, "control": wrong}, said.append)

    assert supervisor.run() == MISCONFIGURED
    assert signal.getsignal(signal.SIGTERM) is before
    assert said[-1] == "control ended with 2"
    assert all(child.poll() is not None for child in supervisor.children.values())


def test_a_part_that_crashes_is_started_again_until_a_signal_ends_all(tmp_path: Path) -> None:
    said: list[str] = []
    code = "import pathlib, sys, time\npast = pathlib.Path(sys.argv[1])\n"
    code += "if past.exists(): time.sleep(600)\npast.touch()\nraise SystemExit(3)"
    router = [sys.executable, "-c", code, str(tmp_path / "past")]

    def say(text: str) -> None:
        said.append(text.rpartition(" pid ")[0] or text)
        if said.count("router runs as") == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    supervisor = Supervisor({"router": router}, say)

    assert supervisor.run() == 0
    assert said[:3] == [
        "router runs as",
        "router ended with 3",
        "router runs as",
    ]
    assert said[3:] == ["ending router: they finish their current work first"]
    assert supervisor.children["router"].poll() == -signal.SIGTERM


def run_dying_router(deaths: int) -> list[str]:
    """Runs a part that ends at once until it has ended so often; what was said of each end."""
    said: list[str] = []

    def say(text: str) -> None:
        if " ended with " in text:
            said.append(text)
        if len(said) == deaths:
            supervisor._ending = True

    command = [sys.executable, "-S", "-c", "raise SystemExit(3)"]
    supervisor = Supervisor({"router": command}, say)
    supervisor.run()
    return said


def test_the_pause_before_a_part_starts_again_grows_up_to_the_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The clock of the supervisor goes a thousand times as fast."""
    begun = time.monotonic()
    clock = SimpleNamespace(
        monotonic=lambda: begun + (time.monotonic() - begun) * 1_000,
        sleep=time.sleep,
    )
    monkeypatch.setattr(supervisor_module, "time", clock)
    monkeypatch.setattr(supervisor_module, "SETTLED_S", math.inf)
    said = run_dying_router(9)

    assert said[0] == "router ended with 3"
    waits = [text.rpartition(" in ")[2] for text in said[1:]]
    assert waits == [
        "2 s",
        "4 s",
        "8 s",
        "16 s",
        "32 s",
        "1 min",
        "1 min",
        "1 min",
    ]


def test_a_part_that_ran_for_a_while_starts_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor_module, "SETTLED_S", 0.0)
    monkeypatch.setattr(supervisor_module, "RESTART_PAUSE_S", 0.01)
    assert run_dying_router(4) == ["router ended with 3"] * 4


def test_apply_takes_new_routes_and_says_what_it_does_not_take(cli: CommandLine) -> None:
    file = cli.folder / "swapproof.yaml"
    text = file.read_text().replace(
        "{incumbent: sim/base,", "{incumbent: sim/other, stakes: high,"
    )
    text = text.replace("policies:\n", "policies:\n  careful: {promotion: approved}\n")
    running = open_installation(file)
    listing = open_installation(file)
    assert "careful" not in running.context.policies
    assert "careful" not in list(listing.context.policies)
    file.write_text(
        text + "  letters: {incumbent: sim/base, suites: [colours], policy: careful}\n"
    )

    done = cli.run("config", "apply")
    again = cli.json("config", "apply")
    checks = {
        check["found"]: check["next_step"]
        for check in cli.json("doctor", exits=1)["checks"]
        if check["subject"] == "file and database"
    }

    # A process that has been running since before knows the policy, and lists it.
    assert estimate_for_route(running.context, "letters", "careful").route == "letters"
    assert "careful" in list(listing.context.policies)
    with pytest.raises(NotFound, match="did you mean 'careful'"):
        estimate_for_route(running.context, "letters", "carefull")
    running.close()
    listing.close()
    assert done.stdout == "created route letters\n"
    assert cli.json("route", "show", "letters")
    model, settings = done.stderr.splitlines()  # no other person could act
    assert model == (
        "not taken: route chat: the file has sim/other, the database sim/base; the database "
        "applies: write sim/base into the file, or propose the swap with "
        "`swapproof proposal create chat sim/other`"
    )
    assert "differ in stakes; `swapproof route settings`" in settings
    assert (again["changed"], again["created"]) == ([], [])
    # The doctor says the same next steps.
    assert [f"not taken: {finding}; {step}" for finding, step in checks.items()] == [
        model,
        settings,
    ]
    ann = cli.acting("ann", "proposer")
    assert "admin" in cli.run("config", "apply", *ann, exits=7).stderr
    file.write_text(file.read_text().replace("127.0.0.1:9/", "127.0.0.1:10/"))
    moved = cli.run("config", "apply", exits=2).stderr
    assert "needs a reason (`--reason` on the command line)" in moved
    assert "changed provider sim" in cli.run("config", "apply", "--reason", "moved").stdout
    file.write_text(file.read_text().replace("policy: careful}", "policy: carefull}"))
    fault = "routes.letters.policy: there is no policy 'carefull'; did you mean 'careful'?"
    assert fault in cli.run("config", "apply", exits=2).stderr


def test_users_are_simulated_until_their_time_is_over(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "swapproof key create" in cli.run("sim", "traffic", exits=2).stderr
    monkeypatch.setenv("SWAPPROOF_KEY", "sk-sg-mine")
    assert "did you mean 'chat'?" in cli.run("sim", "traffic", "chatt", exits=1).stderr
    waits = cli.run("sim", "traffic", "chat", "--until-settled", exits=2).stderr
    assert "`swapproof proposal create chat MODEL" in waits
    # A simulated model of the route's name answers as a router would.
    cli.run(
        "route",
        "create",
        "sim-base",
        "--incumbent",
        "sim/base",
        "--suite",
        "colours",
    )
    with serve_in_thread(simulator(time_scale=0)) as url:
        asked = (
            "sim",
            "traffic",
            "sim-base",
            "--rate",
            "20",
            "--for",
            "1",
            "--url",
            url,
        )
        answer = cli.run(*asked, "--json")
    unanswered = cli.run(*asked, exits=1).stderr

    said = answer.stderr
    assert json.loads(answer.stdout)["failed"] == 0
    assert "requests was answered, so the traffic ends" in unanswered
    first = said.splitlines()[0]
    last = said.splitlines()[-1]
    assert first == f"20 requests per second to sim-base at {url}/v1; Ctrl-C ends them"
    assert last.endswith("requests, 0 failed")
    assert int(last.split()[0]) >= 1


def test_traffic_says_where_the_proposals_stand_and_when_they_end(cli: CommandLine) -> None:
    made = cli.json("proposal", "create", "chat", "sim/better")["proposal"]["id"]
    watch = ProposalWatch(cli.world.context(), ["chat"])
    early = watch.texts()
    cli.world.until_decided(made)
    cli.world.run_once()
    (later,) = watch.texts()
    going_on = watch.refresh()
    cli.run("canary", "abort", "chat", "--reason", "seen enough")

    assert early == ["chat: proposed"]
    assert later.startswith("chat: canary at 1 %: 0 of 3 callers")
    assert going_on == []
    (ended,) = watch.refresh()
    assert ended.startswith("chat: sim/better is aborted: aborted by local")
    assert not watch.open


def test_traffic_ends_where_only_a_persons_approval_is_missing_and_says_whose(
    cli: CommandLine,
) -> None:
    cli.run(
        "route",
        "settings",
        "chat",
        "--policy",
        "approved",
        "--reason",
        "four eyes",
    )
    asked = ("proposal", "create", "chat", "sim/better")
    made = cli.json(*asked)["proposal"]["id"]
    watch = ProposalWatch(cli.world.context(), ["chat"])
    assert not watch.is_settled
    assert watch.list_approvals() == []
    cli.world.until_decided(made)
    assert watch.is_settled
    assert watch.open
    (line,) = watch.list_approvals()
    assert line.startswith("chat: waits for an approver other than its proposer: ")
    assert f"`swapproof proposal approve {made}`" in line
    with cli.world.store.read() as tx:
        stored = Proposals(tx).get(made)
    alone = replace(stored, policy=replace(stored.policy, self_approval=True), widened={})
    assert describe_approver(alone) == "an approver"
    assert describe_approver(replace(alone, widened={"gate.claim": "superior"})) == (
        "an approver other than its proposer"
    )


def test_a_router_whose_database_has_no_route_says_so_in_its_log(tmp_path: Path) -> None:
    with (
        opened(configured(tmp_path), ManualClock()) as installation,
        structlog.testing.capture_logs() as logged,
    ):
        data_plane.warn_without_routes(installation)

    (line,) = logged
    assert (line["event"], line["log_level"]) == ("no_routes", "warning")
    assert "swapproof config apply" in line["next_step"]
    assert "First steps" in line["next_step"]
