"""Builds the wheel with its docs site once for all tests of a run: ten seconds of CPU."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BUILD_S = 900
# No more than these reach the build: nothing of the tests' own environment.
INHERITED = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR")


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of a run see."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def shared_wheel(factory: pytest.TempPathFactory) -> Path:
    folder = shared_folder(factory) / "built-wheel"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "built").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            build([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder])
            (folder / "built").touch()
    (wheel,) = folder.glob("swapgate-*.whl")
    return wheel


def build(command: Sequence[str | Path]) -> None:
    done = subprocess.run(  # noqa: S603 - hatchling
        command,
        cwd=ROOT,
        env={name: os.environ[name] for name in INHERITED if name in os.environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=BUILD_S,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
