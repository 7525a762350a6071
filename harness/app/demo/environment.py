"""The demo's stories, and their environment.

A story's expected end follows from the skills of the simulated models, never from the run. If
two models exchange their skills, two stories exchange their ends.

The environment is a folder with its own configuration and database, and real processes of
Swapproof. It never uses the user's installation.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from harness.app.demo.no_evals import CHEAPER, LOGGED_INCUMBENT, LOGGED_ROUTE
from harness.app.processes import HEALTH_PATHS, answers_http
from harness.frame.errors import SwapproofError
from harness.frame.failures import FailureClass
from harness.frame.runtime.tcp_ports import free_port
from harness.gate.canary_sentences import error_words
from harness.routing.proposal import ProposalPhase

MODELS = Path(__file__).with_name("models.yaml")
# Simulated models answer 20 times faster than real ones, which gives more traffic.
TIME_SCALE = 0.05
# The commands in docs/reference/agents.md name this model; the demo simulates it.
DOCUMENTED_MODEL = "gpt-6-luna"
_KEY_VARIABLE = "SWAPPROOF_DEMO_KEY"
_KEY = "sk-simulated"
PORTS = {
    "router": 8080,
    "control": 8081,
    "agents": 8085,
    "ui": 8501,
    "sim": 9001,
    "primary": 9101,
    "backup": 9201,
}
HOST = "127.0.0.1"
START_TIMEOUT_S = 240.0

SUITE: Final = "tickets"
INCUMBENT: Final = "sim/aurora-1"
BETTER: Final = "sim/aurora-2"
WORSE: Final = "sim/aurora-lite"
FRAGILE: Final = "sim/nimbus-1"
SILENT: Final = "sim/nimbus-2"
# The provider begins to offer this model during the demo. The model is as good as aurora-2.
NEW: Final = "sim/aurora-3"
NIGHTLY_ROUTE: Final = "chat-night"
# The route of the silent candidate. Its time limits are short: a request does not wait long for
# the first output.
IMPATIENT_ROUTE: Final = "chat-phone"
FIRST_OUTPUT_S: Final = 3
# The time limit of a whole request, in seconds. It also delays each step of a canary.
REQUEST_S: Final = 10

# The route of the lost provider, whose traffic must reach the backup.
OUTAGE_ROUTE: Final = "search"
OUTAGE_PRIMARY: Final = "primary/aurora-1"
OUTAGE_BACKUP: Final = "backup/backup-1"


# Copies the route's current row, with the candidate as its incumbent and a forged proof.
_PROMOTION_SQL = """
INSERT INTO route_version (route, version, revision, kind, incumbent, incumbent_evidence,
  weight_bps, settings, prev_version, prev_incumbent, verdict_id, verdict_candidate,
  verdict_outcome, at, actor, reason)
SELECT route, version + 1, (SELECT max(revision) + 1 FROM route_version), 'promotion',
  :candidate, incumbent_evidence, 0, settings, version, incumbent, :verdict, :candidate,
  :outcome, at, 'mallory', 'because I can'
