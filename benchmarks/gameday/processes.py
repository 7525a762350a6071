"""The game day's networks and processes. Each process runs on a host and has its own log."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from harness.frame.runtime.clock import SystemClock

# docs/how-to/several-routers.md uses the addresses of `front`.
PREFIXES: Final = {"front": "10.0.0", "back": "10.0.1"}
OPERATOR: Final = 254  # the bridges' address, under which the script calls the hosts


def run(*words: str) -> None:
    subprocess.run(words, check=True)  # noqa: S603 - system tools, as root


@dataclass
class Network:
    """Hosts on two bridges. numbers: the last part of a host's addresses, by host."""

    numbers: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = Path("/run/netns")
        names.mkdir(exist_ok=True)
        run("mount", "-t", "tmpfs", "tmpfs", str(names))
        run("ip", "link", "set", "lo", "up")
        for bridge, prefix in PREFIXES.items():
            run("ip", "link", "add", bridge, "type", "bridge")
            run(
                "ip",
                "address",
                "add",
                f"{prefix}.{OPERATOR}/24",
                "dev",
                bridge,
            )
            run("ip", "link", "set", bridge, "up")

    def add(self, host: str, number: int) -> None:
        """Adds a host with an address on each bridge."""
        self.numbers[host] = number
        run("ip", "netns", "add", host)
        run("ip", "-n", host, "link", "set", "lo", "up")
        for bridge, prefix in PREFIXES.items():
            ours = f"{bridge}-{number}"
            run(
                "ip",
                "link",
                "add",
                ours,
                "type",
                "veth",
                "peer",
                "name",
                bridge,
                "netns",
                host,
            )
            run("ip", "link", "set", ours, "master", bridge, "up")
            given = f"{prefix}.{number}/24"
            run("ip", "-n", host, "address", "add", given, "dev", bridge)
            run("ip", "-n", host, "link", "set", bridge, "up")

    def address(self, host: str, bridge: str = "front") -> str:
        return f"{PREFIXES[bridge]}.{self.numbers[host]}"

    def command(self, host: str, *words: str) -> list[str]:
        """Returns the command line that runs the words on the host."""
        return ["ip", "netns", "exec", host, *words]

    def cut(self, host: str, bridge: str) -> None:
        """Drops all packets between the host and the bridge."""
        run("ip", "link", "set", f"{bridge}-{self.numbers[host]}", "down")

    def mend(self, host: str, bridge: str) -> None:
        run("ip", "link", "set", f"{bridge}-{self.numbers[host]}", "up")

    def thin(self, host: str, bridge: str) -> None:
        """Limits the traffic to the host to 16 kbit/s, and drops further packets."""
        run(
            "tc",
            "qdisc",
            "add",
            "dev",
            f"{bridge}-{self.numbers[host]}",
            "root",
            "tbf",
            "rate",
            "16kbit",
            "burst",
            "1600",
            "limit",
            "4000",
        )

    def widen(self, host: str, bridge: str) -> None:
        run(
            "tc",
            "qdisc",
            "del",
            "dev",
            f"{bridge}-{self.numbers[host]}",
            "root",
        )


_CLOCK = SystemClock()


def now_s() -> float:
    """Unix time."""
    return _CLOCK.now().timestamp()


class NotReady(Exception):
    """A condition did not become true in time. The text names it."""


@dataclass
class Processes:
    network: Network
    folder: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(
        self,
        name: str,
        *words: str,
        host: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts a process.

        Args:
            host: by default the host with the process's name.
        """
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(  # noqa: S603 - our own commands
                self.network.command(host or name, *words),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # on Ctrl-C, the script ends the processes
            )

    def pid(self, name: str) -> int:
        return self.running[name].pid

    def log_end(self, name: str, lines: int = 30) -> str:
        text = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def kill(self, name: str) -> None:
        """Kills the process and its descendants at once, like a failed machine."""
        main = psutil.Process(self.pid(name))
        below = main.children(recursive=True)
        for process in (main, *below):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.running.pop(name).wait()
        _reap([process.pid for process in below])

    def signal(self, name: str, number: signal.Signals) -> None:
        os.kill(self.pid(name), number)

    def terminate(self, name: str, within_s: float = 180.0) -> int:
        """Sends SIGTERM, and SIGKILL after `within_s`. Returns the exit code."""
        process = self.running[name]
        process.terminate()
        try:
            return process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill(name)
            return -signal.SIGKILL
        finally:
            self.running.pop(name, None)

    def end(self) -> None:
        """Kills the running processes, in reverse order of their start."""
        for name in reversed([*self.running]):
            if self.running[name].poll() is None:
                self.signal(name, signal.SIGCONT)
                self.kill(name)


def _reap(pids: list[int]) -> None:
    """Reaps orphans, which the kernel gives to this first process of the namespace."""
    until = time.monotonic() + 30.0
    while pids and time.monotonic() < until:
        for pid in [*pids]:
            with suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            if not psutil.pid_exists(pid):
                pids.remove(pid)
        time.sleep(0.05)
