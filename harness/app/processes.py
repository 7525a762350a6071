"""Starts and probes Swapproof's processes on this machine.

`supervise` runs the parts of `swapproof serve all` as children. The supervisor's own rules,
such as restarts, are in `harness.frame.runtime.supervisor`.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from harness.app.configuration.model import ControlSettings, Settings
from harness.frame.alerts.alert import NO_SINK
from harness.frame.errors import ConfigError
from harness.frame.imports import (
    delay_collection,
    freeze_modules,
    pause_garbage_collection,
)
from harness.routing.settings import http_url

CHECK_EVERY_S: Final = 0.05
PROCESS_NAME_FILE: Final = Path(
    "/proc/self/comm"
)  # the process name for `ps -o comm` and `top`


@dataclass
class ForkedProcess:
    """A forked child with the methods of Popen that a supervisor needs."""

    pid: int
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(CHECK_EVERY_S)
        return code

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:  # after its end, another process may have this pid
            os.kill(self.pid, number)


def can_fork() -> bool:
    """Returns whether this process may fork. A child would keep the locks of other threads
    locked for ever, and macOS's libraries do not support a fork.
    """
    return sys.platform == "linux" and threading.active_count() == 1


def fork_process(name: str) -> ForkedProcess | None:
    """Forks this process. Returns None in the child, which leads a new session, so that Ctrl-C
    does not reach it.

    Args:
        name: the child's name in `ps`, at most 15 characters.

    Raises OSError.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return ForkedProcess(pid)
    os.setsid()
    with suppress(OSError):
        PROCESS_NAME_FILE.write_text(name, encoding="utf-8")
    return None


# Maps a part of `serve all` to the path that answers when the part serves.
HEALTH_PATHS: Final[Mapping[str, str]] = {
    "router": "/readyz",
    "control": "/readyz",
    "agents": "/readyz",
    "ui": "/_stcore/health",
}
# Maps a part to the name, path and use that `serve all` prints, in this order.
ADDRESSES: Final[Mapping[str, tuple[str, str, str]]] = {
    "ui": ("dashboard", "", "open it in a browser"),
    "router": ("router", "/v1", "the base_url of your clients"),
    "control": ("control", "", "the management API"),
    "agents": ("agents", "", "behind the router's /agents"),
}
PROBE_EVERY_S: Final = 0.5
SLOW_AFTER_S: Final = 60.0


class ListenAddress(Protocol):
    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...


def require_port(
    address: ListenAddress,
    *,
    service: str,
    setting: str,
) -> None:
    """Raises ConfigError with the holder and the setting if a port is not free."""
    from harness.frame.runtime.tcp_ports import require_free  # noqa: PLC0415 - psutil

    require_free(
        address.host,
        address.port,
        service=service,
        setting=setting,
    )


def require_ports(settings: Settings, parts: Mapping[str, str]) -> None:
    """Raises ConfigError with all holders if a port is not free.

    Args:
        parts: names for messages.
    """
    from harness.frame.runtime.tcp_ports import is_free, port_holder  # noqa: PLC0415 - psutil

    taken_parts = []
    for part in parts:
        address = getattr(settings, part)
        if not is_free(address.host, address.port):
            taken_parts.append((part, address))
    if len(taken_parts) == 1:
        part, address = taken_parts[0]
        require_port(address, service=parts[part], setting=f"{part}.port")
    if taken_parts:
        holders = "; ".join(
            f"{address.host}:{address.port} for {parts[part]} by {port_holder(address.port)}"
            for part, address in taken_parts
        )
        keys = ", ".join(f"{part}.port" for part, _ in taken_parts)
        raise ConfigError(
            f"ports are taken: {holders}. Stop these processes, or set {keys} in swapproof.yaml"
        )


