"""A process that has imported what an eval worker needs, and forks one for each run: importing
Inspect takes seconds of CPU time, a fork milliseconds.

The template itself knows no key: a worker's environment comes over the channel. Workers end
with their template (SIGTERM by the kernel), and the template with the control process, whose
end of the channel closes then. Linux only.
"""

import ctypes
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

SUPPORTED: Final = sys.platform == "linux"
READ_BYTES, READ_FILES = 65_536, 64
PR_SET_PDEATHSIG: Final = 1  # of linux/prctl.h
LOOK_EVERY_S = 0.05
LAST_WORDS = 400
ENDS_WITHIN_S = 10.0


class _Lines:
    """Puts messages together from what arrives of them."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            yield json.loads(line)


def _send(
    channel: socket.socket, message: Mapping[str, object], file: int | None = None
) -> None:
    data = json.dumps(message).encode() + b"\n"
    # With its first bytes: the other end takes files in the order of the messages.
    sent = socket.send_fds(channel, [data], [] if file is None else [file])
    channel.sendall(data[sent:])


def last_words(errors: IO[bytes]) -> str:
    """The last line of a dead process's stderr: why it died, where it says so."""
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - READ_BYTES))
    lines = errors.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1][-LAST_WORDS:] if lines else ""


@dataclass
class ForkedWorker:
    """A worker of a template; the part of Popen that its starter needs."""

    owner: str
    template: "WorkerTemplate"
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.template.receive()
        return self.returncode

    def send_signal(self, number: int) -> None:
        self.template.send({"signal": number, "owner": self.owner})

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end; raises subprocess.TimeoutExpired, as Popen does."""
        until = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired(self.owner, timeout or 0.0)
            time.sleep(LOOK_EVERY_S)
        return code


class WorkerTemplate:
    """Starts a template, and has it fork workers. Safe to use from several threads.

    command: argv of the template, which is given `--channel FD`. environment: all that it and
    its imports see.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], cwd: Path
    ) -> None:
        self._channel, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - until it is closed
        self._lock = threading.Lock()
        self._workers: dict[str, ForkedWorker] = {}
        self._lines = _Lines()
        self.last_words = ""  # of the template itself, once it has died
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [*command, "--channel", str(theirs.fileno())],
                env=environment,
                cwd=cwd,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def fork(
        self, run: str, owner: str, environment: Mapping[str, str], errors: IO[bytes]
    ) -> ForkedWorker:
        """Asks for a worker, which starts once the template has imported everything.

        errors: becomes its stderr. Raises OSError where the template is gone.
        """
        worker = ForkedWorker(owner, self)
        asked = {"run": run, "owner": owner, "environment": dict(environment)}
        with self._lock:
            self._workers[owner] = worker
            try:
                _send(self._channel, asked, errors.fileno())
            except OSError:
                del self._workers[owner]
                raise
        return worker

    def send(self, message: Mapping[str, object]) -> None:
        """To a template that is gone, nothing: its workers have ended with it."""
        with self._lock, suppress(OSError):
            _send(self._channel, message)

    def receive(self) -> None:
        """Notes the ended workers. After a killed template they count as ended by SIGTERM;
        after one that could not start, with its exit code.
        """
        with self._lock:
            try:
                while data := self._channel.recv(READ_BYTES, socket.MSG_DONTWAIT):
                    for message in self._lines.feed(data):
                        self._end(message["owner"], message["code"])
            except BlockingIOError:
                return
            except OSError:  # it died with something unread
                pass
            self._end_all()

    def _end_all(self) -> None:
        self.last_words = last_words(self._errors)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=ENDS_WITHIN_S)
        code = self._process.returncode or 0
        for owner in list(self._workers):
            self._end(owner, code if code > 0 else -signal.SIGTERM)

    def _end(self, owner: str, code: int) -> None:
        worker = self._workers.pop(owner, None)
        if worker is not None:
            worker.returncode = code

    def close(self) -> None:
        """Ends the template, and the workers that it has left."""
        self.receive()
        self._channel.close()
        try:
            self._process.wait(timeout=ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with self._lock:
            self._end_all()
        self._errors.close()


@dataclass(frozen=True)
class AskedRun:
    run: str
    owner: str


def serve_forks(channel: socket.socket) -> AskedRun | None:
    """Forks a worker for each run asked for. Returns in each worker its run, and None in the
    template once the other end of the channel is closed.

    Call it in a process of one thread: no other thread would be in the worker.
    """
    template = os.getpid()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a terminal's Ctrl-C: the control process ends us
    signal.signal(signal.SIGCHLD, lambda *_: None)
    woken, wakes = socket.socketpair()
    for end in (woken, wakes):
        end.settimeout(0)
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    # Imported objects stay: a collection would touch, and so copy, all their pages.
    gc.freeze()
    forks = _Forks(channel)
    while True:
        select.select([channel, woken], [], [])
        with suppress(BlockingIOError):
            woken.recv(READ_BYTES)
        forks.collect_ended()
        if not forks.readable():
            continue
        messages = forks.read()
        if messages is None:
            return None
        for message in messages:
            asked = forks.answer(message)
            if asked is not None:
                signal.set_wakeup_fd(-1)
                woken.close()
                wakes.close()
                _become_worker(template)
                return asked


@dataclass
class _Forks:
    channel: socket.socket
    _owners: dict[int, str] = field(default_factory=dict)  # by pid
    _files: deque[int] = field(default_factory=deque)
    _lines: "_Lines" = field(default_factory=_Lines)

    def readable(self) -> bool:
        return bool(select.select([self.channel], [], [], 0)[0])

    def read(self) -> list[dict[str, Any]] | None:
        """None once the other end is closed."""
        data, files, _, _ = socket.recv_fds(self.channel, READ_BYTES, READ_FILES)
        self._files.extend(files)
        return list(self._lines.feed(data)) if data else None

    def answer(self, message: Mapping[str, Any]) -> AskedRun | None:
        """Sends the signal, or forks: returns the run in the worker."""
        owner = message["owner"]
        if "signal" in message:
            for pid, known in self._owners.items():
                if known == owner:
                    os.kill(pid, message["signal"])
            return None
        errors = self._files.popleft()
        pid = os.fork()
        if pid:
            os.close(errors)
            self._owners[pid] = owner
            return None
        os.dup2(errors, sys.stderr.fileno())
        for file in (errors, *self._files):
            os.close(file)
        self.channel.close()
        os.environ.clear()
        os.environ.update(message["environment"])
        return AskedRun(message["run"], owner)

    def collect_ended(self) -> None:
        while self._owners:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            owner, code = self._owners.pop(pid), os.waitstatus_to_exitcode(status)
            with suppress(OSError):  # the control process is gone
                _send(self.channel, {"owner": owner, "code": code})


def _become_worker(template: int) -> None:
    """Signals as in a process that was started, and SIGTERM when the template ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != template:  # it ended before the kernel knew
        os.kill(os.getpid(), signal.SIGTERM)
