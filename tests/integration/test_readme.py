"""Every command of the README is run, in its order, in one shell, as a reader would.

`make test` itself is excepted, and `make demo` runs with ONCE=1 (test_demo.py). Ports are
replaced by free ones, since the machine that tests may use the default ones.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.site.processes import free_port

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
WALK = [block for block in BLOCKS if not block[1].startswith("make ")]
UP = ("8080/readyz", "8081/readyz", "8501/_stcore/health")
# What the reader does after "When they are up".
WAIT = "\n".join(
    f"until curl -sf http://127.0.0.1:{path} >/dev/null; do sleep 0.2; done" for path in UP
)


# The same path at a smaller scale: a quarter of the users that the canary otherwise asks for.
SMALLER = """\
policies:
  quick: {canary: {steps: [{weight_bps: 5000, min_exposures: 50}]}}
EOF
swapgate sim --port"""


def script(folder: Path, ports: dict[str, str]) -> str:
    """The README's blocks as one bash script, in `folder`, on other ports."""
    parts = ["set -euo pipefail", f"cd {folder}"]
    for language, text in WALK:
        body = f"python - <<'PY'\n{text}PY\n" if language == "python" else text
        parts.append(f"{WAIT}\n{body}" if "swapgate doctor" in body else body)
    whole = "\n".join(parts).replace(". .venv/bin", f". {sys.prefix}/bin")
    assert whole.count("EOF\nswapgate sim --port") == 1
    whole = whole.replace("EOF\nswapgate sim --port", SMALLER)
    for usual, free in ports.items():
        whole = whole.replace(usual, free)
    return whole


@pytest.mark.verify
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_of_the_readme_works_in_its_order(tmp_path: Path) -> None:
    ports = {usual: str(free_port()) for usual in ("8080", "8081", "8085", "8501", "9000")}
    environment = {
        **os.environ,
        "SWAPGATE__ROUTER__PORT": ports["8080"],
        "SWAPGATE__CONTROL__PORT": ports["8081"],
        "SWAPGATE__AGENTS__PORT": ports["8085"],
        "SWAPGATE__UI__PORT": ports["8501"],
    }
    log = tmp_path / "log.txt"
    with log.open("wb") as out:
        shell = subprocess.Popen(  # noqa: S603 - the README's own commands
            ["/bin/bash", "-c", script(tmp_path, ports)],
            stdout=out,
            stderr=out,
            env=environment,
            start_new_session=True,
        )
        try:
            code = shell.wait(timeout=800)
        finally:
            # The shell's background jobs are in its process group, and in nobody else's.
            os.killpg(shell.pid, signal.SIGTERM)
    text = log.read_text(encoding="utf-8", errors="replace")
    assert code == 0, text[-6000:]
    assert "PASSED" in text
    assert "support: sim/sim-better is promoted" in text
    assert "requests, 0 failed" in text
    assert f"dashboard  http://127.0.0.1:{ports['8501']}" in text


def test_the_readme_names_no_file_that_is_not_there() -> None:
    for link in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert (ROOT / link).exists(), link


def test_the_two_commands_of_the_readme_are_targets_of_make() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = [text.split()[1] for _, text in BLOCKS if text.startswith("make ")]
    assert commands == ["demo", "test"]
    assert all(f"\n{command}:" in makefile for command in commands)
