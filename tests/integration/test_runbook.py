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
    for words in re.findall(r"`(swapproof [^`]+)`", text)
}


@pytest.fixture
def cli(
    tmp_path: Path,
    sqlite_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[CommandLine]:
    with installed(tmp_path, sqlite_url, monkeypatch) as made:
        file = tmp_path / "swapproof.yaml"
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
        "swapproof route settings ROUTE --candidates PATTERN",
        PATTERN="'sim/*'",
    )
    look_around(cli, run)
    ids = propose(cli, run)
    decide(cli, run, ids)
    mend(cli, run)
    run("swapproof switch lift ID --reason WHY", exits=1, ID="sw_none")
    run("swapproof canary finish ROUTE --reason WHY", exits=1)
    run("swapproof label ROUTE --close WHY", exits=1)  # no labelling has begun
    run("swapproof label ROUTE")  # shows its plan, and asks first

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
        run(f"swapproof {command}")
    cli.run(
        "shadow", "start", "chat", "sim/good", "--usd-per-day", "none", "--reason", "a look"
    )
    run("swapproof shadow status ROUTE")
    run("swapproof shadow stop ROUTE")
    run("swapproof spending")
    run("swapproof route fallback list ROUTE")
    run("swapproof route fallback spares ROUTE")
    run("swapproof route candidates ROUTE")
    run("swapproof provider key list")
    run("swapproof drift run ROUTE")
    run("swapproof drift accept ROUTE --reason WHY")
    # The provider does not answer, and no sink is configured.
    for command in ("doctor", "alert test", "model probe PROVIDER/MODEL"):
        run(f"swapproof {command}", exits=1)
    run("swapproof model discover PROVIDER", exits=1)


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
    run("swapproof proposal list --open")
    for verb in ("show", "report"):
        run(f"swapproof proposal {verb} PROPOSAL", PROPOSAL=made["second"])
    run("swapproof gate replay PROPOSAL", PROPOSAL=made["second"])
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
        "swapproof proposal approve PROPOSAL --reason WHY",
        PROPOSAL=ids["second"],
    )
    run(
        "swapproof proposal reject PROPOSAL --reason WHY",
        PROPOSAL=ids["third"],
    )
    another = "swapproof proposal create ROUTE PROVIDER/MODEL --reason WHY"
    run(another, ROUTE="third", **{"PROVIDER/MODEL": "sim/worse"})
    waiting = cli.json("proposal", "list", "--route", "third", "--open")[0]["id"]
    run("swapproof proposal retry PROPOSAL", exits=6, PROPOSAL=waiting)
    run("swapproof proposal cancel PROPOSAL --reason WHY", PROPOSAL=waiting)
    run("swapproof canary status")
    for verb in ("status", "explain", "plan"):
        run(f"swapproof canary {verb} ROUTE")
    for verb in ("pause", "resume", "abort"):
        run(f"swapproof canary {verb} ROUTE --reason WHY")
    catch_up(cli)
    cli.world.until_decided(ids["second"])
    cli.world.run_once()
    run("swapproof canary advance ROUTE --reason WHY", ROUTE="second")
    cli.run("canary", "promote", "second", "--reason", "a rehearsal")
    cli.run("canary", "finish", "second", "--reason", "a rehearsal")
    run("swapproof route rollback ROUTE --reason WHY", ROUTE="second")


def mend(cli: CommandLine, run: Callable[..., None]) -> None:
    worse = {"PROVIDER/MODEL": "sim/worse"}
    for command in sorted(command for command in COMMANDS if "fallback add" in command):
        run(command, **worse)
        run(
            "swapproof route fallback remove ROUTE PROVIDER/MODEL --reason WHY",
            **worse,
        )
    run("swapproof route settings ROUTE --comparable-vectors")
    thrown = "swapproof switch throw target:PROVIDER/MODEL"
    for limits in ("--route ROUTE --for 2h", "--for 10s"):
        run(
            f"{thrown} {limits} --reason WHY",
            **{"target:PROVIDER/MODEL": "target:sim/base"},
        )
    key = cli.json("key", "create", "carol")["key"]["id"]
    for limit in ("20", "40"):
        run(f"swapproof key limits KEY --budget-day {limit}", KEY=key)
    run("swapproof key revoke KEY", KEY=key)
    answered, refused = (waiting_switch(cli.world.context()).id for _ in range(2))
    run("swapproof agent approve REQUEST --reason WHY", REQUEST=answered)
    run("swapproof agent reject REQUEST --reason WHY", REQUEST=refused)
    grant = cli.json("agent", "grants")[0]["id"]
    run("swapproof agent revoke GRANT", GRANT=grant)
    # Here is no terminal; nobody registered an application, or signed in.
    run("swapproof provider key set PROVIDER", exits=2)
    typed = CliRunner().invoke(program, ["provider", "key", "set", "sim"], input="sk-new-key\n")
    assert typed.exit_code == 0, typed.output
    run(
        "swapproof provider key login PROVIDER",
        exits=2,
        PROVIDER="github_copilot",
    )
    run(
        "swapproof provider key logout PROVIDER",
        exits=1,
        PROVIDER="github_copilot",
    )
    why = ("--for", "2h", "--reason", "an outage")
    glass = cli.json("route", "break-glass", "propose", "chat", "sim/worse", *why)["id"]
    run("swapproof route break-glass list")
    run("swapproof route break-glass end ID --reason WHY", ID=glass)
    run("swapproof route rollback ROUTE --to-version N --reason WHY", N="1")
    run(
        "swapproof provider set PROVIDER --api-base URL --reason WHY",
        URL="http://127.0.0.1:9/v1",
    )
    run("swapproof db accept-restore --reason WHY")
