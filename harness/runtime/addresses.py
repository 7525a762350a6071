"""Ports: which are free, and who holds those that are not."""

import contextlib
import socket
from collections.abc import Container

import psutil

from harness.domain.errors import ConfigError


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            raise ConfigError(f"port {port} needs more rights; choose one above 1023") from None
        except OSError:
            return False
    return True


def holder(port: int) -> str:
    """`pid 12 (nginx)`, or `another process` where the system does not tell."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            here = connection.laddr and connection.laddr.port == port
            if here and connection.status == psutil.CONN_LISTEN and connection.pid:
                name = psutil.Process(connection.pid).name()
                return f"pid {connection.pid} ({name})"
    return "another process"


def require_free(host: str, port: int, *, what: str, setting: str) -> None:
    """Raises ConfigError with the port's holder and the setting that moves it."""
    if not is_free(host, port):
        raise ConfigError(
            f"{what} cannot listen on {host}:{port}: {holder(port)} holds it. "
            f"Stop that, or set {setting}"
        )


def free_port(host: str, wanted: int, *, spoken_for: Container[int] = ()) -> int:
    """`wanted` if it is free and not spoken for, else the next such port above it."""
    for port in range(wanted, min(wanted + 200, 65_536)):
        if port not in spoken_for and is_free(host, port):
            return port
    raise ConfigError(f"no free port from {wanted} on {host}")
