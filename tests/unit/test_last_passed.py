"""`.ci/last_passed`: when the long runs last passed, and what is too old for a release."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / ".ci/last_passed.py"


class Checkout:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / ".ci").mkdir()
        self.record = folder / ".ci/last_passed"
        self.record.write_text("")
        self.git("init", "--quiet")
        self.commit()

    def git(self, *words: str) -> None:
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(("git", *identity, *words), cwd=self._folder, check=True)  # noqa: S603, S607 - git

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=Change")

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - the program under test
            (sys.executable, PROGRAM, *words),
            cwd=self._folder,
            check=False,
            capture_output=True,
            text=True,
        )


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_a_run_that_passed_is_printed_with_its_age(checkout: Checkout) -> None:
    checkout.ask("HEAD", "verify")
    checkout.commit()

    assert "make verify: last passed at " in checkout.ask().stdout
    assert checkout.ask().stdout.endswith(", 1 commits ago\n")


def test_a_release_refuses_a_run_that_is_older_than_its_limit(checkout: Checkout) -> None:
    checkout.ask("HEAD", "verify")
    checkout.commit()

    assert checkout.ask("--within", "1", "verify").returncode == 0
    checkout.commit()
    refused = checkout.ask("--within", "1", "verify")

    assert refused.returncode == 1
    assert "2 commits ago; at most 1 are allowed: run it again" in refused.stderr


def test_a_release_refuses_a_run_that_is_not_noted(checkout: Checkout) -> None:
    checkout.ask("HEAD", "cov")

    assert checkout.ask("--within", "100", "verify").returncode == 1


def test_a_release_needs_every_part_of_a_run(checkout: Checkout) -> None:
    checkout.ask("HEAD", "verify", "1/3")
    checkout.ask("HEAD", "verify", "3/3")
    refused = checkout.ask("--within", "100", "verify")
    checkout.ask("HEAD", "verify", "2/3")

    assert "part 2/3, is not noted" in refused.stderr
    assert checkout.ask("--within", "100", "verify").returncode == 0


def test_a_release_refuses_parts_of_several_commits(checkout: Checkout) -> None:
    checkout.ask("HEAD", "verify", "1/2")
    checkout.commit()
    checkout.ask("HEAD", "verify", "2/2")
    refused = checkout.ask("--within", "100", "verify")

    assert refused.returncode == 1
    assert "so a case may be in no part: run all parts at one commit" in refused.stderr


def test_a_pass_at_a_commit_outside_the_history_is_refused(checkout: Checkout) -> None:
    checkout.ask("HEAD", "verify")
    checkout.git("commit", "--quiet", "--amend", "--allow-empty", "--message=Another change")

    assert "an unknown number of commits ago" in checkout.ask().stdout
    assert checkout.ask("--within", "100", "verify").returncode == 1


@pytest.mark.parametrize(("before", "after"), [("1/1", "1/3"), ("1/3", "1/2"), ("2/3", "1/1")])
def test_another_division_forgets_the_one_before(
    checkout: Checkout, before: str, after: str
) -> None:
    checkout.ask("HEAD", "verify", before)
    checkout.ask("HEAD", "soak")
    checkout.ask("HEAD", "verify", after)

    runs = [line.split()[0] for line in checkout.record.read_text().splitlines()]
    assert runs == ["soak", "verify" if after == "1/1" else f"verify:{after}"]


def test_a_pass_of_changed_files_proves_no_commit(checkout: Checkout) -> None:
    (checkout.record.parent / "run").write_text("1")
    checkout.commit()
    (checkout.record.parent / "run").write_text("2")
    checkout.ask("HEAD", "verify")

    assert "-changed" in checkout.record.read_text()
    assert checkout.ask("--within", "100", "verify").returncode == 1


def test_a_pass_that_saw_another_commit_is_no_pass_of_either(checkout: Checkout) -> None:
    started_at = subprocess.run(  # noqa: S603 - git
        ("git", "-C", checkout.record.parent, "rev-parse", "HEAD"),  # noqa: S607 - git
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    checkout.commit()
    checkout.ask(started_at, "verify")

    assert "-changed " in checkout.record.read_text()
    assert checkout.ask("--within", "100", "verify").returncode == 1