@contextmanager
def announce_when_serving(
    settings: Settings,
    parts: Collection[str],
    say: Callable[[str], None],
) -> Iterator[None]:
    """Prints the addresses once all parts serve, while the block runs. Reports a part that
    takes longer than SLOW_AFTER_S.

    Args:
        say: prints a line.
    """
    block_ended = threading.Event()
    thread = threading.Thread(
        target=_announce, args=(settings, parts, say, block_ended), daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        block_ended.set()
        thread.join()


def _announce(
    settings: Settings,
    parts: Collection[str],
    say: Callable[[str], None],
    block_ended: threading.Event,
) -> None:
    probes = 0
    silent = list(parts)
    while not block_ended.wait(PROBE_EVERY_S):
        silent = [part for part in silent if not _serves(settings, part)]
        if not silent:
            break
        probes += 1
        if probes == SLOW_AFTER_S / PROBE_EVERY_S:
            say(f"still waiting for {' and '.join(silent)}: see the messages above")
    if not silent:
        for line in address_lines(settings, parts):
            say(line)
        if not settings.alerts.sinks:
            say(f"note: {NO_SINK}")


def _serves(settings: Settings, part: str) -> bool:
    address = getattr(settings, part)
    return answers_http(address.host, address.port, HEALTH_PATHS[part])


def address_lines(settings: Settings, parts: Collection[str]) -> list[str]:
    """Returns a line for each part with its address and its use."""
    lines = []
    for part, (name, path, use) in ADDRESSES.items():
        if part not in parts:
            continue
        address = getattr(settings, part)
        lines.append(f"{name:<10} {http_url(address.host, address.port) + path:<32} {use}")
    return lines


def supervise(
    commands: Mapping[str, Sequence[str]],
    settings: Settings,
    say: Callable[[str], None],
    *,
    import_shared: Callable[[], None],
) -> int | str:
    """Runs the parts of `serve all` until a signal comes. Returns the exit code.

    If the platform can fork, this process calls `import_shared` and forks a child for each
    part. In a child, the function returns the part's name. The supervisor restarts a part by
    its command.
    """
    from harness.frame.runtime.supervisor import (  # noqa: PLC0415  # noqa: PLC0415
        STOP_TIMEOUT_S,
        Child,
        Supervisor,
        interrupts,
        supervise_reloads,
    )

    children: dict[str, Child] = {}
    part = None
    supervise_reloads()
    with interrupts(reloads=True) as interruption:
        if can_fork():
            with pause_garbage_collection():
                import_shared()
            freeze_modules()
            for name in commands:
                try:
                    child = fork_process(f"serve {name}")
                except OSError:
                    break  # the supervisor starts the other parts by their commands
                if child is None:
                    part = name
                    break
                children[name] = child
        if part is None:
            # The router may use all its time to end requests.
            router = settings.router
            stop_s = router.shutdown_delay_s + router.drain_s + STOP_TIMEOUT_S
            with announce_when_serving(settings, commands, say):
                return Supervisor(
                    commands,
                    say,
                    stop_s=stop_s,
                    children=children,
                ).run(interruption)
    if interruption.ended:  # a signal arrived before the supervisor ended
        signal.raise_signal(signal.SIGTERM)
    delay_collection()
    return part


def simulate(
    host: str,
    port: int,
    **options: Any,
) -> None:
    """Serves simulated models until a signal comes.

    Args:
        options: see `evals.sim.server.serve_forever`.
    """
    from evals.sim.server import serve_forever  # noqa: PLC0415 - only this command needs it

    freeze_modules()
    serve_forever(host, port, **options)


def describe_missing_control(settings: ControlSettings) -> str | None:
    """Returns advice if no control process answers; None if one answers."""
    if answers_http(settings.host, settings.port, "/healthz"):
        return None
    return (
        f"no control process answers at {settings.host}:{settings.port}: proposals and "
        "canaries wait for it (`swapproof serve control`)"
    )


def answers_http(
    host: str,
    port: int,
    path: str,
) -> bool:
    """Returns whether a server answers the path with status 200, within 2 s. Uses no proxy."""
    try:
        opener = build_opener(ProxyHandler({}))
        with opener.open(f"{http_url(host, port)}{path}", timeout=2.0) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError, ValueError):
        return False
