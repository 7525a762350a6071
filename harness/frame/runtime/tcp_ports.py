"""Checks TCP ports: whether a port is free, which process holds it, and the next free port."""

import contextlib
import socket
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from harness.frame.errors import ConfigError

if TYPE_CHECKING:
    import psutil

LISTEN: Final = "LISTEN"  # psutil.CONN_LISTEN
COMMAND_LENGTH: Final = 80  # characters of a holder's command in messages


class _Address(Protocol):
    @property
    def port(self) -> int: ...


class _Connection(Protocol):
    """The common fields of psutil's two connection classes."""

    @property
    def laddr(self) -> _Address | tuple[()]: ...

    @property
    def status(self) -> str: ...


def is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            raise ConfigError(
                f"port {port} needs more rights; choose a port above 1023"
            ) from None
        except OSError:
            return False
    return True


def port_holder(port: int) -> str:
    """Returns the process that holds a port, with its command: `pid 12 (nginx -g daemon)`, or
    `another process` if the system hides it.
    """
    import psutil  # noqa: PLC0415 - only a port conflict needs it

    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.pid and _listens(connection, port):
                process = psutil.Process(connection.pid)
                # Workers inherit their parent's socket, so the user must stop the parent.
                while (parent := process.parent()) is not None and any(
                    _listens(inherited, port) for inherited in parent.net_connections("tcp")
                ):
                    process = parent
                return f"pid {process.pid} ({_read_command(process)})"
    return "another process"


def _read_command(process: "psutil.Process") -> str:
    """Returns the process's program without its folder, and its arguments; or its name if the
    system hides the arguments.
    """
    import psutil  # noqa: PLC0415 - only a port conflict needs it

    words: list[str] = []
    with contextlib.suppress(psutil.Error):
        words = process.cmdline()
    if not words:
        return process.name()
    line = " ".join([Path(words[0]).name, *words[1:]])
    line = "".join(character if character.isprintable() else " " for character in line)
    return line if len(line) <= COMMAND_LENGTH else f"{line[: COMMAND_LENGTH - 1]}…"


def _listens(connection: _Connection, port: int) -> bool:
    uses_port = connection.laddr and connection.laddr.port == port
    return bool(uses_port) and connection.status == LISTEN


def require_free(
    host: str,
    port: int,
    *,
    service: str,
    setting: str,
) -> None:
    """Raises ConfigError if a port is in use. The message names its holder and the setting."""
    if not is_free(host, port):
        remedy = f"set {setting} in swapproof.yaml"
        if setting.startswith("--"):
            remedy = f"give another port with {setting}"
        raise ConfigError(
            f"{service} cannot listen on {host}:{port}: {port_holder(port)} holds it. "
            f"Stop that process, or {remedy}"
        )


def free_port(
    host: str,
    first_port: int,
    *,
    reserved_ports: Container[int] = (),
) -> int:
    """Returns the first free port from `first_port` on that is not in `reserved_ports`."""
    for port in range(first_port, min(first_port + 200, 65_536)):
        if port not in reserved_ports and is_free(host, port):
            return port
    raise ConfigError(f"no free port from {first_port} on {host}")
