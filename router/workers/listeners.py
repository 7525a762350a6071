"""Opens the listening sockets that all workers of a router share."""

import signal
import socket
from typing import Final

from harness.frame.errors import ConfigError

# TERM: after the delay in which balancers find out. INT: at once. HAND_OVER: others accept in
# its stead already, and no client is to notice.
HAND_OVER: Final = signal.SIGUSR1
STOP: Final = (signal.SIGTERM, signal.SIGINT, HAND_OVER)
# Longer than the usual client pools keep a connection, so that they close it first.
KEEP_ALIVE_S: Final = 75


BACKLOG = 2048


def open_listeners(host: str, port: int) -> list[socket.socket]:
    """One per address; the parent keeps them, so that no waiting connection is lost when a
    worker ends. Raises ConfigError.
    """
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in dict.fromkeys((info[0], info[4]) for info in found):
            made = socket.create_server(address, family=family, backlog=BACKLOG)
            sockets.append(made)
    except OSError as error:
        for listener in sockets:
            listener.close()
        raise ConfigError(
            f"the router cannot listen on {host}:{port}: {error.strerror or error}; "
            "set router.host and router.port to what is free here"
        ) from None
    return sockets
