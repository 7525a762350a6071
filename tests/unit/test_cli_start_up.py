import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from harness.app.configuration.validation_errors import RETIRED_COMMANDS
from harness.app.database import upgrade_database
from harness.app.installation import open_installation
from harness.interfaces.cli import canary, try_program
from harness.interfaces.cli.evals import file_decision
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    LazyCommand,
    LazyCommandGroup,
)
from harness.interfaces.cli.program import VERBS, program
from harness.interfaces.cli.proposals.proof import proof
from tests.support.site.processes import free_port, site

ROOT = Path(__file__).parents[2]
HEAVY = (
    "numpy",
    "scipy",
    "pandas",
    "sqlalchemy",
    "alembic",
    "inspect_ai",
    "fastapi",
    "streamlit",
    "pydantic",
    "yaml",
    "rich",
    "aiohttp",
    "uvicorn",
    "openai",
    "litellm",
)
PRINT_HEAVY = f"""
import sys
from harness.interfaces.cli.program import program
try:
    program(sys.argv[1:])
except SystemExit:
    pass
print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


COMPLETING = {
    "_SWAPPROOF_COMPLETE": "bash_complete",
    "COMP_WORDS": "swapproof ro",
    "COMP_CWORD": "1",
}


@pytest.mark.parametrize(
    ("words", "env", "shown"),
    [
        (["--help"], None, "Usage: swapproof"),
        (["--version"], None, "swapproof 0."),
        (["gate", "--help"], None, "Usage: swapproof gate"),
        ([], COMPLETING, "plain,route"),
    ],
)
def test_help_version_and_completion_import_nothing_heavy(
    words: list[str],
    env: Mapping[str, str] | None,
    shown: str,
) -> None:
    done = subprocess.run(  # noqa: S603 - our own Python
        [sys.executable, "-c", PRINT_HEAVY, *words],
        cwd=ROOT,
        env=env,
        capture_output=True,
        check=True,
        text=True,
    )

    assert done.stdout.strip().startswith(shown)
    assert done.stderr.strip() == "[]"


def test_a_first_answer_needs_no_library_of_the_whole_installation() -> None:
    files = [
        f"tests/support/evals/exports/deepeval_{arm}.json" for arm in ("incumbent", "candidate")
    ]
    left_out = {
        "streamlit",
        "litellm",
        "inspect_ai",
        "sqlalchemy",
        "fastapi",
        "openai",
        "pandas",
    }

    done = subprocess.run(  # noqa: S603 - our own Python
        [sys.executable, "-c", PRINT_HEAVY, "try", *files],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )

    assert "4 questions are 4 items" in done.stdout
    assert not left_out & set(ast.literal_eval(done.stderr))


# A process of `serve` up to where it would wait for its first request.
PRINT_SERVING = """
import sys
import uvicorn
def run(server, sockets=None):
    server.config.load()
    server.started = True
    print([name for name in sys.argv[3:] if name in sys.modules])
