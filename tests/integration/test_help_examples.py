"""The help of each command ends with one call of it. Click parses every call, and all but those
of `PARSED_ONLY` run in one installation. There, other names stand for those of the examples.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from harness.frame.runtime.clock import SystemClock
from harness.interfaces.cli.frame.command import read_example
from harness.interfaces.cli.program import program
from harness.operations.records import Captures
from tests.contract.test_store_observations import ONE
from tests.support.control.waiting_switch import waiting_switch
from tests.support.site.command_line import CommandLine

# Processes that run until they are stopped, questions at a terminal, and calls of the internet.
PARSED_ONLY = {
    "demo",
    "init",  # --guided asks at a terminal
    "mcp",
    "provider key login",
    "serve agents",
    "serve all",
    "serve control",
    "serve drive flagd",
    "serve drive litellm",
    "serve router",
    "serve ui",
    "sim",
    "sim traffic",
    "status",  # --watch, without an end
    "worker",
    "attach",  # tests/unit/test_attach.py
    "docs open",  # opens a browser
    "gate run",  # tests/integration/test_gate_run.py
    "eval run",  # --wait: no control process ends the run
    "proposal create",  # --wait; without it, the test creates its proposals so
}
NAMES = {
    "openai/gpt-6-luna": "sim/better",
    "anthropic/claude-haiku-5-5": "sim/equal",
    "openai/gpt-6-sol": "sim/base",
    "gpt-6-luna": "sim/better",
    "openai": "sim",
    "gemini flash": "better",
    "tickets": "colours",
}
PRICES = "      base: {input_usd_per_mtok: 1, output_usd_per_mtok: 2}\n"
PAIRS = "item,incumbent,candidate\n" + "".join(f"{n},0,1\n" for n in range(40))
FILES = {
    "pairs.csv": PAIRS,
    "blocks.csv": "block,requests,canary_requests,failures,canary_failures\n1,100,10,0,0\n",
    "questions.csv": "input,target\nIs a rose red?,yes\nIs snow green?,no\n",
    ".env": "GROQ_API_KEY=gsk-1\n",
    "openai.key": "sk-one\n",
    "flags.json": "{}",
    "spans.jsonl": "",
    ".swapproof/signing.pub": "{}",
    "incumbent.json": "[]",
    "candidate.json": "[]",
}


def _walk(
    group: click.Command, parent: click.Context, words: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(group, click.Group) or (words and group.invoke_without_command):
        yield " ".join(words), group
    if isinstance(group, click.Group):
        for name in group.list_commands(parent):
            command = group.get_command(parent, name)
            assert command is not None
            if not command.hidden:
                ctx = click.Context(command, info_name=name, parent=parent)
                yield from _walk(command, ctx, (*words, name))


COMMANDS = dict(_walk(program, click.Context(program, info_name="swapproof")))
EXAMPLES = {path: read_example(command) for path, command in COMMANDS.items()}


def _split(example: str) -> list[str]:
    """Splits a call into the words that the command gets: without a shell's redirections."""
    return shlex.split(re.split(r" (?:<|>>?) ", example)[0])[1:]


