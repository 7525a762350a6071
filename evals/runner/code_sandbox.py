"""Runs a model's code in Inspect's sandbox: a Docker container for each answer.

If the operator sets `code.uncontained`, the code runs as a process of this machine instead. The
suite's pin says so (`suite.UNCONTAINED`). The scorer `code` writes the program and reads its
output; this module must be the only place that starts it.
"""

import asyncio
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

from inspect_ai.util import OutputLimitExceededError, sandbox

from evals.scorers.interface import NotJudged
from harness.frame.errors import ConfigError

COMPOSE: Final = Path(__file__).with_suffix(".yaml")
LOCAL: Final = "local"
PYTHON: Final = ["python3", "-I", "-"]
DOCKER_TIMEOUT_S: Final = 20
CLEANUP_S: Final = 10  # time for the sandbox to end a program after its limit


def find_sandbox(*, uncontained: bool) -> str | tuple[str, str]:
    """Returns Inspect's sandbox for a task. Raises ConfigError if Docker does not work."""
    if uncontained:
        return LOCAL
    if reason := why_no_docker():
        raise ConfigError(
            f"the scorer 'code' runs a model's code in a Docker container, and {reason}: start "
            "Docker here, or take the risk with `code.uncontained: true`"
        )
    return "docker", str(COMPOSE)


@cache
def why_no_docker() -> str:
    """Returns the reason why this machine cannot start a container; empty if it can."""
    docker = shutil.which("docker")
    if docker is None:
        return "there is no `docker` on PATH"
    try:
        process = subprocess.run(  # noqa: S603 - a fixed command
            [docker, "info", "--format", "{{.ServerVersion}}"],
            capture_output=True,
            check=False,
            text=True,
            timeout=DOCKER_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"`docker info` failed: {error}"
    if process.returncode:
        reason = process.stderr.strip().partition("\n")[0] or f"exit code {process.returncode}"
        return f"`docker info` failed: {reason}"
    return ""


async def run_program(program: str, timeout_s: float) -> str | None:
    """Runs a Python program and returns its stdout, or None if it fails or takes too long.

    Args:
        timeout_s: rounded to whole seconds, at least 1.

    Raises NotJudged if the sandbox fails, because then the answer may be right.
    """
    limit_s = max(1, round(timeout_s))
    try:
        # A process that the program leaves behind may keep its output open.
        async with asyncio.timeout(limit_s + CLEANUP_S):
            result = await sandbox().exec(
                PYTHON,
                input=program,
                timeout=limit_s,
                timeout_retry=False,
            )
    except (TimeoutError, UnicodeDecodeError, OutputLimitExceededError):
        return None
    except (OSError, RuntimeError) as error:
        raise NotJudged(f"the sandbox failed: {error}") from None
    return result.stdout if result.success else None