uvicorn.Server.run = run
from harness.interfaces.cli.program import program
program(["--config", sys.argv[1], "serve", sys.argv[2]])
"""
SERVING_WITHOUT = (
    "alembic",
    "inspect_ai",
    "litellm",
    "numpy",
    "openai",
    "pandas",
    "psutil",
    "regex",
    "rich",
    "scipy",
    "streamlit",
    "websockets",
)


@pytest.mark.parametrize("part", ["control", "agents"])
def test_a_process_that_serves_loads_nothing_that_it_does_not_need(
    part: str, tmp_path: Path
) -> None:
    with site(tmp_path, {"agents": {"port": free_port()}}) as place:
        installation = open_installation(place.config, create_secret=True)
        installation.close()
        upgrade_database(installation.settings)

        done = subprocess.run(  # noqa: S603 - our own Python
            [
                sys.executable,
                "-c",
                PRINT_SERVING,
                place.config,
                part,
                *SERVING_WITHOUT,
            ],
            cwd=ROOT,
            capture_output=True,
            check=True,
            text=True,
        )

    assert done.stdout == "[]\n"


def test_every_command_has_its_section_in_the_help() -> None:
    shown = CliRunner().invoke(program, ["--help"]).output

    assert "Others" not in shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_s_completion_is_printed(shell: str) -> None:
    done = CliRunner().invoke(program, ["completion", shell])

    assert done.exit_code == 0
    assert "_SWAPPROOF_COMPLETE" in done.stdout


def tables() -> Iterator[tuple[str, LazyCommand]]:
    yield from VERBS.items()
    for group in (file_decision.gate, canary.canary, proof):
        assert isinstance(group, LazyCommandGroup)
        yield from group.lazy.items()


@pytest.mark.parametrize(("name", "entry"), list(tables()))
def test_the_table_says_what_the_command_says(name: str, entry: LazyCommand) -> None:
    command = entry.load()

    first = (command.help or "").strip().split("\n\n")[0].splitlines()[0]
    assert command.name == name
    assert entry.help == first
    assert entry.hidden == command.hidden


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        with click.Context(command) as ctx:
            for name in command.list_commands(ctx):
                inner = command.get_command(ctx, name)
                assert inner is not None
                yield from commands(inner, f"{path} {name}")


@pytest.mark.parametrize(
    ("path", "command"),
    [*commands(program, "swapproof"), *commands(try_program.program, "swapproof-try")],
)
def test_every_command_and_option_is_documented(path: str, command: click.Command) -> None:
    first = (command.help or "").strip().splitlines()[0]
    options = [param for param in command.params if isinstance(param, click.Option)]

    assert first.endswith("."), path
    assert len(first) <= 92, path
    assert all(option.help for option in options), path
    assert any("--json" in option.opts for option in options), path


@pytest.mark.parametrize("words", RETIRED_COMMANDS)
def test_a_retired_command_names_its_replacement(words: str) -> None:
    done = CliRunner().invoke(program, [*words.split(), "--more", "words"])

    assert done.exit_code == 2
    assert done.stdout == ""
    assert f"`swapproof {words}` is retired: {RETIRED_COMMANDS[words]}" in done.stderr


def test_an_unknown_verb_is_answered_with_the_nearest() -> None:
    done = CliRunner().invoke(program, ["porposal"])

    assert done.exit_code == 2
    assert "'proposal'" in done.stderr


def test_a_usage_error_says_what_to_write_and_ends_with_the_example_of_the_command() -> None:
    missing = CliRunner().invoke(program, ["route", "rollback", "chat"])
    words = ["proposal", "create", "chat", "sim/base", "--margin"]
    percentage = CliRunner().invoke(program, [*words, "5%"])
    percent = CliRunner().invoke(program, ["shadow", "start", "chat", "a/b", "--share", "5%"])
    negative = CliRunner().invoke(program, ["key", "create", "app", "--budget-day", "-5"])

    example = 'Example: swapproof route rollback support --reason "complaints about tone"\n'
    assert missing.stderr.endswith(f"Error: Missing option '--reason'.\n{example}")
    assert "'5%' is not a number: write 0.05" in percentage.stderr
    assert "'5%' is not a number: write 5\n" in percent.stderr
    assert "'--budget-day': -5 is below 0; write a larger number, or `none`" in negative.stderr


OLD = """
import sys
sys.version_info = (3, 10, 2, "final", 0)
from swapproof.__main__ import main
main()
"""


def test_an_old_python_is_one_sentence() -> None:
    done = subprocess.run(  # noqa: S603 - our own Python
        [sys.executable, "-c", OLD],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "swapproof: Python 3.11 or newer is needed, and this is 3.10: install a newer one and "
        "run swapproof with it\n"
    )


@pytest.mark.parametrize("file", ["__init__.py", "__main__.py"])
def test_an_old_python_can_read_what_says_so(file: str) -> None:
    ast.parse((ROOT / "swapproof" / file).read_text(), feature_version=(3, 7))


def test_what_json_lacks_becomes_null(capsys: pytest.CaptureFixture[str]) -> None:
    output.document(
        {
            "a": float("inf"),
            "b": [float("nan"), 1.5],
            "c": "é",
        }
    )

    shown = capsys.readouterr().out
    assert json.loads(shown) == {
        "a": None,
        "b": [None, 1.5],
        "c": "é",
    }
    assert "é" in shown


def test_a_table_in_a_pipe_is_aligned_text(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["A", "LONG"], [["wide cell", None], ["b", 3]], empty="nothing")
    output.table(["A"], [], empty="nothing")

    shown = capsys.readouterr()
    assert shown.out == "A          LONG\nwide cell  –\nb          3\n"
    assert shown.err == "nothing\n"
