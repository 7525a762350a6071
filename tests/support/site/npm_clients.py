"""Installs the npm clients pinned in tests/node, and runs Vercel's tool loop."""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final, NoReturn

import platformdirs
import pytest

FOLDER: Final = Path(__file__).parents[2] / "node"
PINS: Final = ("package.json", "package-lock.json")
INSTALL_S: Final = 300
RUN_S: Final = 180


def tool_loop(
    protocol: str,
    base_url: str,
    key: str,
    model: str,
) -> dict[str, Any]:
    """What `tool_loop.mjs` tells. Skips without node and npm; in CI that is a failure."""
    node, home = installed()
    shutil.copy(FOLDER / "tool_loop.mjs", home)
    done = subprocess.run(  # noqa: S603 - our own script
        [node, "tool_loop.mjs", protocol, base_url, key, model],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def installed() -> tuple[str, Path]:
    node = shutil.which("node")
    npm = shutil.which("npm")
    if node is None or npm is None:
        without("node and npm are not on PATH: Vercel's AI SDK was not tried")
    pins = hashlib.sha256(b"".join((FOLDER / name).read_bytes() for name in PINS))
    home = platformdirs.user_cache_path("swapproof") / f"node-{pins.hexdigest()[:16]}"
    if not home.is_dir():
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
            fresh = Path(scratch) / "node"
            fresh.mkdir()
            for name in PINS:
                shutil.copy(FOLDER / name, fresh)
            _install(npm, fresh)
            # Another run may have been quicker; its packages are the same.
            if not home.is_dir():
                fresh.rename(home)
    return node, home


def _install(npm: str, folder: Path) -> None:
    words = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(  # noqa: S603 - what is pinned, and none of its scripts
        words,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=INSTALL_S,
        check=False,
    )
    assert done.returncode == 0, f"npm ci: {done.stderr[-2000:]}"


def without(reason: str) -> NoReturn:
    """Skips the test; in CI that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
