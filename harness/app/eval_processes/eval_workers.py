"""Starts eval workers as processes, one per run, with a minimal environment. On Linux a
template process forks them, and ends after some time without workers.
"""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.app.eval_processes.worker_template import (
    SUPPORTED,
    ForkedWorker,
    WorkerTemplate,
    last_words,
)

# Variables for Python, temporary files, time and locale. Each worker gets its keys as well.
KEPT = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "SYSTEMROOT"),
    # OpenSSL reads a company's certificate authority from these variables.
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
)
# Longer than the pauses between the runs of a busy control plane.
TEMPLATE_KEPT_S = 60.0
# A template must have one thread, because forked workers lack its other threads.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class _Child:
    process: subprocess.Popen[bytes] | ForkedWorker
    owner: str
    errors: IO[bytes]


class SubprocessWorkers:
    """Implements ports.EvalWorkers.

    command: argv of a worker without its run.
    template: argv of the template process; without it, `command` starts each worker.
    needed_by: returns the environment variables that a run's worker needs in addition to the
    minimum, such as its provider's key and our settings.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        template: Sequence[str] = (),
        needed_by: Callable[[str], Mapping[str, str]],
        cwd: Path,
    ) -> None:
        self._command, self._needed_by, self._cwd = list(command), needed_by, cwd
        self._template_command = list(template) if SUPPORTED else []
        self._template: WorkerTemplate | None = None
        self._template_lock = threading.Lock()
        self._needed_at = time.monotonic()
        self._children: dict[str, _Child] = {}

    def start(self, run: str) -> str:
        owner = f"worker-{os.getpid()}-{secrets.token_hex(4)}"
        environment = {**_minimum(), **self._needed_by(run)}
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - read when the worker has ended
        begin = self._fork if self._template_command else self._spawn
        try:
            process = begin(run, owner, environment, errors)
        except OSError:
            errors.close()
            raise
        self._children[run] = _Child(process, owner, errors)
        return owner

    def _fork(
        self, run: str, owner: str, environment: Mapping[str, str], errors: IO[bytes]
    ) -> ForkedWorker:
        with self._template_lock:
            template = self._template
            if template is None or not template.alive:
                if template is not None:
                    template.close()
                template = WorkerTemplate(
                    self._template_command, {**_minimum(), **ONE_THREAD}, self._cwd
                )
                self._template = template
            # An unnamed file, so that a killed control process leaves no file behind.
            file = f"/proc/{os.getpid()}/fd/{errors.fileno()}"
            return template.fork(run, owner, environment, file)

    def _spawn(
        self, run: str, owner: str, environment: Mapping[str, str], errors: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own command
            [*self._command, run, "--owner", owner, "--parent", str(os.getpid())],
            env=environment,
            cwd=self._cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )

    def alive(self) -> Mapping[str, str]:
        return {
            run: child.owner
            for run, child in self._children.items()
            if child.process.poll() is None
        }

    def reap(self) -> Sequence[tuple[str, str, int, str]]:
        ended = []
        for run, child in list(self._children.items()):
            code = child.process.poll()
            if code is not None:
                del self._children[run]
                with child.errors:
                    words = last_words(child.errors)
                if not words and isinstance(child.process, ForkedWorker):
                    words = child.process.template.last_words
                ended.append((run, child.owner, code, words))
        self._end_idle_template()
        return ended

    def _end_idle_template(self) -> None:
        now = time.monotonic()
        if self._children:
            self._needed_at = now
        elif now - self._needed_at > TEMPLATE_KEPT_S:
            self._close_template()

    def _close_template(self) -> None:
        with self._template_lock:
            template, self._template = self._template, None
            if template is not None:
                template.close()

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
        self._close_template()


def _minimum() -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return {**kept, "PYTHONUNBUFFERED": "1", "INSPECT_DISPLAY": "none"}


def worker_command(name: str) -> list[str]:
    return [sys.executable, "-m", "swapgate", name]
