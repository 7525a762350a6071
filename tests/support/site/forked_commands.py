"""Starts `swapproof` commands as forks of a process that has imported their modules."""

import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# By name: acceptance stories reach this module, and import nothing of the product.
TEMPLATE: Final = "tests.support.site.command_template"
MESSAGE_BYTES: Final = 4096
ROOT: Final = Path(__file__).parents[3]
CHECK_EVERY_S: Final = 0.1
# Variables that modules read late. A process may read the others while it imports its modules,
# and a fork would not see a change.
READ_LATE: Final = ("SWAPPROOF", "PYTEST_")
READ_LATE_ENDS: Final = ("_KEY", "_SECRET", "_TOKEN")


@dataclass
class ForkedCommand:
    """A process with the methods of Popen that tests use."""

    pid: int
    template: "Template"
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.template.code_of(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            self.template.await_news(CHECK_EVERY_S)
        return code

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:  # after its end, another process may have this pid
            os.kill(self.pid, number)


class Template:
    """The process that forks. Its own surroundings hold for all of its forks."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        self._codes: dict[int, int] = {}
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", TEMPLATE, str(theirs.fileno())],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def fork(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        streams: Sequence[int],
    ) -> ForkedCommand:
        """Runs `swapproof WORDS`.

        Args:
            streams: file descriptors of its input, output and errors.
        """
        request = {
            "words": list(words),
            "folder": str(Path.cwd()),
            "environment": dict(environment),
        }
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], streams)
            while True:
                pid, code = self._receive()
                if code is None:
                    self._codes.pop(pid, None)  # of an earlier process with this pid
                    return ForkedCommand(pid, self)
                self._codes[pid] = code

    def code_of(self, pid: int) -> int | None:
        """Returns a fork's exit code, once; None while it runs."""
        with self._lock:
            while self.await_news(0.0):
                ended, code = self._receive()
                assert code is not None
                self._codes[ended] = code
            return self._codes.pop(pid, None)

    def await_news(self, timeout_s: float) -> bool:
        """Waits for a message about any fork. Returns whether there is one."""
        poll = select.poll()  # not select(), which takes no descriptor above 1023
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def close(self) -> None:
        self._socket.close()
        self._process.wait()

    def _receive(self) -> tuple[int, int | None]:
        data = self._socket.recv(MESSAGE_BYTES)
        assert data, "the template of commands has ended: see its traceback above"
        pid, code = json.loads(data)
        return pid, code


def surroundings(environment: Mapping[str, str]) -> str:
    """What a process has from its parent, and a fork from its template, as one text."""
    limits = {
        name: resource.getrlimit(getattr(resource, name))
        for name in dir(resource)
        if name.startswith("RLIMIT_")
    }
    variables = {
        name: value
        for name, value in environment.items()
        if not name.startswith(READ_LATE) and not name.endswith(READ_LATE_ENDS)
    }
    return json.dumps([limits, variables], sort_keys=True)


_templates: Final[dict[str, Template | None]] = {}
_choosing: Final = threading.Lock()


def fork_command(
    words: Sequence[str],
    environment: Mapping[str, str],
    streams: Sequence[int],
) -> ForkedCommand | None:
    """Runs `swapproof WORDS` as a fork; None where the caller must start a process of its own:
    on systems that do not fork, and for the first command in these surroundings, which may
    be those of one test alone.
    """
    if sys.platform != "linux":
        return None
    key = surroundings(environment)
    with _choosing:
        if key not in _templates:
            _templates[key] = None
            return None
        template = _templates[key] or Template(environment)
        _templates[key] = template
    return template.fork(words, environment, streams)


def end_templates() -> None:
    """Ends this process's templates once all tests have run."""
    while _templates:
        _, template = _templates.popitem()
        if template is not None:
            template.close()
