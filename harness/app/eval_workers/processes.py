"""Starts eval workers as processes, one per run, with a minimal environment.

On Linux a template process imports the modules of an eval worker, and forks a worker for each
run: to import Inspect takes seconds of CPU time, to fork takes milliseconds. The control
process uses `WorkerTemplate`, and the template runs `serve_forks`. They exchange JSON lines
over the template's stdin and stdout.

The template has no key, because a worker's environment comes with its run. The kernel ends
workers with their template (SIGTERM). The template ends when its stdin closes, or after some
time without workers.
"""

import ctypes
import gc
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

SUPPORTED: Final = sys.platform == "linux"
PIPE_BYTES: Final = 65_536  # a pipe's capacity, so that one read gets complete lines
PR_SET_PDEATHSIG: Final = 1  # from linux/prctl.h
CHECK_EVERY_S: Final = 0.05
MAX_ERROR_CHARS: Final = 400
END_TIMEOUT_S: Final = 10.0


def read_last_line(errors: IO[bytes]) -> str:
    """Returns the last line of a process's stderr, at most `MAX_ERROR_CHARS` characters; empty
    without output.
    """
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - PIPE_BYTES))
    lines = errors.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1][-MAX_ERROR_CHARS:] if lines else ""


@dataclass
class ForkedWorker:
    """A template's worker with the methods of Popen that its starter needs."""

    owner: str
    template: "WorkerTemplate"
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.template.receive()
        return self.returncode

    def send_signal(self, number: int) -> None:
        # Does nothing if the template has ended, because its workers ended with it.
        with suppress(OSError):
            self.template.send({"signal": number, "owner": self.owner})

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end. Raises subprocess.TimeoutExpired, like Popen."""
        deadline_s = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline_s is not None and time.monotonic() > deadline_s:
                raise subprocess.TimeoutExpired(self.owner, timeout or 0.0)
            time.sleep(CHECK_EVERY_S)
        return code


class WorkerTemplate:
    """The control process's side of a template process, which forks workers on request."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        cwd: Path,
    ) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - until it is closed
        self._lock = threading.Lock()
        self._workers: dict[str, ForkedWorker] = {}
        self.read_last_line = ""  # the template's last output, after its end
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            env=environment,
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        assert self._process.stdin and self._process.stdout  # noqa: S101, PT018 - both are pipes
        self._requests = self._process.stdin
        self._replies = self._process.stdout
        os.set_blocking(self._replies.fileno(), False)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def fork(
        self,
        run: str,
        owner: str,
        environment: Mapping[str, str],
        errors: str,
    ) -> ForkedWorker:
        """Requests a worker, which starts after the template's imports.

        Args:
            errors: the file for the worker's stderr.

        Raises OSError if the template has ended.
        """
        worker = ForkedWorker(owner, self)
        self._workers[owner] = worker
        request = {
            "run": run,
            "environment": dict(environment),
            "errors": errors,
        }
        try:
            self.send({"owner": owner, **request})
        except OSError:
            del self._workers[owner]
            raise
        return worker

    def send(self, message: Mapping[str, object]) -> None:
        with self._lock:
            self._requests.write(json.dumps(message).encode() + b"\n")
            self._requests.flush()

    def receive(self) -> None:
        """Notes the ended workers. If somebody killed the template, its workers count as ended
        by SIGTERM. If the template could not start, they get its exit code.
        """
        with self._lock:
            try:
                data = os.read(self._replies.fileno(), PIPE_BYTES)
            except BlockingIOError:
                return
            for line in data.splitlines():
                reply = json.loads(line)
                self._workers.pop(reply["owner"]).returncode = reply["code"]
            if not data:
                self._end_all()

    def _end_all(self) -> None:
        self.read_last_line = read_last_line(self._errors)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=END_TIMEOUT_S)
        code = self._process.returncode or 0
        while self._workers:
            self._workers.popitem()[1].returncode = code if code > 0 else -signal.SIGTERM

    def close(self) -> None:
        """Ends the template and its workers, and waits at most `END_TIMEOUT_S` for it."""
        self.receive()
        with suppress(OSError):  # the template has ended with unread input
            self._requests.close()
        try:
            self._process.wait(timeout=END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        with self._lock:
            self._end_all()
        self._replies.close()
        self._errors.close()


@dataclass(frozen=True)
class RequestedRun:
    """The run that a forked worker works on, and the worker's name on the lease."""

    run: str
    owner: str


def serve_forks() -> RequestedRun | None:
    """Forks a worker for each requested run. Returns the run in a worker, and None in the
    template when its stdin closes. The process must have only one thread, because a fork does
    not copy other threads.
    """
    template = os.getpid()
    owners = dict[int, str]()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # ignores a terminal's Ctrl-C: the control process ends the template
    # A garbage collection would write to all pages of imported objects, and so copy them for
    # each worker.
    gc.freeze()
    # Without a buffer, because `select` would not see buffered input.
    with open(
        0,
        "rb",
        buffering=0,
        closefd=False,
    ) as requests:
        while True:
            if select.select([requests], [], [], CHECK_EVERY_S)[0]:
                if not (line := requests.readline()):
                    return None
                message: dict[str, Any] = json.loads(line)
                if "signal" in message:
                    for pid in [pid for pid in owners if owners[pid] == message["owner"]]:
                        os.kill(pid, message["signal"])
                elif pid := os.fork():
                    owners[pid] = message["owner"]
                else:
                    _become_worker(message, template)
                    return RequestedRun(message["run"], message["owner"])
            _report_ended(owners)


def _report_ended(owners: dict[int, str]) -> None:
    while owners:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        reply = {
            "owner": owners.pop(pid),
            "code": os.waitstatus_to_exitcode(status),
        }
        with suppress(OSError):  # the control process has ended
            os.write(sys.stdout.fileno(), json.dumps(reply).encode() + b"\n")


def _become_worker(message: Mapping[str, Any], template: int) -> None:
    """Gives a forked worker the files, environment and signals of a started process, and asks
    the kernel for a SIGTERM when the template ends.
    """
    for number, file in enumerate((os.devnull, os.devnull, message["errors"])):
        descriptor = os.open(file, os.O_RDWR)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(message["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != template:  # the template ended before the kernel got the request
        os.kill(os.getpid(), signal.SIGTERM)


# Variables for Python, temporary files, time and locale. Each worker gets the variables of its
# keys as well.
KEPT_VARIABLES = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "VIRTUAL_ENV",
    "SYSTEMROOT",
    # OpenSSL reads a company's certificate authority from these variables.
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
# An idle template ends after this time, which is longer than a busy control plane's pauses
# between runs.
IDLE_TEMPLATE_S = 60.0
# A template must have one thread, because forked workers lack its other threads.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class _Child:
    process: subprocess.Popen[bytes] | ForkedWorker
    owner: str
    errors: IO[bytes]


class SubprocessWorkers:
    """Implements ports.EvalWorkers.

    command: argv of a worker without its run. template: argv of the template process; without
    it, `command` starts each worker. variables_of: returns the variables that a run's worker
    needs in addition to the minimal environment, such as its provider's key and our settings.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        template: Sequence[str] = (),
        variables_of: Callable[[str], Mapping[str, str]],
        cwd: Path,
    ) -> None:
        self._command = list(command)
        self._variables_of = variables_of
        self._cwd = cwd
        self._template_command = list(template) if SUPPORTED else []
        self._template: WorkerTemplate | None = None
        self._template_lock = threading.Lock()
        self._last_needed_at = time.monotonic()
        self._children: dict[str, _Child] = {}

    def start(self, run: str) -> str:
        """Starts a worker for the run. Returns its name for the lease. Raises OSError."""
        owner = f"worker-{os.getpid()}-{secrets.token_hex(4)}"
        environment = {**_build_environment(), **self._variables_of(run)}
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - read when the worker has ended
        start_process = self._fork if self._template_command else self._spawn
        try:
            process = start_process(run, owner, environment, errors)
        except OSError:
            errors.close()
            raise
        self._children[run] = _Child(process, owner, errors)
        return owner

    def _fork(
        self,
        run: str,
        owner: str,
        environment: Mapping[str, str],
        errors: IO[bytes],
    ) -> ForkedWorker:
        with self._template_lock:
            template = self._template
            if template is None or not template.alive:
                if template is not None:
                    template.close()
                template = WorkerTemplate(
                    self._template_command,
                    {**_build_environment(), **ONE_THREAD},
                    self._cwd,
                )
                self._template = template
            # The file has no name, so that a killed control process leaves no file on the disk.
            file = f"/proc/{os.getpid()}/fd/{errors.fileno()}"
            return template.fork(run, owner, environment, file)

    def _spawn(
        self,
        run: str,
        owner: str,
        environment: Mapping[str, str],
        errors: IO[bytes],
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own command
            [
                *self._command,
                run,
                "--owner",
                owner,
                "--parent",
                str(os.getpid()),
            ],
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
        """Forgets the ended workers. Returns run, owner, exit code and last line of stderr of
        each worker.
        """
        ended_workers = []
        for run, child in list(self._children.items()):
            code = child.process.poll()
            if code is not None:
                del self._children[run]
                with child.errors:
                    last_line = read_last_line(child.errors)
                if not last_line and isinstance(child.process, ForkedWorker):
                    last_line = child.process.template.read_last_line
                ended_workers.append((run, child.owner, code, last_line))
        self._end_idle_template()
        return ended_workers

    def _end_idle_template(self) -> None:
        now = time.monotonic()
        if self._children:
            self._last_needed_at = now
        elif now - self._last_needed_at > IDLE_TEMPLATE_S:
            self._close_template()

    def _close_template(self) -> None:
        with self._template_lock:
            template = self._template
            self._template = None
            if template is not None:
                template.close()

    def stop(self, run: str) -> None:
        """Asks the run's worker to end, if it runs. The worker stores its samples first."""
        child = self._children.get(run)
        if child is not None and child.process.poll() is None:
            child.process.send_signal(signal.SIGTERM)

    def stop_all(self) -> None:
        """Ends all workers and the template. Kills a worker that does not end within 10 s."""
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


def _build_environment() -> dict[str, str]:
    """Returns the environment of every worker. It has no key, so that a suite's code in one run
    cannot read the keys of another run.
    """
    inherited = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return {
        **inherited,
        "PYTHONUNBUFFERED": "1",
        "INSPECT_DISPLAY": "none",
    }


def worker_command(name: str) -> list[str]:
    return [sys.executable, "-m", "swapproof", name]
