"""`try` without arguments lists the results in the folder, each with a command that runs."""

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner, Result

from harness.interfaces.cli.program import program

pytestmark = pytest.mark.req("H1")

FILES: Final = Path(__file__).parent.parent / "support/evals/exports"
# Where each tool puts its files, by the name of the example.
PLACES: Final = {
    "promptfoo_both.json": "evals/results.json",
    "inspect_incumbent.eval": "logs/2026-11-29T10-00-00+00-00_sums_aB3.eval",
    "inspect_candidate.eval": "logs/2026-11-29T11-00-00+00-00_sums_cD4.eval",
    "inspect_epochs_base.eval": "logs/2026-11-29T12-00-00+00-00_other_eF5.eval",
    "deepeval_latest_base.json": ".deepeval/.latest_test_run.json",
    "lm_eval_incumbent.jsonl": "out/a__m/samples_sums_2026-11-29T10-00-00.1.jsonl",
    "lm_eval_candidate.jsonl": "out/b__m/samples_sums_2026-11-29T11-00-00.2.jsonl",
}


def tried(folder: Path, *words: str, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.chdir(folder)
    return CliRunner().invoke(program, ["try", *words])


def test_each_tools_results_are_listed_with_a_command_that_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for age, (name, place) in enumerate(PLACES.items()):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(FILES / name, tmp_path / place)
        os.utime(tmp_path / place, (age, age))

    listed = tried(tmp_path, monkeypatch=monkeypatch)
    commands = [
        line.strip()
        for line in listed.stdout.splitlines()
        if line.startswith("  swapproof try")
    ]
    answers = {
        command: tried(tmp_path, *shlex.split(command)[2:], monkeypatch=monkeypatch)
        for command in commands
    }

    assert listed.exit_code == 2, "a script without files never gets a pass"
    runs = "--incumbent openai:gpt-4o-mini --candidate anthropic:messages:claude-haiku-4-5"
    assert [shlex.split(command)[2:] for command in commands] == [
        ["evals/results.json", *runs.split()],
        [PLACES["inspect_incumbent.eval"], PLACES["inspect_candidate.eval"]],
        [PLACES["lm_eval_incumbent.jsonl"], PLACES["lm_eval_candidate.jsonl"]],
    ]
    assert "DeepEval: .deepeval/.latest_test_run.json\n  only one run" in listed.stdout
    assert "Inspect, task other: logs/2026-11-29T12" in listed.stdout
    for command, answer in answers.items():
        assert "read " in answer.stdout, command


def test_a_configuration_alone_names_the_command_that_writes_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "promptfooconfig.yaml").write_text("prompts: [a]\n")

    done = tried(tmp_path, monkeypatch=monkeypatch)

    assert "promptfoo: promptfooconfig.yaml\n  no results yet: `promptfoo eval" in done.stdout


def test_a_folder_without_results_says_so_and_dependencies_are_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("node_modules", ".venv"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "r.json").write_text(json.dumps({"evalId": "e", "results": {}}))

    done = tried(tmp_path, monkeypatch=monkeypatch)

    assert done.exit_code == 2
    assert "This folder has no results of promptfoo, Inspect" in done.stdout
