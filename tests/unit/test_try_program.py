"""The command line of `swapproof-try`; `tests/integration/test_try_wheel.py` has its wheel."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.interfaces.cli.try_program import program

ROOT = Path(__file__).parents[2]
HEAVY = ("numpy", "pydantic", "rich", "scipy", "sqlalchemy", "structlog", "yaml")
PRINT_HEAVY = f"""
import sys
from harness.interfaces.cli.try_program import program
try:
    program(sys.argv[1:])
except SystemExit:
    pass
print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words",
    [
        ["absent.json"],
        ["try", "absent.json"],
        ["--json", "absent.json"],
        ["--margin", "0.1", "absent.json"],
        ["absent.json", "--claim", "non_inferior"],
    ],
)
def test_words_without_a_command_are_those_of_try(words: list[str]) -> None:
    done = CliRunner().invoke(program, words)

    assert done.exit_code == 2
    assert "swapproof: absent.json: cannot be read" in done.stderr


def test_a_misspelt_command_of_a_group_lists_the_others() -> None:
    done = CliRunner().invoke(program, ["gate", "decode"])

    assert done.exit_code == 2
    assert "No such command 'decode'" in done.stderr


def test_the_help_lists_every_command_and_imports_nothing_heavy() -> None:
    done = subprocess.run(  # noqa: S603 - our own Python
        [sys.executable, "-c", PRINT_HEAVY, "--help"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )

    assert done.stdout.startswith("Usage: swapproof-try [OPTIONS]")
    assert all(f"\n  {name} " in done.stdout for name in ("try", "gate", "canary", "proof"))
    assert done.stderr == "[]\n"
