"""The GitHub Action `try`, step by step as a runner calls it, against a stub of GitHub."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.support.site.github_api import (
    BOT,
    NUMBER,
    READ_ONLY_TOKEN,
    REPOSITORY,
    TOKEN,
    GitHubStub,
)

ROOT: Final = Path(__file__).resolve().parents[2]
ACTION_FOLDER: Final = ROOT / ".github" / "actions" / "try"
ACTION: Final[Mapping[str, Any]] = yaml.safe_load(
    (ACTION_FOLDER / "action.yml").read_text(encoding="utf-8")
)
HOSTILE: Final = "@octo/all ![x](https://evil.example/x.png) <script> ``` ::set-env name=A::b"
TIMEOUT_S: Final = 300


@pytest.fixture
def github() -> Iterator[GitHubStub]:
    with GitHubStub().up() as stub:
        yield stub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout with two results files, and the place of an installed Swapproof."""
    write_results(tmp_path / "incumbent.csv", right_every=2)
    write_results(tmp_path / "candidate.csv", right_every=1)
    write_results(tmp_path / HOSTILE.replace("/", "_"), right_every=1)
    runner = tmp_path / "runner"
    runner.mkdir()
    (runner / "swapproof").symlink_to(sys.prefix)
    event = {"pull_request": {"number": NUMBER, "title": HOSTILE}}
    (tmp_path / "event.json").write_text(json.dumps(event), encoding="utf-8")
    return tmp_path


def write_results(file: Path, right_every: int) -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(["input", "score"])
        rows.writerows([f"question {n}", int(n % right_every == 0)] for n in range(60))


def find_step(name: str) -> Mapping[str, Any]:
    return next(step for step in ACTION["runs"]["steps"] if step["name"] == name)


def run_step(
    name: str,
    folder: Path,
    github: GitHubStub,
    event: str = "pull_request",
    **inputs: str,
) -> subprocess.CompletedProcess[str]:
    """Runs a step of the action with the inputs' defaults, as GitHub's runner would."""
    step = find_step(name)
    assert "${{" not in step["run"]  # an expression would be run as code
    values = {key: str(each.get("default", "")) for key, each in ACTION["inputs"].items()}
    values = {**values, "token": TOKEN, **inputs}
    variables = {
        variable: values[text.removeprefix("${{ inputs.").removesuffix(" }}")]
        for variable, text in step.get("env", {}).items()
    }
    runner = {
        "GITHUB_ACTION_PATH": str(ACTION_FOLDER),
        "GITHUB_API_URL": github.address,
        "GITHUB_EVENT_NAME": event,
        "GITHUB_EVENT_PATH": str(folder / "event.json"),
        "GITHUB_OUTPUT": str(folder / "outputs"),
        "GITHUB_REPOSITORY": REPOSITORY,
        "GITHUB_RUN_ID": "42",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "RUNNER_TEMP": str(folder / "runner"),
    }
    return subprocess.run(  # noqa: S603 - the action's own step
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],  # noqa: S607 - as the runner calls it
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            # The program of this checkout, also where another one is installed.
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            **runner,
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def outputs_of(folder: Path) -> dict[str, str]:
    lines = (folder / "outputs").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.spine
@pytest.mark.req("F10")
def test_the_action_comments_and_ends_with_the_verdict_s_exit_code(
    folder: Path, github: GitHubStub
) -> None:
    done = run_step(
        "Compare", folder, github, incumbent="incumbent.csv", candidate="candidate.csv"
    )

    assert done.returncode == 0, done.stdout + done.stderr
    ((number, (author, body)),) = github.comments.items()
    assert author == BOT
    assert "### swapproof: PASSED\n\n    " in body
    assert "actions/runs/42" in body
    assert outputs_of(folder) == {
        "exit-code": "0",
        "comment-url": f"https://github.com/{REPOSITORY}/pull/{NUMBER}#issuecomment-{number}",
    }
    assert (folder / "summary.md").read_text(encoding="utf-8") == body
    assert set(github.tokens) == {TOKEN}


def test_a_repeat_edits_the_comment_and_a_loss_fails_the_job(
    folder: Path, github: GitHubStub
) -> None:
    github.add(BOT, "<!-- swapproof-try: swapproof -->\nof an earlier run")
    done = run_step(
        "Compare", folder, github, incumbent="candidate.csv", candidate="incumbent.csv"
    )

    assert done.returncode == 3, done.stdout + done.stderr
    ((_, body),) = github.comments.values()
    assert "### swapproof: FAILED" in body


def test_names_of_files_become_neither_markup_nor_commands_nor_options(
    folder: Path, github: GitHubStub
) -> None:
    done = run_step(
        "Compare",
        folder,
        github,
        incumbent="--help",
        candidate=HOSTILE.replace("/", "_"),
    )

    assert done.returncode == 2, done.stdout + done.stderr
    ((_, body),) = github.comments.values()
    assert "### swapproof: REFUSED" in body
    lines = [line for line in body.splitlines() if "evil" in line or "--help" in line]
    assert lines
    assert all(line.startswith("    ") for line in lines)
    stopped, _, rest = done.stdout.partition("::stop-commands::")[2].partition("\n")
    assert f"::{stopped}::" in rest


def test_a_fork_s_read_only_token_leaves_the_report_on_the_job_s_page(
    folder: Path, github: GitHubStub
) -> None:
    done = run_step(
        "Compare",
        folder,
        github,
        incumbent="incumbent.csv",
        candidate="candidate.csv",
        token=READ_ONLY_TOKEN,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "::warning::GitHub refused the comment (403: Resource not" in done.stdout
    assert READ_ONLY_TOKEN not in done.stdout + done.stderr
    assert "### swapproof: PASSED" in (folder / "summary.md").read_text(encoding="utf-8")
    assert outputs_of(folder) == {"exit-code": "0"}


def test_without_a_pull_request_there_is_only_the_job_s_page(
    folder: Path, github: GitHubStub
) -> None:
    files = {"incumbent": "incumbent.csv", "candidate": "candidate.csv"}
    done = run_step("Compare", folder, github, event="push", **files)

    assert done.returncode == 0, done.stdout + done.stderr
    assert github.calls == []
    assert (folder / "summary.md").exists()


@pytest.mark.parametrize(
    ("event", "code"), [("pull_request_target", 1), ("pull_request", 0), ("push", 0)]
)
def test_pull_request_target_is_refused_before_anything_is_installed(
    folder: Path, github: GitHubStub, event: str, code: int
) -> None:
    first = ACTION["runs"]["steps"][0]["name"]

    done = run_step(first, folder, github, event=event)

    assert done.returncode == code
    assert ("::error::" in done.stdout and "secrets" in done.stdout) == bool(code)


def test_each_input_of_the_action_is_used() -> None:
    used = {text for step in ACTION["runs"]["steps"] for text in step.get("env", {}).values()}

    assert {f"${{{{ inputs.{name} }}}}" for name in ACTION["inputs"]} == used
