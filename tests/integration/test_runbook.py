"""Each alert has its section of the runbook, each section its alert, and each command runs on a
real installation. Names in capitals stand for the subject of the alert.
"""

import re
import shlex
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.frame.alerts.alert import ALERT_RULES, AlertKind
from harness.frame.alerts.alert_record import (
    AlertRecord,
    Notified,
    alert_message,
    new_delivery,
)
from harness.frame.runtime.clock import SystemClock
from harness.interfaces.cli.program import program
from tests.support.control.waiting_switch import waiting_switch
from tests.support.site.command_line import CommandLine, installed

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
PAGE = Path(__file__).parents[2] / "docs/runbook.md"
SECTIONS = dict(
    re.findall(
        r"^## (\w+)\n\n(.+?)(?=^## |\Z)",
        PAGE.read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
)
LOOKS = (
    "list",
    "freezes",
    "measured",
    "show",
    "status",
    "failovers",
    "history",
    "matrix",
)
PRICES = "      base: {input_usd_per_mtok: 1, output_usd_per_mtok: 2}\n"
DRIFT = "  colours: {path: colours.jsonl, scorer: exact"

pytestmark = pytest.mark.req("G7")


def test_every_kind_of_alert_has_its_section_and_every_section_its_kind() -> None:
    assert set(SECTIONS) == {kind.value for kind in AlertKind}


@pytest.mark.parametrize("kind", sorted(SECTIONS))
def test_a_section_begins_with_the_severity_of_its_alert(kind: str) -> None:
    severity = ALERT_RULES[AlertKind(kind)].severity.name.lower()

    assert SECTIONS[kind].startswith(f"**{severity}.** ")


@pytest.mark.spine
def test_the_message_of_each_alert_links_to_its_section() -> None:
    for kind in AlertKind:
        record = AlertRecord("al_1", kind, "route chat", f"{kind}:chat", "t", "t", NOW, NOW)
        delivery = new_delivery(record, Notified.RAISED, "mail", NOW)
        link = alert_message(delivery, record, dashboard_url="http://127.0.0.1:8501").runbook

        page, _, section = link.partition("#")
        assert page == f"http://127.0.0.1:8501/docs/{PAGE.stem}.html"
        assert SECTIONS[section].startswith(f"**{record.severity.name.lower()}.** ")


COMMANDS = {
    " ".join(words.split())
    for text in SECTIONS.values()
    for words in re.findall(r"`(swapgate [^`]+)`", text)
}


@pytest.fixture
def cli(
    tmp_path: Path,
    sqlite_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[CommandLine]:
    with installed(tmp_path, sqlite_url, monkeypatch) as made:
        file = tmp_path / "swapgate.yaml"
        text = file.read_text("utf-8")
        text = text.replace(PRICES, PRICES + PRICES.replace("base", "worse"))
        text = text.replace(DRIFT, f"{DRIFT}, drift: {{items: 5}}")
        file.write_text(text, "utf-8")
        yield made


def test_every_command_of_the_runbook_runs(cli: CommandLine) -> None:
    tried: set[str] = set()

    def run(
        command: str,
        *,
        exits: int = 0,
        **names: str,
    ) -> None:
        assert command in COMMANDS, "the runbook lacks this command"
        tried.add(command)
        given = {
            "ROUTE": "chat",
            "PROVIDER/MODEL": "sim/base",
            "PROVIDER": "sim",
        } | names
        for name, value in given.items():
            command = re.sub(rf"(?<![\w/]){name}(?![\w/])", value, command)
        cli.run(*shlex.split(command)[1:], exits=exits)

    cli.run("config", "apply")
    cli.run("model", "add", "sim/worse")
    words = (
        "--candidates",
        "sim/good",
        "--every",
        "0 3 * * 1",
        "--round-budget",
        "5",
    )
    cli.run("route", "settings", "chat", *words)
    run(
        "swapgate route settings ROUTE --candidates PATTERN",
        PATTERN="'sim/*'",
    )
    look_around(cli, run)
    ids = propose(cli, run)
    decide(cli, run, ids)
    mend(cli, run)
    run("swapgate switch lift ID --reason WHY", exits=1, ID="sw_none")
    run("swapgate canary finish ROUTE --reason WHY", exits=1)
    run("swapgate label ROUTE --close WHY", exits=1)  # no labelling has begun
    run("swapgate label ROUTE")  # shows its plan, and asks first

    assert tried == COMMANDS


def look_around(cli: CommandLine, run: Callable[..., None]) -> None:
    for command in sorted(COMMANDS):
        noun, verb, *_ = [*command.split()[1:], ""]
        if verb in LOOKS and noun not in ("proposal", "shadow", "canary"):
            run(command)
    for command in (
        "audit tail",
        "audit verify",
        "db check",
        "agent grants",
        "agent requests",
    ):
        run(f"swapgate {command}")
    cli.run(
        "shadow", "start", "chat", "sim/good", "--usd-per-day", "none", "--reason", "a look"
    )
    run("swapgate shadow status ROUTE")
    run("swapgate shadow stop ROUTE")
    run("swapgate spending")
    run("swapgate route fallback list ROUTE")
    run("swapgate route fallback spares ROUTE")
    run("swapgate route candidates ROUTE")
    run("swapgate provider key list")
    run("swapgate drift run ROUTE")
    run("swapgate drift accept ROUTE --reason WHY")
    # The provider does not answer, and no sink is configured.
    for command in ("doctor", "alert test", "model probe PROVIDER/MODEL"):
        run(f"swapgate {command}", exits=1)
    run("swapgate model discover PROVIDER", exits=1)


def propose(cli: CommandLine, run: Callable[..., None]) -> dict[str, str]:
    for name in ("second", "third"):
        words = (
            "--incumbent",
            "sim/base",
            "--suite",
            "colours",
            "--policy",
            "approved",
        )
        cli.run("route", "create", name, *words)
    ann = cli.acting("ann", "proposer")
    made = {}
    for route in ("chat", "second", "third"):
        made[route] = cli.json("proposal", "create", route, "sim/better", *ann)["proposal"][
            "id"
        ]
    catch_up(cli)
    for proposal in made.values():
        cli.world.until_decided(proposal)
    run("swapgate proposal list --open")
    for verb in ("show", "report"):
        run(f"swapgate proposal {verb} PROPOSAL", PROPOSAL=made["second"])
    run("swapgate gate replay PROPOSAL", PROPOSAL=made["second"])
    return made


def catch_up(cli: CommandLine) -> None:
    """The commands take the machine's time, which proposals and routes' versions follow."""
    behind = SystemClock().now() - cli.world.clock.now()
    cli.world.clock.jump(behind.total_seconds())


def decide(
    cli: CommandLine,
    run: Callable[..., None],
    ids: dict[str, str],
) -> None:
    run(
        "swapgate proposal approve PROPOSAL --reason WHY",
        PROPOSAL=ids["second"],
    )
    run(
        "swapgate proposal reject PROPOSAL --reason WHY",
        PROPOSAL=ids["third"],
    )
    another = "swapgate proposal create ROUTE PROVIDER/MODEL --reason WHY"
    run(another, ROUTE="third", **{"PROVIDER/MODEL": "sim/worse"})
    waiting = cli.json("proposal", "list", "--route", "third", "--open")[0]["id"]
    run("swapgate proposal retry PROPOSAL", exits=6, PROPOSAL=waiting)
    run("swapgate proposal cancel PROPOSAL --reason WHY", PROPOSAL=waiting)
    run("swapgate canary status")
    for verb in ("status", "explain", "plan"):
        run(f"swapgate canary {verb} ROUTE")
    for verb in ("pause", "resume", "abort"):
        run(f"swapgate canary {verb} ROUTE --reason WHY")
    catch_up(cli)
    cli.world.until_decided(ids["second"])
    cli.world.run_once()
    run("swapgate canary advance ROUTE --reason WHY", ROUTE="second")
    cli.run("canary", "promote", "second", "--reason", "a rehearsal")
    cli.run("canary", "finish", "second", "--reason", "a rehearsal")
    run("swapgate route rollback ROUTE --reason WHY", ROUTE="second")


def mend(cli: CommandLine, run: Callable[..., None]) -> None:
    worse = {"PROVIDER/MODEL": "sim/worse"}
    for command in sorted(command for command in COMMANDS if "fallback add" in command):
        run(command, **worse)
        run(
            "swapgate route fallback remove ROUTE PROVIDER/MODEL --reason WHY",
            **worse,
        )
    run("swapgate route settings ROUTE --comparable-vectors")
    thrown = "swapgate switch throw target:PROVIDER/MODEL"
    for limits in ("--route ROUTE --for 2h", "--for 10s"):
        run(
            f"{thrown} {limits} --reason WHY",
            **{"target:PROVIDER/MODEL": "target:sim/base"},
        )
    key = cli.json("key", "create", "carol")["key"]["id"]
    for limit in ("20", "40"):
        run(f"swapgate key limits KEY --budget-day {limit}", KEY=key)
    run("swapgate key revoke KEY", KEY=key)
    answered, refused = (waiting_switch(cli.world.context()).id for _ in range(2))
    run("swapgate agent approve REQUEST --reason WHY", REQUEST=answered)
    run("swapgate agent reject REQUEST --reason WHY", REQUEST=refused)
    grant = cli.json("agent", "grants")[0]["id"]
    run("swapgate agent revoke GRANT", GRANT=grant)
    # Here is no terminal; nobody registered an application, or signed in.
    run("swapgate provider key set PROVIDER", exits=2)
    typed = CliRunner().invoke(program, ["provider", "key", "set", "sim"], input="sk-new-key\n")
    assert typed.exit_code == 0, typed.output
    run(
        "swapgate provider key login PROVIDER",
        exits=2,
        PROVIDER="github_copilot",
    )
    run(
        "swapgate provider key logout PROVIDER",
        exits=1,
        PROVIDER="github_copilot",
    )
    why = ("--for", "2h", "--reason", "an outage")
    glass = cli.json("route", "break-glass", "propose", "chat", "sim/worse", *why)["id"]
    run("swapgate route break-glass list")
    run("swapgate route break-glass end ID --reason WHY", ID=glass)
    run("swapgate route rollback ROUTE --to-version N --reason WHY", N="1")
    run(
        "swapgate provider set PROVIDER --api-base URL --reason WHY",
        URL="http://127.0.0.1:9/v1",
    )
    run("swapgate db accept-restore --reason WHY")
