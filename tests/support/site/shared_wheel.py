"""Builds the wheels of an installation once for all tests of a run: ten seconds of CPU, most of
them for the docs site.
"""

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


def shared_wheels(factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Returns the wheels of swapproof and of swapproof-try, which it needs."""
    folder = shared_folder(factory) / "built-wheel"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "built").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            command = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder)
            for project in (ROOT, ROOT / "distributions/try"):
                build(command, project)
            (folder / "built").touch()
    (whole,) = folder.glob("swapproof-*.whl")
    (small,) = folder.glob("swapproof_try-*.whl")
    return whole, small


def build(command: Sequence[str | Path], project: Path) -> None:
    done = subprocess.run(  # noqa: S603 - hatchling
        command,
        cwd=project,
        env={name: os.environ[name] for name in INHERITED if name in os.environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=BUILD_S,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