@pytest.mark.parametrize("path", COMMANDS)
def test_the_help_of_a_command_ends_with_a_call_that_the_command_parses(
    path: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    _write_files(tmp_path)
    (tmp_path / "proof.json").touch()
    command = COMMANDS[path]

    words = _split(EXAMPLES[path])

    assert words[: len(path.split())] == path.split()
    with click.Context(command, info_name=path) as ctx:
        assert command.get_help(ctx).endswith(f"Example:\n    {EXAMPLES[path]}")
    arguments = words[len(path.split()) :]
    command.make_context(path, arguments).close()


def _write_files(folder: Path) -> None:
    (folder / ".swapproof").mkdir(exist_ok=True)
    for name, text in FILES.items():
        if not (folder / name).exists():
            (folder / name).write_text(text)


class Examples:
    """Runs examples in an installation, and knows which ran."""

    def __init__(self, cli: CommandLine) -> None:
        self.cli = cli
        self.ran: set[str] = set()

    def run(self, *paths: str, exits: int = 0, id_: str = "", stdin: str | None = None) -> None:
        """Runs the examples of commands.

        Args:
            id_: stands for the id in each example.
        """
        for path in paths:
            self.ran.add(path)
            words = [self._translate(word, id_) for word in _split(EXAMPLES[path])]
            done = CliRunner().invoke(program, words, prog_name="swapproof", input=stdin)
            assert done.exit_code == exits, f"{words}: {done.exit_code}\n{done.output}"

    def _translate(self, word: str, id_: str) -> str:
        for name, stand_in in NAMES.items():
            word = re.sub(rf"(?<![\w/-]){re.escape(name)}(?![\w/-])", stand_in, word)
        return re.sub(r"^[a-z]+_[0-9a-f]{16,24}$", id_, word)

    def catch_up(self) -> None:
        """Commands take the machine's time, which proposals and routes' versions follow."""
        clock = self.cli.world.clock
        clock.jump((SystemClock().now() - clock.now()).total_seconds())


def test_the_examples_run(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_PRODUCTION_KEY", "sk-production")
    _write_files(cli.folder)
    file = cli.folder / "swapproof.yaml"
    file.write_text(file.read_text().replace(PRICES, PRICES + PRICES.replace("base", "better")))
    examples = Examples(cli)
    _try_settings(examples)
    _try_proposals(examples)
    _try_canaries(examples)
    _try_routes(examples)
    _try_switches_and_agents(examples)
    _try_keys_and_captures(examples)
    _try_provider_keys(examples)
    _try_database(examples)

    assert set(EXAMPLES) - examples.ran == PARSED_ONLY


def _try_settings(examples: Examples) -> None:
    examples.run("config schema", "config show", "config apply", "completion", "docs list")
    examples.run("doctor", "model discover", "alert test", exits=1)  # the provider is down
    examples.run("provider list", "provider show", "provider matrix")
    examples.run("provider add", "provider remove", "provider set")
    examples.run("model add", "model list", "model resolve", "model search", "model match")
    examples.run("model price")
    examples.run("model probe", exits=1)
    examples.run("suite import", "suite list", "gate decide", "canary decide")
    examples.run("try", exits=2)  # the files are empty
    examples.run("suite draw", exits=1)  # there is no route of this name yet
    examples.cli.json("eval", "run", "colours", "sim/base", "--items", "5")
    run = examples.cli.json("eval", "list")[0]["id"]
    examples.run("eval list")
    examples.run("eval show", "eval cancel", id_=run)


def _try_proposals(examples: Examples) -> None:
    cli = examples.cli
    for name in ("support", "third"):
        made = ("--incumbent", "sim/base", "--suite", "colours", "--policy", "approved")
        cli.run("route", "create", name, *made)
    ann = cli.acting("ann", "proposer")
    approved, rejected = [
        cli.json("proposal", "create", route, "sim/better", *ann)["proposal"]["id"]
        for route in ("support", "third")
    ]
    examples.run("proposal list")
    examples.catch_up()
    for id_ in (approved, rejected):
        cli.world.until_decided(id_)
    examples.run("proposal show", "proposal report", "gate replay", id_=approved)
    examples.run("proposal approve", "proof export", id_=approved)
    examples.run("label")  # it stops at once: no key is pressed
    examples.run("proof verify", exits=2)  # the keys of tests are in the environment
    examples.run("proposal reject", id_=rejected)
    examples.run("proposal accept-cost")
    waits = cli.json("proposal", "create", "third", "sim/worse")["proposal"]["id"]
    examples.run("proposal retry", exits=6, id_=waits)  # it does not wait for a provider
    examples.run("proposal confirm-same-model", id_=waits)
    examples.run("proposal cancel", id_=waits)


def _try_canaries(examples: Examples) -> None:
    examples.catch_up()
    examples.cli.world.run_once()
    looks = ("canary status", "canary explain", "canary plan", "canary who", "canary callers")
    examples.run(*looks, "canary pause", "canary resume", "canary advance")
    examples.run("canary promote", "canary finish")
    examples.run("canary abort", exits=1)  # it has ended
    examples.run("route rollback")
    examples.run("shadow start", "shadow status", "shadow stop")
    examples.run("drift status")
    examples.run("drift run", "drift accept", exits=1)  # no suite has a drift section


def _try_routes(examples: Examples) -> None:
    examples.run("route list", "route show", "route traffic", "route measured")
    examples.run(
        "route failovers", "route history", "route diff", "route candidates", "route settings"
    )
    examples.run("route create", exits=6)  # the route exists
    examples.run("route fallback add", "route fallback mark")
    examples.run("route fallback order", exits=2)  # the chain has one target
    examples.run("route fallback list", "route fallback spares", "route fallback remove")
    examples.run("route break-glass propose", "route break-glass list")
    glass = examples.cli.json("route", "break-glass", "list")[0]["id"]
    examples.run("route break-glass confirm", exits=7, id_=glass)  # it needs another person
    examples.run("route break-glass end", id_=glass)


def _try_switches_and_agents(examples: Examples) -> None:
    examples.run("switch throw", "switch list")
    examples.run("switch lift", id_=examples.cli.json("switch", "list")[0]["switch"]["id"])
    ctx = examples.cli.world.context()
    first, second = waiting_switch(ctx).id, waiting_switch(ctx).id
    examples.run("agent requests")
    examples.run("agent show", "agent approve", id_=first)
    examples.run("agent reject", id_=second)
    examples.run("agent grants")
    examples.run("agent revoke", id_=examples.cli.json("agent", "grants")[0]["id"])
    examples.run("user delete")


def _try_keys_and_captures(examples: Examples) -> None:
    cli = examples.cli
    examples.run("key create", "key list", "key sign-in-link")
    key = cli.json("key", "create", "carol")["key"]["id"]
    examples.run("key limits", "key opt-outs", "key revoke", id_=key)
    for name in ("dave", "dave-laptop"):
        cli.run("key", "create", name, "--role", "approver")
    examples.run("person separate", "person link", "person list", "person sessions")
    examples.run("person sign-out", exits=1, id_="ds_none")
    captured = replace(ONE, id="cap_1", at=cli.world.clock.now(), route="support")
    kept = replace(captured, expires_at=captured.at + timedelta(days=1))
    with cli.world.store.write() as tx:
        Captures(tx).store(kept, most_per_day=5)
    examples.run("capture list", "capture export")
    examples.run("capture show", id_="cap_1")
    examples.run("capture purge")


def _try_provider_keys(examples: Examples) -> None:
    examples.run("provider key set", stdin="sk-one\n")
    examples.run("provider key import", "provider key list", "provider key rotate-encryption")
    examples.run("provider key remove")
    examples.run("provider key logout", exits=1)  # no one signed in


def _try_database(examples: Examples) -> None:
    examples.run("spending", "alert list", "audit tail", "audit verify")
    examples.run(
        "audit export", "db upgrade", "db check", "db accept-restore", "db remove-forged"
    )
    # SQLite has no roles, and the keys of tests are in the environment.
    examples.run("db grant", "db rotate-key", "db retire-key", exits=2)
