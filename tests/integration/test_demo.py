"""`make demo ONCE=1`, as a user runs it, and with the two candidates' roles exchanged."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]


def running_in(folder: Path) -> list[str]:
    """Command lines of the processes that name the folder: those of the demo that it holds."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = " ".join(process.cmdline())
            if str(folder) in words:
                found.append(words)
    return found


def demo(folder: Path, *options: str) -> str:
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "swapgate", "demo", "--once", *options],
        capture_output=True,
        text=True,
        timeout=560,
        check=False,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "160", "TMPDIR": str(folder)},
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert not running_in(folder)
    return done.stdout


@pytest.mark.verify
@pytest.mark.timeout(1200)
@pytest.mark.req("F1", "F2", "F3", "F4", "B3")
def test_the_other_candidate_wins_once_the_models_exchange_their_skills(tmp_path: Path) -> None:
    # The simulator alone knows of the exchange.
    assert_verdicts(demo(tmp_path, "--swap"), better="lite", worse="2")


def assert_verdicts(said: str, *, better: str, worse: str) -> None:
    assert f"sim/aurora-{better}: PASSED, then promoted" in said
    assert f"sim/aurora-{worse}: FAILED, then closed" in said
    assert "sim/nimbus-1: PASSED, then rolled back" in said
    assert "provider lost under traffic, nobody noticed" in said
    assert "tool loop survived its model's swap and its rollback" in said
    assert "requests of users, 0 failed" in said
    assert said.count("refused:") == 5
    assert "✕" not in said
