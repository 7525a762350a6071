"""The last line of `try` on files is a command that runs as it stands."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
import yaml

pytestmark = pytest.mark.req("H1")

SIDES: Final = ("ours", "theirs")


def run(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(  # noqa: S603 - the command is `try`'s own
        ["/bin/bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def last_line(folder: Path, words: str) -> str:
    return run(folder, f"swapproof try {words}").stdout.splitlines()[-1].strip()


def write_tables(folder: Path, ours: int, theirs: int) -> None:
    for side, score in zip(SIDES, (ours, theirs), strict=True):
        rows = "".join(f"What is {n}+{n}?,{2 * n},{score}\n" for n in range(40))
        (folder / f"{side}.csv").write_text(f"input,target,score\n{rows}")


def test_after_a_pass_it_makes_a_suite_of_the_users_questions(tmp_path: Path) -> None:
    write_tables(tmp_path, 0, 1)

    command = last_line(tmp_path, "ours.csv theirs.csv")
    done = run(tmp_path, command)

    assert command == "swapproof init --yes && swapproof suite import ours.csv --suite ours"
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "suites/ours.jsonl").read_text().splitlines()) == 40


def test_after_a_pass_of_promptfoo_it_makes_a_suite_of_the_configuration(
    tmp_path: Path,
) -> None:
    tests = [
        {"vars": {"q": f"{n}+1"}, "assert": [{"type": "equals", "value": n + 1}]}
        for n in range(40)
    ]
    config = {"prompts": ["{{q}}"], "providers": ["openai:gpt-4o"], "tests": tests}
    (tmp_path / "promptfooconfig.yaml").write_text(yaml.safe_dump(config))
    rows = [
        {"provider": side, "vars": test["vars"], "score": score, "success": bool(score)}
        for side, score in zip(SIDES, (0, 1), strict=True)
        for test in tests
    ]
    (tmp_path / "output.json").write_text(json.dumps({"results": {"results": rows}}))

    command = last_line(tmp_path, "output.json --incumbent ours --candidate theirs")
    done = run(tmp_path, command)

    assert "suite import promptfooconfig.yaml --suite promptfooconfig" in command
    assert done.returncode == 0, done.stderr


def test_after_a_loss_it_is_the_command_for_ci_and_repeats_the_users_words(
    tmp_path: Path,
) -> None:
    write_tables(tmp_path, 1, 0)
    words = "ours.csv theirs.csv --claim non_inferior --margin 0.1 --partial 'a try'"

    command = last_line(tmp_path, words)

    assert "--claim non_inferior --margin 0.1" in command
    assert run(tmp_path, command).returncode == 3
    assert last_line(tmp_path, command.removeprefix("swapproof try ")) == command
