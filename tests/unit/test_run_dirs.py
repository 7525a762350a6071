"""A run's scratch folder does not outlive its run, not even a killed one."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from evals.runner.inspect_runner import PREFIX, run_dir

HOLD = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from evals.runner.inspect_runner import run_dir
with run_dir() as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _own_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_the_folder_is_private_and_gone_afterwards() -> None:
    with run_dir() as folder:
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "log").write_text("a prompt", encoding="utf-8")
    assert not folder.exists()


def test_a_killed_runs_folder_is_cleared_by_the_next_run_and_one_in_use_stays(
    tmp_path: Path,
) -> None:
    with subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        with run_dir():
            assert theirs.exists()
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert theirs.exists()
    with run_dir() as ours:
        assert list(tmp_path.glob(f"{PREFIX}*")) == [ours]
