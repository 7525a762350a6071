"""Starts eval workers as subprocesses, one per run, with a minimal environment; stops them, and
reports those that ended with their exit code and the last line of stderr.
"""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# What Python, temporary files, time and a locale need. Keys are added per worker.
KEPT = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "SYSTEMROOT"),
    # A company's own certificate authority; OpenSSL reads these.
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
)
LAST_WORDS, READ_AT_MOST = 400, 65_536


@dataclass(frozen=True)
class _Child:
    process: subprocess.Popen[bytes]
    owner: str
    errors: IO[bytes]


class SubprocessWorkers:
    """Implements ports.EvalWorkers.

    command: the worker's argv without the run. needed_by: the environment variables that a
    run's worker needs besides the minimum (its provider's key, our own settings).
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        needed_by: Callable[[str], Mapping[str, str]],
        cwd: Path,
    ) -> None:
        self._command, self._needed_by, self._cwd = list(command), needed_by, cwd
        self._children: dict[str, _Child] = {}

    def start(self, run: str) -> str:
        owner = f"worker-{os.getpid()}-{secrets.token_hex(4)}"
        environment = self._environment(run)
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - read when the worker has ended
        try:
            process = subprocess.Popen(  # noqa: S603 - our own command
                [*self._command, run, "--owner", owner, "--parent", str(os.getpid())],
                env=environment,
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        except OSError:
            errors.close()
            raise
        self._children[run] = _Child(process, owner, errors)
        return owner

    def _environment(self, run: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        more = self._needed_by(run)
        return {**kept, **more, "PYTHONUNBUFFERED": "1", "INSPECT_DISPLAY": "none"}

    def alive(self) -> Mapping[str, str]:
        return {
            run: child.owner
            for run, child in self._children.items()
            if child.process.poll() is None
        }

    def pids(self) -> Mapping[str, int]:
        """Run to process id, for workers that still run."""
        return {run: self._children[run].process.pid for run in self.alive()}

    def reap(self) -> Sequence[tuple[str, str, int, str]]:
        ended = []
        for run, child in list(self._children.items()):
            code = child.process.poll()
            if code is not None:
                del self._children[run]
                ended.append((run, child.owner, code, _last_words(child.errors)))
        return ended

    def stop(self, run: str) -> None:
        child = self._children.get(run)
        if child is not None and child.process.poll() is None:
            child.process.send_signal(signal.SIGTERM)

    def stop_all(self) -> None:
        for run in list(self._children):
            self.stop(run)
        for child in self._children.values():
            try:
                child.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            child.errors.close()
        self._children.clear()


def _last_words(errors: IO[bytes]) -> str:
    """The last line of a dead worker's stderr: why it died, where it says so."""
    with errors:
        size = errors.seek(0, os.SEEK_END)
        errors.seek(max(0, size - READ_AT_MOST))
        lines = errors.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1][-LAST_WORDS:] if lines else ""


def worker_command() -> list[str]:
    return [sys.executable, "-m", "swapgate", "eval-worker"]
