"""`Site` owns an installation's processes in a test, with ports and logs of their own."""

import itertools
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil
import yaml

from tests.support.site.forked_commands import ForkedCommand, fork_command

START_S = 240.0
# A gate run evaluates two targets: minutes on a machine that has other work.
COMMAND_S = 600.0
# That run tests at once, each with ports of its own.
PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def _ports() -> Iterator[int]:
    """Those of this one of the processes that run the tests, in an order of chance."""
    place = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = list(range(18_000, 32_000)[place % PROCESSES :: PROCESSES])
    secrets.SystemRandom().shuffle(ports)
    return itertools.cycle(ports)


_PORTS = _ports()


def free_port() -> int:
    """One that nobody else is given, and that no outgoing connection takes meanwhile, nor while
    its process is started again.

    Systems give those a port from 32768 upwards (Linux) or 49152 (macOS, Windows).
    """
    while True:
        port = next(_PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@dataclass
class Site:
    """An installation in `folder` whose processes this test owns. settings: the YAML file."""

    folder: Path
    settings: dict[str, object]
    children: dict[str, subprocess.Popen[bytes] | ForkedCommand] = field(default_factory=dict)
    # Of single processes, beside this one's.
    environment: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.config = self.folder / "swapproof.yaml"
        self.ports = {
            "router": free_port(),
            "control": free_port(),
            "ui": free_port(),
        }
        document = {"home": str(self.folder / "home"), **self.settings}
        for name, port in self.ports.items():
            given = document.get(name, {})
            assert isinstance(given, dict)
            document[name] = {**given, "port": port}
        self.config.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def command(self, *words: str) -> list[str]:
        main = [sys.executable, "-m", "swapproof"]
        return [
            *main,
            "--config",
            str(self.config),
            *words,
        ]

    def run(self, *words: str, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        command = self.command(*words)
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            code = self._process(words, os.environ, output, errors).wait(timeout=COMMAND_S)
            output.seek(0)
            errors.seek(0)
            done = subprocess.CompletedProcess(command, code, output.read(), errors.read())
        assert expect is None or done.returncode == expect, done.stderr + done.stdout
        return done

    def start(
        self,
        name: str,
        *words: str,
        wait_for: str | None = None,
    ) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        with log:
            environment = {**os.environ, **self.environment.get(name, {})}
            self.children[name] = self._process(words, environment, log, log)
        if wait_for is not None:
            self.answers(name, wait_for)

    def _process(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        output: IO[Any],
        errors: IO[Any],
    ) -> "subprocess.Popen[bytes] | ForkedCommand":
        with Path(os.devnull).open("rb") as nothing:
            streams = [nothing.fileno(), output.fileno(), errors.fileno()]
            options = ("--config", str(self.config))
            forked = fork_command([*options, *words], environment, streams)
        return forked or subprocess.Popen(  # noqa: S603 - our own command
            self.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=environment,
        )

    def answers(self, name: str, path: str) -> None:
        import urllib.error  # noqa: PLC0415
        import urllib.request  # noqa: PLC0415

        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.children[name].poll() is None:
            try:
                with urllib.request.urlopen(self.url(name) + path, timeout=60):  # noqa: S310
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise AssertionError(f"{name} does not answer:\n{self.log(name)}")

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def pid(self, name: str) -> int:
        return self.children[name].pid

    def kill(self, name: str) -> None:
        self.children[name].kill()
        self.children[name].wait()

    def terminate(self, name: str, timeout_s: float = 120) -> int:
        self.children[name].terminate()
        return self.children[name].wait(timeout=timeout_s)

    def workers(self) -> list[int]:
        try:
            found = psutil.Process(self.pid("control")).children()
            return [p.pid for p in found if p.status() != psutil.STATUS_ZOMBIE]
        except psutil.NoSuchProcess:
            return []

    def close(self) -> None:
        for child in self.children.values():
            if child.poll() is None:
                child.terminate()
        for child in self.children.values():
            try:
                child.wait(timeout=60)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def kill_nine(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@contextmanager
def site(folder: Path, settings: dict[str, object]) -> Iterator[Site]:
    made = Site(folder, settings)
    try:
        yield made
    finally:
        made.close()
