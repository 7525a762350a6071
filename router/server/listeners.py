"""Opens the listening sockets that all workers of a router share, one for each address of its
host.
"""

import socket

from harness.domain.errors import ConfigError

BACKLOG = 2048


def open_listeners(host: str, port: int) -> list[socket.socket]:
    """Opens one listener per address of `host`. They belong to the parent, so that no
    connection that waits in the queue is lost when a worker ends. Raises ConfigError.
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