FROM route_version WHERE route = :route ORDER BY version DESC LIMIT 1"""

_EVIDENCE_SQL = """
INSERT INTO evidence (id, route, target, kind, created_at)
SELECT 'e_forged', route, :candidate, 'baseline', at
FROM route_version WHERE route = :route ORDER BY version DESC LIMIT 1"""

# Title, SQL statement, and the verdict outcome that the statement claims; None for no verdict.
ATTACKS: Sequence[tuple[str, str, str | None]] = (
    ("promote it without a verdict", _PROMOTION_SQL, None),
    ("promote it with its failed verdict", _PROMOTION_SQL, "failed"),
    ("promote it and claim that the verdict passed", _PROMOTION_SQL, "passed"),
    ("declare it the route's baseline", _EVIDENCE_SQL, None),
    (
        "write 'passed' over its verdict",
        "UPDATE verdict SET outcome = 'passed' WHERE id = :verdict",
        "failed",
    ),
)


@dataclass(frozen=True, slots=True)
class OnlineFault:
    """A fault that a candidate shows only in its canary."""

    text: str  # completes "MODEL now …"
    switch: Mapping[str, object]  # the simulator's fault switch
    # The rollback's reason must contain at least one of them. The control plane writes the
    # first, and a router's own guard the second.
    failures: Sequence[str]
    turns: int = 1  # how many requests each user of the route sends


# The provider refuses each conversation that has an earlier answer. An eval item is a single
# question without an earlier answer, so evals do not find the fault. A refused request opens no
# circuit, so the candidate continues to answer first turns.
_LATER_TURNS: Final = OnlineFault(
    "answers the first turn of each caller, and refuses all later turns",
    {
        "kind": "status",
        "status": 400,
        "code": "invalid_conversation",
        "message": "A conversation of this model ends with its first answer.",
        "from_turn": 2,
    },
    ("later", error_words(FailureClass.BAD_REQUEST, 400)),
    turns=3,
)
_SILENCE: Final = OnlineFault(
    "accepts its requests and sends nothing",
    {"kind": "hang"},
    (FailureClass.TIMEOUT, error_words(FailureClass.TIMEOUT)),
)


@dataclass(frozen=True, slots=True)
class Story:
    """A proposal of the demo. ends: the phase in which the proposal must end."""

    route: str
    candidate: str
    ends: ProposalPhase
    fault: OnlineFault | None = None  # the candidate's fault, from the start of its canary
    scheduled: bool = False  # the route's own schedule proposes it
    labelled: bool = False  # people's labels decide, because the route has no evals


def build_stories(*, swap: bool) -> tuple[Story, ...]:
    promoted = ProposalPhase.PROMOTED
    rejected = ProposalPhase.REJECTED
    return (
        Story("chat-web", BETTER, rejected if swap else promoted),
        # Early, because people's labels come between its evals and its canary.
        Story(LOGGED_ROUTE, CHEAPER, promoted, labelled=True),
        Story("chat-mobile", WORSE, promoted if swap else rejected),
        # The candidates of these two stories score well, then fail online.
        Story(
            "chat-email",
            FRAGILE,
            ProposalPhase.ROLLED_BACK,
            fault=_LATER_TURNS,
        ),
        Story(
            IMPATIENT_ROUTE,
            SILENT,
            ProposalPhase.ROLLED_BACK,
            fault=_SILENCE,
        ),
        Story(NIGHTLY_ROUTE, NEW, rejected if swap else promoted, scheduled=True),
    )


@dataclass
class DemoEnvironment:
    """The folder and the processes of one demo. `close` ends all processes."""

    # Holds the database, the logs and swapproof.yaml.
    folder: Path = field(
        default_factory=lambda: Path(tempfile.mkdtemp(prefix="swapproof-demo-"))
    )
    ports: dict[str, int] = field(default_factory=dict)  # by process
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    swap: bool = False

    @property
    def config(self) -> Path:
        return self.folder / "swapproof.yaml"

    def url(self, name: str) -> str:
        return f"http://{HOST}:{self.ports[name]}"

    def choose_ports(self, wanted: Mapping[str, int]) -> list[str]:
        """Chooses a free port for each process, if possible the wanted port. Returns a
        note about each other port.
        """
        notes = []
        for name, port in wanted.items():
            reserved = {*wanted.values(), *self.ports.values()} - {port}
            self.ports[name] = free_port(HOST, port, reserved_ports=reserved)
            if self.ports[name] != port:
                notes.append(f"port {port} is taken: {name} uses {self.ports[name]}")
        return notes

    def start(
        self,
        name: str,
        arguments: list[str],
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Starts `swapproof WORDS` with its output in NAME.log. Does not wait."""
        log = (self.folder / f"{name}.log").open("ab")
        with log:
            self.children[name] = subprocess.Popen(  # noqa: S603 - our own command
                [
                    sys.executable,
                    "-m",
                    "swapproof",
                    "--config",
                    str(self.config),
                    *arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "PYTHONUNBUFFERED": "1",
                    **(variables or {}),
                },
                start_new_session=True,
            )

    def await_answer(self, name: str, path: str) -> None:
        """Waits until the process serves. Raises SwapproofError with the end of its log."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.children[name].poll() is None:
            if answers_http(HOST, self.ports[name], path):
                return
            time.sleep(0.1)
        log = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        raise SwapproofError(f"{name} did not start:\n{log[-2000:]}")

    def kill(self, name: str) -> int:
        """Kills a process without warning, as a crash would. Returns its pid."""
        child = self.children[name]
        child.send_signal(signal.SIGKILL)
        child.wait()
        return child.pid

    def close(self) -> None:
        for child in self.children.values():
            if child.poll() is None:
                child.terminate()
        for child in self.children.values():
            try:
                child.wait(timeout=15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def attack(self, values: Mapping[str, str]) -> dict[str, str]:
        """Runs each statement of `ATTACKS` on the database, and rolls it back.

        Returns the database's error messages by title. A message is empty if the database
        accepted the statement.
        """
        refusals = {}
        for title, statement, claim in ATTACKS:
            parameters: dict[str, str | None] = {**values, "outcome": claim}
            if claim is None:
                parameters["verdict"] = None
            connection = sqlite3.connect(self.folder / "swapproof.db", timeout=30)
            with closing(connection):
                connection.execute("PRAGMA foreign_keys = ON")
                try:
                    row_count = connection.execute(statement, parameters).rowcount
                    refusals[title] = "" if row_count else "no row was changed"
                except sqlite3.IntegrityError as refusal:
                    refusals[title] = str(refusal)
                finally:
                    connection.rollback()
        return refusals

    @property
    def profiles(self) -> Path:
        return self.folder / "models.yaml"

    def write_config(self) -> None:
        """Writes the configuration, the routes of all stories and the profiles of the simulated
        models.
        """
        models = yaml.safe_load(MODELS.read_text(encoding="utf-8"))
        prices = {name: model["price"] for name, model in models.items()}
        if self.swap:
            better = models[BETTER.partition("/")[2]]
            worse = models[WORSE.partition("/")[2]]
            better["skill"], worse["skill"] = worse["skill"], better["skill"]
        self.profiles.write_text(yaml.safe_dump(models), encoding="utf-8")
        documented = prices.pop(DOCUMENTED_MODEL)
        prices[NEW.partition("/")[2]] = prices[BETTER.partition("/")[2]]
        suites = [{"suite": SUITE, "role": "primary"}]
        routes: dict[str, dict[str, object]] = {
            story.route: {
                "incumbent": INCUMBENT,
                "policy": "demo",
                "suites": suites,
                "total_timeout_s": REQUEST_S,
            }
            for story in build_stories(swap=self.swap)
        }
        routes[NIGHTLY_ROUTE] |= {
            "candidates": {
                "models": [f"{NEW}*"],
                "every": "* * * * *",
                "budget_usd": 5,
            }
        }
        # Its suite is drawn from its log.
        routes[LOGGED_ROUTE] |= {"incumbent": LOGGED_INCUMBENT, "suites": []}
        routes[IMPATIENT_ROUTE] |= {
            "first_byte_timeout_s": FIRST_OUTPUT_S,
            "first_token_timeout_s": FIRST_OUTPUT_S,
        }
        routes[OUTAGE_ROUTE] = {
            "incumbent": OUTAGE_PRIMARY,
            "fallbacks": [OUTAGE_BACKUP],
            "policy": "demo",
            "suites": suites,
            "total_timeout_s": REQUEST_S,
        }
        document = {
            "home": str(self.folder),
            "router": {
                "port": self.ports["router"],
                "flush_interval_s": 0.5,
                # A busy machine may delay the simulated models for seconds.
                "connect_timeout_s": 60,
                "first_byte_timeout_s": 60,
                "first_token_timeout_s": 60,
            },
            "control": {
                "port": self.ports["control"],
                "reconcile_interval_s": 0.5,
            },
            "agents": {
                "port": self.ports["agents"],
                "open_on_loopback": True,
            },
            "ui": {"port": self.ports["ui"]},
            "providers": {
                "openai": {
                    **self._build_provider("sim", {DOCUMENTED_MODEL: documented}),
                    "kind": "openai",
                    "api_key_env": _KEY_VARIABLE,
                },
                **{
                    name: self._build_provider(name, prices)
                    for name in ("sim", "primary", "backup")
                },
            },
            "routes": routes,
        }
        self.config.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")

    def _build_provider(self, process: str, prices: dict[str, object]) -> dict[str, object]:
        return {
            "kind": "sim",
            "api_base": f"{self.url(process)}/v1",
            "prices": prices,
        }

    def start_provider(self, name: str) -> None:
        arguments = [
            "sim",
            "--port",
            str(self.ports[name]),
            "--profiles",
            str(self.profiles),
        ]
        self.start(name, [*arguments, "--time-scale", str(TIME_SCALE)])
        self.await_answer(name, "/healthz")

    def start_swapproof(self) -> None:
        """Starts Swapproof's processes. Does not wait."""
        for part in ("control", "router", "agents", "ui"):
            self.start(part, ["serve", part], {_KEY_VARIABLE: _KEY})

    def await_swapproof(self) -> None:
        for part in ("control", "router", "agents"):
            self.await_answer(part, HEALTH_PATHS[part])


def play_to_end(environment: DemoEnvironment, play: Callable[[], bool]) -> int:
    """Plays, then ends all processes. Returns the exit code. Keeps the folder with the logs if
    something failed.
    """
    # A closed terminal or a `kill` ends the demo like Ctrl-C, and ends all its processes.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    succeeded = False
    try:
        succeeded = play()
    except KeyboardInterrupt:
        print("\ninterrupted")  # noqa: T201 - the demo talks to its user
    finally:
        environment.close()
        if succeeded:
            shutil.rmtree(environment.folder, ignore_errors=True)
        else:
            print(f"the logs are in {environment.folder}")  # noqa: T201
    return 0 if succeeded else 1
